//! A model's head for multi-token prediction (MTP, "nextn" in llama.cpp): it guesses the token after the next one from the
//! hidden state that the model ended with and the next token.
//!
//! The head is one more layer in a context of its own, with keys and values for each sequence. `common/speculative.cpp` of
//! llama.cpp drives it in the same way. `mtp.cpp` beside this file gives access to the hidden states.

#![expect(unsafe_code, reason = "calls into llama.cpp and mtp.cpp")]

use std::marker::PhantomData;
use std::ptr::NonNull;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;

// SAFETY: the declarations are those of mtp.cpp.
unsafe extern "C" {
    fn hearth_hidden_states(context: *mut sys::llama_context, wanted: bool);
    fn hearth_hidden_states_of_outputs(context: *mut sys::llama_context);
    fn hearth_hidden_state(context: *mut sys::llama_context, index: i32) -> *const f32;
    fn hearth_mtp_compute(context: *mut sys::llama_context, batch: *mut sys::llama_batch_ext) -> i32;
}

/// The context that a safe one owns. The crate keeps it to itself, but prints it; both are pinned to exact versions.
fn raw(context: &LlamaContext<'_>) -> Option<NonNull<sys::llama_context>> {
    NonNull::new(std::ptr::with_exposed_provenance_mut(address(&format!("{context:?}"))?))
}

/// The one address in a printed struct.
fn address(printed: &str) -> Option<usize> {
    let mut parts = printed.split("0x");
    let (Some(_), Some(number), None) = (parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    usize::from_str_radix(number.trim_end_matches([' ', '}']), 16).ok()
}

/// Access to the hidden states of a model's context. It must not be used after the context is gone.
#[derive(Debug)]
pub(crate) struct HiddenStates {
    context: NonNull<sys::llama_context>,
    width: usize,
}

impl HiddenStates {
    /// `None` if the context cannot be found in what the crate prints.
    pub(crate) fn of(context: &LlamaContext<'_>) -> Option<Self> {
        Self::of_raw(raw(context)?)
    }

    fn of_raw(raw: NonNull<sys::llama_context>) -> Option<Self> {
        // SAFETY: the pointer of a live context.
        let width = unsafe { sys::llama_model_n_embd_out(sys::llama_get_model(raw.as_ptr())) };
        Some(Self {
            context: raw,
            width: usize::try_from(width).ok()?,
        })
    }

    /// Elements of a hidden state.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Whether the next passes hand out the hidden state of each token. What is not wanted is not computed.
    pub(crate) fn want(&self, wanted: bool) {
        // SAFETY: a live context.
        unsafe { hearth_hidden_states(self.context.as_ptr(), wanted) };
    }

    /// The hidden state of a token of the last pass; waits until it is there. `None` if it was not wanted.
    pub(crate) fn get(&self, index: i32) -> Option<&[f32]> {
        // SAFETY: a live context.
        let state = unsafe { hearth_hidden_state(self.context.as_ptr(), index) };
        // SAFETY: llama.cpp gives rows of so many elements, which stay until the next pass.
        (!state.is_null()).then(|| unsafe { std::slice::from_raw_parts(state, self.width) })
    }
}

/// The head of a model, in a context of its own. The crate's context cannot be told that only few tokens have logits, for which
/// llama.cpp would reserve several hundred megabytes.
#[derive(Debug)]
pub(crate) struct MtpHead<'m> {
    // In the order in which they are freed.
    batch: Batch,
    states: HiddenStates,
    context: Context,
    tokens: usize,
    capacity: usize,
    /// The context refers to the model.
    model: PhantomData<&'m LlamaModel>,
}

/// What the context of a head is to be like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadParams {
    /// Tokens of all sequences.
    pub(crate) tokens: u32,
    /// They share one memory.
    pub(crate) shared: bool,
    pub(crate) sequences: u32,
    /// Tokens of a pass at most.
    pub(crate) batch: u32,
    /// ggml's numbers of the types of keys and of values.
    pub(crate) kv_types: [u32; 2],
    /// Positions are stretched by this factor.
    pub(crate) yarn: Option<f32>,
    /// For passes of few tokens, and of many.
    pub(crate) threads: (i32, i32),
}

#[derive(Debug)]
struct Context(NonNull<sys::llama_context>);

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `llama_init_from_model` and freed once.
        unsafe { sys::llama_free(self.0.as_ptr()) };
    }
}

#[derive(Debug)]
struct Batch(NonNull<sys::llama_batch_ext>);

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: made by `llama_batch_ext_init` and freed once.
        unsafe { sys::llama_batch_ext_free(self.0.as_ptr()) };
    }
}

/// llama.cpp does not compute a pass of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the head for multi-token prediction fails with status {0}")]
pub struct MtpError(i32);

/// A token that the head goes on from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'s> {
    pub(crate) token: i32,
    pub(crate) position: usize,
    pub(crate) sequence: i32,
    /// The hidden state of the token before.
    pub(crate) state: &'s [f32],
    /// A guess is wanted.
    pub(crate) guesses: bool,
}

