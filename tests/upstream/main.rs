//! Models that other servers compute, and models that stand in for others: the real server before real and misbehaving ones.
#![cfg(feature = "demo")]

#[path = "../common/mod.rs"]
mod common;

mod embeddings;
mod equality;
mod fallback;
mod faults;
mod leaving;
mod replicas;
mod scripted;
