//! The witness as an engineer has it who installed it: the command alone, in a folder of its own, with a copy of the image.

use super::Context;
use super::runner::Case;
use crate::{exec, paths};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The command watches our image far from the repository, and names no file of it.
pub(super) fn cases() -> Vec<Case> {
    vec![Case::new("witness/installed", |context: &Context, _: &Path| {
        let far = std::env::temp_dir().join(format!("breakwater-installed-{}", std::process::id()));
        knows_no_repository(&paths::root().join("tests/witness/cli/src"))?;
        fs::create_dir_all(&far)?;
        let outcome = installed(context, &far);
        fs::remove_dir_all(&far).with_context(|| far.display().to_string())?;
        outcome
    })]
}

/// No source of the command, its tests aside, asks where it was built.
fn knows_no_repository(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| paths::shown(directory))? {
        let path = entry?.path();
        if path.is_dir() {
            knows_no_repository(&path)?;
        } else if !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path)?;
            ensure!(!text.contains("CARGO_MANIFEST_DIR"), "{} knows where it was built", paths::shown(&path));
        }
    }
    Ok(())
}

fn installed(context: &Context, far: &Path) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    exec::run(cargo.current_dir(paths::root()).args([
        "build",
        "--package",
        "breakwater-witness",
        "--bin",
        "breakwater-witness",
    ]))?;
    let copies = [
        (paths::target().join("debug/breakwater-witness"), far.join("breakwater-witness")),
        (context.image.img.clone(), far.join("boot.img")),
        (context.image.elf.clone(), far.join("boot.elf")),
    ];
    for (from, to) in &copies {
        fs::copy(from, to).with_context(|| from.display().to_string())?;
    }
    let mut witness = Command::new(far.join("breakwater-witness"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    witness.current_dir(far).env_clear().env("PATH", path).env("HOME", far).env("TMPDIR", far);
    witness.args([
        "run",
        "--image",
        "boot.img",
        "--elf",
        "boot.elf",
        "--append",
        "exit=semihosting",
        "--timeout",
        "60",
    ]);
    witness
        .args(["--timeline", "boot.svg", "--trace", "boot.trace", "--json", "--qemu"])
        .arg(&context.ready.qemu.program);
    let said = exec::ask(&mut witness)?;
    ensure!(said.contains(r#""verdict":"clean""#), "{said}");
    ensure!(far.join("boot.svg").is_file(), "there is no picture");
    let mut judge = Command::new(far.join("breakwater-witness"));
    let judged = exec::ask(judge.current_dir(far).env_clear().args(["judge", "boot.trace"]))?;
    ensure!(judged.contains("no violation"), "{judged}");
    Ok(())
}
