// Why something is not known, and what helps.

import { Icon } from "./icons.js";
import { html } from "./lib.js";
import { refresh } from "./models.js";

export function Trouble({ error }) {
  return html`<div class="failure" role="alert"><${Icon} name=${error.status === 401 ? "key" : "warning"} />
    <div><p>${error.message}</p>
      ${error.status === 401 && html`<div class="row"><button type="button" onClick=${() => refresh()}>Enter a key</button></div>`}</div>
  </div>`;
}
