//! llama.cpp's quantization of whole files.
//!
//! It may end the process where an assertion of it fails: callers run it in a process of its own.

#![expect(unsafe_code, reason = "calls into llama.cpp")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::io::Write;
use std::path::Path;
use std::ptr;

use llama_cpp_sys_2 as sys;

/// What to make of a file.
#[derive(Debug, Clone)]
pub struct Quantization<'q> {
    /// A GGUF file; of a split model, its first part.
    pub input: &'q Path,
    /// Written over if it is there.
    pub output: &'q Path,
    /// llama.cpp's number of the mix (`enum llama_ftype`).
    pub file_type: u32,
    /// Tensors whose names match a regular expression get this ggml type instead.
    pub types: &'q [(&'q CStr, u32)],
    /// What `general.file_type` says, where it is not `file_type`.
    pub called: Option<u32>,
    pub threads: u32,
    /// Importance of the columns of each tensor, by its name.
    pub importance: &'q [(CString, Vec<f32>)],
    /// Take tensors that are quantized already.
    pub again: bool,
    /// Only compute the size.
    pub dry_run: bool,
    /// Bytes of rows that are in memory at once; at least one row is.
    pub buffer: u64,
}

/// Why a file was not made. llama.cpp's log says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantizeError {
    #[error("the path cannot be told to llama.cpp")]
    Path,
    #[error("llama.cpp could not quantize the file")]
    Failed,
}

/// Quantizes a file. What llama.cpp logs meanwhile goes to standard output as it comes, and the process ends where nobody reads
/// that any more. Blocks for minutes.
///
/// # Errors
/// Where llama.cpp says no.
pub fn quantize(job: &Quantization<'_>) -> Result<(), QuantizeError> {
    let path = |path: &Path| {
        let text = path.to_str().ok_or(QuantizeError::Path)?;
        CString::new(text).map_err(|_| QuantizeError::Path)
    };
    let (input, output) = (path(job.input)?, path(job.output)?);
    let types = job.types.iter().map(|(pattern, kind)| (pattern.as_ptr(), *kind));
    // Lists end with an entry without a name.
    let types: Vec<_> = types
        .chain([(ptr::null(), 0)])
        .map(|(pattern, kind)| sys::llama_model_tensor_override { pattern, type_: kind })
        .collect();
    let importance: Vec<_> = job
        .importance
        .iter()
        .map(|(name, values)| (name.as_ptr(), values.as_ptr(), values.len()))
        .chain([(ptr::null(), ptr::null(), 0)])
        .map(|(name, data, size)| sys::llama_model_imatrix_data { name, data, size })
        .collect();
    let called = job.called.map(|called| [file_type_entry(called), no_entry()]);
    // SAFETY: returns plain data.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.nthread = i32::try_from(job.threads).unwrap_or(1);
    params.ftype = job.file_type;
    params.allow_requantize = job.again;
    params.dry_run = job.dry_run;
    params.max_buf_size = usize::try_from(job.buffer).unwrap_or(usize::MAX);
    if !job.types.is_empty() {
        params.tt_overrides = types.as_ptr();
    }
    if !job.importance.is_empty() {
        params.imatrix = importance.as_ptr();
    }
    if let Some(called) = &called {
        params.kv_overrides = called.as_ptr();
    }
    // SAFETY: the callback has the declared type, needs no data, and does not unwind; the two calls take no arguments that
    // could be wrong.
    unsafe {
        sys::llama_log_set(Some(log), ptr::null_mut());
        sys::llama_backend_init();
    }
    // SAFETY: the paths are C strings, and all lists end with an entry without a name; they live until the call returns. It
    // catches its exceptions.
    let failed = unsafe { sys::llama_model_quantize(input.as_ptr(), output.as_ptr(), &params) };
    if failed == 0 {
        Ok(())
    } else {
        Err(QuantizeError::Failed)
    }
}

/// `general.file_type` with this value.
fn file_type_entry(value: u32) -> sys::llama_model_kv_override {
    let mut entry = no_entry();
    entry.tag = sys::LLAMA_KV_OVERRIDE_TYPE_INT;
    for (to, from) in entry.key.iter_mut().zip(b"general.file_type") {
        *to = c_char::from_ne_bytes([*from]);
    }
    entry.__bindgen_anon_1.val_i64 = i64::from(value);
    entry
}

/// Ends a list: the key is empty.
fn no_entry() -> sys::llama_model_kv_override {
    sys::llama_model_kv_override {
        tag: sys::LLAMA_KV_OVERRIDE_TYPE_INT,
        key: [0; 128],
        __bindgen_anon_1: sys::llama_model_kv_override__bindgen_ty_1 { val_i64: 0 },
    }
}

/// Passes a line, or a part of one, to standard output.
extern "C" fn log(_: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: ggml passes a C string that lives until this returns.
    let text = unsafe { CStr::from_ptr(text) };
    let mut out = std::io::stdout().lock();
    if out.write_all(text.to_bytes()).and_then(|()| out.flush()).is_err() {
        // Who wanted the file is gone.
        std::process::exit(1);
    }
}
