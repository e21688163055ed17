// What a model thinks before it answers.

import { duration } from "../format.js";
import { html, useEffect, useLayoutEffect, useRef, useState, useValue } from "../lib.js";
import { showReasoning } from "../settings.js";
import { Markdown } from "./markdown.js";

function summary(node, thinking) {
  if (thinking) return "Thinking…";
  if (!Number.isFinite(node.thoughtMs)) return "Thoughts";
  return node.thoughtMs < 1000 ? "Thought for a moment" : `Thought for ${duration(node.thoughtMs)}`;
}

/** A box that is open where the user wishes to see reasoning, and can be opened and closed by itself. */
export function Reasoning({ node, running }) {
  const wish = useValue(showReasoning);
  const [own, setOwn] = useState(null);
  const text = useRef(null);
  useEffect(() => setOwn(null), [wish]);
  const open = own ?? wish;
  const thinking = running && node.phase === "thinking";
  useLayoutEffect(() => {
    // The newest thought is the one to read.
    if (thinking && text.current) text.current.scrollTop = text.current.scrollHeight;
  }, [node.reasoning, thinking, open]);
  const toggle = (event) => {
    event.preventDefault();
    setOwn(!open);
  };
  return html`<details class="reasoning" open=${open}>
    <summary onClick=${toggle} class=${thinking ? "busy" : ""}>${summary(node, thinking)}</summary>
    ${open &&
    html`<div class="reasoning-text" ref=${text} tabindex="0" role="region" aria-label="Reasoning"><${Markdown} text=${node.reasoning} growing=${running} /></div>`}
  </details>`;
}
