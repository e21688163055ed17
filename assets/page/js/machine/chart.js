// Small line charts as SVG.

import { plural } from "../format.js";
import { html } from "../lib.js";

const WIDTH = 320;
const HEIGHT = 96;
/** What is shown at least and at most, in milliseconds. */
const SPAN = { min: 60_000, max: 5 * 60_000 };
/** Colours of lines, as classes. */
const tone = (index) => `tone-${index % 4}`;

/** The next round number at or above. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/** The path of a line; it breaks where there is no value. */
function line(points, now, span, top) {
  let path = "";
  let pen = "M";
  for (const { at, value } of points) {
    if (value === null || value === undefined) {
      pen = "M";
      continue;
    }
    const x = WIDTH - ((now - at) / span) * WIDTH;
    const y = HEIGHT - (Math.min(value, top) / top) * HEIGHT;
    const place = `${x.toFixed(1)} ${y.toFixed(1)}`;
    // A line of no length: a single value is a dot.
    path += pen === "M" ? `M${place}L${place}` : `L${place}`;
    pen = "L";
  }
  return path;
}

/** `series`: `{ name, index, points: [{ at, value }] }`, where the index chooses the colour. `say` words a value; `top` fixes the scale. */
export function Chart({ title, series, say, top: fixed, empty }) {
  const now = Math.max(0, ...series.flatMap(({ points }) => points.map((point) => point.at)));
  const first = Math.min(now, ...series.flatMap(({ points }) => points.map((point) => point.at)));
  const minutes = Math.ceil(Math.min(SPAN.max, Math.max(SPAN.min, now - first)) / 60_000);
  const span = minutes * 60_000;
  const shown = series.map((one) => ({ ...one, points: one.points.filter((point) => now - point.at <= span) }));
  const values = shown.flatMap(({ points }) => points.map((point) => point.value)).filter((value) => value !== null && value !== undefined);
  const top = fixed ?? ceiling(Math.max(0, ...values));
  const last = ({ points }) => points.findLast((point) => point.value !== null && point.value !== undefined)?.value;
  const summary = shown.map((one) => `${one.name}: ${last(one) === undefined ? "nothing yet" : say(last(one))}`).join("; ");
  return html`<figure class="chart">
    <figcaption><h3>${title}</h3>
      <ul class="legend">${shown.map((one) => html`<li key=${one.name}><i class=${`key ${tone(one.index)}`}></i>${one.name}<b>${last(one) === undefined ? "–" : say(last(one))}</b></li>`)}</ul>
    </figcaption>
    <div class="plot">
      <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${`${title}, the last ${plural(minutes, "minute")}. ${summary}`}>
        ${[0, 0.5, 1].map((share) => html`<line class="grid" x1="0" x2=${WIDTH} y1=${HEIGHT * share} y2=${HEIGHT * share} />`)}
        ${shown.map((one) => html`<path key=${one.name} class=${`line ${tone(one.index)}`} d=${line(one.points, now, span, top)} />`)}
      </svg>
      <span class="axis top">${say(top)}</span><span class="axis bottom">${say(0)}</span>
      ${values.length === 0 && html`<span class="nothing">${empty}</span>`}
    </div>
    <div class="times"><span>${minutes} min ago</span><span>now</span></div>
  </figure>`;
}
