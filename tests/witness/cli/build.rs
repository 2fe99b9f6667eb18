//! Builds the recorder, whose bytes the command carries: whoever installs it has a QEMU plugin without building one.
//!
//! The compiler is called itself, not Cargo: the recorder is two crates without dependencies, and a Cargo inside Cargo would wait for locks that
//! the outer one holds, or fetch what is there.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo says where output goes"));
    let witness = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("Cargo says where this is")).join("..");
    let source = |package: &str| {
        let directory = witness.join(package).join("src");
        println!("cargo::rerun-if-changed={}", directory.display());
        directory.join("lib.rs")
    };
    let trace = out.join("libbreakwater_trace.rlib");
    compile("breakwater_trace", "rlib", &source("trace"), &trace, &[]);
    let external = format!("--extern=breakwater_trace={}", trace.display());
    compile("breakwater_recorder", "cdylib", &source("recorder"), &out.join("recorder.so"), &[&external]);
}

/// Compiles one crate for the machine that the command is for.
fn compile(name: &str, kind: &str, source: &Path, out: &Path, more: &[&str]) {
    let mut rustc = Command::new(env::var_os("RUSTC").expect("Cargo names the compiler"));
    rustc.args(["--edition=2024", "--crate-name", name, "--crate-type", kind, "--target"]);
    rustc.arg(env::var_os("TARGET").expect("Cargo names the target"));
    rustc.args([
        "-Copt-level=3",
        "-Ccodegen-units=1",
        "-Cpanic=abort",
        "-Clto=fat",
        "-Cstrip=symbols",
        "--cap-lints=warn",
    ]);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={}", linker.display()));
    }
    let status = rustc.args(more).arg("-o").arg(out).arg(source).status();
    assert!(status.is_ok_and(|status| status.success()), "the recorder does not build: {name}");
}
