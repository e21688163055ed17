// A real server, a real browser, and what tests ask of a page.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

// Packages are kept out of the checkout.
const require = createRequire(`${process.env.PAGE_MODULES}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** The built-in pair; the reasoner with copies of its hot experts, in main memory. */
const CONFIG = `
[server]
port = 0
shutdown_grace = "1s"
[[model]]
name = "demo-reasoner"
role = "reasoning"
path = "demo:reasoner"
experts = { placement = "cache", device = "cpu", cache = "25%" }
[[model]]
name = "demo-narrator"
role = "narrator"
path = "demo:narrator"
[[preset]]
name = "storyteller"
model = "demo-narrator"
system = "You are a storyteller."
`;

const READY_WITHIN = 60_000;
/** Chromium asks servers of its maker for this and that unless it is told not to. */
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync",
];

/** Starts a server on a free port; `{ url, stop }`. */
export async function serve(...flags) {
  const folder = mkdtempSync(join(tmpdir(), "hearth-page-"));
  writeFileSync(join(folder, "models.toml"), CONFIG);
  const child = spawn(process.env.HEARTH_BIN, ["serve", "--config", join(folder, "models.toml"), "--threads", "1", ...flags], {
    env: { ...process.env, HEARTH_CACHE: join(folder, "cache"), HEARTH_LOG: "warn,llama-cpp-2=error" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const stop = () => {
    child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  };
  process.once("exit", stop);
  let url = null;
  for await (const line of createInterface({ input: child.stdout })) {
    url = /http:\/\/\S+/.exec(line)?.[0];
    if (url) break;
  }
  assert.ok(url, "the server says where it listens");
  child.stdout.resume();
  const deadline = Date.now() + READY_WITHIN;
  for (;;) {
    const ready = await fetch(`${url}/readyz`).catch(() => null);
    if (ready?.ok) break;
    assert.ok(Date.now() < deadline, "the server is not ready after a minute");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { url, stop };
}

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });

/** What the tests of a file share: a server, a browser, and fresh pages that report what goes wrong in them. */
export class Bench {
  static async start(...flags) {
    const bench = new Bench();
    [bench.server, bench.browser] = await Promise.all([serve(...flags), launch()]);
    return bench;
  }

  get url() {
    return this.server.url;
  }

  /** A page of a new visitor, at `address`. `before` may route requests. */
  async open(address = "/", { before, ...options } = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    page.wrong = [];
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) page.wrong.push(message.text());
    });
    page.on("pageerror", (error) => page.wrong.push(error.stack));
    page.on("request", (request) => {
      if (!request.url().startsWith(this.url) && !/^(blob|data):/.test(request.url())) page.wrong.push(`asks elsewhere: ${request.url()}`);
    });
    if (before) await before(page);
    await page.goto(this.url + address);
    return page;
  }

  /** Ends with a page, which must have had nothing to complain about. */
  async close(page, { allowed = [] } = {}) {
    const wrong = page.wrong.filter((text) => !allowed.some((pattern) => pattern.test(text)));
    await page.unrouteAll({ behavior: "ignoreErrors" });
    await page.context().close();
    assert.deepEqual(wrong, []);
  }

  async end() {
    await this.browser.close();
    this.server.stop();
  }
}

/** Sends a message, and waits for the end of the answer. */
export async function send(page, text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.keyboard.press("Enter");
  await answered(page);
}

export async function answered(page) {
  await page.getByRole("button", { name: "Send", exact: true }).waitFor();
  await page.locator(".message.assistant[aria-busy=false]").last().waitFor();
}

export const choose = (page, model) => page.getByLabel("Model", { exact: true }).selectOption(model);

/** What axe finds wrong with the page as it is. */
export async function checkAccess(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html}: ${node.failureSummary}`).join("\n  ")}`);
  assert.deepEqual(found, []);
}

/** Nothing is wider than the window, so that nobody scrolls sideways. */
export async function checkWidth(page) {
  const { scroll, window: inner, out } = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const scrolled = (element) => {
      for (let above = element.parentElement; above; above = above.parentElement) {
        if (["auto", "scroll"].includes(getComputedStyle(above).overflowX) && above.scrollWidth > above.clientWidth && above.matches("[tabindex='0'], pre")) return true;
      }
      return false;
    };
    const visible = [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility() && !element.closest("svg, .hidden, .skip"));
    const over = visible.filter((element) => element.getBoundingClientRect().right > width + 1 && !scrolled(element));
    const sideways = visible.filter((element) => element.scrollWidth > element.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(element).overflowX) && !element.matches("[tabindex='0'], pre, textarea"));
    return { scroll: document.documentElement.scrollWidth, window: width, out: [...over, ...sideways].map((element) => element.outerHTML.slice(0, 120)) };
  });
  assert.deepEqual(out, []);
  assert.ok(scroll <= inner, `${scroll} > ${inner}`);
}

const chunk = (delta, finish = null, model = "demo-reasoner") => `data: ${JSON.stringify({ id: "x", model, choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;

/** Answers that go on until `finish()`, however fast the machine is. `through(page)` has a page's chats answered so. */
export async function endless() {
  const streams = new Map();
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    const { model } = JSON.parse(body);
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(chunk({ role: "assistant", content: null }, null, model));
    const timer = setInterval(() => response.write(chunk({ content: "word " }, null, model)), 50);
    streams.set(response, { timer, model });
    response.on("close", () => {
      clearInterval(timer);
      streams.delete(response);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${server.address().port}/`;
  return {
    through: (page) => page.route("**/v1/chat/completions", (route) => route.continue({ url })),
    finish: () => {
      for (const [response, { timer, model }] of streams) {
        clearInterval(timer);
        const usage = { prompt_tokens: 10, completion_tokens: 1500, total_tokens: 1510 };
        response.end(`${chunk({}, "length", model)}data: ${JSON.stringify({ id: "x", model, choices: [], usage })}\n\ndata: [DONE]\n\n`);
      }
    },
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** A streamed answer with this text, in pieces, for what no tiny model says by itself. */
export function scripted(text, { size = 7 } = {}) {
  const pieces = text.match(new RegExp(`[\\s\\S]{1,${size}}`, "g"));
  return [chunk({ role: "assistant", content: null }), ...pieces.map((content) => chunk({ content })), chunk({}, "stop"), "data: [DONE]\n\n"].join("");
}

/** Answers chats with `body`. */
export const mockChat = (page, body) => page.route("**/v1/chat/completions", (route) => route.fulfill({ contentType: "text/event-stream", body }));

/** A JSON answer with a status. */
export const reply = (route, status, body, headers = {}) => route.fulfill({ status, contentType: "application/json", headers, body: JSON.stringify(body) });
