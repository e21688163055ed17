// The models, how far they are, and what their slots do.

import { bytes, count, percent, plural } from "../format.js";
import { classes, html, useState, useValue } from "../lib.js";
import * as models from "../models.js";
import { latest } from "./sampler.js";

const WORDS = { loaded: "ready", unloaded: "not loaded", shutting_down: "stopping", maintenance: "in maintenance" };

function Slot({ slot }) {
  const token = slot.next_token?.[0];
  const done = (slot.n_prompt_tokens_processed ?? 0) + (slot.n_prompt_tokens_cache ?? 0);
  const reading = slot.is_processing && !token?.n_decoded && slot.n_prompt_tokens > 0;
  const used = (slot.n_prompt_tokens ?? 0) + (token?.n_decoded ?? 0);
  const text = slot.is_processing ? (reading ? `reading ${percent(done / slot.n_prompt_tokens)}` : `${plural(token?.n_decoded ?? 0, "token")}`) : used > 0 ? `holds ${count(used)}` : "empty";
  return html`<li class=${classes("slot", slot.is_processing && "works")}>
    <span>Slot ${slot.id}</span><b>${text}</b>
    <progress max=${slot.n_ctx} value=${Math.min(used, slot.n_ctx)} aria-label=${`Slot ${slot.id}: ${count(used)} of ${plural(slot.n_ctx, "token")}`}></progress>
  </li>`;
}

function Model({ model, slots }) {
  const [busy, setBusy] = useState(null);
  const [problem, setProblem] = useState(null);
  const state = models.stateOf(model.status);
  const { progress, reason, seconds } = model.status ?? {};
  const act = async (what, work) => {
    setBusy(what);
    setProblem(null);
    try {
      await work(model.id);
    } catch (error) {
      setProblem(error.message);
    }
    setBusy(null);
  };
  return html`<li class="model">
    <header><h3>${model.id}</h3><span class=${`state ${state}`}>${WORDS[state] ?? state}</span><span class="spring"></span>
      ${state === "unloaded" && html`<button type="button" disabled=${busy !== null} onClick=${() => act("load", models.load)}>Load<span class="hidden"> ${model.id}</span></button>`}
      ${state === "failed" && html`<button type="button" disabled=${busy !== null} onClick=${() => act("load", models.load)}>Try again<span class="hidden"> to load ${model.id}</span></button>`}
      ${state === "loaded" && html`<button type="button" class="quiet" disabled=${busy !== null} onClick=${() => act("unload", models.unload)}>Unload<span class="hidden"> ${model.id}</span></button>`}
    </header>
    <p class="muted">${[model.role, model.meta?.architecture, model.meta?.ftype, model.meta?.size && bytes(model.meta.size), model.context_length && `${count(model.context_length)} tokens of context`].filter(Boolean).join(" · ")}</p>
    ${state === "loading" && html`<div class="progress"><span>${progress === undefined ? "…" : percent(progress)}</span><progress max="1" value=${progress} aria-label=${`Loading of ${model.id}`}></progress></div>`}
    ${state === "stuck" && html`<p class="problem" role="alert">It has work, and has computed nothing for ${plural(seconds, "second")}.</p>`}
    ${(reason || problem) && html`<p class="problem" role="alert">${problem ?? reason}</p>`}
    ${model.meta?.requests_waiting > 0 && html`<p>${plural(model.meta.requests_waiting, "request waits", "requests wait")} for a slot.</p>`}
    ${slots?.length > 0 && html`<ul class="slots" aria-label=${`Slots of ${model.id}`}>${slots.map((slot) => html`<${Slot} key=${slot.id} slot=${slot} />`)}</ul>`}
  </li>`;
}

export function Models() {
  const all = useValue(models.plain);
  const { slots } = useValue(latest);
  return html`<section class="block" aria-labelledby="models-title"><h2 id="models-title">Models and slots</h2>
    <ul class="models">${all.map((model) => html`<${Model} key=${model.id} model=${model} slots=${slots.get(model.id)} />`)}</ul></section>`;
}
