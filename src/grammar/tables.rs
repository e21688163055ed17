//! What may come next in a text that follows a grammar, found out when it is needed and remembered.
//!
//! A *set* is all that a grammar can be doing at one place of a text: pairs of a state and a node. A *node* is a rule that was
//! called, with those who wait for its end. Sets and nodes that are equal are one, so the same place in the next object of a
//! list is a set that is known already, and following a text is mostly looking up `(set, byte)`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::automaton::{Automaton, RuleId, State, StateId};
use super::class::{Class, MAX_CHARACTER};
use super::error::Exhausted;
use super::mask::Mask;
use super::vocabulary::{Kind, Token, Vocabulary};

pub(super) type SetId = u32;
/// The number of a node; with [`FRESH`] the number of a call that is being made.
type NodeId = u32;
/// A state, and what waits for the end of its rule.
type Item = (StateId, NodeId);

/// Nothing can come any more.
pub(super) const DEAD: SetId = 0;
const UNKNOWN: SetId = u32::MAX;
const FRESH: NodeId = 1 << 31;
/// Waits for the end of the text.
const OUTSIDE: NodeId = 0;

/// More pairs than this, and a grammar is too ambiguous to be followed.
const MAX_ITEMS: usize = 20_000;
/// Memory of moves and masks after which they are forgotten, to be found out anew.
const MAX_MOVES_BYTES: usize = 32 << 20;
/// Memory of sets and nodes, which texts refer to.
const MAX_SETS_BYTES: usize = 64 << 20;
/// What a row of moves takes.
const ROW_BYTES: usize = 256 * size_of::<SetId>();

/// What a text may be doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Set {
    /// Sorted; each state reads a character or a token.
    items: Arc<[Item]>,
    partial: Partial,
    /// The text may end here.
    complete: bool,
}

/// A character of which the first bytes are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Partial {
    None,
    /// The bits so far, and how many bytes are missing of how many.
    Bits {
        value: u32,
        missing: u8,
        length: u8,
    },
    /// Whatever it will be, all states read it.
    Any {
        missing: u8,
    },
}

/// A rule that was called: who goes on where when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    rule: RuleId,
    callers: Arc<[Item]>,
}

/// A grammar with all that was found out about it.
#[derive(Debug)]
pub(super) struct Tables {
    grammar: Automaton,
    vocabulary: Arc<Vocabulary>,
    sets: Vec<Set>,
    set_ids: HashMap<Set, SetId>,
    nodes: Vec<Node>,
    node_ids: HashMap<Node, NodeId>,
    rows: Vec<Option<Box<[SetId; 256]>>>,
    token_moves: HashMap<(SetId, Token), SetId>,
    masks: HashMap<SetId, Arc<Mask>>,
    /// The beginning of every text.
    start: SetId,
    moves_bytes: usize,
    sets_bytes: usize,
    /// Work that may still be done.
    pub(super) allowance: u64,
    scratch: Scratch,
}

/// Memory of [`Tables::close`].
#[derive(Debug, Default)]
struct Scratch {
    todo: Vec<Item>,
    seen: HashSet<Item>,
    reading: Vec<Item>,
    calls: Vec<Call>,
    call_ids: HashMap<RuleId, u32>,
}

/// A rule that is called at the current place.
#[derive(Debug)]
struct Call {
    rule: RuleId,
    callers: Vec<Item>,
    /// Nodes and calls whose callers are also those of this one: it is the last that they do.
    ends: Vec<NodeId>,
}

impl Tables {
    pub(super) fn new(grammar: Automaton, vocabulary: Arc<Vocabulary>, allowance: u64) -> Result<Self, Exhausted> {
        let mut this = Self {
            grammar,
            vocabulary,
            sets: Vec::new(),
            set_ids: HashMap::new(),
            nodes: Vec::new(),
            node_ids: HashMap::new(),
            rows: Vec::new(),
            token_moves: HashMap::new(),
            masks: HashMap::new(),
            start: DEAD,
            moves_bytes: 0,
            sets_bytes: 0,
            allowance,
            scratch: Scratch::default(),
        };
        this.begin()?;
        Ok(this)
    }

    fn begin(&mut self) -> Result<(), Exhausted> {
        self.node(Node {
            rule: self.grammar.root,
            callers: [(self.grammar.accept, OUTSIDE)].into(),
        });
        self.set(Set {
            items: [].into(),
            partial: Partial::None,
            complete: false,
        });
        let root = self.grammar.starts[self.grammar.root as usize];
        self.scratch.todo.push((root, OUTSIDE));
        self.start = self.close()?;
        Ok(())
    }

    pub(super) fn start(&self) -> SetId {
        self.start
    }

    /// About how much memory all this takes.
    pub(super) fn bytes(&self) -> usize {
        self.sets_bytes + self.moves_bytes + self.grammar.states.len() * size_of::<State>()
    }

