// What this browser remembers of its user's wishes.

import { effect, signal } from "./lib.js";

function read(area, name) {
  try {
    return JSON.parse(area().getItem(`hearth.${name}`));
  } catch {
    return null;
  }
}

function write(area, name, value) {
  try {
    if (value === null) area().removeItem(`hearth.${name}`);
    else area().setItem(`hearth.${name}`, JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: the wish holds as long as the page.
  }
}

// Functions, as merely naming a forbidden storage throws.
const LOCAL = () => localStorage;
const SESSION = () => sessionStorage;

/** A signal whose value is there again the next time. */
function remembered(name, value) {
  const kept = signal(read(LOCAL, name) ?? value);
  effect(() => write(LOCAL, name, kept.value));
  return kept;
}

/** "system", "light" or "dark". */
export const theme = remembered("theme", "system");
export const showReasoning = remembered("show-reasoning", true);
/** The model that was chosen last; null for the server's first. */
export const lastModel = remembered("model", null);
/** On wide screens. */
export const historyOpen = remembered("history-open", true);

/** What a new conversation begins with: that of the one before. */
export const lastOptions = remembered("options", {});

effect(() => {
  const root = document.documentElement;
  if (theme.value === "system") delete root.dataset.theme;
  else root.dataset.theme = theme.value;
});

export const apiKey = {
  get: () => read(SESSION, "key") ?? read(LOCAL, "key"),
  /** Kept until the tab is closed, or longer. */
  set(key, longer) {
    write(SESSION, "key", longer ? null : key);
    write(LOCAL, "key", longer ? key : null);
  },
};
