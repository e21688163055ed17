// Where messages are written.

import { Icon } from "../icons.js";
import { html, isTouch, signal, useLayoutEffect, useRef, useValue } from "../lib.js";
import { find, models, stateOf } from "../models.js";
import { showReasoning } from "../settings.js";

/** What is written and not sent yet; it outlives a look at the machine. */
export const draft = signal("");
export const focusComposer = () => document.getElementById("prompt")?.focus();

const STATES = { unloaded: " (not loaded)", loading: " (loading)", failed: " (failed)", shutting_down: " (stopping)", maintenance: " (in maintenance)" };

function ModelChoice({ value, onChange }) {
  const all = useValue(models) ?? [];
  const option = (model) => html`<option key=${model.id} value=${model.id} selected=${model.id === value}>${model.id}${STATES[stateOf(model.status)] ?? ""}</option>`;
  const presets = all.filter((model) => model.parent);
  return html`<select class="model-choice" aria-label="Model" value=${value ?? ""} onChange=${(event) => onChange(event.target.value)}>
    ${value && !all.some((model) => model.id === value) && html`<option value=${value} selected>${value} (not here)</option>`}
    ${all.length === 0 && !value && html`<option value="">no model yet</option>`}
    <optgroup label="Models">${all.filter((model) => !model.parent).map(option)}</optgroup>
    ${presets.length > 0 && html`<optgroup label="Presets">${presets.map(option)}</optgroup>`}
  </select>`;
}

export function Switch({ checked, onChange, children }) {
  return html`<label class="switch"><input type="checkbox" role="switch" checked=${checked} onChange=${(event) => onChange(event.target.checked)} /><span>${children}</span></label>`;
}

export function Composer({ model, running, onModel, onSend, onStop, onOptions, optionsOpen, optionsSet, onEditLast }) {
  const text = useValue(draft);
  const reasoning = useValue(showReasoning);
  const field = useRef(null);
  useLayoutEffect(() => {
    const area = field.current;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, innerHeight * 0.4)}px`;
  }, [text]);
  const send = (event) => {
    event.preventDefault();
    if (running || !text.trim()) return;
    draft.value = "";
    onSend(text);
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && (!isTouch() || event.ctrlKey || event.metaKey)) send(event);
    if (event.key === "ArrowUp" && text === "" && onEditLast()) event.preventDefault();
  };
  return html`<form class="composer" onSubmit=${send}>
    <label class="hidden" for="prompt">Message</label>
    <textarea id="prompt" ref=${field} rows="1" value=${text} enterkeyhint=${isTouch() ? "enter" : "send"}
      placeholder=${find(model) ? `Ask ${model}` : "Ask something"}
      onInput=${(event) => (draft.value = event.target.value)} onKeyDown=${onKeyDown}></textarea>
    <div class="composer-bar">
      <${ModelChoice} value=${model} onChange=${onModel} />
      <${Switch} checked=${reasoning} onChange=${(on) => (showReasoning.value = on)}><span class="long">Show </span>reasoning<//>
      <span class="spring"></span>
      <button type="button" class=${optionsSet ? "quiet icon-button set" : "quiet icon-button"} aria-label="Options of the conversation" title="Options of the conversation"
        aria-expanded=${optionsOpen ? "true" : "false"} onClick=${onOptions}><${Icon} name="sliders" /></button>
      ${running
        ? html`<button type="button" class="primary icon-button" aria-label="Stop" title="Stop (Esc)" onClick=${onStop}><${Icon} name="stop" /></button>`
        : html`<button class="primary icon-button" aria-label="Send" title="Send (Enter)" disabled=${!text.trim()}><${Icon} name="send" /></button>`}
    </div>
  </form>`;
}
