// Requests to the server that this page comes from.

import { signal } from "./lib.js";
import { apiKey } from "./settings.js";

/** Why a request failed: the server's words where there are any. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** Set while the user is asked for a key: what the server said, and what to do with the answer. */
export const keyWanted = signal(null);
let asking = null;

/** Asks for a key, once for all requests that need one. True if there is a new one. */
function askForKey(error, used) {
  if (apiKey.get() !== used) return Promise.resolve(true);
  asking ??= new Promise((resolve) => {
    keyWanted.value = {
      message: used ? error.message : null,
      answer(key, longer) {
        keyWanted.value = null;
        asking = null;
        if (key) apiKey.set(key, longer);
        resolve(Boolean(key));
      },
    };
  });
  return asking;
}

async function failure(response) {
  const retryAfter = Number(response.headers.get("retry-after")) || null;
  const text = await response.text().catch(() => "");
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // A proxy's page, say: its status has to do.
  }
  const message = error.message || `The server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(message, { status: response.status, code: error.code ?? null, retryAfter });
}

/** The answer to a request. `quiet` requests fail instead of asking the user for a key. */
export async function ask(path, { body, signal: stop, quiet = false } = {}) {
  for (;;) {
    const key = apiKey.get();
    const headers = {};
    if (key) headers.authorization = `Bearer ${key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    let response;
    try {
      response = await fetch(path, {
        method: body === undefined ? "GET" : "POST",
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: stop,
        cache: "no-store",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer. It may have been stopped, or the network is down.");
    }
    if (response.ok) return response;
    const error = await failure(response);
    if (response.status !== 401 || quiet || !(await askForKey(error, key))) throw error;
  }
}

export const getJson = async (path, options) => (await ask(path, options)).json();
export const post = async (path, body, options) => (await ask(path, { ...options, body })).json();
