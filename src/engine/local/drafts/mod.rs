//! Drafts: guesses for the tokens that come next, which a pass computes together with those that are sure.
//!
//! A pass costs more than its tokens where weights are fetched or handed over. The model itself says which guesses are right:
//! after each token the next one is sampled as ever, and the guess behind it counts if it is the same. So what is sampled
//! has the distribution that it has without drafts, whatever samplers and grammars take part (it is the rejection sampling of
//! Leviathan et al., 2023, for guesses that are certain).

mod computed;
mod lookup;
mod mtp;
mod pace;
mod small;
mod wish;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;

pub(super) use self::computed::{Computed, Reached};
use self::lookup::Lookup;
use self::mtp::Mtp;
pub use self::pace::Pace;
use self::small::Small;
use self::wish::Wish;
use super::error::{DraftError, LoadError};
use super::load::{DraftSource, LoadSpec, head_params};
use super::slot::Slot;
use crate::engine::Token;
use crate::llama::log::Listener;

/// Makes the guesses for all slots of a model.
#[derive(Debug)]
pub(super) struct Drafts<'m> {
    source: Source<'m>,
    pub(super) pace: Pace,
    /// What is computed is observed, for guesses to come.
    awake: bool,
    least_probability: f32,
}

#[derive(Debug)]
enum Source<'m> {
    Mtp(Box<Mtp<'m>>),
    Small(Box<Small<'m>>),
    /// For each slot.
    Lookup(Vec<Lookup>),
}

impl<'m> Drafts<'m> {
    /// What the model with this context is to have; `None` if that is nothing. `small` is the model that makes guesses, if one
    /// does.
    ///
    /// # Errors
    /// When the context of the head or of the small model cannot be created.
    pub(super) fn of(
        spec: &LoadSpec,
        model: &'m LlamaModel,
        context: &LlamaContext<'m>,
        small: Option<&'m LlamaModel>,
        log: &Listener,
    ) -> Result<Option<Self>, LoadError> {
        let Some(draft) = spec.draft else { return Ok(None) };
        let (most, slots) = (draft.most as usize, spec.parallel as usize);
        let source = match draft.source {
            DraftSource::Model => {
                let small = small.ok_or(LoadError::NoDraftModel)?;
                Source::Small(Box::new(Small::new(spec, small, log)?))
            }
            DraftSource::Lookup => Source::Lookup((0..slots).map(|_| Lookup::default()).collect()),
            DraftSource::Mtp => {
                let mtp = Mtp::new(context, head_params(spec)).ok_or(LoadError::Head)?;
                Source::Mtp(Box::new(mtp))
            }
        };
        let replays = model.is_recurrent() || model.is_hybrid();
        Ok(Some(Self {
            source,
            pace: Pace::new(most, slots, replays, draft.always),
            awake: true,
            least_probability: draft.least_probability,
        }))
    }

    /// Whether a small model guesses. It lives as long as the engine.
    pub(super) fn is_small_model(&self) -> bool {
        matches!(self.source, Source::Small(_))
    }

    /// Whether the next passes of the model are observed.
    pub(super) fn listen(&self, wanted: bool) {
        if let Source::Mtp(mtp) = &self.source {
            mtp.listen(wanted);
        }
    }

    /// Does nothing for guesses to come as long as they do not pay.
    pub(super) fn rest_or_wake(&mut self) {
        let awake = !self.pace.rests();
        if awake != self.awake {
            self.awake = awake;
            self.listen(awake);
        }
    }

    /// A slot goes on from its first tokens with another text.
    pub(super) fn begin(&mut self, slot: usize, cached: &[Token]) {
        match &mut self.source {
            Source::Mtp(mtp) => mtp.begin(slot, cached),
            // It finds out by itself.
            Source::Small(_) => {}
            Source::Lookup(lookups) => lookups[slot].clear(),
        }
    }

    /// The model has computed `count` tokens of a slot, which are in the text from `start` on and in the pass from `place` on.
    ///
    /// # Errors
    /// When the head or the small model fails.
    pub(super) fn observe(&mut self, slot: usize, text: &[Token], pass: Computed) -> Result<(), DraftError> {
        if !self.awake {
            return Ok(());
        }
        match &mut self.source {
            Source::Mtp(mtp) => {
                mtp.observe(slot, text, pass.start, pass.count, pass.place);
                Ok(mtp.follow(slot, pass.reached)?)
            }
            Source::Small(small) if pass.reached != Reached::Answer => {
                small.follow(slot, &text[..pass.start + pass.count])
            }
            Source::Small(_) | Source::Lookup(_) => Ok(()),
        }
    }

    /// Makes guesses for every slot that decodes, so that it has `width` tokens in the next pass.
    ///
    /// # Errors
    /// When the head or the small model fails.
    pub(super) fn guess(&mut self, slots: &mut [Slot], width: usize) -> Result<(), DraftError> {
        let wishes = slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let active = slot.active.as_mut().filter(|active| !active.pending.is_empty())?;
            // The last token that may be generated needs no guess.
            let left = active.max_tokens.saturating_sub(active.generated + 1) as usize;
            let most = width.saturating_sub(active.pending.len()).min(left);
            (most > 0).then_some(Wish {
                slot: index,
                cached: &slot.cached,
                pending: &active.pending,
                most,
                guesses: &mut active.guesses,
            })
        });
        match &mut self.source {
            Source::Mtp(mtp) => Ok(mtp.guess(wishes, self.least_probability)?),
            Source::Small(small) => small.guess(wishes, self.least_probability),
            Source::Lookup(lookups) => {
                for wish in wishes {
                    lookups[wish.slot].guess(wish.cached, wish.pending, wish.most, wish.guesses);
                }
                Ok(())
            }
        }
    }

    /// Takes so long as it takes to make guesses for the first `streams` sequences, which are empty, until each has `most`: to
    /// find out what that costs.
    ///
    /// # Errors
    /// When the head or the small model fails.
    pub(super) fn rehearse(&mut self, streams: usize, most: usize) -> Result<(), DraftError> {
        match &mut self.source {
            Source::Mtp(mtp) => Ok(mtp.rehearse(streams, most)?),
            Source::Small(small) => small.rehearse(streams, most),
            Source::Lookup(_) => Ok(()),
        }
    }
}
