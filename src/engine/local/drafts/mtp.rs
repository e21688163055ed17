//! Guesses from the model's own head for multi-token prediction.
//!
//! At each position the head takes the token and the hidden state of the token before, so its memory is filled behind the
//! model's: with the states of a prompt's pass, and of the tokens that a pass made sure.

use llama_cpp_2::context::LlamaContext;

use super::computed::Reached;
use super::wish::{Wish, probability};
use crate::engine::Token;
use crate::engine::local::sampler::argmax;
use crate::llama::mtp::{HeadParams, HiddenStates, Input, MtpError, MtpHead};

/// Tokens that the head is behind at most where no guesses are made.
const BEHIND: usize = 64;
/// The same within a prompt, whose first token does not wait for the head: their hidden states are kept, 8 KiB each for
/// Qwen3-Next-80B-A3B.
const BEHIND_PROMPT: usize = 1024;

#[derive(Debug)]
pub(super) struct Mtp<'m> {
    head: MtpHead<'m>,
    /// Those of the model's context.
    states: HiddenStates,
    sequences: Vec<Sequence>,
    /// What a state that is not known is taken for.
    unknown: Vec<f32>,
    // Reused from pass to pass.
    state: Vec<f32>,
    going: Vec<Going>,
}

/// How far the head is with a slot's sequence.
#[derive(Debug, Default)]
struct Sequence {
    /// The tokens that the model computed, as far as it is known.
    tokens: Vec<Token>,
    /// So many of them are in the head's memory.
    done: usize,
    /// Behind them are guesses.
    ahead: bool,
    /// Hidden states of the last tokens, one after the other; of the first one's place on.
    states: Vec<f32>,
    first: usize,
}

/// A slot for which guesses are made.
#[derive(Debug, Clone, Copy)]
struct Going {
    wish: usize,
    /// Its place in the head's pass.
    place: i32,
    position: usize,
    left: usize,
}

impl<'m> Mtp<'m> {
    /// `None` if the hidden states of the model's context cannot be had.
    pub(super) fn new(context: &LlamaContext<'m>, head: HeadParams) -> Option<Self> {
        let states = HiddenStates::of(context)?;
        states.want(true);
        Some(Self {
            head: MtpHead::new(context, head)?,
            unknown: vec![0.0; states.width()],
            states,
            sequences: (0..head.sequences).map(|_| Sequence::default()).collect(),
            state: Vec::new(),
            going: Vec::new(),
        })
    }

    /// Whether the model's passes hand out hidden states from now on.
    pub(super) fn listen(&self, wanted: bool) {
        self.states.want(wanted);
    }

    /// A slot goes on from these tokens. What it had behind the common beginning is forgotten.
    pub(super) fn begin(&mut self, slot: usize, cached: &[Token]) {
        let width = self.states.width();
        let sequence = &mut self.sequences[slot];
        let common = sequence.tokens.iter().zip(cached).take_while(|(a, b)| a == b).count();
        sequence.tokens.truncate(common);
        sequence.states.truncate(common.saturating_sub(sequence.first) * width);
        sequence.first = sequence.first.min(common);
        if sequence.done > common || sequence.ahead {
            sequence.done = sequence.done.min(common);
            sequence.ahead = false;
            self.head.trim(number(slot), sequence.done);
        }
    }

    /// The model has computed `count` tokens of a slot from `start` on, the first of which is at `place` in its pass. `text` has
    /// all tokens up to them.
    pub(super) fn observe(&mut self, slot: usize, text: &[Token], start: usize, count: usize, place: i32) {
        let width = self.states.width();
        let sequence = &mut self.sequences[slot];
        sequence.skip_to(start, text);
        // Tokens that are computed again have their states.
        for index in sequence.tokens.len()..start + count {
            let offset = i32::try_from(index - start).unwrap_or(i32::MAX);
            match self.states.get(place.saturating_add(offset)) {
                Some(state) => sequence.states.extend_from_slice(state),
                None => sequence.states.resize(sequence.states.len() + width, 0.0),
            }
        }
        let known = sequence.tokens.len();
        if known < start + count {
            sequence.tokens.extend_from_slice(&text[known..start + count]);
        }
    }

    /// Brings the head up to what the model has computed, where it is so far behind that it would cost memory, or at the end of
    /// a prompt.
    pub(super) fn follow(&mut self, slot: usize, reached: Reached) -> Result<(), MtpError> {
        let least = match reached {
            Reached::Prompt => BEHIND_PROMPT,
            Reached::PromptEnd => 1,
            Reached::Answer => BEHIND,
        };
        let sequence = &self.sequences[slot];
        let end = sequence.tokens.len();
        if end - sequence.done.min(end) < least {
            return Ok(());
        }
        self.feed(slot, end, &[], false)?;
        self.head.compute()
    }

