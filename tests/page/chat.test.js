// Conversations.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { Bench, answered, choose, mockChat, reply, scripted, send } from "./browser.js";

let bench;
before(async () => (bench = await Bench.start()));
after(() => bench.end());

const last = (page) => page.locator(".message.assistant").last();
const prose = (page) => last(page).locator("> .prose");
/** Greedy answers are the same each time. */
const plain = (page) => page.evaluate(() => localStorage.setItem("hearth.options", JSON.stringify({ sampling: { temperature: 0 } })));

test("an answer with reasoning, its numbers, and the history", async () => {
  const page = await bench.open();
  await plain(page);
  await page.reload();
  await send(page, "What is 17 + 25?");
  await assert.doesNotReject(prose(page).getByText("42").waitFor());
  assert.match(await last(page).locator(".reasoning-text").innerText(), /17 \+ 25/);
  const numbers = await last(page).locator(".numbers").innerText();
  assert.match(numbers, /\d+ tokens/);
  assert.match(numbers, /tokens\/s/);
  assert.match(numbers, /first token \d/);
  assert.match(page.url(), /#\/chat\//);
  // It is there after a reload, and under its title.
  await page.waitForTimeout(800);
  await page.reload();
  await prose(page).getByText("42").waitFor();
  const history = page.getByRole("navigation", { name: "Conversations" });
  await history.getByRole("link", { name: "What is 17 + 25?" }).waitFor();
  // A follow-up knows what was said.
  const asked = page.waitForRequest("**/v1/chat/completions");
  await send(page, "Thanks!");
  const { messages } = (await asked).postDataJSON();
  assert.deepEqual(messages.map((message) => message.role), ["user", "assistant", "user"]);
  assert.match(messages[1].reasoning_content, /17 \+ 25/);
  await bench.close(page);
});

test("the switch shows and hides reasoning, and is remembered", async () => {
  const page = await bench.open();
  await send(page, "What is 12 + 30?");
  const box = last(page).locator(".reasoning-text");
  await box.waitFor();
  await page.getByRole("switch", { name: /reasoning/i }).uncheck();
  await box.waitFor({ state: "detached" });
  await page.reload();
  await answered(page);
  assert.equal(await box.count(), 0);
  assert.equal(await page.getByRole("switch", { name: /reasoning/i }).isChecked(), false);
  // One box can still be opened.
  await last(page).locator("summary").click();
  await box.waitFor();
  await bench.close(page);
});

test("an answer is streamed, and Escape stops it", async () => {
  const page = await bench.open();
  await choose(page, "demo-narrator");
  await page.evaluate(() => (globalThis.lengths = new Set()));
  await page.evaluate(() => {
    new MutationObserver(() => {
      const text = document.querySelector(".message.assistant > .prose")?.textContent ?? "";
      globalThis.lengths.add(text.length);
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  await page.getByRole("button", { name: "Options of the conversation" }).click();
  await page.getByLabel("Further fields (JSON)").fill('{"ignore_eos": true}');
  await page.getByRole("button", { name: "Close the options" }).click();
  await page.getByLabel("Message", { exact: true }).fill("Describe an old tavern by the sea.");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await page.waitForFunction(() => globalThis.lengths.size > 5);
  await page.keyboard.press("Escape");
  await last(page).getByText("Stopped.", { exact: true }).waitFor();
  const text = await prose(page).innerText();
  assert.ok(text.length > 10, text);
  // The server has let go of it, too.
  for (let left = 100; ; left -= 1) {
    const slots = await (await fetch(`${bench.url}/slots?model=demo-narrator`)).json();
    if (slots.every((slot) => !slot.is_processing)) break;
    assert.ok(left > 0, "a slot still works");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await bench.close(page);
});

test("regenerating keeps the first answer, and editing the first question", async () => {
  const page = await bench.open();
  await choose(page, "demo-narrator");
  await send(page, "Hello!");
  const first = await prose(page).innerText();
  await last(page).getByRole("button", { name: "Regenerate" }).click();
  await last(page).getByRole("img", { name: "answer 2 of 2" }).waitFor();
  await answered(page);
  await last(page).getByRole("button", { name: "Previous answer" }).click();
  await last(page).getByRole("img", { name: "answer 1 of 2" }).waitFor();
  assert.equal(await prose(page).innerText(), first);
  await page.getByRole("article", { name: "You" }).getByRole("button", { name: "Edit" }).click();
  await page.getByLabel("Edit the message").fill("Describe a forest.");
  await page.getByRole("button", { name: "Send", exact: true }).first().click();
  await page.getByText("Describe a forest.").first().waitFor();
  await answered(page);
  const you = page.getByRole("article", { name: "You" });
  await you.getByRole("img", { name: "version 2 of 2" }).waitFor();
  await you.getByRole("button", { name: "Previous version" }).click();
  await you.getByText("Hello!").waitFor();
  await bench.close(page);
});

test("a call is a card, and its result goes back to the model", async () => {
  const page = await bench.open();
  await page.getByRole("button", { name: "Options of the conversation" }).click();
  await page.getByLabel("Temperature").fill("0");
  const tools = page.getByLabel("Tools (JSON)");
  await tools.fill("[{");
  await page.getByText(/^Not JSON/).waitFor();
  await tools.fill("");
  await page.getByRole("button", { name: "Insert an example" }).click();
  await page.getByText("The model may call get_weather").waitFor();
  await page.keyboard.press("Escape");
  await send(page, "What is the weather in Paris?");
  const card = page.getByRole("region", { name: "Call of get_weather" });
  await card.getByText("Paris").waitFor();
  assert.equal(await page.getByRole("button", { name: "Send the result" }).isDisabled(), true);
  await card.getByLabel("Result", { exact: true }).fill('{"temperature": 21, "sky": "clear"}');
  const asked = page.waitForRequest("**/v1/chat/completions");
  await page.getByRole("button", { name: "Send the result" }).click();
  const { messages } = (await asked).postDataJSON();
  assert.equal(messages.at(-1).role, "tool");
  assert.equal(messages.at(-1).tool_call_id, messages.at(-2).tool_calls[0].id);
  await answered(page);
  await prose(page).getByText("21").waitFor();
  await card.getByText('"sky": "clear"').waitFor();
  // Another result begins a branch.
  await card.getByRole("button", { name: "Change the result of get_weather" }).click();
  await card.getByLabel("Result", { exact: true }).fill('{"temperature": 5, "sky": "rain"}');
  await page.getByRole("button", { name: "Send the result" }).click();
  await page.getByRole("img", { name: "result 2 of 2" }).waitFor();
  await answered(page);
  await page.getByRole("button", { name: "Previous result" }).click();
  await card.getByText('"sky": "clear"').waitFor();
  await bench.close(page);
});

test("code has a copy button, and nothing of a model's HTML is more than text", async () => {
  const code = 'fn main() {\n    println!("<b>hi</b>");\n}';
  const text = [
    "# Title", "Some **bold** text.", `\`\`\`rust\n${code}\n\`\`\``, "<script>globalThis.hacked = 1</script>", '<img src="x" onerror="globalThis.hacked = 2">',
    "[a link](https://example.com/) [bad](javascript:globalThis.hacked=3) ![picture](https://example.com/x.png)", "| a | b |\n|---|---|\n| 1 | 2 |",
  ].join("\n\n");
  const page = await bench.open("/", { permissions: ["clipboard-read", "clipboard-write"], before: (fresh) => mockChat(fresh, scripted(text)) });
  await send(page, "Show me code.");
  await last(page).getByRole("heading", { name: "Title" }).waitFor();
  assert.equal(await last(page).locator("strong").innerText(), "bold");
  await last(page).getByRole("button", { name: "Copy the rust code" }).click();
  await last(page).getByText("Copied").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), code);
  assert.match(await prose(page).innerText(), /<script>globalThis\.hacked = 1<\/script>/);
  assert.equal(await prose(page).locator("script, img, iframe, [onerror], [style]").count(), 0);
  assert.deepEqual(await prose(page).locator("a").evaluateAll((links) => links.map((link) => link.getAttribute("href"))), ["https://example.com/", null, "https://example.com/x.png"]);
  assert.equal(await prose(page).locator("td").count(), 2);
  assert.equal(await page.evaluate(() => globalThis.hacked), undefined);
  await bench.close(page);
});

test("the prompt's progress is a bar", async () => {
  const page = await bench.open();
  await page.evaluate(() => localStorage.setItem("hearth.options", JSON.stringify({ sampling: { max_tokens: 4 } })));
  await page.reload();
  await page.evaluate(() => {
    globalThis.bars = [];
    new MutationObserver(() => {
      const bar = document.querySelector(".message progress");
      if (bar) globalThis.bars.push([bar.value, bar.max]);
    }).observe(document.body, { subtree: true, childList: true, attributes: true });
  });
  await page.getByPlaceholder("Ask demo-reasoner").fill("one two three four five six seven ".repeat(150));
  await page.keyboard.press("Enter");
  await answered(page);
  const bars = await page.evaluate(() => globalThis.bars);
  assert.ok(bars.some(([value, max]) => max > 700 && value > 0 && value < max), JSON.stringify(bars.slice(0, 20)));
  await bench.close(page);
});

test("errors say what the server said, and can be tried again", async () => {
  const page = await bench.open();
  await page.getByLabel("Message", { exact: true }).fill("word ".repeat(9000));
  await page.keyboard.press("Enter");
  const failure = page.getByRole("alert");
  await failure.getByText("context_length_exceeded").waitFor();
  await failure.getByText(/4096/).first().waitFor();
  await page.getByRole("button", { name: "New conversation" }).click();
  await page.route("**/v1/chat/completions", (route) => reply(route, 429, { error: { message: "the queue is full", code: "queue_full" } }, { "retry-after": "3" }));
  await page.getByLabel("Message", { exact: true }).fill("What is 2 + 2?");
  await page.keyboard.press("Enter");
  await failure.getByText("the queue is full").waitFor();
  await failure.getByText("wait 3 seconds").waitFor();
  await page.unroute("**/v1/chat/completions");
  await failure.getByRole("button", { name: "Retry" }).click();
  await answered(page);
  await prose(page).waitFor();
  // An error in the middle keeps what there was.
  const broken = scripted("The beginning").replace(/data: \[DONE\]\n\n$/, 'data: {"error": {"message": "the engine failed"}}\n\n');
  await mockChat(page, broken);
  await page.getByLabel("Message", { exact: true }).fill("Go on.");
  await page.keyboard.press("Enter");
  await failure.getByText("the engine failed").waitFor();
  assert.equal(await prose(page).innerText(), "The beginning");
  await bench.close(page, { allowed: [/status of 4(00|29)/] });
});

test("conversations are renamed, found, exported, taken in, and deleted", async () => {
  const page = await bench.open("/", { before: (fresh) => mockChat(fresh, scripted("Fine.")) });
  await send(page, "First question");
  await page.getByRole("button", { name: "New conversation" }).click();
  await send(page, "Second question");
  const history = page.getByRole("navigation", { name: "Conversations" });
  await history.getByRole("button", { name: "More for First question" }).click();
  await history.getByRole("button", { name: "Rename" }).click();
  await history.getByLabel("Title of the conversation").fill("Renamed");
  await page.keyboard.press("Enter");
  await history.getByRole("link", { name: "Renamed" }).waitFor();
  await history.getByLabel("Search titles").fill("ren");
  assert.equal(await history.getByRole("link").count(), 1);
  await history.getByLabel("Search titles").fill("");
  const [markdown] = await Promise.all([page.waitForEvent("download"), history.getByRole("button", { name: "Markdown" }).click()]);
  assert.equal(markdown.suggestedFilename(), "Renamed.md");
  assert.match(readFileSync(await markdown.path(), "utf8"), /## You\n\nFirst question\n\n## demo-reasoner\n\nFine\./);
  const [all] = await Promise.all([page.waitForEvent("download"), history.getByRole("button", { name: "Export all" }).click()]);
  const exported = await all.path();
  assert.equal(JSON.parse(readFileSync(exported, "utf8")).length, 2);
  await history.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await history.getByRole("link", { name: "Renamed" }).waitFor({ state: "detached" });
  await page.locator("input[type=file]").setInputFiles({ name: "all.json", mimeType: "application/json", buffer: readFileSync(exported) });
  await history.getByText("2 of 2 taken over.").waitFor();
  await history.getByRole("link", { name: "Renamed" }).click();
  await page.getByRole("article", { name: "You" }).getByText("First question").waitFor();
  await bench.close(page);
});

test("a preset can be chosen, and options go with the request", async () => {
  const page = await bench.open();
  await choose(page, "storyteller");
  await page.getByRole("button", { name: "Options of the conversation" }).click();
  await page.getByLabel("System prompt").fill("Be brief.");
  await page.getByLabel("Top k").fill("5");
  await page.getByLabel("Max tokens").fill("9");
  const asked = page.waitForRequest("**/v1/chat/completions");
  await send(page, "Hello!");
  const body = (await asked).postDataJSON();
  assert.deepEqual([body.model, body.top_k, body.max_tokens, body.messages[0].content], ["storyteller", 5, 9, "Be brief."]);
  await last(page).getByText(/Cut off/).waitFor();
  await bench.close(page);
});

test("a server that asks for a key gets one", async () => {
  const page = await bench.open("/", {
    before: (fresh) =>
      fresh.route(/:\d+\/(v1|api|models|props|slots|metrics)\b/, async (route) => {
        const key = await route.request().headerValue("authorization");
        if (key === "Bearer secret") return route.continue();
        return reply(route, 401, { error: { message: key ? "this key is not known" : "a key is needed", code: "invalid_api_key" } });
      }),
  });
  const dialog = page.getByRole("dialog", { name: "API key" });
  await dialog.getByLabel("Key", { exact: true }).fill("wrong");
  await page.keyboard.press("Enter");
  await dialog.getByText("this key is not known").waitFor();
  // Whoever has none yet is not asked again and again.
  await page.keyboard.press("Escape");
  await page.waitForTimeout(1500);
  assert.equal(await dialog.count(), 0);
  await page.getByRole("button", { name: "Enter a key" }).click();
  await dialog.getByLabel("Key", { exact: true }).fill("secret");
  await dialog.getByRole("button", { name: "Use the key" }).click();
  await send(page, "What is 2 + 3?");
  await prose(page).waitFor();
  assert.deepEqual(await page.evaluate(() => [sessionStorage.getItem("hearth.key"), localStorage.getItem("hearth.key")]), ['"secret"', null]);
  await bench.close(page, { allowed: [/status of 401/] });
});