    /// Whether so much was found out that it is better to begin anew with the next text.
    pub(super) fn is_full(&self) -> bool {
        self.sets_bytes > MAX_SETS_BYTES / 2
    }

    /// Keeps to the bounds of memory: moves can be found again.
    fn make_room(&mut self) -> Result<(), Exhausted> {
        if self.moves_bytes > MAX_MOVES_BYTES {
            self.rows.iter_mut().for_each(|row| *row = None);
            self.token_moves.clear();
            self.masks.clear();
            self.moves_bytes = 0;
        }
        if self.sets_bytes > MAX_SETS_BYTES {
            Err(Exhausted)
        } else {
            Ok(())
        }
    }

    /// Whether the text may end.
    pub(super) fn is_complete(&self, set: SetId) -> bool {
        self.sets[set as usize].complete
    }

    fn spend(&mut self, work: usize) -> Result<(), Exhausted> {
        self.allowance = self.allowance.checked_sub(work as u64).ok_or(Exhausted)?;
        Ok(())
    }

    fn set(&mut self, set: Set) -> SetId {
        if let Some(id) = self.set_ids.get(&set) {
            return *id;
        }
        let id = u32::try_from(self.sets.len()).unwrap_or(DEAD);
        self.sets_bytes += 2 * size_of::<Set>() + set.items.len() * size_of::<Item>() + 64;
        self.sets.push(set.clone());
        self.rows.push(None);
        self.set_ids.insert(set, id);
        id
    }

    fn node(&mut self, node: Node) -> NodeId {
        if let Some(id) = self.node_ids.get(&node) {
            return *id;
        }
        let id = u32::try_from(self.nodes.len()).unwrap_or(OUTSIDE);
        self.sets_bytes += 2 * size_of::<Node>() + node.callers.len() * size_of::<Item>() + 64;
        self.nodes.push(node.clone());
        self.node_ids.insert(node, id);
        id
    }

    /// Where a byte leads.
    pub(super) fn step(&mut self, set: SetId, byte: u8) -> Result<SetId, Exhausted> {
        if let Some(row) = &self.rows[set as usize] {
            let next = row[usize::from(byte)];
            if next != UNKNOWN {
                return Ok(next);
            }
        }
        let next = self.find_step(set, byte)?;
        let row = self.rows[set as usize].get_or_insert_with(|| {
            self.moves_bytes += ROW_BYTES;
            Box::new([UNKNOWN; 256])
        });
        row[usize::from(byte)] = next;
        Ok(next)
    }

    fn find_step(&mut self, set: SetId, byte: u8) -> Result<SetId, Exhausted> {
        self.make_room()?;
        let Set { items, partial, .. } = self.sets[set as usize].clone();
        self.spend(items.len() + 1)?;
        let (value, missing, length) = match (partial, byte) {
            (Partial::None, 0..0x80) => return self.read(&items, Some(byte.into())),
            (Partial::None, 0xC2..0xE0) => (u32::from(byte & 0x1F), 1, 2),
            (Partial::None, 0xE0..0xF0) => (u32::from(byte & 0x0F), 2, 3),
            (Partial::None, 0xF0..0xF5) => (u32::from(byte & 0x07), 3, 4),
            (Partial::Any { missing: 1 }, 0x80..0xC0) => return self.read(&items, None),
            (Partial::Any { missing }, 0x80..0xC0) => {
                let partial = Partial::Any { missing: missing - 1 };
                return Ok(self.incomplete(items, partial));
            }
            (Partial::Bits { value, missing, length }, 0x80..0xC0) => {
                (value << 6 | u32::from(byte & 0x3F), missing - 1, length)
            }
            _ => return Ok(DEAD),
        };
        if missing == 0 {
            return self.read(&items, Some(value));
        }
        // What this may become. Not in the range: forms that are longer than they must be, halves of characters, and what
        // is beyond the last character.
        let (first, last) = (value << (6 * missing), ((value + 1) << (6 * missing)) - 1);
        let least = [0, 0, 0x80, 0x800, 0x1_0000][length as usize];
        let most = if (0xD800..=0xDFFF).contains(&last) {
            0xD7FF
        } else {
            MAX_CHARACTER
        };
        let (low, high) = (first.max(least), last.min(most));
        if low > high {
            return Ok(DEAD);
        }
        let class_of = |item: &Item| class_of(&self.grammar, item);
        let may_read = |item: &&Item| class_of(item).is_some_and(|class| class.intersects(low, high));
        let left: Arc<[Item]> = items.iter().filter(may_read).copied().collect();
        if left.is_empty() {
            return Ok(DEAD);
        }
        let reads_all = |item: &Item| class_of(item).is_some_and(|class| class.covers(low, high));
        let any = (low, high) == (first, last) && left.iter().all(reads_all);
        let partial = if any {
            Partial::Any { missing }
        } else {
            Partial::Bits { value, missing, length }
        };
        Ok(self.incomplete(left, partial))
    }

