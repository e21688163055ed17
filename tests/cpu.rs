//! The processor: what is told of it, and what happens on one that lacks what hearth was compiled for.

mod common;

use serde_json::Value;

fn words(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect()
}

#[cfg(feature = "demo")]
#[test]
fn version_tells_what_llama_cpp_uses_of_the_processor() {
    let server = common::Server::start("");
    let (status, version) = server.get("/version");
    assert_eq!(status, 200);
    let cpu = &version["cpu"];
    let (features, used, unused) = (words(&cpu["features"]), words(&cpu["llama_cpp"]), words(&cpu["unused"]));
    // hearth leaves AMX out on purpose, and does not warn of that.
    for feature in features.iter().filter(|feature| !feature.starts_with("AMX")) {
        assert_ne!(used.contains(feature), unused.contains(feature), "{feature}: {cpu}");
    }
    // One set of flags builds hearth and llama.cpp.
    let compiled = [
        ("AVX2", cfg!(target_feature = "avx2")),
        ("AVX512", cfg!(target_feature = "avx512f")),
        ("AVX512_VNNI", cfg!(target_feature = "avx512vnni")),
        ("DOTPROD", cfg!(target_feature = "dotprod")),
        ("MATMUL_INT8", cfg!(target_feature = "i8mm")),
    ];
    for (feature, compiled) in compiled {
        if compiled {
            assert!(
                used.contains(&feature) && features.contains(&feature),
                "{feature}: {cpu}"
            );
        }
    }
}

/// Compiles src/llama/cpu.c into a program that needs `features`, and runs it.
#[cfg(all(unix, target_arch = "x86_64"))]
fn run_compiled_for(features: &str) -> std::process::Output {
    use std::process::Command;

    let folder = tempfile::tempdir().unwrap();
    let (main, program) = (folder.path().join("main.c"), folder.path().join("program"));
    std::fs::write(
        &main,
        "#include <stdio.h>\nconst char *hearth_cpu_features(void);\nint main(void) { return puts(hearth_cpu_features()) < 0; }\n",
    )
    .unwrap();
    let compiled = Command::new("cc")
        .arg(format!("-DHEARTH_COMPILED_FOR=\" {features} \""))
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/src/llama/cpu.c"), "-o"])
        .args([&program, &main])
        .status()
        .unwrap();
    assert!(compiled.success());
    Command::new(program).output().unwrap()
}

#[cfg(all(unix, target_arch = "x86_64"))]
#[test]
fn a_processor_that_lacks_something_ends_the_program_with_a_hint() {
    // Every processor of this architecture has the one; none has the two others, which are of different makers.
    let good = run_compiled_for("sse2 sse3 cmpxchg16b unknown");
    assert!(good.status.success(), "{good:?}");
    assert!(String::from_utf8_lossy(&good.stdout).contains("SSE3 "), "{good:?}");

    let bad = run_compiled_for("tbm sse3 avxvnniint16");
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    assert!(bad.stdout.is_empty(), "before main: {bad:?}");
    let text = String::from_utf8_lossy(&bad.stderr);
    let (error, hint) = text.split_once('\n').unwrap();
    assert!(
        error.starts_with("error: hearth was built for another processor; this one lacks "),
        "{text}"
    );
    assert!(error.contains("tbm") || error.contains("avxvnniint16"), "{text}");
    assert!(!error.contains("sse3"), "{text}");
    assert!(hint.starts_with("hint: ") && hint.contains("HEARTH_CPU"), "{text}");
}
