// What lies where: the plan beside what was allocated.

import { bytes } from "../format.js";
import { html } from "../lib.js";

const KINDS = [
  ["weights", "weights"],
  ["experts", "routed experts"],
  ["expert-cache", "expert cache"],
  ["kv", "keys and values"],
  ["recurrent", "recurrent state"],
  ["compute", "compute buffers"],
];
const TIERS = { gpu: "GPU", ram: "Main memory" };

const total = (kinds) => Object.values(kinds).reduce((sum, value) => sum + value, 0);

/** By tier and kind over all models. */
function sums(models, which) {
  const tiers = {};
  for (const model of models) {
    for (const [tier, kinds] of Object.entries(model[which] ?? {})) {
      const into = (tiers[tier] ??= {});
      for (const [kind, value] of Object.entries(kinds)) into[kind] = (into[kind] ?? 0) + value;
    }
  }
  return tiers;
}

function Bar({ name, kinds, scale }) {
  const parts = KINDS.filter(([kind]) => kinds[kind] > 0);
  const label = `${name}: ${bytes(total(kinds))}. ${parts.map(([kind, words]) => `${words} ${bytes(kinds[kind])}`).join(", ")}`;
  return html`<div class="bar-line"><span>${name}</span>
    <div class="bar" role="img" aria-label=${label}>${parts.map(
      ([kind, words]) => html`<i key=${kind} class=${`kind ${kind}`} style=${{ width: `${(kinds[kind] / scale) * 100}%` }} title=${`${words}: ${bytes(kinds[kind])}`}></i>`,
    )}</div><b>${bytes(total(kinds))}</b></div>`;
}

/** What is used of a memory by everybody. */
function Used({ name, used, all }) {
  return html`<div class="bar-line used"><span>${name}</span><meter min="0" max=${all} value=${used} aria-label=${`${name}: ${bytes(used)} of ${bytes(all)} in use`}></meter><b>${bytes(used)} <span class="muted">of ${bytes(all)}</span></b></div>`;
}

function Table({ models }) {
  const rows = models.flatMap((model) =>
    Object.keys({ ...model.planned, ...model.actual }).flatMap((tier) =>
      KINDS.filter(([kind]) => model.planned?.[tier]?.[kind] || model.actual?.[tier]?.[kind]).map(([kind, words]) => ({ model, tier, kind, words })),
    ),
  );
  return html`<details class="more"><summary>As a table</summary><div class="table" tabindex="0" role="region" aria-label="Memory by model, place and kind"><table>
    <thead><tr><th scope="col">Model</th><th scope="col">Where</th><th scope="col">What</th><th scope="col" class="number">Plan</th><th scope="col" class="number">Actual</th></tr></thead>
    <tbody>${rows.map(({ model, tier, kind, words }) => html`<tr key=${`${model.model}${tier}${kind}`}><td>${model.model}</td><td>${TIERS[tier] ?? tier}</td><td>${words}</td>
      <td class="number">${bytes(model.planned?.[tier]?.[kind] ?? 0)}</td><td class="number">${bytes(model.actual?.[tier]?.[kind] ?? 0)}</td></tr>`)}</tbody>
  </table></div></details>`;
}

export function Memory({ memory }) {
  const { models, host, devices, process } = memory;
  const planned = sums(models, "planned");
  const actual = sums(models, "actual");
  const tiers = ["gpu", "ram", ...Object.keys(actual)].filter((tier, index, all) => all.indexOf(tier) === index && (planned[tier] || actual[tier]));
  const kinds = KINDS.filter(([kind]) => tiers.some((tier) => planned[tier]?.[kind] || actual[tier]?.[kind]));
  return html`<section class="block" aria-labelledby="memory-title">
    <h2 id="memory-title">Memory</h2>
    ${tiers.map((tier) => {
      const scale = Math.max(total(planned[tier] ?? {}), total(actual[tier] ?? {}), 1);
      return html`<div class="tier" key=${tier}><h3>${TIERS[tier] ?? tier}</h3>
        <${Bar} name="Plan" kinds=${planned[tier] ?? {}} scale=${scale} /><${Bar} name="Actual" kinds=${actual[tier] ?? {}} scale=${scale} /></div>`;
    })}
    <ul class="legend">${kinds.map(([kind, words]) => html`<li key=${kind}><i class=${`key kind ${kind}`}></i>${words}</li>`)}</ul>
    <div class="tier"><h3>The machine</h3>
      ${devices.map((device) => html`<${Used} key=${device.name} name=${device.name} used=${device.total - device.free} all=${device.total} />`)}
      <${Used} name="RAM" used=${host.total - host.available} all=${host.total} />
      ${process.resident !== null && html`<${Used} name="hearth" used=${process.resident} all=${host.total} />`}
    </div>
    <${Table} models=${models} />
  </section>`;
}
