// Takes the pictures of docs/images: tests/page/run --screenshots

import { statSync } from "node:fs";

import { Bench, answered, choose, send } from "./browser.js";

const FOLDER = new URL("../../docs/images/", import.meta.url).pathname;
const LARGEST = 200 * 1024;

const bench = await Bench.start();
const greedy = () => localStorage.setItem("hearth.options", JSON.stringify({ sampling: { temperature: 0 } }));

async function picture(page, name) {
  const path = `${FOLDER}${name}.png`;
  // Without a caret that blinks into the picture.
  await page.evaluate(() => document.activeElement?.blur());
  await page.mouse.move(0, 0);
  await page.waitForTimeout(300);
  await page.screenshot({ path });
  const { size } = statSync(path);
  console.log(`${path}: ${Math.round(size / 1024)} KiB`);
  if (size > LARGEST) throw new Error(`${name} is too large for the repository`);
}

/** A conversation with thoughts, a call and its result. */
async function converse(page) {
  await page.evaluate(greedy);
  await page.reload();
  await choose(page, "demo-narrator");
  await send(page, "Describe an old tavern by the sea.");
  await page.evaluate(() => (location.hash = "#/"));
  await page.getByRole("heading", { name: "What shall we talk about?" }).waitFor();
  await choose(page, "demo-reasoner");
  await send(page, "What is 17 + 25?");
  await page.getByRole("button", { name: "Options of the conversation" }).click();
  await page.getByRole("button", { name: "Insert an example" }).click();
  await page.getByRole("button", { name: "Close the options" }).click();
  await send(page, "What is the weather in Paris?");
  const card = page.getByRole("region", { name: "Call of get_weather" });
  await card.getByLabel("Result", { exact: true }).fill('{"temperature": 21, "sky": "clear"}');
  await page.getByRole("button", { name: "Send the result" }).click();
  await answered(page);
}

const light = await bench.open("/", { viewport: { width: 1280, height: 1040 }, colorScheme: "light" });
await converse(light);
await picture(light, "page-chat");
await bench.close(light);

const dark = await bench.open("/", { viewport: { width: 1280, height: 1300 }, colorScheme: "dark" });
await dark.evaluate(greedy);
await dark.getByRole("button", { name: "Conversations", exact: true }).click();
await dark.getByRole("link", { name: "Machine" }).click();
await dark.locator(".heat canvas").waitFor();
/** A little of everything for the charts. */
for (const text of ["What is 17 + 25?", "Who are you?", "What is 40 + 2?", "What can you do?"]) {
  for (const [model, question] of [["demo-reasoner", text], ["demo-narrator", "Describe an old tavern by the sea."]]) {
    await dark.evaluate(
      ({ model, question }) => fetch("/v1/chat/completions", { method: "POST", body: JSON.stringify({ model, max_tokens: 120, messages: [{ role: "user", content: question }] }) }).then((answer) => answer.text()),
      { model, question },
    );
    await dark.waitForTimeout(3000);
  }
}
await picture(dark, "page-machine");
await bench.close(dark);

const phone = await bench.open("/", { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, colorScheme: "light", deviceScaleFactor: 1.5 });
await phone.evaluate(greedy);
await phone.reload();
await phone.getByRole("button", { name: "What is 17 + 25?" }).click();
await answered(phone);
await picture(phone, "page-phone");
await bench.close(phone);
await bench.end();
process.exit(0);
