//! What this program was built from.

/// The version of hearth.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, as `git describe` words it, or `unknown`: the scripts and the Dockerfile set `HEARTH_COMMIT` when they build. A
/// build script that asked git would compile llama.cpp's bindings anew after each commit.
pub const COMMIT: &str = match option_env!("HEARTH_COMMIT") {
    Some(commit) if !commit.is_empty() => commit,
    _ => "unknown",
};

/// The version of the crate llama-cpp-sys-2, which pins a commit of llama.cpp.
pub const LLAMA_CPP_SYS: &str = env!("LLAMA_CPP_SYS_VERSION");

/// The features that were switched on, separated by commas.
#[must_use]
pub fn features() -> String {
    let all = [
        ("cuda", cfg!(feature = "cuda")),
        ("demo", cfg!(feature = "demo")),
        ("dynamic-backends", cfg!(feature = "dynamic-backends")),
        ("metal", cfg!(feature = "metal")),
        ("vulkan", cfg!(feature = "vulkan")),
    ];
    let on = all.iter().filter(|(_, on)| *on).map(|(name, _)| *name);
    on.collect::<Vec<_>>().join(",")
}
