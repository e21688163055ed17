//! Compiles `coverage.c`.

fn main() {
    println!("cargo:rerun-if-changed=coverage.c");
    cc::Build::new().file("coverage.c").compile("hearth_coverage");
}
