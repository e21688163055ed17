// One message of a conversation, with what can be done with it.

import { count, duration, percent, plural, rate } from "../format.js";
import { Icon } from "../icons.js";
import { Component, html, useLayoutEffect, useRef, useState, useValue } from "../lib.js";
import * as models from "../models.js";
import { Calls } from "./calls.js";
import { Markdown, copy } from "./markdown.js";
import { Reasoning } from "./reasoning.js";
import { hint } from "./request.js";
import * as runs from "./runs.js";
import { Tries } from "./tries.js";

/** Milliseconds since the last word after which an answer that is not written here is not written elsewhere either. */
const ELSEWHERE = 6000;

function Action({ icon, label, onClick }) {
  return html`<button type="button" class="quiet icon-button" aria-label=${label} title=${label} onClick=${onClick}><${Icon} name=${icon} /></button>`;
}

function CopyAction({ text }) {
  const [done, setDone] = useState(false);
  const act = async () => {
    if (!(await copy(text))) return;
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<${Action} icon=${done ? "check" : "copy"} label=${done ? "Copied" : "Copy"} onClick=${act} />`;
}

function Editor({ text, onDone, onCancel }) {
  const [draft, setDraft] = useState(text);
  const field = useRef(null);
  // Not a frame later: what is typed meanwhile would go to the field below.
  useLayoutEffect(() => {
    field.current.focus();
    field.current.setSelectionRange(text.length, text.length);
  }, []);
  const onKeyDown = (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      onCancel();
    }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(event);
  };
  const send = (event) => {
    event.preventDefault();
    if (draft.trim()) onDone(draft);
  };
  return html`<form class="editor" onSubmit=${send}>
    <textarea ref=${field} aria-label="Edit the message" rows=${Math.min(12, draft.split("\n").length + 1)} value=${draft}
      onInput=${(event) => setDraft(event.target.value)} onKeyDown=${onKeyDown}></textarea>
    <div class="row"><button class="primary">Send</button><button type="button" onClick=${onCancel}>Cancel</button></div>
  </form>`;
}

function UserMessage({ node, conversation, tries, onChoose, editing, onEdit, busy }) {
  return html`<article class="message user" aria-label="You">
    ${editing
      ? html`<${Editor} text=${node.content} onCancel=${() => onEdit(null)}
          onDone=${(text) => {
            onEdit(null);
            runs.say(conversation, text, tries.model, node.id);
          }} />`
      : html`<div class="bubble">${node.content}</div>`}
    ${!editing &&
    html`<footer class="actions">
      <${Tries} tries=${tries} onChoose=${onChoose} what="version" />
      <${CopyAction} text=${node.content} />
      ${!busy && html`<${Action} icon="edit" label="Edit" onClick=${() => onEdit(node.id)} />`}
    </footer>`}
  </article>`;
}

/** How far an answer is before its first word. */
function Waiting({ node, progress: signal }) {
  const progress = useValue(signal);
  const status = useValue(() => (models.models.value, models.find(node.model)?.status), [node.model]);
  if (node.phase !== "waiting" && node.phase !== "reading") return null;
  if (models.stateOf(status) === "loading") {
    const share = status.progress;
    return html`<div class="progress"><span>The model loads${share === undefined ? "…" : `: ${percent(share)}`}</span><progress max="1" value=${share} aria-label="Loading of the model"></progress></div>`;
  }
  if (progress?.total) {
    const { total, processed, cache } = progress;
    return html`<div class="progress">
      <span>Reading the prompt: ${count(processed)} of ${plural(total, "token")}${cache > 0 ? `, ${count(cache)} from the cache` : ""}</span>
      <progress max=${total} value=${processed} aria-label="Reading of the prompt"></progress>
    </div>`;
  }
  return html`<div class="progress"><span class="busy">Waiting for the model…</span></div>`;
}

function Failure({ error, onRetry }) {
  const advice = hint(error);
  return html`<div class="failure" role="alert">
    <${Icon} name="warning" />
    <div>
      <p>${error.message}</p>
      ${advice && html`<p class="muted">${advice}</p>`}
      ${error.retryAfter && html`<p class="muted">The server asks to wait ${plural(error.retryAfter, "second")}.</p>`}
      <div class="row"><button type="button" onClick=${onRetry}><${Icon} name="again" />Retry</button>
        ${error.status > 0 && html`<span class="muted">status ${error.status}${error.code ? `, ${error.code}` : ""}</span>`}</div>
    </div>
  </div>`;
}

/** Tokens, speed and time to the first token; while it is written as far as they are known. */
function Numbers({ node, running }) {
  const parts = [];
  const { usage, timings } = node;
  const tokens = usage?.completion_tokens ?? timings?.predicted_n;
  if (tokens > 0) parts.push([plural(tokens, "token"), "Tokens of the answer, thoughts included"]);
  if (timings?.predicted_per_second > 0) parts.push([rate(timings.predicted_per_second), "Speed of the answer"]);
  if (Number.isFinite(node.firstMs)) parts.push([`first token ${duration(node.firstMs)}`, "From sending to the first token"]);
  if (!running && usage?.prompt_tokens) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    parts.push([`prompt ${count(usage.prompt_tokens)}${cached ? ` (${count(cached)} cached)` : ""}`, "Tokens of the prompt; cached ones were not computed again"]);
  }
  if (!running && timings?.draft_n > 0) parts.push([`drafts ${percent(timings.draft_n_accepted / timings.draft_n)}`, `${count(timings.draft_n_accepted)} of ${count(timings.draft_n)} guessed tokens were right`]);
  return html`<span class="numbers">${parts.map(([text, title]) => html`<span key=${title} title=${title}>${text}</span>`)}</span>`;
}

function Note({ node, running }) {
  if (running) return null;
  if (node.state === "stopped") return html`<p class="note">Stopped.</p>`;
  if (node.state === "running") return html`<p class="note">${Date.now() - node.written < ELSEWHERE ? "Another tab writes this." : "Interrupted."}</p>`;
  if (node.finish === "length") return html`<p class="note">Cut off: the limit of tokens, or the end of the context, is reached.</p>`;
  return null;
}

function AssistantMessage({ node, conversation, tries, onChoose, run, results, resultTries, busy }) {
  const running = Boolean(run);
  const empty = !node.content && !node.reasoning && !node.calls?.length;
  return html`<article class="message assistant" aria-label=${`Answer of ${node.model}`} aria-busy=${running ? "true" : "false"}>
    <h2 class="who">${node.model}${node.servedBy && node.servedBy !== node.model ? html` <span class="muted">served by ${node.servedBy}</span>` : ""}</h2>
    ${node.reasoning && html`<${Reasoning} node=${node} running=${running} />`}
    ${running && html`<${Waiting} node=${node} progress=${run.progress} />`}
    ${node.content && html`<${Markdown} text=${node.content} growing=${running} />`}
    ${!running && empty && node.state === "done" && html`<p class="note">The answer is empty.</p>`}
    ${node.calls?.length > 0 &&
    html`<${Calls} calls=${node.calls} results=${results} tries=${resultTries} onChoose=${onChoose} running=${running || busy} onResults=${(given) => runs.giveResults(conversation, node.id, given)} />`}
    <${Note} node=${node} running=${running} />
    ${node.error && html`<${Failure} error=${node.error} onRetry=${() => runs.again(conversation, node.id)} />`}
    <footer class="actions">
      <${Numbers} node=${node} running=${running} />
      <span class="spring"></span>
      <${Tries} tries=${tries} onChoose=${onChoose} what="answer" />
      ${!running && node.content && html`<${CopyAction} text=${node.content} />`}
      ${!busy && html`<${Action} icon="again" label="Regenerate" onClick=${() => runs.again(conversation, node.id)} />`}
    </footer>
  </article>`;
}

/** Drawn anew only when something of it changed: conversations are long, and answers come in many pieces. */
export class Message extends Component {
  shouldComponentUpdate(next) {
    const { node, run, results, tries, busy, editing } = this.props;
    return (
      node !== next.node || run !== next.run || results !== next.results || busy !== next.busy || editing !== next.editing ||
      tries.index !== next.tries.index || tries.all.length !== next.tries.all.length || tries.model !== next.tries.model ||
      this.props.resultTries?.all.length !== next.resultTries?.all.length
    );
  }
  render(props) {
    return props.node.role === "user" ? html`<${UserMessage} ...${props} />` : html`<${AssistantMessage} ...${props} />`;
  }
}
