//! What can be done with what a slot holds.

use std::time::Duration;

/// Something to be done with a slot, when it computes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotAction {
    /// Write what it holds to the file of this name.
    Save(String),
    /// Let it hold what the file of this name has.
    Restore(String),
    /// Forget what it holds.
    Erase,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotOutcome {
    /// Tokens that were written, read or forgotten.
    pub tokens: usize,
    /// Of the file; 0 without one.
    pub bytes: u64,
    /// Since the slot was free.
    pub elapsed: Duration,
}
