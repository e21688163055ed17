//! Feeds arbitrary bytes to the GGUF reader: it may refuse them, and nothing else.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;

#[path = "../../src/gguf/mod.rs"]
#[allow(dead_code, unused_imports)]
mod gguf;
#[path = "../../src/renamed.rs"]
#[allow(dead_code)]
mod renamed;

fuzz_target!(|bytes: &[u8]| {
    if gguf::Gguf::check(bytes).is_err() {
        return;
    }
    // What the header check accepts is opened as a file, so that geometry and tensor data are reached, too.
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    if let Ok(model) = gguf::Gguf::open(file.path()) {
        let _ = model.geometry();
        for tensor in model.tensors() {
            assert_eq!(model.data(tensor).len() as u64, tensor.bytes);
        }
    }
});
