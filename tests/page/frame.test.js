// What holds for all of the page: access, width, themes, keys, and what its parts do by themselves.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Bench, answered, checkAccess, checkWidth, endless, mockChat, scripted, send } from "./browser.js";

let bench;
before(async () => (bench = await Bench.start()));
after(() => bench.end());

const TEXT = [
  "# A heading", "A paragraph with `code`, **weight** and [a link](https://example.com/).", "* one\n* two", "> quoted", `\`\`\`js\nconst wide = "${"x".repeat(200)}";\n\`\`\``,
  `| ${Array.from({ length: 12 }, (_, column) => `column ${column}`).join(" | ")} |\n|${"---|".repeat(12)}\n| ${Array.from({ length: 12 }, () => "value").join(" | ")} |`, "y".repeat(300),
].join("\n\n");

const VIEWS = [
  { name: "phone, light", viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, colorScheme: "light" },
  { name: "desktop, light", viewport: { width: 1440, height: 900 }, colorScheme: "light" },
  { name: "desktop, dark", viewport: { width: 1440, height: 900 }, colorScheme: "dark" },
  { name: "tablet, dark", viewport: { width: 820, height: 1000 }, colorScheme: "dark" },
];

for (const { name, ...options } of VIEWS) {
  test(`everyone can use it, and nothing is too wide: ${name}`, async () => {
    const page = await bench.open("/", options);
    const check = async () => {
      await checkAccess(page);
      await checkWidth(page);
    };
    await page.getByRole("button", { name: "What is the weather in Paris?" }).waitFor();
    await check();
    await page.getByRole("button", { name: "What is the weather in Paris?" }).click();
    await page.getByRole("region", { name: "Call of get_weather" }).waitFor();
    await answered(page);
    await check();
    await page.getByRole("button", { name: "Options of the conversation" }).click();
    await check();
    await page.getByLabel("Tools (JSON)").fill("");
    await page.getByRole("button", { name: "Close the options" }).click();
    await page.evaluate(() => (location.hash = "#/"));
    await page.getByRole("heading", { name: "What shall we talk about?" }).waitFor();
    await page.getByLabel("Message", { exact: true }).fill("What is 17 + 25?");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await answered(page);
    await mockChat(page, scripted(TEXT));
    await page.getByLabel("Message", { exact: true }).fill("wide ".repeat(30) + "z".repeat(200));
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByRole("heading", { name: "A heading" }).waitFor();
    await answered(page);
    await check();
    if (options.viewport.width < 821) {
      await page.getByRole("button", { name: "Conversations", exact: true }).click();
      await page.getByRole("button", { name: "New conversation" }).waitFor();
      await check();
      await page.keyboard.press("Escape");
    }
    await page.getByRole("button", { name: "Shortcuts" }).click();
    await check();
    await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
    await page.getByRole("link", { name: "Machine" }).click();
    await page.locator(".heat canvas").waitFor();
    await page.getByText("As a table", { exact: true }).click();
    await check();
    await bench.close(page);
  });
}

test("the theme follows the system until one is chosen, without a flash", async () => {
  const page = await bench.open("/", { colorScheme: "dark" });
  const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const dark = await paper();
  await page.getByRole("button", { name: "Theme: As the system" }).click();
  await page.getByRole("button", { name: "Theme: Light" }).waitFor();
  const light = await paper();
  assert.notEqual(light, dark);
  // Set before the modules run.
  await page.route("**/js/main.js", (route) => route.fulfill({ contentType: "text/javascript", body: "" }));
  await page.reload();
  assert.equal(await paper(), light);
  await bench.close(page);
});

