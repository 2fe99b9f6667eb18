//! Some of the mutants of `cargo xtask mutate` in every test run: every tenth, and all that another instruction is said to cover.

use super::runner::Case;
use crate::mutants;
use anyhow::ensure;

/// Which part of them.
const EVERY: usize = 10;

/// A sample of the mutants.
pub(super) fn cases() -> Vec<Case> {
    let sample = Case::new("witness/mutants", move |context, scratch| {
        let score = mutants::score(&context.ready, &context.image, scratch, EVERY)?;
        ensure!(score.is_whole(), "{score}");
        Ok(())
    });
    vec![sample]
}