    fn incomplete(&mut self, items: Arc<[Item]>, partial: Partial) -> SetId {
        self.set(Set {
            items,
            partial,
            complete: false,
        })
    }

    /// Where a character leads; `None` is one that all states read.
    fn read(&mut self, items: &[Item], character: Option<u32>) -> Result<SetId, Exhausted> {
        for (state, node) in items {
            if let State::Class { class, next } = self.grammar.states[*state as usize]
                && character.is_none_or(|character| self.grammar.classes[class as usize].contains(character))
            {
                self.scratch.todo.push((next, *node));
            }
        }
        self.close()
    }

    /// Where a token leads. One that is not `printed` is no text: only a grammar that names it can read it.
    pub(super) fn advance(&mut self, set: SetId, token: Token, printed: bool) -> Result<SetId, Exhausted> {
        let by_name = self.advance_by_name(set, token)?;
        if !printed {
            return Ok(by_name);
        }
        let vocabulary = self.vocabulary.clone();
        let piece = vocabulary.piece(token);
        if piece.is_empty() {
            return Ok(by_name);
        }
        let by_text = self.advance_bytes(set, piece)?;
        match (by_name, by_text) {
            (DEAD, other) | (other, DEAD) => Ok(other),
            (by_name, by_text) => {
                let (a, b) = (&self.sets[by_name as usize], &self.sets[by_text as usize]);
                if b.partial != Partial::None {
                    return Ok(by_name);
                }
                let complete = a.complete || b.complete;
                let mut items: Vec<Item> = a.items.iter().chain(&*b.items).copied().collect();
                items.sort_unstable();
                items.dedup();
                self.spend(items.len())?;
                Ok(self.set(Set {
                    items: items.into(),
                    partial: Partial::None,
                    complete,
                }))
            }
        }
    }

    /// Where a text leads.
    pub(super) fn advance_bytes(&mut self, mut set: SetId, text: &[u8]) -> Result<SetId, Exhausted> {
        for byte in text {
            if set == DEAD {
                break;
            }
            set = self.step(set, *byte)?;
        }
        Ok(set)
    }

    fn advance_by_name(&mut self, set: SetId, token: Token) -> Result<SetId, Exhausted> {
        let Set { items, partial, .. } = &self.sets[set as usize];
        let names = |item: &Item| names_token(&self.grammar, item).is_some();
        if *partial != Partial::None || !items.iter().any(names) {
            return Ok(DEAD);
        }
        if let Some(next) = self.token_moves.get(&(set, token)) {
            return Ok(*next);
        }
        let items = items.clone();
        self.spend(items.len())?;
        for (state, node) in &*items {
            if let State::Token {
                token: named,
                negated,
                next,
            } = self.grammar.states[*state as usize]
                && (named == token) != negated
            {
                self.scratch.todo.push((next, *node));
            }
        }
        let next = self.close()?;
        self.moves_bytes += 48;
        self.token_moves.insert((set, token), next);
        Ok(next)
    }

