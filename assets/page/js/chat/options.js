// Options of a conversation: system prompt, sampling, tools. New conversations begin with them.

import { getJson } from "../api.js";
import { Icon } from "../icons.js";
import { html, useEffect, useRef, useState, useValue } from "../lib.js";
import { find } from "../models.js";
import { lastOptions } from "../settings.js";
import * as store from "../store.js";
import { WEATHER_TOOL } from "./examples.js";
import { SAMPLING, parseMore, parseTools } from "./request.js";

const defaults = new Map();

/** What the model takes for fields that are empty. */
async function defaultsOf(name) {
  // What a preset sets is not told; its model's would mislead.
  if (!name || find(name)?.parent) return {};
  if (!defaults.has(name)) {
    const answer = getJson(`props?model=${encodeURIComponent(name)}`, { quiet: true });
    defaults.set(name, answer.then((props) => props.default_generation_settings?.params ?? {}));
    answer.catch(() => defaults.delete(name));
  }
  return defaults.get(name).catch(() => ({}));
}

function placeholder(field, known) {
  const value = known[field.name];
  if (value === undefined) return "default";
  if (field.name === "seed") return "random";
  if (field.name === "max_tokens" && value < 0) return "no limit";
  return String(Math.round(value * 1000) / 1000);
}

function Area({ id, label, value, onInput, rows, hint, problem, code }) {
  return html`<div class="field">
    <label for=${id}>${label}</label>
    <textarea id=${id} rows=${rows} class=${code ? "mono" : ""} spellcheck=${!code} value=${value ?? ""} aria-describedby=${`${id}-hint`}
      aria-invalid=${problem ? "true" : "false"} onInput=${(event) => onInput(event.target.value)}></textarea>
    <p id=${`${id}-hint`} class=${problem ? "problem" : "muted"}>${problem ?? hint}</p>
  </div>`;
}

function Choice({ id, label, value, onChange, choices }) {
  return html`<div class="field narrow"><label for=${id}>${label}</label>
    <select id=${id} value=${value} onChange=${(event) => onChange(event.target.value)}>${choices.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === value}>${text}</option>`)}</select></div>`;
}

export function Options({ current, onClose }) {
  const conversation = useValue(current);
  const [known, setKnown] = useState({});
  const head = useRef(null);
  const options = conversation.options ?? {};
  useEffect(() => head.current.focus(), []);
  useEffect(() => {
    let stale = false;
    defaultsOf(conversation.model).then((found) => !stale && setKnown(found));
    return () => (stale = true);
  }, [conversation.model]);
  const set = (change) => {
    const next = { ...options, ...change };
    lastOptions.value = next;
    store.update(conversation.id, (one) => ({ ...one, options: next }));
  };
  const sampling = options.sampling ?? {};
  const setField = (field, text) => set({ sampling: { ...sampling, [field.name]: text === "" ? null : Number(text) } });
  const { tools, problem: toolProblem } = parseTools(options.tools);
  const toolHint = tools.length > 0 ? `The model may call ${tools.map((tool) => tool.function.name).join(", ")}. You give the results.` : "A list of tools as in the API, or one function.";
  return html`<aside class="panel" aria-labelledby="options-title">
    <header class="panel-head">
      <h2 id="options-title" tabindex="-1" ref=${head}>Options</h2>
      <span class="spring"></span>
      <button type="button" class="quiet" onClick=${() => set({ system: "", sampling: {}, tools: "", more: "", thinking: "", effort: "" })}>Reset</button>
      <button type="button" class="quiet icon-button" aria-label="Close the options" onClick=${onClose}><${Icon} name="close" /></button>
    </header>
    <div class="panel-body">
      <p class="muted">For this conversation; new ones begin with them. Empty fields take the model's own values.</p>
      <${Area} id="option-system" label="System prompt" rows="3" value=${options.system} onInput=${(system) => set({ system })} hint="What the model is told before the conversation." />
      <div class="fields">
        <${Choice} id="option-thinking" label="Thinking" value=${options.thinking ?? ""} onChange=${(thinking) => set({ thinking })} choices=${[["", "Default"], ["on", "On"], ["off", "Off"]]} />
        <${Choice} id="option-effort" label="Effort" value=${options.effort ?? ""} onChange=${(effort) => set({ effort })} choices=${[["", "Default"], ["low", "Low"], ["medium", "Medium"], ["high", "High"]]} />
      </div>
      <fieldset class="fields"><legend>Sampling</legend>
        ${SAMPLING.map(
          (field) => html`<div class="field narrow" key=${field.name} title=${field.help}>
            <label for=${`option-${field.name}`}>${field.label}</label>
            <input id=${`option-${field.name}`} type="number" inputmode="decimal" step=${field.step} min=${field.min} max=${field.max} value=${sampling[field.name] ?? ""}
              placeholder=${placeholder(field, known)} onInput=${(event) => event.target.validity.valid && setField(field, event.target.value)} />
          </div>`,
        )}
      </fieldset>
      <${Area} id="option-tools" label="Tools (JSON)" rows=${options.tools ? 10 : 3} code value=${options.tools} onInput=${(text) => set({ tools: text })} hint=${toolHint} problem=${toolProblem} />
      ${!options.tools && html`<button type="button" onClick=${() => set({ tools: WEATHER_TOOL })}><${Icon} name="plus" />Insert an example</button>`}
      <${Area} id="option-more" label="Further fields (JSON)" rows="2" code value=${options.more} onInput=${(more) => set({ more })} hint=${'Added to each request, such as {"stop": ["END"]}.'} problem=${parseMore(options.more).problem} />
    </div>
  </aside>`;
}
