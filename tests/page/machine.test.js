// The view of the machine.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Bench, choose, reply, send } from "./browser.js";

let bench;
before(async () => (bench = await Bench.start()));
after(() => bench.end());

/** Has the reasoner decode something, from outside of the page. */
async function ask(text, model = "demo-reasoner") {
  const answer = await fetch(`${bench.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages: [{ role: "user", content: text }] }),
  });
  assert.equal(answer.status, 200);
}

/** What the reasoner's cache holds, when the uploads that the last answer asked for are over. */
async function settled() {
  let before;
  for (;;) {
    const { models } = await (await fetch(`${bench.url}/api/v1/expert-stats?detail=heatmap&model=demo-reasoner`)).json();
    const { cache } = models[0];
    if (before === cache.since_start.uploads) return cache;
    before = cache.since_start.uploads;
    await new Promise((done) => setTimeout(done, 500));
  }
}

const pixels = (page) => page.locator(".heat canvas").evaluate((canvas) => canvas.toDataURL());

test("the heat map draws layers and experts, marks copies, and follows the load", async () => {
  // What the page has not seen: "since the start" is another picture than "of late".
  await ask("Who wrote this?");
  const { heatmap, geometry } = await settled();
  const page = await bench.open("/#/machine");
  const canvas = page.locator(".heat canvas");
  await canvas.waitFor();
  await page.waitForFunction(() => document.querySelector(".heat canvas").width > 0);
  // One cell for each expert of each layer; the ones with a copy in another colour than the others.
  const seen = await canvas.evaluate((element, { layers, experts }) => {
    const pen = element.getContext("2d");
    const cell = element.width / experts;
    const { data } = pen.getImageData(0, 0, element.width, element.height);
    const colour = (layer, expert) => {
      const at = 4 * (Math.floor((layer + 0.15) * cell) * element.width + Math.floor((expert + 0.15) * cell));
      return [...data.slice(at, at + 3)];
    };
    return { height: element.height / cell, warm: Array.from({ length: layers }, (_, layer) => Array.from({ length: experts }, (_, expert) => colour(layer, expert)).map(([red, , blue]) => red - blue)) };
  }, { layers: geometry.layers, experts: geometry.experts });
  assert.equal(Math.round(seen.height), geometry.layers);
  heatmap.resident.forEach((copies, layer) => {
    const others = seen.warm[layer].filter((_, expert) => !copies.includes(expert));
    for (const expert of copies) assert.ok(seen.warm[layer][expert] > Math.max(...others), `layer ${layer}, expert ${expert}`);
  });
  // Two looks, so that there is something to compare with.
  await page.waitForTimeout(2500);
  const idle = await pixels(page);
  await ask("What is 17 + 25?");
  await page.waitForFunction((before) => document.querySelector(".heat canvas").toDataURL() !== before, idle);
  // From cell to cell with the keyboard.
  await page.getByRole("application").focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowDown");
  await page.getByText(/^Layer 1, expert 0: .*(has a|no) copy$/).waitFor();
  const now = await pixels(page);
  await page.getByLabel("Since the start").check();
  await page.waitForFunction((before) => document.querySelector(".heat canvas").toDataURL() !== before, now);
  await page.getByText("Layers as a table").click();
  assert.equal(await page.getByRole("region", { name: "Layers" }).locator("tbody tr").count(), geometry.layers);
  await bench.close(page);
});

test("memory is told as the server tells it, the plan beside what is", async () => {
  const { models } = await (await fetch(`${bench.url}/api/v1/memory`)).json();
  const page = await bench.open("/#/machine");
  for (const [name, which] of [["Plan", "planned"], ["Actual", "actual"]]) {
    const bar = page.getByRole("img", { name: new RegExp(`^${name}: `) });
    await bar.waitFor();
    const kinds = new Set(models.flatMap((model) => Object.keys(model[which].ram)));
    assert.equal(await bar.locator("i").count(), kinds.size);
    const widths = await bar.locator("i").evaluateAll((parts) => parts.map((part) => part.getBoundingClientRect().width));
    assert.ok(widths.every((width) => width >= 1), `${widths}`);
    const total = models.flatMap((model) => Object.values(model[which].ram)).reduce((sum, bytes) => sum + bytes, 0);
    const said = /: ([\d.]+) MiB/.exec(await bar.getAttribute("aria-label"))[1];
    assert.ok(Math.abs(Number(said) - total / 2 ** 20) < 1, `${said} of ${total}`);
  }
  await page.getByText("As a table", { exact: true }).click();
  await page.getByRole("cell", { name: "recurrent state" }).waitFor();
  await bench.close(page);
});

test("charts and slots follow the load", async () => {
  const page = await bench.open("/#/machine");
  const chart = (title) => page.getByRole("img", { name: new RegExp(`^${title},`) });
  await chart("Tokens generated").waitFor();
  const slots = page.getByLabel("Slots of demo-narrator").getByRole("listitem");
  await slots.first().waitFor();
  assert.equal(await slots.count(), 4);
  await page.waitForTimeout(2500);
  await Promise.all([ask("Describe an old tavern by the sea.", "demo-narrator"), ask("What is 17 + 25?")]);
  await page.waitForFunction(() => /demo-narrator: [1-9]/.test(document.querySelector("svg[aria-label^='Tokens generated']").getAttribute("aria-label")));
  await page.waitForFunction(() => /demo-reasoner: [1-9]\d* %/.test(document.querySelector("svg[aria-label^='Expert hit rate']").getAttribute("aria-label")));
  assert.ok((await chart("Tokens generated").locator("path").first().getAttribute("d")).length > 10);
  await page.getByLabel("Slots of demo-narrator").getByText(/^holds/).first().waitFor();
  await bench.close(page);
});

test("a server that keeps its metrics to itself is asked for them once", async () => {
  let asked = 0;
  const page = await bench.open("/#/machine", {
    before: (fresh) =>
      fresh.route(/:\d+\/metrics$/, (route) => {
        asked += 1;
        return reply(route, 401, { error: { message: "the metrics need a key of their own" } });
      }),
  });
  await page.locator("svg[aria-label^='Tokens generated']").waitFor();
  await page.waitForTimeout(4500);
  await ask("What is 17 + 25?");
  // What the caches of experts count is still there.
  await page.waitForFunction(() => /demo-reasoner: [1-9]/.test(document.querySelector("svg[aria-label^='Tokens generated']").getAttribute("aria-label")));
  assert.equal(asked, 1);
  assert.equal(await page.getByRole("alert").count(), 0);
  await bench.close(page, { allowed: [/status of 401/] });
});

test("models are unloaded and loaded", async () => {
  const page = await bench.open("/#/machine");
  const slots = page.getByLabel("Slots of demo-narrator");
  await slots.waitFor();
  await page.getByRole("button", { name: "Unload demo-narrator" }).click();
  const load = page.getByRole("button", { name: "Load demo-narrator" });
  await load.waitFor();
  await slots.waitFor({ state: "detached" });
  await load.click();
  await slots.waitFor();
  await page.getByRole("button", { name: "Unload demo-narrator" }).click();
  await load.waitFor();
  // A question brings it back.
  await page.getByRole("link", { name: "Chat" }).click();
  await choose(page, "demo-narrator");
  await send(page, "Hello!");
  await page.locator(".message.assistant > .prose").waitFor();
  // An error is told where it happened.
  await page.getByRole("link", { name: "Machine" }).click();
  await page.route("**/models/unload", (route) => reply(route, 409, { error: { message: "it answers somebody" } }));
  await page.getByRole("button", { name: "Unload demo-narrator" }).click();
  await page.getByRole("alert").getByText("it answers somebody").waitFor();
  await bench.close(page, { allowed: [/status of 409/] });
});

test("the progress of loading is a bar", async () => {
  // The built-in models load too quickly to be seen.
  const status = { value: "loading", progress: 0.25 };
  const page = await bench.open("/", {
    before: (fresh) =>
      fresh.route("**/v1/models", async (route) => {
        const response = await route.fetch();
        const body = await response.json();
        body.data.find((model) => model.id === "demo-reasoner").status = status;
        return route.fulfill({ response, json: body });
      }),
  });
  await page.getByLabel("Message", { exact: true }).fill("What is 2 + 3?");
  await page.keyboard.press("Enter");
  const bar = page.getByRole("progressbar", { name: "Loading of the model" });
  await bar.waitFor();
  assert.equal(await bar.evaluate((element) => element.value), 0.25);
  await page.getByRole("link", { name: "Machine" }).click();
  const other = page.getByRole("progressbar", { name: "Loading of demo-reasoner" });
  await other.waitFor();
  status.progress = 0.75;
  await page.waitForFunction((element) => element.value === 0.75, await other.elementHandle());
  status.value = "loaded";
  await other.waitFor({ state: "detached" });
  // What was asked meanwhile is answered.
  await page.getByRole("link", { name: "Chat" }).click();
  await page.locator(".message.assistant > .prose").waitFor();
  Object.assign(status, { value: "failed", reason: "the file is damaged" });
  await page.getByRole("link", { name: "Machine" }).click();
  await page.getByRole("alert").getByText("the file is damaged").waitFor();
  await bench.close(page);
});

test("a server that goes away is missed, and found again", async () => {
  const page = await bench.open("/#/machine");
  await page.getByRole("heading", { name: "Memory", exact: true }).waitFor();
  await page.route(/:\d+\/(v1|api|models|slots|metrics)\b/, (route) => route.abort());
  await page.getByRole("alert").getByText("The server does not answer").waitFor();
  await page.unrouteAll();
  await page.getByRole("alert").waitFor({ state: "detached" });
  await bench.close(page, { allowed: [/ERR_FAILED/] });
});
