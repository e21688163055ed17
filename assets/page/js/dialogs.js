// Dialogs above the page.

import { keyWanted } from "./api.js";
import { html, isMac, signal, useEffect, useRef, useState, useValue } from "./lib.js";

/** Shown modally as long as it is there. Escape and the closing of it call `onClose`. */
function Dialog({ title, onClose, children }) {
  const dialog = useRef(null);
  useEffect(() => {
    dialog.current.showModal();
  }, []);
  const cancel = (event) => {
    event.preventDefault();
    onClose();
  };
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onCancel=${cancel}><h2 id="dialog-title">${title}</h2>${children}</dialog>`;
}

const confirming = signal(null);

/** Asks before something that cannot be taken back. */
export function askToConfirm(title, text, action) {
  return new Promise((resolve) => {
    confirming.value = { title, text, action, resolve };
  });
}

function Confirm() {
  const question = useValue(confirming);
  if (!question) return null;
  const end = (yes) => {
    confirming.value = null;
    question.resolve(yes);
  };
  return html`<${Dialog} title=${question.title} onClose=${() => end(false)}>
    <p>${question.text}</p>
    <div class="row end"><button type="button" autofocus onClick=${() => end(false)}>Cancel</button><button type="button" class="primary danger" onClick=${() => end(true)}>${question.action}</button></div>
  <//>`;
}

function KeyDialog({ wanted }) {
  const [key, setKey] = useState("");
  const [longer, setLonger] = useState(false);
  const send = (event) => {
    event.preventDefault();
    if (key.trim()) wanted.answer(key.trim(), longer);
  };
  return html`<${Dialog} title="API key" onClose=${() => wanted.answer(null)}>
    <form class="key-form" onSubmit=${send}>
      ${wanted.message ? html`<p class="problem" role="alert">${wanted.message}</p>` : html`<p>This server asks for a key. Who runs it can give you one.</p>`}
      <label for="api-key">Key</label>
      <input id="api-key" type="password" autocomplete="off" autofocus value=${key} onInput=${(event) => setKey(event.target.value)} />
      <label class="check"><input type="checkbox" checked=${longer} onChange=${(event) => setLonger(event.target.checked)} />Remember it in this browser</label>
      <p class="muted">Otherwise it is forgotten when the tab is closed.</p>
      <div class="row end"><button type="button" onClick=${() => wanted.answer(null)}>Cancel</button><button class="primary" disabled=${!key.trim()}>Use the key</button></div>
    </form>
  <//>`;
}

/** Whether the list of shortcuts is shown. */
export const helping = signal(false);

export const MOD = isMac ? "⌘" : "Ctrl";

const SHORTCUTS = [
  [["Enter"], "Send"],
  [["Shift", "Enter"], "New line"],
  [["Esc"], "Stop the answer, close what is open"],
  [["↑"], "Edit your last message, from an empty field"],
  [[MOD, "Enter"], "Send an edited message"],
  [[MOD, "Shift", "O"], "New conversation"],
  [[MOD, "K"], "Search conversations"],
  [[MOD, "."], "Options"],
  [[MOD, "Shift", "M"], "Chat or machine"],
  [[MOD, "/"], "These shortcuts"],
];

const LICENCES = [
  ["preact", "preact"],
  ["htm", "htm"],
  ["signals", "signals-core"],
  ["marked", "marked"],
  ["DOMPurify", "dompurify"],
];

function Help() {
  if (!useValue(helping)) return null;
  const close = () => (helping.value = false);
  return html`<${Dialog} title="Shortcuts" onClose=${close}>
    <dl class="shortcuts">${SHORTCUTS.map(([keys, what]) => html`<div key=${what}><dt>${keys.map((key, index) => html`${index > 0 ? " + " : ""}<kbd>${key}</kbd>`)}</dt><dd>${what}</dd></div>`)}</dl>
    <p class="muted">Programs use the same server: <a href="docs">API</a>. This page is made with ${LICENCES.map(([name, file], index) => html`${index > 0 ? ", " : ""}<a href=${`page/vendor/${file}.LICENSE`}>${name}</a>`)}.</p>
    <div class="row end"><button type="button" class="primary" autofocus onClick=${close}>Close</button></div>
  <//>`;
}

export function Dialogs() {
  const wanted = useValue(keyWanted);
  return html`<${Confirm} />${wanted && html`<${KeyDialog} wanted=${wanted} />`}<${Help} />`;
}