test("the keyboard is enough", async () => {
  const page = await bench.open("/", { before: (fresh) => mockChat(fresh, scripted("Fine.")) });
  // The field has the focus.
  await page.waitForFunction(() => document.activeElement?.id === "prompt");
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  await page.keyboard.press("Enter");
  await answered(page);
  await page.getByRole("article", { name: "You" }).getByText("one two").waitFor();
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("End");
  await page.keyboard.type(" three");
  await page.keyboard.press("Control+Enter");
  await page.getByRole("img", { name: "version 2 of 2" }).waitFor();
  await answered(page);
  await page.keyboard.press("Control+.");
  await page.getByRole("heading", { name: "Options" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("heading", { name: "Options" }).waitFor({ state: "detached" });
  await page.keyboard.press("Control+k");
  await page.waitForFunction(() => document.activeElement?.id === "search");
  await page.keyboard.press("Control+Shift+O");
  await page.getByRole("heading", { name: "What shall we talk about?" }).waitFor();
  await page.keyboard.press("Control+Shift+M");
  await page.getByRole("heading", { name: "Memory", exact: true }).waitFor();
  await page.keyboard.press("Control+/");
  await page.getByRole("dialog", { name: "Shortcuts" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  // The first stop of the tab key leads past the head.
  await page.evaluate(() => document.activeElement.blur());
  await page.reload();
  await page.getByRole("heading", { name: "Memory", exact: true }).waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await bench.close(page);
});

test("screen readers hear an answer paragraph by paragraph", async () => {
  const page = await bench.open("/", { before: (fresh) => mockChat(fresh, scripted("The first part.\n\nThe second part.\n\n```\ncode\n```")) });
  await send(page, "Hello!");
  const log = page.getByRole("log", { name: "Progress of the answer" });
  await log.getByText("The answer is complete.").waitFor();
  assert.deepEqual(await log.locator("p").allInnerTexts(), ["The first part.", "The second part.", "Code.", "The answer is complete."]);
  await bench.close(page);
});

test("another tab sees what is written in this one", async () => {
  const page = await bench.open("/", { before: (fresh) => mockChat(fresh, scripted("Fine.")) });
  const other = await page.context().newPage();
  await other.goto(bench.url);
  await other.getByText("Conversations are kept in this browser").waitFor();
  await send(page, "From the first tab");
  await other.getByRole("link", { name: "From the first tab" }).click();
  await other.getByRole("article", { name: "You" }).getByText("From the first tab").waitFor();
  await bench.close(page);
});

test("two tabs write to one conversation, and nothing is lost", async () => {
  const answers = await endless();
  const page = await bench.open("/", { before: answers.through });
  await page.evaluate(() => localStorage.setItem("hearth.model", '"demo-narrator"'));
  await page.reload();
  await page.getByPlaceholder("Ask demo-narrator").fill("Describe an old tavern by the sea.");
  await page.keyboard.press("Enter");
  await page.locator(".message.assistant .prose").waitFor();
  await page.waitForTimeout(700);
  const other = await page.context().newPage();
  await answers.through(other);
  await other.goto(page.url());
  await other.getByText("Another tab writes this.").waitFor();
  await other.getByLabel("Model", { exact: true }).selectOption("demo-reasoner");
  await other.getByRole("button", { name: "Regenerate" }).click();
  await other.getByRole("img", { name: "answer 2 of 2" }).waitFor();
  await other.locator(".message.assistant .prose").waitFor();
  await other.keyboard.press("Escape");
  await other.getByText("Stopped.", { exact: true }).waitFor();
  answers.finish();
  await answered(page);
  await page.getByRole("img", { name: "answer 1 of 2" }).waitFor();
  await page.waitForTimeout(3000);
  await page.reload();
  await answered(page);
  for (const model of ["demo-narrator", "demo-reasoner"]) {
    if ((await page.getByRole("article", { name: `Answer of ${model}` }).count()) === 0) await page.getByRole("button", { name: /^(Previous|Next) answer$/, disabled: false }).click();
    const answer = page.getByRole("article", { name: `Answer of ${model}` });
    await answer.getByText(model === "demo-narrator" ? "1,500 tokens" : "Stopped.", { exact: true }).waitFor();
  }
  answers.close();
  await bench.close(page);
});

test("pure parts", async () => {
  const page = await bench.open();
  const results = await page.evaluate(async () => {
    const part = (path) => import(`/page/js/${path}.js`);
    const [{ events }, tree, request, { Answer }, format, { counters }, { ceiling }] = await Promise.all(
      ["sse", "tree", "chat/request", "chat/answer", "format", "machine/sampler", "machine/chart"].map(part),
    );
    // Events that arrive in any pieces, with a letter of several bytes cut in two.
    const bytes = new TextEncoder().encode(": ping\n\ndata: {\"a\":\"wö\"}\n\ndata: one\ndata: two\r\n\r\ndata: [DONE]\n\ndata: cut");
    const lists = [];
    // Text that grows by any pieces is read as at once.
    const { readOn } = await part("chat/markdown");
    const text = "# A\n\nB\n===\n\n* one\n* two\n\n  more\n\n```js\n# no\n\n* no\n```\nend\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> q\n> r\n\n1. x\n\n2. y\n".repeat(3);
    const raws = ({ tokens }) => tokens.map((token) => token.type + token.raw);
    const grown = [];
    for (const size of [1, 2, 3, 5, 8, 13, 50]) {
      let read = { text: "", tokens: [] };
      for (let at = 0; at < text.length; at += size) read = readOn(read, text.slice(0, at + size));
      grown.push(JSON.stringify(raws(read)) === JSON.stringify(raws(readOn({ text: "", tokens: [] }, text))));
    }
    for (let size = 1; size < bytes.length; size += 3) {
      const stream = new ReadableStream({
        start(controller) {
          for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
          controller.close();
        },
      });
      const list = [];
      for await (const event of events(stream)) list.push(event);
      lists.push(JSON.stringify(list));
    }
    // A tree with two tries of an answer.
    let conversation = { nodes: {}, head: null };
    for (const [id, parent] of [["q", null], ["a", "q"], ["b", "q"], ["c", "a"]]) conversation = tree.add(conversation, parent, { id });
    const chosen = tree.choose(conversation, "b");
    const answer = new Answer();
    for (const delta of [
      { tool_calls: [{ index: 1, id: "y", function: { name: "g", arguments: "{" } }] },
      { tool_calls: [{ index: 0, id: "x", function: { name: "f", arguments: "" } }] },
      { tool_calls: [{ index: 1, function: { arguments: "}" } }] },
    ]) answer.take({ choices: [{ delta }] }, 5);
    return {
      grown,
      events: [...new Set(lists)],
      paths: [tree.path(conversation), tree.path(chosen), tree.path(tree.choose(conversation, "a"))].map((nodes) => nodes.map((node) => node.id).join("")),
      siblings: tree.families(conversation).get("q"),
      calls: answer.node(0).calls.map((call) => call.name + call.arguments),
      tools: ["", "[", '{"name": "f"}', "[{}]"].map((text) => { const { tools, problem } = request.parseTools(text); return tools.length + (problem ? "!" : ""); }),
      numbers: [format.bytes(1536), format.bytes(0), format.duration(999), format.duration(61_500), format.short(12_345), format.rate(NaN)],
      counters: counters('a{model="x",le="1"} 2\na{le="2",model="x"} 3\nb 4\nother{model="x"} 9\n', ["a", "b"]),
      ceilings: [0, 0.3, 1, 11, 99].map(ceiling),
    };
  });
  assert.deepEqual(results, {
    grown: Array(7).fill(true),
    events: ['["{\\"a\\":\\"wö\\"}","one\\ntwo","[DONE]"]'],
    paths: ["qac", "qb", "qac"],
    siblings: ["a", "b"],
    calls: ["f", "g{}"],
    tools: ["0", "0!", "1", "0!"],
    numbers: ["1.5 KiB", "0 B", "999 ms", "1 min 01 s", "12k", "–"],
    counters: { x: { a: 5 } },
    ceilings: [1, 0.5, 1, 20, 100],
  });
  await bench.close(page);
});
