// The conversation on screen.

import { Icon, Flame } from "../icons.js";
import { html, useEffect, useLayoutEffect, useRef, useState, useValue } from "../lib.js";
import { find, models, preferred, trouble } from "../models.js";
import { lastModel } from "../settings.js";
import * as store from "../store.js";
import { Trouble } from "../trouble.js";
import { choose, families, path } from "../tree.js";
import { Composer, focusComposer } from "./composer.js";
import { examplesFor } from "./examples.js";
import { copyCode, useBlocks } from "./markdown.js";
import { Message } from "./message.js";
import * as runs from "./runs.js";

/** From the end of the text at which it still counts as read to the end, in pixels. */
const NEAR = 60;

/** Tells screen readers what is written: paragraph by paragraph, as a text that changes letter by letter cannot be followed. */
function Announcer({ node, running }) {
  const [said, setSaid] = useState({ id: null, blocks: 0, lines: [] });
  const all = useBlocks(node?.role === "assistant" ? node.content : "", running);
  useEffect(() => {
    if (!node || node.role !== "assistant") return;
    const before = said.id === node.id ? said : { id: node.id, blocks: 0, lines: [], fresh: running };
    if (!before.fresh) return;
    const complete = running ? Math.max(0, all.length - 1) : all.length;
    const lines = all.slice(before.blocks, complete).map((token) => (token.type === "code" ? "Code." : (token.text ?? "")));
    if (node.phase === "thinking" && before.phase !== "thinking") lines.push("The model thinks.");
    if (!running) {
      if (node.calls?.length) lines.push(`The model calls ${node.calls.map((call) => call.name).join(" and ")}.`);
      lines.push(node.state === "done" ? "The answer is complete." : node.state === "stopped" ? "The answer was stopped." : "");
    }
    if (lines.length === 0 && said.id === node.id) return;
    setSaid({ id: node.id, blocks: complete, lines: [...before.lines, ...lines].slice(-20), fresh: running, phase: node.phase });
  }, [node, running]);
  return html`<div class="hidden" aria-live="polite" role="log" aria-label="Progress of the answer">${said.lines.map((line, index) => html`<p key=${index}>${line}</p>`)}</div>`;
}

function Welcome({ model, onExample }) {
  const known = useValue(models);
  const failed = useValue(trouble);
  const examples = examplesFor(find(model));
  return html`<div class="welcome">
    <${Flame} />
    <h1>${known === null ? (failed ? "No connection" : "One moment") : "What shall we talk about?"}</h1>
    ${known === null && failed && html`<${Trouble} error=${failed} />`}
    ${examples.length > 0 &&
    html`<p class="muted">${model} is a tiny built-in model that shows how things work. Try one of these:</p>
      <ul class="examples">
        ${examples.map((example) => html`<li key=${example.text}><button type="button" onClick=${() => onExample(example)}><span>${example.text}</span><small>${example.about}</small></button></li>`)}
      </ul>`}
  </div>`;
}

export function Chat({ current, onOptions, optionsOpen }) {
  const conversation = useValue(current);
  const running = useValue(() => runs.runs.value.get(conversation.id) ?? null, [conversation.id]);
  useValue(models);
  const [editing, setEditing] = useState(null);
  const [away, setAway] = useState(false);
  const scroller = useRef(null);
  const follows = useRef(true);
  const nodes = path(conversation);
  const tried = families(conversation);
  const place = ({ id: tries, parent }) => ({ all: tried.get(parent), index: tried.get(parent).indexOf(tries) });
  const model = conversation.model ?? preferred();
  const { id } = conversation;

  useEffect(() => {
    setEditing(null);
    follows.current = true;
    if (!matchMedia("(pointer: coarse)").matches) focusComposer();
  }, [id]);
  useLayoutEffect(() => {
    if (follows.current) scroller.current.scrollTop = scroller.current.scrollHeight;
  });
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = scroller.current;
    follows.current = scrollHeight - scrollTop - clientHeight < NEAR;
    setAway(!follows.current);
  };
  const toEnd = () => {
    follows.current = true;
    scroller.current.scrollTop = scroller.current.scrollHeight;
  };

  const keepInAddress = () => history.replaceState(null, "", `#/chat/${id}`);
  const send = (text) => {
    keepInAddress();
    follows.current = true;
    runs.say(id, text, model);
  };
  const setModel = (name) => {
    lastModel.value = name;
    store.update(id, (one) => ({ ...one, model: name }));
  };
  const example = ({ text, tools }) => {
    if (tools) store.update(id, (one) => ({ ...one, options: { ...one.options, tools } }));
    send(text);
  };
  const editLast = () => {
    const last = nodes.findLast((node) => node.role === "user");
    if (!last || running) return false;
    setEditing(last.id);
    return true;
  };
  const onEdit = (node) => {
    setEditing(node);
    follows.current = false;
    if (node === null) focusComposer();
  };
  const options = conversation.options ?? {};
  const optionsSet = Boolean(options.system || options.tools || options.more || options.effort || ["on", "off"].includes(options.thinking) || Object.values(options.sampling ?? {}).some((value) => value !== "" && value !== null));

  return html`<div class="chat">
    <div class="scroller" ref=${scroller} onScroll=${onScroll} onClick=${copyCode} tabindex="-1">
      <div class="messages">
        ${nodes.length > 0 && html`<h1 class="hidden">${conversation.title}</h1>`}
        ${nodes.length === 0 && html`<${Welcome} model=${model} onExample=${example} />`}
        ${nodes.map((node, index) => {
          if (node.role === "results") return null;
          const next = nodes[index + 1];
          return html`<${Message} key=${node.id} node=${node} conversation=${id} busy=${Boolean(running)} editing=${editing === node.id} onEdit=${onEdit}
            run=${running?.node === node.id ? running : null} results=${next?.role === "results" ? next.results : null} resultTries=${next?.role === "results" ? place(next) : null}
            tries=${{ ...place(node), model }} onChoose=${(other) => store.update(id, (one) => choose(one, other))} />`;
        })}
      </div>
    </div>
    <${Announcer} node=${nodes.at(-1)} running=${Boolean(running)} />
    <div class="dock">
      ${away && html`<button type="button" class="to-end" onClick=${toEnd}><${Icon} name="down" />Latest</button>`}
      <${Composer} model=${model} running=${running} onModel=${setModel} onSend=${send} onStop=${() => runs.stop(id)} onOptions=${onOptions}
        optionsOpen=${optionsOpen} optionsSet=${optionsSet} onEditLast=${editLast} />
    </div>
  </div>`;
}
