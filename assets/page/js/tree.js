// A conversation is a tree: editing or regenerating begins a branch, and the old one stays. All functions are pure.
//
// A node is what a user said (`user`), an answer (`assistant`), or what tools gave back (`results`).

/** The node with this change. */
export function patch(conversation, id, change) {
  const node = conversation.nodes[id];
  if (!node) return conversation;
  return { ...conversation, nodes: { ...conversation.nodes, [id]: { ...node, ...change } } };
}

/** With a new node below `parent` (null for a new beginning), which is what is read from now on. */
export function add(conversation, parent, node) {
  return {
    ...conversation,
    nodes: { ...conversation.nodes, [node.id]: { ...node, parent } },
    head: node.id,
  };
}

/** What another tab kept and what is here: nothing of either is lost, and the newer state of a node counts. */
export function merge(kept, here) {
  const nodes = { ...kept.nodes };
  for (const node of Object.values(here.nodes)) {
    if (!((nodes[node.id]?.written ?? 0) > (node.written ?? 0))) nodes[node.id] = node;
  }
  const title = kept.named && !here.named ? { title: kept.title, named: true } : {};
  const merged = { ...here, ...title, nodes, updated: Math.max(kept.updated, here.updated) };
  // What the other tab adds to the branch that is read here is read here, too.
  const follows = path(merged, kept.head).some((node) => node.id === here.head);
  return { ...merged, head: follows ? kept.head : here.head };
}

/** The nodes from the beginning to `id`, by default to the end of the branch that is read. */
export function path(conversation, id = conversation.head) {
  const nodes = [];
  for (let node = conversation.nodes[id]; node; node = conversation.nodes[node.parent]) nodes.push(node);
  return nodes.reverse();
}

const children = (conversation, id) => Object.values(conversation.nodes).filter((node) => node.parent === id);

/** By parent, all that was tried below it, the oldest first. */
export function families(conversation) {
  const found = new Map();
  for (const { id, parent } of Object.values(conversation.nodes)) found.set(parent, [...(found.get(parent) ?? []), id]);
  return found;
}

/** Reads the branch of this node, to its newest end. */
export function choose(conversation, id) {
  let head = id;
  for (let below = children(conversation, head); below.length > 0; below = children(conversation, head)) head = below.at(-1).id;
  return { ...conversation, head };
}
