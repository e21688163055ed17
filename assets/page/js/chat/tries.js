// Goes through what was tried in one place of a conversation.

import { Icon } from "../icons.js";
import { html } from "../lib.js";

export function Tries({ tries, onChoose, what }) {
  const { all, index } = tries;
  if (all.length < 2) return null;
  const step = (name, icon, to) => html`<button type="button" class="quiet icon-button" aria-label=${`${name} ${what}`} disabled=${!all[to]} onClick=${() => onChoose(all[to])}><${Icon} name=${icon} /></button>`;
  return html`<span class="tries">
    ${step("Previous", "left", index - 1)}<span aria-label=${`${what} ${index + 1} of ${all.length}`} role="img">${index + 1}/${all.length}</span>${step("Next", "right", index + 1)}
  </span>`;
}
