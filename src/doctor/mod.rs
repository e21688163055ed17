//! What stands in the way of speed on this machine, and what to change.
//!
//! [`gather`] measures and reads; [`judge`] is pure: it makes [`Finding`]s of [`Facts`].

mod compute;
mod facts;
mod finding;
mod gather;
mod gpu;
mod measure;
mod memory;
mod storage;
mod system;

pub use facts::{
    Clock, Configured, Cpu, Facts, FolderFacts, GpuFacts, HugePages, MemoryFacts, ModelFile, PortFacts, Scaling, Taken,
};
pub use finding::{Finding, Status};
pub use gather::{Options, gather};

/// What is to be said about a machine, by subject.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let parts = [
        compute::judge(facts),
        memory::judge(facts),
        gpu::judge(facts),
        storage::judge(facts),
        system::judge(facts),
    ];
    parts.into_iter().flatten().collect()
}
