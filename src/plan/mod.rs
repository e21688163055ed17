//! Where everything goes: a machine, the shapes of models and their configuration make a plan.
//!
//! Pure code, but for [`detect`]: it can be asked about machines that are not at hand, and about models of which only the header
//! is. [`plan`] decides, [`Plan`] says what and why, [`predict`] is held against what llama.cpp allocates.

mod demand;
pub mod detect;
mod machine;
mod memory;
mod outcome;
mod place;
mod shape;
mod sliding;
mod slots;
mod speed;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod threads;

pub use machine::{Described, Device, Machine};
pub use memory::{Context, Prediction, predict};
pub use outcome::{Experts, Kind, ModelPlan, Plan, PlanError, Row, Tier, TierUse};
pub use place::{ModelRequest, plan};
pub use shape::{Component, LayerShape, ModelShape};
pub use speed::Estimate;
pub use text::bytes;
pub use threads::{Threads, threads};