impl<'m> MtpHead<'m> {
    /// The head of the model of a context. `None` if llama.cpp does not give what it needs.
    pub(crate) fn new(context: &LlamaContext<'m>, head: HeadParams) -> Option<Self> {
        // SAFETY: plain numbers; a live context has a model, which lives at least as long as the head.
        let raw = unsafe {
            let mut params = sys::llama_context_default_params();
            params.ctx_type = sys::LLAMA_CONTEXT_TYPE_MTP;
            params.n_ctx = head.tokens;
            params.n_seq_max = head.sequences;
            (params.n_batch, params.n_ubatch) = (head.batch, head.batch);
            params.n_outputs_max = head.sequences;
            // A GPU would need room for a whole tensor of its experts, to compute them for long prompts.
            params.op_offload = false;
            [params.type_k, params.type_v] = head.kv_types;
            if let Some(factor) = head.yarn {
                params.rope_scaling_type = sys::LLAMA_ROPE_SCALING_TYPE_YARN;
                params.rope_freq_scale = 1.0 / factor;
            }
            (params.n_threads, params.n_threads_batch) = head.threads;
            params.kv_unified = head.shared;
            params.no_perf = true;
            let model = sys::llama_get_model(raw(context)?.as_ptr());
            sys::llama_init_from_model(model.cast_mut(), params)
        };
        let context = Context(NonNull::new(raw)?);
        let states = HiddenStates::of_raw(context.0)?;
        // SAFETY: a live context; the batch is freed before it.
        let batch = unsafe {
            hearth_hidden_states_of_outputs(raw);
            NonNull::new(sys::llama_batch_ext_init(raw))?
        };
        Some(Self {
            batch: Batch(batch),
            states,
            context,
            tokens: 0,
            capacity: usize::try_from(head.batch).unwrap_or(usize::MAX),
            model: PhantomData,
        })
    }

    /// Tokens that can be added before the next pass.
    pub(crate) fn room(&self) -> usize {
        self.capacity - self.tokens
    }

    /// Adds a token to the next pass, and returns its place there.
    pub(crate) fn add(&mut self, input: Input<'_>) -> Result<i32, MtpError> {
        let batch = self.batch.0.as_ptr();
        let position = i32::try_from(input.position).unwrap_or(i32::MAX);
        let state = sys::llama_embd {
            data: input.state.as_ptr(),
            n_rows: 1,
            n_embd: input.state.len(),
        };
        // SAFETY: a live batch; the state is copied.
        unsafe {
            let index = sys::llama_batch_ext_add_token(batch, input.sequence, input.token);
            if index < 0 {
                return Err(MtpError(index));
            }
            let set = sys::llama_batch_ext_set_embd_token(batch, index, state)
                && sys::llama_batch_ext_set_pos(batch, index, &raw const position)
                && sys::llama_batch_ext_set_output_logits(batch, index, input.guesses);
            self.tokens += 1;
            if set { Ok(index) } else { Err(MtpError(-1)) }
        }
    }

    /// Computes what was added.
    pub(crate) fn compute(&mut self) -> Result<(), MtpError> {
        let (context, batch) = (self.context.0.as_ptr(), self.batch.0.as_ptr());
        // SAFETY: a live context and a batch of it.
        let status = unsafe {
            let status = hearth_mtp_compute(context, batch);
            sys::llama_batch_ext_clear(batch);
            status
        };
        self.tokens = 0;
        if status == 0 { Ok(()) } else { Err(MtpError(status)) }
    }

    /// The logits of a token of the last pass for which a guess was wanted.
    pub(crate) fn logits(&self, index: i32) -> &[f32] {
        // SAFETY: a live context, whose model has a vocabulary; logits are rows of its size, which stay until the next pass.
        unsafe {
            let logits = sys::llama_get_logits_ith(self.context.0.as_ptr(), index);
            let vocabulary = sys::llama_model_get_vocab(sys::llama_get_model(self.context.0.as_ptr()));
            let length = usize::try_from(sys::llama_vocab_n_tokens(vocabulary)).unwrap_or(0);
            if logits.is_null() {
                return &[];
            }
            std::slice::from_raw_parts(logits, length)
        }
    }

    /// Its hidden state.
    pub(crate) fn state(&self, index: i32) -> Option<&[f32]> {
        self.states.get(index)
    }

    /// Drops all but the first `keep` tokens of a sequence.
    pub(crate) fn trim(&mut self, sequence: i32, keep: usize) {
        let keep = i32::try_from(keep).unwrap_or(i32::MAX);
        // SAFETY: a live context. All of it is attention, of which the end can always be dropped.
        unsafe { sys::llama_memory_seq_rm(sys::llama_get_memory(self.context.0.as_ptr()), sequence, keep, -1) };
    }

    pub(crate) fn clear(&mut self) {
        // SAFETY: a live context.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context.0.as_ptr()), true) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_where_there_is_one() {
        assert_eq!(address("LlamaContext { context: 0x55d0c0ffee }"), Some(0x55_d0c0_ffee));
        assert_eq!(address("LlamaContext { context: 0x1, model: 0x2 }"), None);
        assert_eq!(address("LlamaContext { .. }"), None);
        assert_eq!(address("LlamaContext { context: 0x1 of 2 }"), None);
    }
}
