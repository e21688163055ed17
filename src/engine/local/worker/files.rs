//! What slots hold, written to files and read from them: when a client asks for it, and over restarts.

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, io};

use llama_cpp_2::context::session::LlamaStateSeqFlags;
use llama_cpp_2::token::LlamaToken;

use super::Worker;
use crate::engine::local::checkpoints::{Kept, SHORTEST_KEPT};
use crate::engine::local::queue::SlotWork;
use crate::engine::local::sealed::{self, Draft, SavedSequences};
use crate::engine::{EngineError, SlotOutcome, Token};

/// In the folder of saved slots, which has files with names of clients.
const OVER_RESTARTS: &str = "restart";

impl Worker<'_> {
    /// Does what clients ask for with slots that compute nothing.
    pub(super) fn act(&mut self) {
        for job in self.shared.slot_jobs(|slot| self.slots[slot].active.is_none()) {
            let started = Instant::now();
            if !matches!(job.work, SlotWork::Save(_)) {
                // What the slot gets must not be lost to the turn of what it had.
                self.shared.turns.forget();
            }
            let done = match &job.work {
                SlotWork::Save(path) => self.write(job.slot, path),
                SlotWork::Restore(path) => self.read(job.slot, path),
                SlotWork::Erase => {
                    let tokens = self.slots[job.slot].cached.len();
                    self.clear(job.slot);
                    Ok((tokens, 0))
                }
            };
            let outcome = done.map(|(tokens, bytes)| SlotOutcome {
                tokens,
                bytes,
                elapsed: started.elapsed(),
            });
            // The client may be gone.
            let _ = job.done.send(outcome);
        }
    }

    /// Writes what a slot holds, as llama.cpp does; returns its tokens and bytes.
    fn write(&mut self, index: usize, path: &Path) -> Result<(usize, u64), EngineError> {
        let slot = &self.slots[index];
        let tokens: Vec<LlamaToken> = slot.cached.iter().copied().map(LlamaToken).collect();
        let written = self.context.state_seq_save_file(path, slot.sequence, &tokens);
        match written {
            Ok(bytes) => Ok((tokens.len(), bytes as u64)),
            Err(error) => Err(self.compute_error(&self.log.explain(&error))),
        }
    }

    /// Lets a slot hold what a checked file has; returns its tokens and bytes.
    fn read(&mut self, index: usize, path: &Path) -> Result<(usize, u64), EngineError> {
        self.clear(index);
        let most = usize::try_from(self.context_length).unwrap_or(usize::MAX);
        let sequence = self.slots[index].sequence;
        match self.context.state_seq_load_file(path, sequence, most) {
            Ok((tokens, bytes)) => {
                self.clock += 1;
                let slot = &mut self.slots[index];
                slot.cached = tokens.iter().map(|token| token.0).collect();
                slot.last_used = self.clock;
                Ok((tokens.len(), bytes as u64))
            }
            Err(error) => {
                let reason = self.log.explain(&error);
                self.clear(index);
                Err(self.compute_error(&reason))
            }
        }
    }

    /// Reads what an earlier run kept, the newest first, as far as the memory for it goes.
    pub(in crate::engine::local) fn recall(&mut self) {
        let Some(saved) = self.saved.clone() else { return };
        let folder = saved.folder.join(OVER_RESTARTS);
        for folder in [&saved.folder, &folder] {
            if let Err(error) = sealed::clean(folder) {
                tracing::warn!(model = self.name, folder = %folder.display(), %error, "unfinished files cannot be removed");
            }
        }
        for number in 0.. {
            let path = folder.join(name(&saved, number));
            if !path.exists() || !self.recall_one(&saved, &path) {
                break;
            }
        }
        self.clear(0);
        // The newest was read first.
        let count = self.kept.len() as u64;
        for (at, kept) in (0..).zip(&mut self.kept) {
            kept.used = count - at;
        }
        self.clock = count;
        if count > 0 {
            let tokens: usize = self.kept.iter().map(|kept| kept.tokens.len()).sum();
            tracing::info!(
                model = self.name,
                sequences = count,
                tokens,
                "prompts of an earlier run are kept"
            );
        }
    }

    /// Reads one file into memory, unless it cannot be used; false if there is no room for it.
    fn recall_one(&mut self, saved: &SavedSequences, path: &Path) -> bool {
        let checked = sealed::check(path, &saved.model, self.context_length);
        let checked = checked.map_err(|error| error.to_string());
        match checked.and_then(|_| self.read(0, path).map_err(|error| error.to_string())) {
            Ok(_) => {}
            Err(error) => {
                self.metrics.prompt_store_errors.inc();
                tracing::warn!(model = self.name, path = %path.display(), error, "a saved sequence cannot be used");
                return true;
            }
        }
        let sequence = self.slots[0].sequence;
        let size = self
            .context
            .state_seq_get_size_ext(sequence, LlamaStateSeqFlags::empty());
        if self.saved_bytes() + size as u64 > self.prompt_cache {
            return false;
        }
        let can_trim = self.can_trim(sequence);
        let Ok(state) = self.context.state_seq_get(sequence, LlamaStateSeqFlags::empty()) else {
            return true;
        };
        self.kept.push(Kept {
            tokens: self.slots[0].cached.clone(),
            state,
            can_trim,
            checkpoints: Vec::new(),
            used: 0,
        });
        true
    }

    /// Writes what slots hold and what is kept, the newest first, for the next run. What cannot be cut back is written as it was
    /// at its first and its last saved state: there prompts go on from it.
    pub(in crate::engine::local) fn store(&mut self) {
        let Some(saved) = self.saved.clone().filter(|_| self.prompt_cache > 0) else {
            return;
        };
        let mut written = Written {
            folder: saved.folder.join(OVER_RESTARTS),
            saved,
            sequences: Vec::new(),
            bytes: 0,
        };
        let stored = self.store_all(&mut written).and_then(|()| written.finish());
        match stored {
            Ok(()) if written.sequences.is_empty() => {}
            Ok(()) => tracing::info!(
                model = self.name,
                sequences = written.sequences.len(),
                bytes = written.bytes,
                folder = %written.folder.display(),
                "prompts are kept for the next run"
            ),
            Err(error) => {
                self.metrics.prompt_store_errors.inc();
                tracing::warn!(model = self.name, %error, "prompts cannot be kept for the next run");
            }
        }
    }

    fn store_all(&mut self, written: &mut Written) -> io::Result<()> {
        let mut slots: Vec<usize> = (0..self.slots.len()).collect();
        slots.sort_by_key(|index| std::cmp::Reverse(self.slots[*index].last_used));
        for index in slots {
            self.store_slot(index, written)?;
        }
        // They lost their slots before; one of these is needed to write them.
        let mut kept = std::mem::take(&mut self.kept);
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.used));
        for kept in kept {
            self.clear(0);
            let slot = &mut self.slots[0];
            if self.context.state_seq_set(&kept.state, slot.sequence).is_ok() {
                slot.cached = kept.tokens;
                slot.checkpoints = kept.checkpoints;
                self.store_slot(0, written)?;
            }
        }
        Ok(())
    }

    /// Writes what a slot holds; what it holds afterwards is of no use to anybody.
    fn store_slot(&mut self, index: usize, written: &mut Written) -> io::Result<()> {
        let slot = &self.slots[index];
        let mut lengths = vec![slot.cached.len()];
        if !self.can_trim(slot.sequence) {
            let saved = slot.checkpoints.iter().map(|checkpoint| checkpoint.length);
            let (first, last) = (saved.clone().min(), saved.max());
            // From the end to the beginning: what is cut is gone.
            let saved: Vec<usize> = last.into_iter().chain(first.filter(|_| first != last)).collect();
            if !saved.is_empty() {
                lengths = saved;
            }
        }
        for length in lengths {
            if length < SHORTEST_KEPT
                || written
                    .sequences
                    .iter()
                    .any(|other| other[..] == self.slots[index].cached[..length])
            {
                continue;
            }
            if length < self.slots[index].cached.len() {
                if !self.trim(index, length) {
                    return Ok(());
                }
                self.slots[index].truncate(length);
            }
            let sequence = self.slots[index].sequence;
            let size = self
                .context
                .state_seq_get_size_ext(sequence, LlamaStateSeqFlags::empty());
            if written.bytes + size as u64 > self.prompt_cache {
                continue;
            }
            let draft = Draft::new(&written.folder)?;
            self.write(index, draft.path()).map_err(io::Error::other)?;
            written.publish(draft, self.slots[index].cached.clone())?;
        }
        Ok(())
    }
}

/// The files of this run.
struct Written {
    saved: SavedSequences,
    folder: PathBuf,
    sequences: Vec<Vec<Token>>,
    bytes: u64,
}

impl Written {
    fn publish(&mut self, draft: Draft, tokens: Vec<Token>) -> io::Result<()> {
        let name = name(&self.saved, self.sequences.len());
        self.bytes += draft.publish(&name, &self.saved.model)?;
        self.sequences.push(tokens);
        Ok(())
    }

    /// Removes the files of earlier runs that were not replaced.
    fn finish(&self) -> io::Result<()> {
        for number in self.sequences.len().. {
            match fs::remove_file(self.folder.join(name(&self.saved, number))) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The name of a file over restarts; 0 is the newest.
fn name(saved: &SavedSequences, number: usize) -> String {
    format!("{}-{number}.sequence", saved.model)
}
