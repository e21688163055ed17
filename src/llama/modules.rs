//! ggml's backends as modules, which are loaded when the program starts.

use std::path::{Path, PathBuf};

use llama_cpp_2::llama_backend;

/// Loads ggml's backends, and of the modules for CPUs the one that is best on this processor. They are taken from beside
/// the program, where a copy that travels has them, or else from where llama.cpp's build left them.
pub(crate) fn load() {
    match beside_the_program() {
        Some(folder) => llama_backend::load_backends_from_path(&folder),
        None => llama_backend::load_backends(),
    }
}

/// The folder of the program, if it holds modules.
fn beside_the_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    has_modules(folder).then(|| folder.to_owned())
}

fn has_modules(folder: &Path) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .map(|file| file.file_name())
        .any(|name| name.to_string_lossy().contains("ggml-cpu-"))
}
