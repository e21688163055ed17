//! What makes the guesses hears of each pass of the model.

/// Tokens of a slot that a pass has computed.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::local) struct Computed {
    /// Of the first one, in the text.
    pub(in crate::engine::local) start: usize,
    pub(in crate::engine::local) count: usize,
    /// Of the first one, in the pass.
    pub(in crate::engine::local) place: i32,
    pub(in crate::engine::local) reached: Reached,
}

/// How far a pass brought a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::local) enum Reached {
    /// A place within the prompt.
    Prompt,
    /// The end of the prompt; the first token of the answer has left.
    PromptEnd,
    Answer,
}
