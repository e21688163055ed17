// Our own line drawings, on a grid of 24.

import { html } from "./lib.js";

const PATHS = {
  chat: "M4 5h16v11H9l-5 4z",
  machine: "M4 19V9m5.300 10V5m5.400 14v-7M20 19V7",
  menu: "M4 6h16M4 12h16M4 18h10",
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5m-6 6 6-6 6 6",
  stop: "M7 7h10v10H7z",
  sliders: "M4 8h9m5 0h2M4 16h2m5 0h9M13 5.500v5M8.500 13.500v5",
  copy: "M9 9h10v10H9zM5 15V5h10",
  edit: "M5 19h4L19 9l-4-4L5 15zM13 7l4 4",
  again: "M19 12a7 7 0 1 1-2.200-5.100M19 4v4h-4",
  left: "m14 6-6 6 6 6",
  right: "m10 6 6 6-6 6",
  down: "M12 5v14m-6-6 6 6 6-6",
  close: "M6 6l12 12M18 6 6 18",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  save: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  tool: "M14.500 6.500a4 4 0 0 1 5-1l-2.700 2.700 1.500 1.500L21 7a4 4 0 0 1-5.500 4.800L8 19.500 4.500 16l7.700-7.500a4 4 0 0 1 2.300-2z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2m0 16v2M2 12h2m16 0h2M5 5l1.400 1.400m11.200 11.200L19 19m0-14-1.400 1.400M6.400 17.600 5 19",
  moon: "M19 14.500A7.500 7.500 0 0 1 9.500 5 7.500 7.500 0 1 0 19 14.500z",
  system: "M4 5h16v11H4zM9 20h6",
  help: "M9.500 9a2.500 2.500 0 1 1 3.600 2.300c-.8.4-1.100 1-1.100 2.200M12 17h.01",
  key: "M14 10a4 4 0 1 0-3.500 4L12 12.500h2V11l1-1zM14 10l6 0 0 3",
  check: "m5 13 4 4L19 7",
  warning: "M12 4 3 19h18zM12 10v4m0 2.500h.01",
};

export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;

export const Flame = () => html`<svg class="flame" viewBox="6 3 20 27" aria-hidden="true">
  <path class="flame-outer" d="M16.600 4.500c.6 4.200-1.400 6-3.600 8.300C10.700 15.200 8.500 17.600 8.500 21a7.500 7.500 0 0 0 15 0c0-2.600-1.100-4.400-2.300-6-.4 1.500-1.200 2.500-2.400 3 .7-4.700-.3-9.900-2.200-13.500Z" />
  <path class="flame-inner" d="M16.200 17.500c.2 2-3.200 3-3.200 6a3 3 0 0 0 6 0c0-2.300-1.600-3.600-2.800-6Z" />
</svg>`;
