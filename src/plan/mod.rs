//! Where everything goes: a machine, the shapes of models and their configuration make a plan.
//!
//! Pure code: it can be asked about machines that are not at hand, and about models of which only the header is. [`plan`]
//! decides, [`Plan`] says what and why, [`predict`] is held against what llama.cpp allocates.

mod budget;
mod caches;
mod calibration;
mod choose;
mod demand;
mod memory;
mod outcome;
mod place;
mod placing;
mod request;
mod shape;
mod sliding;
mod speed;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod threads;
mod why;

pub use calibration::RAM_BANDWIDTH;
pub use demand::{DRAFTS, head_batch};
pub use memory::{BATCH, Context, Prediction, outputs, predict};
pub use outcome::{Estimate, Experts, ModelPlan, Plan, PlanError, TierUse};
pub use request::{Choices, Embeddings, ModelRequest, Stretch};
pub use shape::{Component, LayerShape, ModelShape};
pub use threads::{Threads, threads};
pub use why::Why;

use crate::config::MemoryConfig;
use crate::host::Machine;

/// Decides where everything goes.
///
/// Without a GPU all is in main memory. With unified memory all is on the GPU. If everything fits onto the GPU it goes there.
/// Otherwise the routed experts of mixtures stay in main memory; if the rest still does not fit, layers follow them, those
/// of dense models first; and what is left on the GPU holds copies of hot experts. What is configured is not changed;
/// contexts, slots and the type of keys and values are chosen where they are left to hearth.
///
/// # Errors
/// [`PlanError`] where the models do not fit, or settings contradict each other or the machine, with what would fit.
pub fn plan(machine: &Machine, limits: &MemoryConfig, models: &[ModelRequest]) -> Result<Plan, PlanError> {
    let models = choose::choose(machine, limits, models);
    match place::attempt(machine, limits, &models) {
        Ok(plan) => Ok(suggest::advise(plan, limits, &models)),
        Err(error) => Err(suggest::hints(error, machine, limits, &models)),
    }
}
