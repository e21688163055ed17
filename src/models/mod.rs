//! From a configuration to models that answer: inspect, plan, load.
//!
//! [`open`] and [`prepare`] inspect a model's file before llama.cpp sees it, which aborts the process on some damaged ones.
//! [`requests`] is what plans are asked for. [`plan_one`] and [`start_all`] plan with what was found, and start the engines; the weights load in the background.
//! The [`Registry`] has the models that are served and their presets; [`find`] is the one rule by which a name, an alias or a
//! role means one.

mod absent;
mod attention;
mod error;
mod fallback;
mod file;
mod info;
mod live;
mod load;
mod member;
mod names;
mod registry;
mod reload;
mod residents;
mod trial;

pub use attention::requests;
pub use error::ModelError;
pub use file::{Prepared, open, prepare};
pub use info::describe;
pub use live::{LifecycleError, Models};
pub use load::{Started, machine, plan_one, start};
pub use names::{Named, find};
pub use registry::{Model, ModelFailure, Permission, Preset, Registry, Target, UnknownModel};
pub use reload::Reloaded;
pub use trial::{Trials, trial_model};
