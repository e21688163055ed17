// Answers that are being written. Each belongs to a conversation, also when another one is on screen.

import { ApiError, ask } from "../api.js";
import { newId, signal } from "../lib.js";
import * as models from "../models.js";
import { events } from "../sse.js";
import * as store from "../store.js";
import { add, patch, path } from "../tree.js";
import { Answer } from "./answer.js";
import { body } from "./request.js";

/** By conversation: the node that is written, how far the prompt is, and what stops it. */
export const runs = signal(new Map());

const WAIT = 500;

function put(id, run) {
  const next = new Map(runs.peek());
  if (run) next.set(id, run);
  else next.delete(id);
  runs.value = next;
}

export const stop = (id) => runs.peek().get(id)?.controller.abort();

/** Calls `draw` once per frame at most; also where nothing is drawn, as in a tab behind others. */
function throttled(draw) {
  let wanted = false;
  const now = () => {
    if (!wanted) return;
    wanted = false;
    draw();
  };
  return () => {
    if (wanted) return;
    wanted = true;
    if (document.visibilityState === "visible") requestAnimationFrame(now);
    setTimeout(now, 100);
  };
}

const stateOf = (name) => models.stateOf(models.find(name)?.status);
const pause = () => new Promise((resolve) => setTimeout(resolve, WAIT));

/** Waits while the model loads. */
async function untilLoaded(name, controller) {
  while (stateOf(name) === "loading") {
    await pause();
    controller.signal.throwIfAborted();
    await models.refresh({ quiet: true });
  }
}

/** Follows how far a model is that the server loads for a request. */
async function followLoading(name, waits) {
  while (waits() && stateOf(name) !== "loaded") {
    await models.refresh({ quiet: true });
    await pause();
  }
}

/** Has the model answer below `parent`. */
export async function answer(id, parent) {
  const kept = await store.find(id);
  if (!kept || runs.peek().has(id)) return;
  if (models.models.peek() === null) await models.refresh();
  const model = kept.peek().model ?? models.preferred();
  const node = { id: newId(), role: "assistant", content: "", model, state: "running", phase: "waiting", at: Date.now() };
  const controller = new AbortController();
  const progress = signal(null);
  const collected = new Answer();
  let start = performance.now();
  store.update(id, (conversation) => add({ ...conversation, model }, parent, node), { newer: true });
  put(id, { node: node.id, controller, progress });
  const write = (more = {}) => store.update(id, (conversation) => patch(conversation, node.id, { ...collected.node(start), written: Date.now(), ...more }), { running: true });
  const draw = throttled(() => {
    progress.value = collected.phase === "reading" ? collected.progress : null;
    if (runs.peek().get(id)?.node === node.id) write();
  });
  const end = { state: "done" };
  try {
    await untilLoaded(model, controller);
    const request = body(model, path(kept.peek(), parent), kept.peek().options);
    start = performance.now();
    followLoading(model, () => runs.peek().get(id)?.node === node.id && collected.phase === "waiting");
    const response = await ask("v1/chat/completions", { body: request, signal: controller.signal });
    const servedBy = response.headers.get("x-hearth-served-by");
    if (servedBy) end.servedBy = servedBy;
    let whole = false;
    for await (const data of events(response.body)) {
      whole = data === "[DONE]";
      if (whole) break;
      collected.take(JSON.parse(data), performance.now());
      draw();
    }
    if (!whole) throw new ApiError("The connection ended before the answer did.");
  } catch (error) {
    if (controller.signal.aborted) end.state = "stopped";
    else {
      end.state = "failed";
      const { message, status = 0, code = null, retryAfter = null } = error;
      end.error = { message: message ?? String(error), status, code, retryAfter };
    }
  }
  end.totalMs = performance.now() - start;
  put(id, null);
  write(end);
  store.saveNow();
}

/** Says something at the end of the branch that is read, or as another try of `instead`. */
export function say(id, content, model, instead = null) {
  const node = { id: newId(), role: "user", content, at: Date.now() };
  store.update(
    id,
    (conversation) => add({ ...conversation, model }, instead ? conversation.nodes[instead].parent : conversation.head, node),
    { newer: true },
  );
  return answer(id, node.id);
}

/** Another answer in the place of this one. */
export async function again(id, node) {
  const kept = await store.find(id);
  return answer(id, kept.peek().nodes[node].parent);
}

/** Gives the calls of an answer their results. */
export function giveResults(id, assistant, results) {
  const node = { id: newId(), role: "results", results, at: Date.now() };
  store.update(id, (conversation) => add(conversation, assistant, node), { newer: true });
  return answer(id, node.id);
}
