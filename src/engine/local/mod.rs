//! The engine on top of llama.cpp: one thread owns a model and its context.