    /// Adds what the head has not seen of a text's first `end` tokens to its next pass; `behind` are those that were not observed.
    /// Returns the place of the last one.
    fn feed(&mut self, slot: usize, end: usize, behind: &[Token], guesses: bool) -> Result<i32, MtpError> {
        let width = self.states.width();
        let sequence = &mut self.sequences[slot];
        if sequence.ahead {
            self.head.trim(number(slot), sequence.done);
            sequence.ahead = false;
        }
        if sequence.done < sequence.first {
            // Too many states are missing: the head begins anew where they are known.
            self.head.trim(number(slot), 0);
            sequence.done = (sequence.first + 1).min(end - 1);
        }
        let mut last = 0;
        for position in sequence.done..end {
            if self.head.room() == 0 {
                self.head.compute()?;
            }
            let token = match sequence.tokens.get(position) {
                Some(token) => *token,
                None => behind[position - sequence.tokens.len()],
            };
            let state = (position > sequence.first).then(|| {
                let from = (position - 1 - sequence.first) * width;
                sequence.states.get(from..from + width)
            });
            last = self.head.add(Input {
                token,
                position,
                sequence: number(slot),
                state: state.flatten().unwrap_or(&self.unknown),
                guesses: guesses && position + 1 == end,
            })?;
        }
        sequence.done = sequence.done.max(end);
        // Of what the head has seen only the last state is needed: the next token comes with it.
        let needless = sequence
            .done
            .saturating_sub(1)
            .min(sequence.tokens.len().saturating_sub(1));
        if needless > sequence.first {
            sequence
                .states
                .drain(..((needless - sequence.first) * width).min(sequence.states.len()));
            sequence.first = needless;
        }
        Ok(last)
    }

    /// Makes guesses for all slots that want some. A guess that is less likely than `least` is the last one, and not made.
    pub(super) fn guess<'s>(&mut self, wishes: impl IntoIterator<Item = Wish<'s>>, least: f32) -> Result<(), MtpError> {
        let mut wishes: Vec<Wish<'s>> = wishes.into_iter().collect();
        // A pass has room for the last few tokens of every slot.
        let share = self.head.room() / wishes.len().max(1);
        for wish in &wishes {
            let sequence = &mut self.sequences[wish.slot];
            sequence.skip_to(wish.cached.len(), wish.cached);
            let end = sequence.tokens.len();
            if end - sequence.done.min(end) >= share {
                self.feed(wish.slot, end, &[], false)?;
                self.head.compute()?;
            }
        }
        self.going.clear();
        for (index, wish) in wishes.iter().enumerate() {
            let position = wish.cached.len() + wish.pending.len();
            let place = self.feed(wish.slot, position, self.sequences[wish.slot].behind(wish), true)?;
            self.going.push(Going {
                wish: index,
                place,
                position,
                left: wish.most,
            });
        }
        while !self.going.is_empty() {
            self.head.compute()?;
            let mut going = std::mem::take(&mut self.going);
            let mut outcome = Ok(());
            going.retain_mut(|going| {
                let goes_on = self.take(going, &mut wishes[going.wish], least);
                goes_on.unwrap_or_else(|error| {
                    outcome = Err(error);
                    false
                })
            });
            outcome?;
            self.going = going;
        }
        Ok(())
    }

    /// Guesses for empty sequences, of which nothing remains.
    pub(super) fn rehearse(&mut self, streams: usize, most: usize) -> Result<(), MtpError> {
        let mut guesses = vec![Vec::new(); streams];
        let wishes = guesses.iter_mut().enumerate().map(|(slot, guesses)| Wish {
            slot,
            cached: &[],
            pending: &[0],
            most,
            guesses,
        });
        let outcome = self.guess(wishes, 0.0);
        for slot in 0..streams {
            self.begin(slot, &[]);
        }
        self.head.clear();
        outcome
    }

    /// Takes a guess from the head's last pass; true if another one comes with the next.
    fn take(&mut self, going: &mut Going, wish: &mut Wish<'_>, least: f32) -> Result<bool, MtpError> {
        let logits = self.head.logits(going.place);
        let token = argmax(logits);
        if least > 0.0 && probability(logits, token) < least {
            return Ok(false);
        }
        wish.guesses.push(token);
        going.left -= 1;
        if going.left == 0 {
            return Ok(false);
        }
        self.state.clear();
        self.state
            .extend_from_slice(self.head.state(going.place).unwrap_or(&self.unknown));
        self.sequences[wish.slot].ahead = true;
        going.place = self.head.add(Input {
            token,
            position: going.position,
            sequence: number(wish.slot),
            state: &self.state,
            guesses: true,
        })?;
        going.position += 1;
        Ok(true)
    }
}

impl Sequence {
    /// Takes note that the model has computed the first `length` tokens of a text, of which the last ones were not observed.
    fn skip_to(&mut self, length: usize, text: &[Token]) {
        if self.tokens.len() < length {
            self.tokens.extend_from_slice(&text[self.tokens.len()..length]);
            self.states.clear();
            self.first = length;
        }
    }

    /// The tokens of a text behind those that were observed.
    fn behind<'w>(&self, wish: &Wish<'w>) -> &'w [Token] {
        let observed = self.tokens.len().saturating_sub(wish.cached.len());
        &wish.pending[observed.min(wish.pending.len())..]
    }
}

/// llama.cpp's number of a slot's sequence.
fn number(slot: usize) -> i32 {
    i32::try_from(slot).unwrap_or(i32::MAX)
}
