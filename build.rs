//! Bindings to ggml's plug-in interface, from the very header that the pinned llama-cpp-sys-2 was built from; the functions
//! over its `common` library; and the check of the processor.
//!
//! The headers are not among the files which that crate installs, so its source is found through `cargo metadata`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The interface that `src/experts/` implements. Another one has other structs.
const API_VERSION: &str = "#define GGML_BACKEND_API_VERSION 3";
const CRATE: &str = "llama-cpp-sys-2";
const VERSION: &str = "0.1.161";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.lock");
    println!("cargo:rustc-env=LLAMA_CPP_SYS_VERSION={VERSION}");
    check_of_the_processor();
    aligned_arrays();
    if std::env::var_os("CARGO_FEATURE_DYNAMIC_BACKENDS").is_some() {
        libraries_beside_the_program();
    }
    let source = crate_source();
    bindings(&source);
    beside_llama(&source.join("llama.cpp"));
    if std::env::var_os("CARGO_FEATURE_DYNAMIC_BACKENDS").is_none() {
        // Its kernels would be in a module.
        prompt_attention(&source.join("llama.cpp/ggml"));
    }
}

/// Compiles what calls functions of llama.cpp that only C++ knows. llama-cpp-sys-2 links what it calls.
fn beside_llama(llama: &Path) {
    const SOURCES: [&str; 2] = ["src/llama/chat/common.cpp", "src/llama/mtp.cpp"];
    let mut build = cc::Build::new();
    // The warnings are mostly those of llama.cpp's headers.
    build.cpp(true).std("c++17").warnings(false).files(SOURCES);
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    for folder in ["common", "include", "src", "ggml/include", "vendor"] {
        build.include(llama.join(folder));
    }
    build.compile("hearth_llama");
}

/// Compiles `src/llama/prompt_attention.cpp`, with the kernels of ggml's CPU backend, for the same processor.
fn prompt_attention(ggml: &Path) {
    const SOURCE: &str = "src/llama/prompt_attention.cpp";
    println!("cargo:rerun-if-changed={SOURCE}");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).file(SOURCE);
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    // As llama-cpp-sys-2 looks for it.
    let mut flags = flags.split('\x1f').filter_map(|flag| flag.split_once("target-cpu="));
    if let Some((_, processor)) = flags.next() {
        let arm = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|name| name == "aarch64");
        build.flag(format!("-m{}={processor}", if arm { "cpu" } else { "arch" }));
    }
    for folder in ["include", "src", "src/ggml-cpu"] {
        build.include(ggml.join(folder));
    }
    build.compile("hearth_prompt_attention");
}

/// Compiles `src/llama/arrays.cpp`, which aligns what llama.cpp allocates.
fn aligned_arrays() {
    const SOURCE: &str = "src/llama/arrays.cpp";
    println!("cargo:rerun-if-changed={SOURCE}");
    let mut build = cc::Build::new();
    // Before the library that has the operator otherwise.
    build
        .cpp(true)
        .std("c++17")
        .file(SOURCE)
        .link_lib_modifier("+whole-archive");
    build.compile("hearth_arrays");
}

/// Puts llama.cpp's libraries and modules beside the program, which looks for them there, so that all can be copied.
fn libraries_beside_the_program() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // OUT_DIR is PROFILE/build/hearth-HASH/out.
    let profile = out
        .ancestors()
        .nth(3)
        .expect("OUT_DIR lies in the folder of the profile");
    let modules =
        PathBuf::from(std::env::var_os("DEP_LLAMA_BACKENDS_DIR").expect("llama-cpp-sys-2 tells of its modules"));
    for folder in [
        modules.clone(),
        modules.with_file_name("lib"),
        modules.with_file_name("lib64"),
    ] {
        if folder.is_dir() {
            // Cargo does not run this again by itself when llama.cpp was built anew.
            println!("cargo:rerun-if-changed={}", folder.display());
        }
        for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = file.file_name();
            if [".so", ".dylib"]
                .iter()
                .any(|ending| name.to_string_lossy().contains(ending))
            {
                // llama-cpp-sys-2 links some of them there; written over, the link would empty its own source.
                let copy = profile.join(&name);
                let _ = std::fs::remove_file(&copy);
                std::fs::copy(file.path(), copy)
                    .unwrap_or_else(|error| panic!("cannot copy {}: {error}", file.path().display()));
            }
        }
    }
    let here = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "@loader_path",
        _ => "$ORIGIN",
    };
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{here}");
}

/// Compiles `src/llama/cpu.c`, which tells it on a processor that lacks what the program was compiled for.
fn check_of_the_processor() {
    const SOURCE: &str = "src/llama/cpu.c";
    println!("cargo:rerun-if-changed={SOURCE}");
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let mut build = cc::Build::new();
    build
        .file(SOURCE)
        // For the oldest processor: it has to run on those that the rest does not run on.
        .inherit_rustflags(false)
        .define(
            "HEARTH_COMPILED_FOR",
            format!("\" {} \"", features.replace(',', " ")).as_str(),
        )
        // Nothing refers to the check itself.
        .link_lib_modifier("+whole-archive");
    if std::env::var_os("CARGO_FEATURE_DYNAMIC_BACKENDS").is_none() {
        build.define("HEARTH_STATIC_GGML", None);
    }
    build.compile("hearth_cpu");
}

fn bindings(source: &Path) {
    let ggml = source.join("llama.cpp/ggml");
    let header = ggml.join("src/ggml-backend-impl.h");
    let text =
        std::fs::read_to_string(&header).unwrap_or_else(|error| panic!("cannot read {}: {error}", header.display()));
    assert!(
        text.contains(API_VERSION),
        "{} does not say `{API_VERSION}`: src/experts/ was written for that interface and must be read again",
        header.display()
    );
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("ggml.rs");
    bindgen::builder()
        .header(header.display().to_string())
        .clang_arg(format!("-I{}", ggml.join("include").display()))
        .allowlist_type("ggml_(backend_.*|tensor_flag)")
        .allowlist_function("ggml_.*")
        .allowlist_var("GGML_BACKEND_API_VERSION")
        .default_enum_style(bindgen::EnumVariation::ModuleConsts)
        .derive_default(true)
        .layout_tests(true)
        .generate()
        .unwrap_or_else(|error| panic!("bindgen cannot read {}: {error}", header.display()))
        .write_to_file(&out)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", out.display()));
}

/// Where cargo has unpacked the pinned crate.
fn crate_source() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let target = std::env::var("TARGET").expect("cargo sets TARGET");
    let cargo = std::env::var_os("CARGO").expect("cargo sets CARGO");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            &target,
        ])
        .arg("--manifest-path")
        .arg(Path::new(&manifest).join("Cargo.toml"))
        .output()
        .expect("cargo can be run");
    assert!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let package = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == CRATE)
        .unwrap_or_else(|| panic!("{CRATE} is not among the dependencies"));
    assert_eq!(
        package["version"], VERSION,
        "src/experts/ was written for {CRATE} {VERSION}; read ggml-backend-impl.h again before another one is used"
    );
    let manifest = package["manifest_path"].as_str().expect("a package has a manifest");
    Path::new(manifest)
        .parent()
        .expect("a manifest lies in a folder")
        .to_owned()
}
