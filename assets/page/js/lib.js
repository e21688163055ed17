// What draws the page: preact with htm instead of a compiler, and signals for state.

import { useLayoutEffect, useMemo, useState } from "../vendor/preact-htm.js";
import { computed, effect } from "../vendor/signals-core.js";

export { Component, html, render, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact-htm.js";
export { batch, computed, effect, signal } from "../vendor/signals-core.js";

/** The value of a signal, or of a function that reads signals; the component is drawn again when it changes. */
export function useValue(read, inputs = []) {
  const source = useMemo(() => (typeof read === "function" ? computed(read) : read), typeof read === "function" ? inputs : [read]);
  const [, draw] = useState(0);
  const drawn = source.peek();
  useLayoutEffect(() => {
    let last = drawn;
    return effect(() => {
      if (source.value === last) return;
      last = source.value;
      draw((count) => count + 1);
    });
  }, [source]);
  return drawn;
}

/** Joins the names of classes that apply. */
export const classes = (...names) => names.filter(Boolean).join(" ");

/** Not `crypto.randomUUID`: browsers keep that from pages without TLS. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

export const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
/** Fingers, not a keyboard: Enter makes a new line there. */
export const isTouch = () => matchMedia("(pointer: coarse)").matches;
/** Where panels lie above the page instead of beside it. */
export const isNarrow = () => matchMedia("(max-width: 820px)").matches;
