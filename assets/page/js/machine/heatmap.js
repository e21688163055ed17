// Which experts of which layers are selected, and which have a copy.

import { count, percent } from "../format.js";
import { html, useEffect, useLayoutEffect, useRef, useState, useValue } from "../lib.js";
import { recent } from "./sampler.js";

/** Pixels of a cell: never so small that columns vanish. */
const CELL = { min: 4, max: 36 };
const MARKED_FROM = 7;


const mix = (from, to, share) => `rgb(${from.map((part, index) => Math.round(part + (to[index] - part) * share)).join(" ")})`;

/** The colours of cells; custom properties have no computed colour of their own, so a probe has it. */
function palette(probe) {
  const colour = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  };
  return { empty: colour("--heat-empty"), cold: colour("--heat-cold"), copy: colour("--heat-copy"), hot: colour("--heat-hot"), mark: colour("--heat-mark") };
}

function draw(canvas, { rows, resident }, colours, cell, cursor) {
  const ratio = devicePixelRatio || 1;
  const columns = Math.max(...rows.map((row) => row.length));
  const gap = cell >= MARKED_FROM ? 1 : 0;
  const [width, height] = [columns * cell, rows.length * cell];
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  rows.forEach((row, layer) => {
    // Each layer selects as often as the others: its own maximum shows its habits.
    const most = Math.max(1, ...row);
    const copies = new Set(resident[layer]);
    row.forEach((value, expert) => {
      const has = copies.has(expert);
      const share = value > 0 ? 0.15 + 0.85 * Math.sqrt(value / most) : 0;
      pen.fillStyle = has ? mix(colours.copy, colours.hot, share) : mix(colours.empty, colours.cold, share);
      pen.fillRect(expert * cell, layer * cell, cell - gap, cell - gap);
      if (has && gap > 0) {
        // Not by colour alone.
        const size = Math.max(2, Math.round(cell / 5));
        pen.fillStyle = mix(colours.mark, colours.mark, 0);
        pen.fillRect(expert * cell + (cell - gap - size) / 2, layer * cell + (cell - gap - size) / 2, size, size);
      }
    });
  });
  if (cursor) {
    pen.strokeStyle = mix(colours.mark, colours.mark, 0);
    pen.lineWidth = 2;
    pen.strokeRect(cursor.expert * cell, cursor.layer * cell, cell - gap, cell - gap);
  }
}

function words({ layers, rows, resident }, since, { layer, expert }) {
  const value = rows[layer]?.[expert];
  if (value === undefined) return "";
  const times = since ? `selected ${count(value)} times` : value > 0.5 ? "selected of late" : "not selected of late";
  return `Layer ${layers[layer]}, expert ${expert}: ${times}, ${resident[layer].includes(expert) ? "has a copy" : "no copy"}`;
}

export function HeatMap({ model, cache }) {
  const [since, setSince] = useState(false);
  const [cursor, setCursor] = useState(null);
  const [width, setWidth] = useState(0);
  const late = useValue(() => recent.value.get(model), [model]);
  const frame = useRef(null);
  const canvas = useRef(null);
  const probe = useRef(null);
  const [scheme, setScheme] = useState(0);
  const { layers, selections, resident } = cache.heatmap;
  const map = { layers, rows: since || !late ? selections : late, resident };
  const columns = Math.max(1, ...selections.map((row) => row.length));
  const cell = Math.max(CELL.min, Math.min(CELL.max, Math.floor(width / columns)));

  useLayoutEffect(() => {
    const watcher = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    watcher.observe(frame.current);
    return () => watcher.disconnect();
  }, []);
  useEffect(() => {
    const redraw = () => setScheme((number) => number + 1);
    const media = matchMedia("(prefers-color-scheme: dark)");
    const watcher = new MutationObserver(redraw);
    media.addEventListener("change", redraw);
    watcher.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => {
      media.removeEventListener("change", redraw);
      watcher.disconnect();
    };
  }, []);
  useLayoutEffect(() => {
    if (width > 0) draw(canvas.current, map, palette(probe.current), cell, cursor);
  }, [width, cell, selections, late, since, cursor, resident, scheme]);

  const onMove = (event) => {
    const { left, top } = canvas.current.getBoundingClientRect();
    const [expert, layer] = [Math.floor((event.clientX - left) / cell), Math.floor((event.clientY - top) / cell)];
    if (layer >= 0 && layer < layers.length && expert >= 0 && expert < (selections[layer]?.length ?? 0)) setCursor({ layer, expert });
  };
  const onKeyDown = (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = cursor ?? { layer: 0, expert: -step[1] };
    const layer = Math.max(0, Math.min(layers.length - 1, at.layer + step[0]));
    setCursor({ layer, expert: Math.max(0, Math.min(selections[layer].length - 1, at.expert + step[1])) });
  };
  const copies = resident.reduce((sum, row) => sum + row.length, 0);
  const experts = selections.reduce((sum, row) => sum + row.length, 0);
  const label = `Heat map of ${model}: ${layers.length} layers of ${columns} experts, ${copies} of ${experts} with a copy. Arrow keys go from expert to expert.`;
  return html`<div class="heat">
    <div class="row">
      <fieldset class="choices"><legend class="hidden">Selections</legend>
        <label><input type="radio" name=${`heat-${model}`} checked=${!since} onChange=${() => setSince(false)} />Now</label>
        <label><input type="radio" name=${`heat-${model}`} checked=${since} onChange=${() => setSince(true)} />Since the start</label>
      </fieldset>
      <span class="spring"></span>
      <ul class="legend"><li><i class="key heat-copy"></i>has a copy</li><li><i class="key heat-cold"></i>has none</li><li class="muted">brighter: selected more</li></ul>
    </div>
    <div class="heat-frame" ref=${frame} tabindex="0" role="application" aria-roledescription="heat map" aria-label=${label} onKeyDown=${onKeyDown} onPointerMove=${onMove} onPointerLeave=${() => setCursor(null)}>
      <canvas ref=${canvas}></canvas>
    </div>
    <p class="muted readout" aria-live="polite">${cursor ? words(map, since || !late, cursor) : `Rows are layers, columns experts. ${percent(copies / experts)} have a copy.`}</p>
    <span class="hidden" ref=${probe}></span>
  </div>`;
}
