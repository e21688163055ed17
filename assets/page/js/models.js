// The models of the server, and how they are.

import { getJson, post } from "./api.js";
import { computed, signal } from "./lib.js";
import { lastModel } from "./settings.js";

/** As `/v1/models` tells them, presets included; null before the first answer. */
export const models = signal(null);
/** Why they are not known. */
export const trouble = signal(null);

/** The word for a model's state: "loaded", "unloaded", "loading", "failed" and so on. */
export const stateOf = (status) => status?.value ?? "loaded";

/** The models without presets. */
export const plain = computed(() => (models.value ?? []).filter((model) => !model.parent));

/** The model or preset with this name, alias or role. */
export const find = (name) => {
  if (!name) return undefined;
  const all = models.value ?? [];
  return all.find((model) => model.id === name) ?? all.find((model) => model.aliases?.includes(name) || model.role === name);
};

/** What a new conversation is with. */
export const preferred = () => find(lastModel.value)?.id ?? models.value?.[0]?.id ?? null;

/** Asks again. */
export async function refresh({ quiet = false } = {}) {
  try {
    const list = await getJson("v1/models", { quiet });
    models.value = list.data;
    trouble.value = null;
  } catch (error) {
    trouble.value = error;
  }
}

export async function load(name) {
  await post("models/load", { model: name });
  await refresh();
}

export async function unload(name) {
  await post("models/unload", { model: name });
  await refresh();
}

/** Keeps the list current: often while something loads. Only the first time a user is asked for a key. */
export async function watch({ quiet = false } = {}) {
  if (document.visibilityState === "visible" || !quiet) await refresh({ quiet });
  const waits = trouble.value ? trouble.value.status !== 401 : plain.value.some((model) => stateOf(model.status) === "loading");
  setTimeout(() => watch({ quiet: true }), waits ? 700 : 10_000);
}
