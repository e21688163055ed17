//! Guesses from a small model with the same vocabulary, in a context of its own with a sequence for each slot.
//!
//! It reads prompts behind the large model, and before each pass the tokens that became sure. What it guessed wrong is cut off
//! its memory: so it must be a model that can be cut, without recurrent layers.

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use super::wish::{Wish, probability};
use crate::engine::Token;
use crate::engine::local::error::{DraftError, LoadError};
use crate::engine::local::load::{LoadSpec, new_small_context, small_batch};
use crate::engine::local::sampler::argmax;
use crate::llama::log::Listener;

#[derive(Debug)]
pub(super) struct Small<'m> {
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    /// Tokens of a pass at most.
    capacity: usize,
    /// By slot: what is in its memory.
    texts: Vec<Vec<Token>>,
    going: Vec<Going>,
}

/// A slot for which guesses are made.
#[derive(Debug, Clone, Copy)]
struct Going {
    wish: usize,
    /// Its logits in the last pass.
    place: i32,
    left: usize,
}

impl<'m> Small<'m> {
    pub(super) fn new(spec: &LoadSpec, model: &'m LlamaModel, log: &Listener) -> Result<Self, LoadError> {
        let capacity = small_batch(spec) as usize;
        Ok(Self {
            context: new_small_context(spec, model, log)?,
            batch: LlamaBatch::new(capacity, 1),
            capacity,
            texts: (0..spec.parallel).map(|_| Vec::new()).collect(),
            going: Vec::new(),
        })
    }

    /// Reads a prompt as far as the large model has computed it, a pass at a time: others wait meanwhile.
    pub(super) fn follow(&mut self, slot: usize, text: &[Token]) -> Result<(), DraftError> {
        self.cut(slot, text, &[])?;
        self.read(slot, text, &[])?;
        self.compute()
    }

    /// Tokens of a text that are not in a slot's memory.
    fn behind(&self, wish: &Wish<'_>) -> usize {
        wish.cached.len() + wish.pending.len() - self.texts[wish.slot].len()
    }

    /// Makes guesses for all slots that want some. A guess that is less likely than `least` is the last one, and not made.
    pub(super) fn guess<'s>(
        &mut self,
        wishes: impl IntoIterator<Item = Wish<'s>>,
        least: f32,
    ) -> Result<(), DraftError> {
        let mut wishes: Vec<Wish<'s>> = wishes.into_iter().collect();
        // A pass has room for the last few tokens of every slot.
        let share = (self.capacity / wishes.len().max(1)).max(1);
        for wish in &wishes {
            self.cut(wish.slot, wish.cached, wish.pending)?;
            if self.behind(wish) > share {
                // All but the last token, whose logits are wanted.
                let (_, rest) = wish.pending.split_last().ok_or(DraftError::Nothing)?;
                self.read(wish.slot, wish.cached, rest)?;
                self.compute()?;
            }
        }
        // The others go on catching up with the next passes.
        wishes.retain(|wish| self.behind(wish) <= share);
        self.going.clear();
        for (index, wish) in wishes.iter().enumerate() {
            self.read(wish.slot, wish.cached, wish.pending)?;
            let place = self.batch.n_tokens() - 1;
            self.going.push(Going {
                wish: index,
                place,
                left: wish.most,
            });
        }
        while !self.going.is_empty() {
            self.compute()?;
            let mut going = std::mem::take(&mut self.going);
            let mut kept = 0;
            for index in 0..going.len() {
                let mut one = going[index];
                let wish = &mut wishes[one.wish];
                if self.take(&mut one, wish, least)? {
                    going[kept] = one;
                    kept += 1;
                }
            }
            going.truncate(kept);
            self.going = going;
        }
        Ok(())
    }

    /// Guesses for empty sequences, of which nothing remains.
    pub(super) fn rehearse(&mut self, streams: usize, most: usize) -> Result<(), DraftError> {
        let mut guesses = vec![Vec::new(); streams];
        let wishes = guesses.iter_mut().enumerate().map(|(slot, guesses)| Wish {
            slot,
            cached: &[],
            pending: &[0],
            most,
            guesses,
        });
        let outcome = self.guess(wishes, 0.0);
        self.context.clear_kv_cache();
        self.texts.iter_mut().for_each(Vec::clear);
        outcome
    }

    /// Takes a guess from the last pass; true if another one comes with the next.
    fn take(&mut self, going: &mut Going, wish: &mut Wish<'_>, least: f32) -> Result<bool, DraftError> {
        let logits = self.context.get_logits_ith(going.place);
        let token = argmax(logits);
        if least > 0.0 && probability(logits, token) < least {
            return Ok(false);
        }
        wish.guesses.push(token);
        going.left -= 1;
        if going.left == 0 {
            return Ok(false);
        }
        self.add(wish.slot, token, true)?;
        going.place = self.batch.n_tokens() - 1;
        Ok(true)
    }

    /// Cuts what is in a slot's memory where it parts from a text in two parts, or at its last token, which must be computed for
    /// its logits.
    fn cut(&mut self, slot: usize, cached: &[Token], pending: &[Token]) -> Result<(), DraftError> {
        let text = &mut self.texts[slot];
        let wanted = cached.iter().chain(pending);
        let length = cached.len() + pending.len();
        let common = text.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        let common = common.min(length.saturating_sub(1));
        if common < text.len() {
            text.truncate(common);
            let cut = self.context.clear_kv_cache_seq(number(slot), number(common), None);
            if !matches!(cut, Ok(true)) {
                return Err(DraftError::Cut);
            }
        }
        Ok(())
    }

    /// Adds what a slot has not seen of a text to the next pass, as far as there is room.
    fn read(&mut self, slot: usize, cached: &[Token], pending: &[Token]) -> Result<(), DraftError> {
        let length = cached.len() + pending.len();
        let room = self.capacity - self.batch.n_tokens() as usize;
        let seen = self.texts[slot].len();
        for place in (seen..length).take(room) {
            let token = cached.get(place).or_else(|| pending.get(place - cached.len()));
            self.add(slot, *token.ok_or(DraftError::Nothing)?, place + 1 == length)?;
        }
        Ok(())
    }

    fn add(&mut self, slot: usize, token: Token, logits: bool) -> Result<(), DraftError> {
        let text = &mut self.texts[slot];
        let position = i32::try_from(text.len()).map_err(|_| DraftError::Nothing)?;
        let sequence = i32::try_from(slot).map_err(|_| DraftError::Nothing)?;
        let added = self.batch.add(LlamaToken(token), position, &[sequence], logits);
        added.map_err(|_| DraftError::Nothing)?;
        text.push(token);
        Ok(())
    }

    fn compute(&mut self) -> Result<(), DraftError> {
        if self.batch.n_tokens() > 0 {
            let computed = self.context.decode(&mut self.batch);
            computed.map_err(|error| DraftError::Small(error.to_string()))?;
            self.batch.clear();
        }
        Ok(())
    }
}

fn number(of: usize) -> Option<u32> {
    u32::try_from(of).ok()
}
