// The list of conversations.

import { askToConfirm } from "./dialogs.js";
import { download, asMarkdown } from "./files.js";
import { ago } from "./format.js";
import { Icon } from "./icons.js";
import { html, useEffect, useRef, useState, useValue } from "./lib.js";
import * as runs from "./chat/runs.js";
import * as store from "./store.js";

function Rename({ title, onDone }) {
  const field = useRef(null);
  useEffect(() => field.current.select(), []);
  const done = (event) => {
    event.preventDefault();
    // Removing the field takes the focus from it, too.
    if (field.current) onDone(field.current.value);
  };
  const onKeyDown = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    field.current = null;
    onDone(null);
  };
  return html`<form class="rename" onSubmit=${done}><input ref=${field} aria-label="Title of the conversation" value=${title} onKeyDown=${onKeyDown} onBlur=${done} /></form>`;
}

function Entry({ entry, isCurrent, running, onDeleted }) {
  const [open, setOpen] = useState(false);
  const [renaming, setRenaming] = useState(false);
  const rename = (title) => {
    setRenaming(false);
    if (title !== null && title.trim() !== entry.title) store.rename(entry.id, title);
  };
  const remove = async () => {
    if (!(await askToConfirm(`Delete “${entry.title}”?`, "It cannot be brought back.", "Delete"))) return;
    runs.stop(entry.id);
    await store.remove(entry.id);
    if (isCurrent) onDeleted();
  };
  const save = async (kind) => {
    await store.saveNow();
    const conversation = (await store.find(entry.id)).peek();
    if (kind === "md") download(`${entry.title}.md`, asMarkdown(conversation), "text/markdown");
    else download(`${entry.title}.json`, JSON.stringify([conversation], null, 2), "application/json");
  };
  return html`<li class=${isCurrent ? "entry current" : "entry"}>
    ${renaming
      ? html`<${Rename} title=${entry.title} onDone=${rename} />`
      : html`<div class="entry-line">
          <a href=${`#/chat/${entry.id}`} aria-current=${isCurrent ? "page" : undefined} title=${entry.title}>${running && html`<span class="dot" role="img" aria-label="answering"></span>`}${entry.title}</a>
          <button type="button" class="quiet icon-button" aria-expanded=${open ? "true" : "false"} aria-label=${`More for ${entry.title}`} onClick=${() => setOpen(!open)}><${Icon} name="more" /></button>
        </div>`}
    ${open &&
    !renaming &&
    html`<div class="entry-actions">
      <button type="button" class="quiet" onClick=${() => setRenaming(true)}><${Icon} name="edit" />Rename</button>
      <button type="button" class="quiet" onClick=${() => save("md")}><${Icon} name="save" />Markdown</button>
      <button type="button" class="quiet" onClick=${() => save("json")}><${Icon} name="save" />JSON</button>
      <button type="button" class="quiet danger" onClick=${remove}><${Icon} name="trash" />Delete</button>
    </div>`}
  </li>`;
}

export function History({ currentId, onNew, onClose }) {
  const titles = useValue(store.titles);
  const trouble = useValue(store.storageTrouble);
  const running = useValue(runs.runs);
  const [query, setQuery] = useState("");
  const [said, setSaid] = useState("");
  const found = titles.filter((entry) => entry.title.toLowerCase().includes(query.trim().toLowerCase()));
  const groups = Map.groupBy ? Map.groupBy(found, (entry) => ago(entry.updated)) : new Map([["Conversations", found]]);
  const exportAll = async () => download("hearth-conversations.json", JSON.stringify(await store.all(), null, 2), "application/json");
  const take = async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    try {
      const list = [].concat(JSON.parse(await file.text()));
      const taken = await store.add(list);
      setSaid(taken > 0 ? `${taken} of ${list.length} taken over.` : "There is no conversation in this file.");
    } catch (error) {
      setSaid(`This file cannot be read: ${error.message}`);
    }
  };
  return html`<nav class="history" id="history" aria-label="Conversations">
    <div class="history-head">
      <button type="button" class="new" onClick=${onNew}><${Icon} name="plus" />New conversation</button>
      <button type="button" class="quiet icon-button only-narrow" aria-label="Close the conversations" onClick=${onClose}><${Icon} name="close" /></button>
    </div>
    <input id="search" type="search" placeholder="Search titles" aria-label="Search titles" value=${query} onInput=${(event) => setQuery(event.target.value)} />
    <div class="history-list">
      ${trouble && html`<p class="problem">${trouble}</p>`}
      ${titles.length === 0 && html`<p class="muted">Conversations are kept in this browser, not on the server.</p>`}
      ${titles.length > 0 && found.length === 0 && html`<p class="muted">No title has this.</p>`}
      ${[...groups].map(
        ([name, entries]) => html`<section key=${name} aria-label=${name}><h2>${name}</h2>
          <ul>${entries.map((entry) => html`<${Entry} key=${entry.id} entry=${entry} isCurrent=${entry.id === currentId} running=${running.has(entry.id)} onDeleted=${onNew} />`)}</ul>
        </section>`,
      )}
    </div>
    <div class="history-foot">
      <button type="button" class="quiet" onClick=${exportAll} disabled=${titles.length === 0}><${Icon} name="save" />Export all</button>
      <label class="button quiet">Import<input class="hidden" type="file" accept="application/json,.json" onChange=${take} /></label>
      <p class="muted" aria-live="polite">${said}</p>
    </div>
  </nav>`;
}
