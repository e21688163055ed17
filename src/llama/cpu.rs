//! What the processor has, and what llama.cpp's code for it was compiled for.
//!
//! `cpu.c` beside this file also ends the program, before `main`, on a processor that lacks what it was compiled for.
//! `arrays.cpp` lets the arrays that llama.cpp allocates begin at cache lines.

#![expect(unsafe_code, reason = "calls into llama.cpp and cpu.c")]

use std::ffi::{CStr, c_char};
use std::sync::Mutex;

// SAFETY: the declaration is that of cpu.c.
unsafe extern "C" {
    fn hearth_cpu_features() -> *const c_char;
}

/// Both functions below write a static buffer of their own.
static CALL: Mutex<()> = Mutex::new(());

/// The features of the processor for which llama.cpp has code, in llama.cpp's words.
pub(crate) fn features() -> Vec<String> {
    let _one = CALL.lock();
    // SAFETY: returns a string in static memory, which only changes in a call, and calls come one by one.
    let names = unsafe { CStr::from_ptr(hearth_cpu_features()) };
    names.to_string_lossy().split_whitespace().map(str::to_owned).collect()
}

/// llama.cpp's line about what its backends were built with, such as `CPU : AVX2 = 1 | OPENMP = 1 | `. Backends that are
/// loaded when the program starts must be loaded.
pub(crate) fn build() -> String {
    let _one = CALL.lock();
    // SAFETY: returns a string in static memory, which only changes in a call, and calls come one by one.
    let line = unsafe { CStr::from_ptr(llama_cpp_sys_2::llama_print_system_info()) };
    line.to_string_lossy().into_owned()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    // SAFETY: the declaration is that of arrays.cpp.
    unsafe extern "C" {
        safe fn hearth_arrays_are_aligned() -> bool;
    }

    #[test]
    fn arrays_of_llama_cpp_begin_at_cache_lines() {
        assert!(hearth_arrays_are_aligned());
    }
}
