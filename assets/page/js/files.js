// Conversations as files.

import { path } from "./tree.js";

export function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name.replace(/[\\/:*?"<>|\n]+/g, " ").trim();
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** The branch that is read, as Markdown. */
export function asMarkdown(conversation) {
  const parts = [`# ${conversation.title}`];
  if (conversation.options?.system) parts.push("## System", conversation.options.system);
  for (const node of path(conversation)) {
    if (node.role === "user") parts.push("## You", node.content);
    if (node.role === "assistant") {
      parts.push(`## ${node.model}`);
      if (node.reasoning) parts.push(`<details><summary>Thoughts</summary>\n\n${node.reasoning}\n\n</details>`);
      if (node.content) parts.push(node.content);
      for (const call of node.calls ?? []) parts.push(`Calls \`${call.name}\`:`, `\`\`\`json\n${call.arguments}\n\`\`\``);
    }
    if (node.role === "results") {
      for (const result of node.results) parts.push(`Result of \`${result.name}\`:`, `\`\`\`\n${result.content}\n\`\`\``);
    }
  }
  return `${parts.join("\n\n")}\n`;
}
