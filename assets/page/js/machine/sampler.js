// Asks the server what it does, and remembers it for as long as the page is open.

import { ask, getJson } from "../api.js";
import { effect, signal } from "../lib.js";
import * as models from "../models.js";
import { runs } from "../chat/runs.js";
import { apiKey } from "../settings.js";

/** Milliseconds between two looks. */
export const EVERY = 2000;
/** How many looks are remembered: ten minutes. */
const KEPT = 300;
/** Of what was selected at one look, this much still counts at the next. */
const FADING = 0.8;

/** What the server told last; parts that it did not tell are null. */
export const latest = signal({ memory: null, experts: null, slots: new Map(), at: null });
/** Rates between looks: `{ at, rates: { name: { decode, prefill, hitRate, uploads } } }`. */
export const samples = signal([]);
/** Selections of late by model: rows of numbers that fade. */
export const recent = signal(new Map());
export const trouble = signal(null);
/** Whether the machine is on screen. */
export const watched = signal(false);

/** Counters by model from the text of `/metrics`. */
export function counters(text, names) {
  const found = {};
  for (const line of text.split("\n")) {
    const match = /^(\w+)\{([^}]*)\} (\S+)/.exec(line);
    const model = match && /(?:^|,)model="([^"]*)"/.exec(match[2])?.[1];
    if (!model || !names.includes(match[1])) continue;
    const of = (found[model] ??= {});
    of[match[1]] = (of[match[1]] ?? 0) + Number(match[3]);
  }
  return found;
}

const GENERATED = "hearth_generation_tokens_total";
const PROMPT = "hearth_prompt_tokens_total";
const CACHED = "hearth_prompt_cached_tokens_total";

/** How fast a counter grew; null if it began anew. */
function speed(now, before, seconds) {
  if (now === undefined || before === undefined || now < before) return null;
  return (now - before) / seconds;
}

let before = null;

function takeSample(metrics, experts, at) {
  const now = { at, metrics, experts: new Map((experts?.models ?? []).filter((model) => model.cache).map((model) => [model.model, model.cache.since_start])) };
  if (before) {
    const seconds = (at - before.at) / 1000;
    const rates = {};
    for (const [name, of] of Object.entries(metrics)) {
      const old = before.metrics[name] ?? {};
      const read = (counts) => (counts[PROMPT] === undefined ? undefined : counts[PROMPT] - (counts[CACHED] ?? 0));
      rates[name] = { decode: speed(of[GENERATED], old[GENERATED], seconds), prefill: speed(read(of), read(old), seconds) };
    }
    for (const [name, totals] of now.experts) {
      const old = before.experts.get(name);
      if (!old) continue;
      const selections = totals.selections - old.selections;
      rates[name] = {
        ...rates[name],
        // Where the metrics are not to be had.
        decode: rates[name]?.decode ?? speed(totals.tokens, old.tokens, seconds),
        hitRate: selections > 0 ? (totals.hits - old.hits) / selections : null,
        uploads: speed(totals.uploads, old.uploads, seconds),
      };
    }
    samples.value = [...samples.peek(), { at, rates }].slice(-KEPT);
  }
  before = now;
}

const seen = new Map();

function takeHeat(experts) {
  const next = new Map();
  for (const { model, cache } of experts?.models ?? []) {
    if (!cache?.heatmap) continue;
    const { selections } = cache.heatmap;
    const old = seen.get(model);
    const faded = recent.peek().get(model);
    next.set(
      model,
      selections.map((row, layer) => row.map((count, expert) => (faded?.[layer]?.[expert] ?? 0) * FADING + Math.max(0, count - (old?.[layer]?.[expert] ?? count)))),
    );
    seen.set(model, selections);
  }
  recent.value = next;
}

/** The key that did not open the metrics, which may be for others or on another port; it is not tried again. */
let refused;

async function readMetrics() {
  const key = apiKey.get();
  if (refused === key) return "";
  try {
    return await (await ask("metrics", { quiet: true })).text();
  } catch (error) {
    if (![401, 403, 404].includes(error.status)) throw error;
    refused = key;
    return "";
  }
}

/** One look. */
async function look() {
  const failed = [];
  const orNull = (promise) => promise.catch((error) => {
    failed.push(error);
    return null;
  });
  // The same trouble is not told twice.
  const tell = (error) => {
    if (error?.message !== trouble.peek()?.message) trouble.value = error ?? null;
  };
  await models.refresh({ quiet: true });
  if (models.trouble.peek()) return tell(models.trouble.peek());
  const quiet = { quiet: true };
  const ready = models.plain.peek().filter((model) => models.stateOf(model.status) === "loaded");
  const [memory, experts, metrics, ...slots] = await Promise.all([
    watched.peek() ? orNull(getJson("api/v1/memory", quiet)) : latest.peek().memory,
    orNull(getJson("api/v1/expert-stats?detail=heatmap", quiet)),
    orNull(readMetrics()),
    ...(watched.peek() ? ready.map((model) => orNull(getJson(`slots?model=${encodeURIComponent(model.id)}`, quiet))) : []),
  ]);
  takeSample(counters(metrics ?? "", [GENERATED, PROMPT, CACHED]), experts, performance.now());
  takeHeat(experts);
  latest.value = {
    memory,
    experts,
    slots: watched.peek() ? new Map(ready.map((model, index) => [model.id, slots[index]])) : latest.peek().slots,
    at: Date.now(),
  };
  tell(failed[0]);
}

let timer = null;
let looking = false;

async function tick() {
  if (looking) return;
  looking = true;
  clearTimeout(timer);
  try {
    if (document.visibilityState === "visible") await look();
  } finally {
    looking = false;
    timer = watched.peek() || runs.peek().size > 0 ? setTimeout(tick, EVERY) : null;
  }
}

// The server is left alone while nobody looks at the machine and nothing is written here.
effect(() => {
  if (watched.value || runs.value.size > 0) queueMicrotask(tick);
});
