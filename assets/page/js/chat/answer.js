// What a stream of chunks adds up to.

/** Collects the chunks of one answer. */
export class Answer {
  content = "";
  reasoning = "";
  calls = [];
  finish = null;
  usage = null;
  timings = null;
  model = null;
  progress = null;
  /** When something of the answer came first, and when content did. */
  firstAt = null;
  contentAt = null;

  /** Takes a chunk that came at `now`. Throws what the server reports. */
  take(chunk, now) {
    if (chunk.error) throw chunk.error;
    if (chunk.prompt_progress) this.progress = chunk.prompt_progress;
    if (chunk.model) this.model = chunk.model;
    if (chunk.usage) this.usage = chunk.usage;
    if (chunk.timings) this.timings = chunk.timings;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    if (choice.finish_reason) this.finish = choice.finish_reason;
    const delta = choice.delta ?? {};
    // Both names carry the same text.
    const reasoning = delta.reasoning_content ?? delta.reasoning ?? "";
    if (reasoning || delta.content || delta.tool_calls) this.firstAt ??= now;
    if (delta.content || delta.tool_calls) this.contentAt ??= now;
    this.reasoning += reasoning;
    this.content += delta.content ?? "";
    for (const part of delta.tool_calls ?? []) {
      const call = (this.calls[part.index ?? 0] ??= { id: "", name: "", arguments: "" });
      if (part.id) call.id = part.id;
      call.name += part.function?.name ?? "";
      call.arguments += part.function?.arguments ?? "";
    }
  }

  /** What it is doing. */
  get phase() {
    if (this.calls.length > 0) return "calling";
    if (this.contentAt !== null) return "answering";
    if (this.firstAt !== null) return "thinking";
    return this.progress ? "reading" : "waiting";
  }

  /** The fields of a node; `start` is when it was asked for. */
  node(start) {
    const node = {
      content: this.content,
      reasoning: this.reasoning,
      calls: this.calls.map((call) => ({ ...call })),
      phase: this.phase,
    };
    if (this.timings) node.timings = this.timings;
    if (this.usage) node.usage = this.usage;
    if (this.finish) node.finish = this.finish;
    if (this.model) node.model = this.model;
    if (this.firstAt !== null) node.firstMs = this.firstAt - start;
    if (this.reasoning && this.contentAt !== null) node.thoughtMs = this.contentAt - this.firstAt;
    return node;
  }
}
