//! `cargo xtask lint`: what Cargo's own tools say, and the few rules of this repository that no tool knows.

use crate::setup::{self, Install, Toolchain};
use crate::{exec, paths, ui};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Lines that a file may have.
const LONGEST: usize = 450;
/// What is never left in the repository.
const LEFT_OVERS: [&str; 4] = ["to\u{64}o!(", "unimplemen\u{74}ed!(", "FIX\u{4d}E", "#[igno\u{72}e"];

/// Runs every check, and fails when one does, after all of them.
///
/// # Errors
/// A check failed.
pub(crate) fn command() -> Result<()> {
    let toolchain = {
        let _lock = paths::lock()?;
        setup::toolchain(Install::Allowed)?
    };
    let mut failed = Vec::new();
    for (what, mut command) in tools(&toolchain) {
        if let Err(error) = exec::run(&mut command) {
            ui::failure(&format!("{error:#}"));
            failed.push(what);
        }
    }
    let findings = rules()?;
    findings.iter().for_each(|finding| ui::failure(finding));
    if !findings.is_empty() {
        failed.push("rules");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    ui::step("Clean", "formatting, clippy, documentation, rules");
    Ok(())
}

/// Cargo's tools, for this machine and for the target. A missing component says so itself.
fn tools(toolchain: &Toolchain) -> Vec<(&'static str, Command)> {
    let cargo = |words: &[&str]| {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(paths::root()).args(words);
        command
    };
    let denied = ["--", "-D", "warnings"];
    let mut list = vec![
        ("formatting", cargo(&["fmt", "--all", "--", "--check"])),
        ("clippy", cargo(&[&["clippy", "--workspace", "--all-targets"], &denied[..]].concat())),
        ("documentation", cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"])),
    ];
    if matches!(toolchain, Toolchain::Pinned) {
        let on_target =
            ["--package", "breakwater-boot", "--package", "breakwater-boot-tests", "--target", paths::TARGET];
        list.push((
            "clippy for the target",
            cargo(&[&["clippy", "--lib", "--bins", "--examples"], &on_target[..], &denied[..]].concat()),
        ));
        let words = [&["doc", "--no-deps", "--package", "breakwater"], &on_target[..2], &on_target[4..]].concat();
        list.push(("documentation for the target", cargo(&words)));
    }
    for (what, command) in &mut list {
        if what.starts_with("documentation") {
            command.env("RUSTDOCFLAGS", "-D warnings");
        }
    }
    list
}

/// Unsafe and assembly in their places, files that stay small, nothing left over.
fn rules() -> Result<Vec<String>> {
    let listed = exec::ask(Command::new("git").current_dir(paths::root()).args(["ls-files", "*.rs", "*.S"]))?;
    let mut findings = Vec::new();
    for name in listed.lines() {
        let path = paths::root().join(name);
        if path.is_file() {
            let text = std::fs::read_to_string(&path).with_context(|| name.to_owned())?;
            findings.extend(look_at(name, &text));
        }
    }
    Ok(findings)
}

fn look_at(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST {
        findings.push(format!("{name}: {lines} lines, more than {LONGEST}"));
    }
    let roots = ["src/", "boot/src/"];
    let in_image = roots.iter().any(|root| name.starts_with(root)) && !name.starts_with("boot/src/el2/");
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        let code = line.split("//").next().unwrap_or_default();
        if in_image && (code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("asm!(")) {
            findings.push(format!("{name}:{number}: unsafe or assembly outside boot/src/el2"));
        }
        if let Some(word) = LEFT_OVERS.iter().find(|word| line.contains(**word)) {
            findings.push(format!("{name}:{number}: {word} left over"));
        }
    }
    let module = Path::new(name).extension().is_some_and(|kind| kind == "rs") && in_image;
    if module && !is_root(name) && !text.contains("#![forbid(unsafe_code)]") && !name.contains("/tests") {
        let nested = roots.iter().all(|root| Path::new(name).parent() != Some(Path::new(root)));
        if !nested {
            findings.push(format!("{name}: no #![forbid(unsafe_code)] at its head"));
        }
    }
    findings
}

/// Crate roots and the module that is allowed to be unsafe.
fn is_root(name: &str) -> bool {
    matches!(name, "src/lib.rs" | "boot/src/lib.rs" | "boot/src/main.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_unsafe_outside_its_place() {
        let text = "#![forbid(unsafe_code)]\nfn f() { unsafe { g() } }\n";
        assert_eq!(look_at("src/x.rs", text).len(), 1);
        assert_eq!(look_at("boot/src/x.rs", text).len(), 1);
        assert!(look_at("boot/src/el2/x.rs", text).is_empty());
        assert!(look_at("src/x.rs", "#![forbid(unsafe_code)]\n// unsafe { }\n").is_empty());
    }

    #[test]
    fn bad_a_module_that_may_be_unsafe() {
        assert_eq!(look_at("src/x.rs", "fn f() {}\n").len(), 1);
        assert!(look_at("src/lib.rs", "fn f() {}\n").is_empty());
    }

    #[test]
    fn bad_long_files() {
        assert_eq!(look_at("tests/x.rs", &"\n".repeat(LONGEST + 1)).len(), 1);
    }
}
