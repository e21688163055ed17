// From a conversation and its options to the body of a request, and back from what goes wrong. All functions are pure.

/** Sampling fields: name, label, step, range, and what they do. */
export const SAMPLING = [
  { name: "temperature", label: "Temperature", step: 0.05, min: 0, max: 10, help: "Higher is more surprising; 0 always takes the likeliest token." },
  { name: "top_p", label: "Top p", step: 0.01, min: 0, max: 1, help: "Keeps the likeliest tokens that together have this probability." },
  { name: "top_k", label: "Top k", step: 1, min: 0, help: "Keeps the k likeliest tokens; 0 keeps all." },
  { name: "min_p", label: "Min p", step: 0.01, min: 0, max: 1, help: "Drops tokens that are less likely than this share of the likeliest." },
  { name: "max_tokens", label: "Max tokens", step: 1, min: 1, help: "Upper bound of an answer, thoughts included." },
  { name: "seed", label: "Seed", step: 1, min: 0, help: "Same seed and prompt, same answer. A fresh one if empty." },
  { name: "repeat_penalty", label: "Repeat penalty", step: 0.01, min: 0.01, max: 10, help: "Divides the scores of repeated tokens; 1 is off." },
  { name: "presence_penalty", label: "Presence penalty", step: 0.05, min: -2, max: 2, help: "Takes from tokens that were there." },
  { name: "frequency_penalty", label: "Frequency penalty", step: 0.05, min: -2, max: 2, help: "Takes from tokens by how often they were there." },
];

/** The tools that a user wrote, or why they are none. Empty is no tools. */
export function parseTools(text) {
  if (!text?.trim()) return { tools: [], problem: null };
  let tools;
  try {
    tools = JSON.parse(text);
  } catch (error) {
    return { tools: [], problem: `Not JSON: ${error.message}` };
  }
  if (!Array.isArray(tools)) tools = [tools];
  // A bare function is what people have at hand.
  tools = tools.map((tool) => (tool?.type === undefined && tool?.name ? { type: "function", function: tool } : tool));
  const broken = tools.findIndex((tool) => typeof tool?.function?.name !== "string");
  if (broken >= 0) return { tools: [], problem: `Tool ${broken + 1} has no function with a name.` };
  return { tools, problem: null };
}

/** Further fields of the body that a user wrote, or why they are none. */
export function parseMore(text) {
  if (!text?.trim()) return { fields: {}, problem: null };
  try {
    const fields = JSON.parse(text);
    if (fields === null || typeof fields !== "object" || Array.isArray(fields)) return { fields: {}, problem: "Write an object: { … }" };
    return { fields, problem: null };
  } catch (error) {
    return { fields: {}, problem: `Not JSON: ${error.message}` };
  }
}

/** Nodes of a branch as messages. */
function messages(nodes, system) {
  const list = system?.trim() ? [{ role: "system", content: system }] : [];
  for (const node of nodes) {
    if (node.role === "user") list.push({ role: "user", content: node.content });
    if (node.role === "results") {
      for (const result of node.results) list.push({ role: "tool", tool_call_id: result.id, name: result.name, content: result.content });
    }
    if (node.role === "assistant" && (node.content || node.calls?.length)) {
      const message = { role: "assistant", content: node.content || null };
      // Which of its thoughts a model reads again is for its template to say.
      if (node.reasoning) message.reasoning_content = node.reasoning;
      if (node.calls?.length) {
        message.tool_calls = node.calls.map(({ id, name, arguments: text }) => ({ id, type: "function", function: { name, arguments: text || "{}" } }));
      }
      list.push(message);
    }
  }
  return list;
}

/** The body of a request for what follows these nodes. */
export function body(model, nodes, options = {}) {
  const { tools } = parseTools(options.tools);
  const set = Object.entries(options.sampling ?? {}).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const request = {
    model,
    messages: messages(nodes, options.system),
    stream: true,
    stream_options: { include_usage: true },
    return_progress: true,
    timings_per_token: true,
    ...Object.fromEntries(set),
  };
  if (tools.length > 0) request.tools = tools;
  if (options.thinking === "on" || options.thinking === "off") {
    request.chat_template_kwargs = { enable_thinking: options.thinking === "on" };
  }
  if (options.effort) request.reasoning_effort = options.effort;
  return { ...request, ...parseMore(options.more).fields };
}

/** What a user can do about an error, where there is something. */
export function hint({ status, code }) {
  if (code === "context_length_exceeded") return "Begin a new conversation, or edit an earlier message to make the conversation shorter.";
  if (code === "model_not_found") return "Choose another model below.";
  if (status === 401 || status === 403) return "The key does not allow this.";
  if (status === 429) return "The server has as much to do as it takes on. Try again in a moment.";
  if (status === 503) return "The model may still be loading; the machine view tells.";
  return null;
}
