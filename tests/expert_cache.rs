//! The expert cache in the real server: statistics, changes, metrics, memory, and a device that is full.

mod common;

use common::Server;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use serde_json::{Value, json};

fn config(path: &str, experts: &str) -> String {
    format!("[server]\nport = 0\n[[model]]\nname = \"m\"\npath = {path:?}\ncontext = 512\nparallel = 2\nthreads = 2\nexperts = {experts}\n")
}
