// The frame: where the address leads, the head of the page, panels, shortcuts.

import { keyWanted } from "./api.js";
import { focusComposer } from "./chat/composer.js";
import { Options } from "./chat/options.js";
import * as runs from "./chat/runs.js";
import { Chat } from "./chat/view.js";
import { Dialogs, MOD, helping } from "./dialogs.js";
import { History } from "./history.js";
import { Flame, Icon } from "./icons.js";
import { batch, classes, effect, html, isNarrow, render, signal, useEffect, useValue } from "./lib.js";
import { Machine } from "./machine/view.js";
import * as models from "./models.js";
import { historyOpen, theme } from "./settings.js";
import * as store from "./store.js";

/** "chat" or "machine". */
const view = signal("chat");
/** The conversation on screen, a signal in a signal. */
const current = signal(store.create());
/** Panels above the page on narrow screens; the history of wide ones is remembered. */
const historyAbove = signal(false);
const optionsShown = signal(false);

async function follow() {
  const [, place = "", id = ""] = location.hash.split("/");
  const known = place === "chat" && id ? await store.find(id) : null;
  batch(() => {
    historyAbove.value = false;
    view.value = place === "machine" ? "machine" : "chat";
    if (known) current.value = known;
    // An address of another browser, or the start.
    else if (place !== "machine" && current.peek().peek().head) current.value = store.create();
  });
}

function newConversation() {
  if (location.hash === "#/" || location.hash === "") {
    follow();
    focusComposer();
  } else location.hash = "#/";
}

const chatAddress = () => {
  const conversation = current.peek().peek();
  return conversation.head ? `#/chat/${conversation.id}` : "#/";
};

const showHistory = () => {
  if (isNarrow()) historyAbove.value = !historyAbove.value;
  else historyOpen.value = !historyOpen.value;
};

function searchHistory() {
  if (isNarrow()) historyAbove.value = true;
  else historyOpen.value = true;
  requestAnimationFrame(() => document.getElementById("search")?.focus());
}

function closeOptions() {
  optionsShown.value = false;
  focusComposer();
}

/** Closes what lies above the page, or stops the answer on screen. True if there was something. */
function escape() {
  if (historyAbove.value) historyAbove.value = false;
  else if (runs.runs.peek().has(current.peek().peek().id)) runs.stop(current.peek().peek().id);
  else if (optionsShown.value) closeOptions();
  else return false;
  return true;
}

function onKeyDown(event) {
  // Dialogs have keys of their own.
  if (keyWanted.peek() || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && escape()) return event.preventDefault();
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
  const key = event.key.toLowerCase();
  const act = event.shiftKey
    ? { o: newConversation, m: () => (location.hash = view.peek() === "chat" ? "#/machine" : chatAddress()) }[key]
    : { k: searchHistory, ".": () => (optionsShown.value = !optionsShown.value), "/": () => (helping.value = true) }[key];
  if (!act) return;
  event.preventDefault();
  act();
}

const THEMES = { system: ["system", "As the system", "light"], light: ["sun", "Light", "dark"], dark: ["moon", "Dark", "system"] };

function Head() {
  const shown = useValue(view);
  const chosen = useValue(theme);
  const above = useValue(historyAbove);
  const open = useValue(historyOpen);
  const [icon, name, next] = THEMES[chosen] ?? THEMES.system;
  const tab = (which, label, address, symbol) => html`<a class="tab" href=${address} aria-current=${shown === which ? "page" : undefined}><${Icon} name=${symbol} /><span>${label}</span></a>`;
  return html`<header class="head">
    <button type="button" class="quiet icon-button" aria-label="Conversations" aria-controls="history" aria-expanded=${(isNarrow() ? above : open) ? "true" : "false"} onClick=${showHistory}><${Icon} name="menu" /></button>
    <a class="brand" href="#/"><${Flame} /><span>hearth</span></a>
    <nav class="tabs" aria-label="Views">${tab("chat", "Chat", chatAddress(), "chat")}${tab("machine", "Machine", "#/machine", "machine")}</nav>
    <span class="spring"></span>
    <button type="button" class="quiet icon-button" aria-label=${`Theme: ${name}`} title=${`Theme: ${name}`} onClick=${() => (theme.value = next)}><${Icon} name=${icon} /></button>
    <button type="button" class="quiet icon-button" aria-label="Shortcuts" title=${`Shortcuts (${MOD} /)`} onClick=${() => (helping.value = true)}><${Icon} name="help" /></button>
  </header>`;
}

function App() {
  const shown = useValue(view);
  const conversation = useValue(current);
  const id = useValue(() => current.value.value.id);
  const above = useValue(historyAbove);
  const open = useValue(historyOpen);
  const options = useValue(optionsShown) && shown === "chat";
  useEffect(() => {
    document.getElementById("main").scrollTop = 0;
  }, [shown]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the content</a>
    <${Head} />
    <div class=${classes("frame", open && "with-history", above && "history-above", options && "with-options")}>
      <${History} currentId=${id} onNew=${newConversation} onClose=${() => (historyAbove.value = false)} />
      ${above && html`<div class="veil" onClick=${() => (historyAbove.value = false)}></div>`}
      <main id="main" tabindex="-1">
        ${shown === "machine" ? html`<${Machine} />` : html`<${Chat} key=${id} current=${conversation} optionsOpen=${options} onOptions=${() => (optionsShown.value = !optionsShown.value)} />`}
      </main>
      ${options && html`<${Options} key=${id} current=${conversation} onClose=${closeOptions} />`}
    </div>
    <${Dialogs} />`;
}

effect(() => {
  const title = current.value.value.title;
  document.title = view.value === "machine" ? "Machine · hearth" : current.value.value.head ? `${title} · hearth` : "hearth";
});

const app = document.getElementById("app");
app.replaceChildren();
render(html`<${App} />`, app);
addEventListener("hashchange", follow);
addEventListener("keydown", onKeyDown);
store.start().then(follow);
models.watch().then(() => {
  // The first conversation was begun before the models were known.
  const begun = current.peek();
  if (!begun.peek().model) begun.value = { ...begun.peek(), model: models.preferred() };
});
