// What the caches of experts hold and do.

import { bytes, count, percent } from "../format.js";
import { html } from "../lib.js";
import { HeatMap } from "./heatmap.js";

const Fact = ({ name, value, title }) => html`<div title=${title}><dt>${name}</dt><dd>${value}</dd></div>`;

function Layers({ cache }) {
  return html`<details class="more"><summary>Layers as a table</summary><div class="table" tabindex="0" role="region" aria-label="Layers"><table>
    <thead><tr><th scope="col">Layer</th><th scope="col" class="number">Copies</th><th scope="col" class="number">Hit rate</th><th scope="col" class="number">Used experts</th><th scope="col">Most selected</th></tr></thead>
    <tbody>${cache.layers.map((layer) => html`<tr key=${layer.layer}><td>${layer.layer}</td><td class="number">${layer.resident} of ${layer.experts}</td><td class="number">${percent(layer.hit_rate ?? NaN, 1)}</td><td class="number">${layer.distinct}</td>
      <td>${layer.top.slice(0, 4).map((one) => `${one.expert}${one.resident ? "" : " (no copy)"}`).join(", ")}</td></tr>`)}</tbody></table></div></details>`;
}

function Cache({ model, cache }) {
  const total = cache.since_start;
  return html`<div class="cache"><h3>${model}</h3>
    <dl class="facts">
      <${Fact} name="Hit rate" value=${percent(cache.last_minute.hit_rate ?? total.hit_rate ?? NaN, 1)} title="Selected experts that had a copy: of the last minute, or since the start where nothing was decoded" />
      <${Fact} name="Copies" value=${`${count(cache.resident)} of ${count(cache.capacity)}`} title="Experts with a copy, and how many can have one" />
      <${Fact} name="Size" value=${bytes(cache.cache_bytes)} />
      <${Fact} name="Uploads" value=${`${count(total.uploads)}, ${bytes(total.upload_bytes)}`} />
      <${Fact} name="Policy" value=${cache.policy} />
      <${Fact} name="On" value=${cache.device === "gpu" ? "GPU" : "CPU"} />
    </dl>
    ${cache.heatmap?.layers.length > 0 ? html`<${HeatMap} model=${model} cache=${cache} />` : html`<p class="muted">No layer has been seen yet.</p>`}
    <${Layers} cache=${cache} />
  </div>`;
}

export function Experts({ experts }) {
  const caches = experts.models.filter((model) => model.cache);
  return html`<section class="block wide" aria-labelledby="experts-title"><h2 id="experts-title">Experts</h2>
    ${caches.length === 0
      ? html`<p class="muted">No model here keeps copies of hot experts: none has routed experts that would not fit, or no GPU to hold copies.</p>`
      : caches.map(({ model, cache }) => html`<${Cache} key=${model} model=${model} cache=${cache} />`)}
  </section>`;
}
