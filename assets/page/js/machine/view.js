// The machine: what is loaded, what lies where, what is done.

import { percent, short } from "../format.js";
import { html, useEffect, useValue } from "../lib.js";
import * as models from "../models.js";
import { Trouble } from "../trouble.js";
import { Chart } from "./chart.js";
import { Experts } from "./experts.js";
import { Memory } from "./memory.js";
import { Models } from "./models.js";
import { latest, samples, trouble, watched } from "./sampler.js";

function Charts() {
  const all = useValue(samples);
  const { experts } = useValue(latest);
  // In the order of the models, so that each keeps its colour.
  const names = useValue(models.plain).map((model) => model.id);
  const cached = names.filter((name) => experts?.models.some((model) => model.model === name && model.cache));
  const series = (of, field) => of.map((name) => ({ name, index: names.indexOf(name), points: all.map(({ at, rates }) => ({ at, value: rates[name]?.[field] ?? null })) }));
  const perSecond = (value) => `${short(value)}/s`;
  return html`<section class="block wide" aria-labelledby="time-title"><h2 id="time-title">Over time</h2>
    <div class="charts">
      <${Chart} title="Tokens generated" series=${series(names, "decode")} say=${perSecond} empty="Nothing yet" />
      <${Chart} title="Prompt tokens computed" series=${series(names, "prefill")} say=${perSecond} empty="Nothing yet" />
      ${cached.length > 0 && html`<${Chart} title="Expert hit rate" series=${series(cached, "hitRate")} say=${(value) => percent(value)} top=${1} empty="No token was decoded yet" />
      <${Chart} title="Expert uploads" series=${series(cached, "uploads")} say=${perSecond} empty="Nothing yet" />`}
    </div></section>`;
}

export function Machine() {
  useEffect(() => {
    watched.value = true;
    return () => (watched.value = false);
  }, []);
  const { memory, experts, at } = useValue(latest);
  const failed = useValue(trouble);
  return html`<div class="machine"><div class="machine-in">
    <h1 class="hidden">Machine</h1>
    ${failed && html`<${Trouble} error=${failed} />`}
    ${at === null && !failed && html`<p class="muted">One moment…</p>`}
    <${Models} />
    ${memory && html`<${Memory} memory=${memory} />`}
    ${experts && html`<${Experts} experts=${experts} />`}
    <${Charts} />
  </div></div>`;
}
