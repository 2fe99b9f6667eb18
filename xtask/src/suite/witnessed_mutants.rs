//! Some of the mutants of `cargo xtask witness --mutate` in every test run: every tenth, and all that another instruction is said to cover.

use super::runner::Case;
use crate::witness::mutate;
use anyhow::{Result, ensure};

/// Which part of them.
const EVERY: usize = 10;

/// A sample of the mutants.
///
/// # Errors
/// The recorder does not build.
pub(super) fn cases() -> Result<Vec<Case>> {
    let plugin = super::recorder()?;
    let sample = Case::new("witness/mutants", move |context, scratch| {
        let requests = mutate::requests(&context.ready.toolchain)?;
        let score = mutate::score(&context.ready.qemu, plugin, [&context.image.elf, &requests], scratch, EVERY)?;
        ensure!(score.is_whole(), "{score}");
        Ok(())
    });
    Ok(vec![sample])
}
