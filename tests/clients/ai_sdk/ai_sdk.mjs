// The AI SDK against the real server: as an OpenAI-compatible provider, and as OpenAI's chat and responses.
// HEARTH_URL is the server. test_ai_sdk.py runs this file.

import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateObject, generateText, Output, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const url = process.env.HEARTH_URL;
const compatible = createOpenAICompatible({
  name: "hearth",
  baseURL: `${url}/v1`,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" });

const PROVIDERS = {
  compatible: (name) => compatible(name),
  "OpenAI's chat": (name) => openai.chat(name),
  "OpenAI's responses": (name) => openai.responses(name),
};

const QUESTION = "What is the weather in Paris?";
const THOUGHTFUL = "What is 12 + 30? Think step by step.";
const City = z.object({ city: z.string() });

function ask(model, prompt) {
  return { model, prompt, temperature: 0, maxOutputTokens: 256, maxRetries: 0 };
}

// A tool as the built-in reasoner knows it; `asked` are the cities that it was called with.
function weather() {
  const asked = [];
  const get_weather = tool({
    description: "Current weather in a city",
    inputSchema: City,
    execute: async ({ city }) => {
      asked.push(city);
      return { city, temperature: 18, condition: "sunny" };
    },
  });
  return { asked, tools: { get_weather } };
}

async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

const isError = (status, words) => (error) => {
  assert.ok(APICallError.isInstance(error), `${error}`);
  assert.equal(error.statusCode, status);
  assert.match(error.message, words);
  assert.equal(error.isRetryable, false);
  return true;
};

for (const [name, provider] of Object.entries(PROVIDERS)) {
  const model = provider("demo-reasoner");

  test(`${name}: a text, whole and streamed`, async () => {
    const whole = await generateText(ask(model, "hello"));
    assert.ok(whole.text);
    assert.equal(whole.finishReason, "stop");
    assert.deepEqual(whole.warnings, []);
    const stream = streamText(ask(model, "hello"));
    const parts = await all(stream.textStream);
    assert.equal(parts.join(""), whole.text);
    assert.equal(await stream.finishReason, "stop");
    const [one, other] = [whole.usage, await stream.usage];
    assert.ok(one.outputTokens > 0);
    assert.deepEqual([other.inputTokens, other.outputTokens], [one.inputTokens, one.outputTokens]);
  });

  // A short answer may be complete before its first part is on its way.
  test(`${name}: a long text comes in parts`, async () => {
    const story = { ...ask(provider("demo-narrator"), "Tell me a story"), maxOutputTokens: 1000 };
    const parts = await all(streamText(story).textStream);
    assert.ok(parts.length > 1);
  });

  test(`${name}: an answer that is cut`, async () => {
    const cut = await generateText({ ...ask(model, "Tell me a story"), maxOutputTokens: 3 });
    assert.equal(cut.finishReason, "length");
    assert.equal(cut.usage.outputTokens, 3);
  });

  test(`${name}: a loop with a tool`, async () => {
    const { asked, tools } = weather();
    const result = await generateText({ ...ask(model, QUESTION), tools, stopWhen: stepCountIs(4) });
    assert.deepEqual(asked, ["Paris"]);
    assert.deepEqual(
      result.steps.map((step) => step.finishReason),
      ["tool-calls", "stop"],
    );
    assert.match(result.text, /Paris.*18/);
  });

  test(`${name}: a loop with a tool, streamed`, async () => {
    const { asked, tools } = weather();
    const result = streamText({ ...ask(model, QUESTION), tools, stopWhen: stepCountIs(4) });
    const parts = await all(result.fullStream);
    assert.deepEqual(asked, ["Paris"]);
    const inputs = parts.filter((part) => part.type === "tool-input-delta").map((part) => part.delta);
    assert.deepEqual(JSON.parse(inputs.join("")), { city: "Paris" });
    const [call] = parts.filter((part) => part.type === "tool-call");
    assert.deepEqual([call.toolName, call.input], ["get_weather", { city: "Paris" }]);
    assert.match(await result.text, /Paris.*18/);
    assert.ok(!parts.some((part) => part.type === "error"));
  });

  test(`${name}: a call can be required, or forbidden`, async () => {
    const { get_weather } = weather().tools;
    // Without `execute` the call is the end.
    const tools = { get_weather: tool({ description: get_weather.description, inputSchema: City }) };
    for (const toolChoice of ["required", { type: "tool", toolName: "get_weather" }]) {
      const [call] = (await generateText({ ...ask(model, "hello"), tools, toolChoice })).toolCalls;
      assert.equal(call.toolName, "get_weather");
      assert.equal(typeof call.input.city, "string");
    }
    const none = await generateText({ ...ask(model, QUESTION), tools, toolChoice: "none" });
    assert.deepEqual(none.toolCalls, []);
  });

  test(`${name}: objects`, async () => {
    // What is in them is up to the model.
    const request = ask(model, "Extract the city as JSON: Anna lives in Paris");
    const { object, warnings } = await generateObject({ ...request, schema: City });
    assert.deepEqual(Object.keys(object), ["city"]);
    assert.deepEqual(warnings ?? [], []);
    const { output } = await generateText({ ...request, output: Output.object({ schema: City }) });
    assert.deepEqual(output, object);
    const stream = streamObject({ ...request, schema: City });
    const partial = await all(stream.partialObjectStream);
    assert.deepEqual(partial.at(-1), object);
    assert.deepEqual(await stream.object, object);
    const { object: word } = await generateObject({ ...request, output: "enum", enum: ["Rome", "Paris"] });
    assert.ok(["Rome", "Paris"].includes(word));
  });

  test(`${name}: thoughts are apart`, async () => {
    const whole = await generateText(ask(model, THOUGHTFUL));
    assert.ok(whole.usage.outputTokenDetails.reasoningTokens > 0);
    assert.ok(whole.text && !whole.text.includes("<think>"));
    const stream = streamText(ask(model, THOUGHTFUL));
    const parts = await all(stream.fullStream);
    const thoughts = parts.filter((part) => part.type === "reasoning-delta").map((part) => part.text);
    assert.equal(await stream.text, whole.text);
    assert.equal(thoughts.join(""), whole.reasoningText ?? "");
    // The SDK's provider for OpenAI knows no thoughts in chat, and in responses only summaries of them.
    if (name === "compatible") assert.match(whole.reasoningText, /12 \+ 30/);
  });

  test(`${name}: thoughts go back with the conversation`, async () => {
    const first = await generateText(ask(model, THOUGHTFUL));
    const messages = [
      { role: "user", content: THOUGHTFUL },
      ...first.response.messages,
      { role: "user", content: "hello" },
    ];
    const { prompt, ...settings } = ask(model);
    // Of stored responses the SDK sends references to items, and the items of others.
    for (const store of [true, false]) {
      const second = await generateText({ ...settings, messages, providerOptions: { openai: { store } } });
      assert.ok(second.text);
      assert.ok(second.usage.inputTokens > first.usage.inputTokens);
    }
  });

  test(`${name}: errors keep their message`, async () => {
    const hot = { ...ask(model, "hello"), temperature: 99 };
    await assert.rejects(generateText(hot), isError(400, /`temperature` is 99/));
    const long = ask(model, "word ".repeat(20000));
    await assert.rejects(generateText(long), isError(400, /context/));
    await assert.rejects(generateText(ask(provider("nobody"), "hello")), isError(404, /`nobody`/));
    let seen;
    const stream = streamText({ ...hot, onError: ({ error }) => (seen = error) });
    await all(stream.textStream);
    isError(400, /`temperature` is 99/)(seen);
  });

  test(`${name}: a preset is a model`, async () => {
    const { text } = await generateText({ model: provider("city"), prompt: "Anna lives in Paris", maxRetries: 0 });
    assert.deepEqual(Object.keys(JSON.parse(text)), ["city"]);
  });
}

async function running() {
  const metrics = await (await fetch(`${url}/metrics`)).text();
  return Number(metrics.match(/^hearth_requests_running\{model="demo-narrator"\} (\d+)$/m)[1]);
}

test("an aborted stream frees the slot", async () => {
  const abort = new AbortController();
  const stream = streamText({
    model: compatible.completionModel("demo-narrator"),
    prompt: "Once",
    maxOutputTokens: 4000,
    abortSignal: abort.signal,
    // Left to itself it may end before it is aborted.
    providerOptions: { hearth: { ignore_eos: true } },
    maxRetries: 0,
  });
  const parts = [];
  for await (const part of stream.fullStream) {
    parts.push(part.type);
    if (part.type === "text-delta" && !abort.signal.aborted) {
      assert.equal(await running(), 1);
      abort.abort();
    }
  }
  assert.equal(parts.at(-1), "abort");
  const deadline = Date.now() + 2000;
  while ((await running()) > 0) {
    assert.ok(Date.now() < deadline, "the slot is still taken");
    await sleep(20);
  }
});

test("completions", async () => {
  const request = { ...ask(compatible.completionModel("demo-reasoner"), "hearth is"), maxOutputTokens: 16 };
  const whole = await generateText(request);
  assert.equal((await all(streamText(request).textStream)).join(""), whole.text);
  assert.ok(whole.usage.outputTokens > 0);
});

test("embeddings", async () => {
  const values = ["hello", "goodbye"];
  for (const provider of [compatible, openai]) {
    const model = provider.embeddingModel("demo-narrator");
    const { embeddings, usage } = await embedMany({ model, values, maxRetries: 0 });
    assert.ok(usage.tokens > 0);
    assert.equal(embeddings.length, values.length);
    for (const vector of embeddings) {
      const length = vector.reduce((sum, number) => sum + number * number, 0);
      assert.ok(Math.abs(length - 1) < 1e-3);
    }
  }
});