    /// The set of all that can be read from the states that wait in `scratch.todo`.
    fn close(&mut self) -> Result<SetId, Exhausted> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let closed = self.close_with(&mut scratch);
        scratch.todo.clear();
        scratch.seen.clear();
        scratch.reading.clear();
        scratch.calls.clear();
        scratch.call_ids.clear();
        self.scratch = scratch;
        closed
    }

    fn close_with(&mut self, scratch: &mut Scratch) -> Result<SetId, Exhausted> {
        let Scratch {
            todo,
            seen,
            reading,
            calls,
            call_ids,
        } = scratch;
        let mut complete = false;
        while let Some((state, node)) = todo.pop() {
            if !seen.insert((state, node)) {
                continue;
            }
            self.spend(1)?;
            match self.grammar.states[state as usize] {
                State::Class { .. } | State::Token { .. } => {
                    reading.push((state, node));
                    if reading.len() > MAX_ITEMS {
                        return Err(Exhausted);
                    }
                }
                State::Split(a, b) => todo.extend([(a, node), (b, node)]),
                State::Accept => complete = true,
                // A call that has just been made and has read nothing was passed by where it was made.
                State::End if node & FRESH != 0 => {}
                State::End => {
                    let callers = &self.nodes[node as usize].callers;
                    todo.extend(callers.iter().copied());
                    let work = callers.len();
                    self.spend(work)?;
                }
                State::Call { rule, next } => {
                    let call = *call_ids.entry(rule).or_insert_with(|| {
                        calls.push(Call {
                            rule,
                            callers: Vec::new(),
                            ends: Vec::new(),
                        });
                        u32::try_from(calls.len() - 1).unwrap_or(0)
                    });
                    todo.push((self.grammar.starts[rule as usize], FRESH | call));
                    let call = &mut calls[call as usize];
                    if self.grammar.is_end(next) {
                        call.ends.push(node);
                    } else {
                        call.callers.push((next, node));
                    }
                    if self.grammar.nullable[rule as usize] {
                        todo.push((next, node));
                    }
                }
            }
        }
        let nodes = self.settle(calls)?;
        let resolve = |node: NodeId| {
            if node & FRESH == 0 {
                node
            } else {
                nodes[(node & !FRESH) as usize]
            }
        };
        let mut items: Vec<Item> = reading.iter().map(|(state, node)| (*state, resolve(*node))).collect();
        items.sort_unstable();
        items.dedup();
        if items.is_empty() && !complete {
            return Ok(DEAD);
        }
        Ok(self.set(Set {
            items: items.into(),
            partial: Partial::None,
            complete,
        }))
    }

    /// Makes nodes of the calls, in an order in which a caller is a node before those that it calls.
    fn settle(&mut self, calls: &[Call]) -> Result<Vec<NodeId>, Exhausted> {
        let mut order: Vec<usize> = (0..calls.len()).collect();
        order.sort_unstable_by_key(|call| self.grammar.rank[calls[*call].rule as usize]);
        let mut nodes = vec![OUTSIDE; calls.len()];
        for index in order {
            let call = &calls[index];
            let resolve = |node: NodeId| {
                if node & FRESH == 0 {
                    node
                } else {
                    nodes[(node & !FRESH) as usize]
                }
            };
            let own = call.callers.iter().map(|(state, node)| (*state, resolve(*node)));
            let mut callers: Vec<Item> = own.collect();
            for end in &call.ends {
                callers.extend(self.nodes[resolve(*end) as usize].callers.iter().copied());
            }
            self.spend(callers.len())?;
            callers.sort_unstable();
            callers.dedup();
            nodes[index] = self.node(Node {
                rule: call.rule,
                callers: callers.into(),
            });
        }
        Ok(nodes)
    }

    /// The tokens that may come after a set: those that are text, and those that the grammar names. Tokens that end a text are
    /// not among them.
    pub(super) fn mask(&mut self, set: SetId) -> Result<Arc<Mask>, Exhausted> {
        if let Some(mask) = self.masks.get(&set) {
            return Ok(mask.clone());
        }
        let vocabulary = self.vocabulary.clone();
        let mut mask = Mask::new(vocabulary.len());
        let (sorted, common) = vocabulary.sorted();
        // The sets after each byte of the token before.
        let mut path = vec![set];
        let mut index = 0;
        while let Some(token) = sorted.get(index) {
            path.truncate(usize::from(common[index]) + 1);
            let piece = vocabulary.piece(*token);
            let mut alive = true;
            for byte in &piece[path.len() - 1..] {
                let next = self.step(path[path.len() - 1], *byte)?;
                if next == DEAD {
                    alive = false;
                    break;
                }
                path.push(next);
            }
            index += 1;
            if alive {
                mask.insert(*token);
            } else {
                // All that begin with these bytes are out. Mostly it is the first byte.
                let dead = path.len();
                index = match dead {
                    1 => vocabulary.after(piece[0]),
                    _ => {
                        let same = common[index..]
                            .iter()
                            .take_while(|common| usize::from(**common) >= dead);
                        index + same.count()
                    }
                };
            }
        }
        let Set { items, partial, .. } = &self.sets[set as usize];
        if *partial == Partial::None {
            for (named, negated) in items.iter().filter_map(|item| names_token(&self.grammar, item)) {
                let mut insert = |token: Token| {
                    if vocabulary.kind(token) != Kind::End {
                        mask.insert(token);
                    }
                };
                if negated {
                    let others = (0..).take(vocabulary.len()).filter(|other| *other != named);
                    others.for_each(insert);
                } else {
                    insert(named);
                }
            }
        }
        let mask = Arc::new(mask);
        self.moves_bytes += mask.bytes();
        self.masks.insert(set, mask.clone());
        Ok(mask)
    }
}

/// The characters that an item reads; `None` for one that reads a token.
fn class_of<'g>(grammar: &'g Automaton, (state, _): &Item) -> Option<&'g Class> {
    match grammar.states[*state as usize] {
        State::Class { class, .. } => Some(&grammar.classes[class as usize]),
        _ => None,
    }
}

/// The token that an item names, and whether it reads all others.
fn names_token(grammar: &Automaton, (state, _): &Item) -> Option<(Token, bool)> {
    match grammar.states[*state as usize] {
        State::Token { token, negated, .. } => Some((token, negated)),
        _ => None,
    }
}
