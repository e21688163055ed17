// A model's Markdown as elements. Nothing of it is trusted: HTML in it is shown as text, and what marked makes passes DOMPurify.

import DOMPurify from "../../vendor/dompurify.js";
import { Marked } from "../../vendor/marked.js";
import { Component, html, useMemo, useRef } from "../lib.js";

const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  // Scenes and poems live by their lines.
  breaks: true,
  renderer: {
    html: ({ text }) => escape(text),
    // Whoever loads an image tells its server that it was read.
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

const CLEAN = {
  ALLOWED_TAGS: [
    "a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "li", "ol", "p", "pre", "strong", "sub",
    "sup", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", "title", "class", "start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** Blocks at the end of a growing text that what comes may still change: a paragraph can become a heading, say. */
const OPEN = 2;
const isShown = (token) => token.type !== "space" && token.type !== "def";

/** The blocks of a text that begins with what was read `before`, of which only the end is read again. */
export function readOn(before, text) {
  // marked measures in lines that end as Unix ends them.
  if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n");
  const shown = before.tokens.filter(isShown);
  const open = shown.at(-OPEN);
  if (!open || shown.length <= OPEN || !text.startsWith(before.text)) return { text, tokens: marked.lexer(text) };
  const kept = before.tokens.slice(0, before.tokens.indexOf(open));
  const length = kept.reduce((sum, token) => sum + token.raw.length, 0);
  return { text, tokens: [...kept, ...marked.lexer(text.slice(length))] };
}

/** The paragraphs, lists, code blocks and so on of a text, which may be `growing`. */
export function useBlocks(text, growing) {
  const read = useRef({ text: "", tokens: [] });
  return useMemo(() => {
    read.current = growing ? readOn(read.current, text) : { text, tokens: marked.lexer(text) };
    return read.current.tokens.filter(isShown);
  }, [text, growing]);
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Puts a head with the language and a copy button above code. The button is served by `copyCode`. */
function frameCode(pre) {
  const code = pre.querySelector("code");
  const language = /language-([\w+#.-]+)/.exec(code?.className ?? "")?.[1] ?? "";
  const frame = element("div", "code");
  const head = element("div", "code-head");
  const button = element("button", "quiet copy", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", language ? `Copy the ${language} code` : "Copy the code");
  head.append(element("span", "code-language", language || "text"), button);
  pre.replaceWith(frame);
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", language ? `${language} code` : "Code");
  frame.append(head, pre);
}

function elements(token) {
  const fragment = DOMPurify.sanitize(marked.parser([token]), CLEAN);
  for (const pre of fragment.querySelectorAll("pre")) frameCode(pre);
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const table of fragment.querySelectorAll("table")) {
    const frame = element("div", "table");
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", "Table");
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

/** One block; made anew only when its text changes, so that what stands above the end of a stream stays as it is. */
class Block extends Component {
  shouldComponentUpdate(next) {
    return next.token.raw !== this.props.token.raw;
  }
  componentDidMount() {
    this.fill();
  }
  componentDidUpdate() {
    this.fill();
  }
  fill() {
    this.base.replaceChildren(elements(this.props.token));
  }
  render() {
    return html`<div class="block"></div>`;
  }
}

export function Markdown({ text, growing }) {
  return html`<div class="prose">${useBlocks(text, growing).map((token, index) => html`<${Block} key=${index} token=${token} />`)}</div>`;
}

/** Puts a text on the clipboard; true if that worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages without TLS have no clipboard, but may copy what is selected.
    const area = element("textarea", "hidden");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Serves the copy buttons of code below the element that has this as its click handler. */
export async function copyCode(event) {
  const button = event.target.closest?.("button.copy");
  if (!button) return;
  const done = await copy(button.closest(".code").querySelector("pre").textContent.replace(/\n$/, ""));
  button.textContent = done ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}
