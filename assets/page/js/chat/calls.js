// Calls of tools as cards, with a place for what the tool gave back.

import { Icon } from "../icons.js";
import { html, useState } from "../lib.js";
import { Tries } from "./tries.js";

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** The arguments as names and values where they are an object; else as they are. */
function Arguments({ text }) {
  let parsed = null;
  try {
    parsed = JSON.parse(text);
  } catch {
    // Still being written.
  }
  const isObject = parsed !== null && typeof parsed === "object" && !Array.isArray(parsed);
  if (!isObject || Object.keys(parsed).length === 0) return html`<pre class="card-raw">${text || "no arguments"}</pre>`;
  return html`<dl class="arguments">
    ${Object.entries(parsed).map(
      ([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${typeof value === "string" ? value : JSON.stringify(value)}</dd></div>`,
    )}
  </dl>`;
}

function Card({ call, result, editing, draft, onDraft, onChange }) {
  const field = `result-${call.id}`;
  return html`<section class="card" aria-label=${`Call of ${call.name}`}>
    <header><${Icon} name="tool" /><h3>${call.name || "…"}</h3></header>
    <${Arguments} text=${call.arguments} />
    ${result && !editing
      ? html`<div class="card-result"><div class="row"><h4>Result</h4><span class="spring"></span>
          ${onChange && html`<button type="button" class="quiet icon-button" aria-label=${`Change the result of ${call.name}`} title="Change" onClick=${onChange}><${Icon} name="edit" /></button>`}</div>
          <pre tabindex="0" role="region" aria-label=${`Result of ${call.name}`}>${pretty(result.content)}</pre></div>`
      : editing &&
        html`<div class="card-result">
          <label for=${field}>Result</label>
          <textarea id=${field} rows="2" spellcheck=${false} value=${draft} onInput=${(event) => onDraft(event.target.value)}
            placeholder="Paste what ${call.name} gives back"></textarea>
        </div>`}
  </section>`;
}

/** The calls of an answer. `results` are those that were given, `onResults` takes them; `tries` are others. */
export function Calls({ calls, results, tries, onChoose, running, onResults }) {
  const [drafts, setDrafts] = useState({});
  const [changing, setChanging] = useState(false);
  const editing = !running && (changing || !results);
  const resultOf = (call) => results?.find((result) => result.id === call.id);
  const draftOf = (call) => drafts[call.id] ?? resultOf(call)?.content ?? "";
  const complete = calls.every((call) => draftOf(call).trim() !== "");
  const send = (event) => {
    event.preventDefault();
    if (!complete) return;
    setChanging(false);
    onResults(calls.map((call) => ({ id: call.id, name: call.name, content: draftOf(call) })));
  };
  return html`<form class="calls" onSubmit=${send}>
    ${calls.map(
      (call) => html`<${Card} key=${call.id} call=${call} result=${resultOf(call)} editing=${editing} draft=${draftOf(call)}
        onDraft=${(text) => setDrafts({ ...drafts, [call.id]: text })} onChange=${running ? null : () => setChanging(true)} />`,
    )}
    ${editing &&
    html`<div class="row">
      <button class="primary" disabled=${!complete}>Send ${calls.length === 1 ? "the result" : "the results"}</button>
      ${changing && html`<button type="button" onClick=${() => setChanging(false)}>Cancel</button>`}
    </div>`}
    ${tries && html`<${Tries} tries=${tries} onChoose=${onChoose} what="result" />`}
  </form>`;
}
