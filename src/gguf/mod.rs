//! A memory-mapped, zero-copy reader of GGUF files that trusts nothing in them.
