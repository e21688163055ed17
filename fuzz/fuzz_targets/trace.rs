//! Arbitrary bytes as a recorded routing trace: no panic, and what is read can be written and read again.
#![no_main]

// The reader depends on no other room, and is compiled by itself.
#[allow(dead_code)]
#[path = "../../src/experts/trace.rs"]
mod trace;

use libfuzzer_sys::fuzz_target;
use trace::Trace;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = Trace::read(bytes, 1 << 20) {
        let mut written = Vec::new();
        read.write(&mut written).unwrap();
        assert_eq!(Trace::read(&written[..], 1 << 20).unwrap(), read);
    }
});
