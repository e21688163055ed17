// Conversations, kept in this browser's IndexedDB. Other tabs hear of changes.

import { newId, signal } from "./lib.js";
import { lastOptions } from "./settings.js";
import { preferred } from "./models.js";
import { merge, path } from "./tree.js";

/** What the history lists: `{ id, title, updated }`, the newest first. */
export const titles = signal([]);
/** Why nothing is kept, if so. */
export const storageTrouble = signal(null);

/** Conversations that were opened, as signals. */
const open = new Map();
const unsaved = new Map();
const tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("hearth") : null;

/** Milliseconds until something is kept: what users do, and what goes on by itself. */
const SAVE_AFTER = { act: 300, stream: 2000 };
const TITLE_LENGTH = 60;

const database = new Promise((resolve) => {
  try {
    const request = indexedDB.open("hearth", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("conversations", { keyPath: "id" });
      request.result.createObjectStore("titles", { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(withoutStorage(request.error));
  } catch (error) {
    resolve(withoutStorage(error));
  }
});

function withoutStorage(error) {
  storageTrouble.value = `This browser keeps no conversations (${error?.message ?? error}); they end with the page.`;
  return null;
}

/** Runs `work` on the stores in one transaction; the value of its request, or null without a database. */
async function transaction(mode, work) {
  const opened = await database;
  if (!opened) return null;
  return new Promise((resolve, reject) => {
    const running = opened.transaction(["conversations", "titles"], mode);
    const request = work(running.objectStore("conversations"), running.objectStore("titles"));
    running.oncomplete = () => resolve(request?.result ?? null);
    running.onerror = running.onabort = () => reject(running.error ?? new Error("the database gave up"));
  });
}

const titleOf = ({ id, title, updated }) => ({ id, title, updated });
const newestFirst = (list) => list.sort((a, b) => b.updated - a.updated);

export async function start() {
  await refreshTitles();
  tabs?.addEventListener("message", async ({ data }) => {
    await refreshTitles();
    const known = open.get(data.id);
    const kept = known && (await read(data.id));
    if (kept) known.value = merge(kept, known.peek());
  });
  addEventListener("pagehide", saveNow);
}

async function refreshTitles() {
  const stored = (await transaction("readonly", (_, list) => list.getAll()).catch(() => null)) ?? [];
  const here = [...unsaved.keys()].map((id) => titleOf(open.get(id).peek()));
  const others = stored.filter((one) => !unsaved.has(one.id));
  titles.value = newestFirst([...here, ...others]);
}

const read = (id) => transaction("readonly", (list) => list.get(id)).catch(() => null);

/** The conversation as a signal; null if there is none. */
export async function find(id) {
  if (!open.has(id)) {
    const stored = await read(id);
    if (!stored) return null;
    if (!open.has(id)) open.set(id, signal(stored));
  }
  return open.get(id);
}

/** A conversation that is kept from its first message on. */
export function create() {
  const conversation = {
    id: newId(),
    title: "New conversation",
    created: Date.now(),
    updated: Date.now(),
    model: preferred(),
    options: lastOptions.peek(),
    nodes: {},
    head: null,
  };
  const kept = signal(conversation);
  open.set(conversation.id, kept);
  return kept;
}

/** The title that a conversation has until somebody gives it one. */
function titleFrom(conversation) {
  const first = path(conversation).find((node) => node.role === "user")?.content ?? "";
  const line = first.trim().split("\n")[0];
  return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH).trimEnd()}…` : line || "New conversation";
}

/** Changes a conversation and keeps it. `newer` moves it to the top of the history; `running` changes come many times a second. */
export function update(id, change, { newer = false, running = false } = {}) {
  const known = open.get(id);
  if (!known) return;
  let next = change(known.peek());
  if (next === known.peek()) return;
  if (newer) next = { ...next, updated: Date.now() };
  if (!next.named) next = { ...next, title: titleFrom(next) };
  const before = known.peek();
  known.value = next;
  // An empty one is not worth a place in the history.
  if (!next.head) return;
  if (newer || next.title !== before.title || !before.head) {
    titles.value = newestFirst([titleOf(next), ...titles.peek().filter((one) => one.id !== id)]);
  }
  if (!unsaved.has(id)) unsaved.set(id, setTimeout(() => save(id), newer || !running ? SAVE_AFTER.act : SAVE_AFTER.stream));
}

async function save(id) {
  clearTimeout(unsaved.get(id));
  const conversation = open.get(id)?.peek();
  if (!conversation) return;
  unsaved.delete(id);
  try {
    await transaction("readwrite", (list, index) => {
      const request = list.get(id);
      request.onsuccess = () => {
        // Another tab may have written to it, too.
        const merged = request.result ? { ...merge(request.result, conversation), head: conversation.head } : conversation;
        index.put(titleOf(merged));
        list.put(merged);
      };
      return request;
    });
    tabs?.postMessage({ id });
  } catch (error) {
    withoutStorage(error);
  }
}

export const saveNow = () => Promise.all([...unsaved.keys()].map(save));

export async function rename(id, title) {
  await find(id);
  update(id, (conversation) => ({ ...conversation, title: title.trim() || titleFrom(conversation), named: Boolean(title.trim()) }));
}

export async function remove(id) {
  clearTimeout(unsaved.get(id));
  unsaved.delete(id);
  open.delete(id);
  titles.value = titles.peek().filter((one) => one.id !== id);
  await transaction("readwrite", (list, index) => {
    index.delete(id);
    return list.delete(id);
  }).catch(() => {});
  tabs?.postMessage({ id });
}

/** All conversations, for export. */
export async function all() {
  await saveNow();
  const stored = await transaction("readonly", (list) => list.getAll());
  return stored ?? [...open.values()].map((known) => known.peek()).filter((conversation) => conversation.head);
}

/** Takes conversations from an exported file; the number of those that are one. */
export async function add(conversations) {
  let taken = 0;
  for (const conversation of conversations) {
    const whole = typeof conversation?.id === "string" && typeof conversation.nodes === "object" && conversation.nodes[conversation.head];
    if (!whole) continue;
    const kept = { created: Date.now(), options: {}, ...conversation, title: String(conversation.title ?? ""), updated: Number(conversation.updated) || Date.now() };
    if (open.has(kept.id)) open.get(kept.id).value = kept;
    else open.set(kept.id, signal(kept));
    await save(kept.id);
    taken += 1;
  }
  await refreshTitles();
  return taken;
}
