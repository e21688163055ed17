//! Files of models from a hub or any web server.
//!
//! [`Source`] says what is meant, [`Hub`] lists what a repository holds, [`groups`] sorts it by quantization, and [`Download`]
//! fetches a file: it goes on where an earlier attempt ended, and the file gets its name when it is known to be right.
//!
//! The crate `hf-hub` keeps a cache in a layout of its own, and neither resumes after its process ended nor compares
//! checksums; so this speaks to the hub itself.

mod choose;
mod client;
mod download;
mod error;
mod listing;
mod part;
mod source;

pub use choose::{Group, groups, named, near};
pub use client::{Client, Token};
pub use download::{Download, Fetched, Progress, parse_sha256};
pub use error::PullError;
pub use listing::{Hub, RemoteFile};
pub use source::Source;
