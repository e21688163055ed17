// The page as another machine of the network gets it: by an address that is not the loopback's, without TLS, which takes
// the clipboard and some of the browser's cryptography away.

import assert from "node:assert/strict";
import { networkInterfaces } from "node:os";
import { test } from "node:test";

import { Bench, mockChat, scripted, send } from "./browser.js";

const address = Object.values(networkInterfaces())
  .flat()
  .find((one) => one.family === "IPv4" && !one.internal)?.address;

test("the page works over the network", { skip: !address && "this machine has no address but the loopback's" }, async () => {
  const bench = await Bench.start("--host", "0.0.0.0");
  bench.server.url = bench.server.url.replace("0.0.0.0", address);
  try {
    const page = await bench.open();
    assert.equal(await page.evaluate(() => isSecureContext), false);
    await send(page, "What is 2 + 3?");
    await page.locator(".message.assistant > .prose").waitFor();
    await mockChat(page, scripted("```sh\necho hi\n```"));
    await send(page, "Show me code.");
    await page.getByRole("button", { name: "Copy the sh code" }).click();
    await page.getByText("Copied").waitFor();
    // What was copied is pasted.
    await page.getByLabel("Message", { exact: true }).focus();
    await page.keyboard.press("Control+v");
    assert.equal(await page.getByLabel("Message", { exact: true }).inputValue(), "echo hi");
    await page.getByRole("link", { name: "Machine" }).click();
    await page.locator(".heat canvas").waitFor();
    await bench.close(page);
  } finally {
    await bench.end();
  }
});
