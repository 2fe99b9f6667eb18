//! `mutate`: is every barrier and every maintenance instruction of an image missed when it is gone?
//!
//! Why it exists: a witness that never objects proves nothing, and an instruction that nobody misses is either superfluous or
//! untested. So each DSB, ISB, TLBI, DC and IC of the whole image, assembly and compiled code alike and wherever the compiler has inlined
//! it to, is replaced by NOP, one at a time, and the image is booted under oracle and house rules. In routines that are named, each of them and
//! each write of a control register is weakened and swapped with its neighbour besides.
//!
//! What must hold: every mutant is killed, by the witness or by the boot itself, or it is redundant for a reason that is named
//! and checked ([`Reasons`]). Where no boot of the image executes it, or none misses it, its twin is tried: what comes from
//! the same lines of the source but is inlined elsewhere, in the image or in a second program.
//!
//! * [`Boot`] is what mutants are tried in, `hear` runs one; `sites` finds the instructions, `source` their lines, `change` what is done to them.
//! * `redundant` reads the reasons, `trial` decides what becomes of a mutant, `score` adds up and prints.

mod args;
mod boot;
mod change;
mod hear;
mod redundant;
mod score;
mod sites;
mod source;
mod trial;

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{Tools, ui};

pub use args::{Args, command};
pub use boot::{Boot, LoadedBy};
pub use redundant::Reasons;
pub use score::Score;
use trial::Trial;

/// An image and the boots that its mutants are tried in, the cheap ones first.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its ELF file, with symbols and debugging information.
    pub elf: &'a Path,
    /// The boots.
    pub boots: Vec<Boot>,
}

/// What is tried.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The image.
    pub image: Program<'a>,
    /// A program that has some of the image's code inlined elsewhere, and executes what no boot of the image does.
    pub twin: Option<Program<'a>>,
    /// Why some instructions may be missing.
    pub reasons: Reasons,
    /// Routines whose instructions are also weakened and swapped, in the first boot alone.
    pub weakened: HashSet<String>,
    /// Every how many of the mutants are tried, besides those that another instruction is said to cover; 1 for all.
    pub every: usize,
}

impl Plan<'_> {
    /// Tries the mutants.
    ///
    /// # Errors
    /// An unchanged image is not clean, a reason is out of date, or QEMU cannot be run.
    pub fn score(self, tools: &Tools) -> Result<Score> {
        std::fs::create_dir_all(&tools.scratch).with_context(|| tools.scratch.display().to_string())?;
        let every = self.every.max(1);
        let trial = Trial::open(self, tools)?;
        let chosen = trial.chosen(every);
        let progress = ui::Progress::new(chosen.len() as u64);
        let fates =
            trial.judge(&chosen, |mutant, fate| progress.done(fate.is_good(), Some(&format!("{mutant}: {fate}"))))?;
        let score = Score::new(chosen.into_iter().cloned().zip(fates).collect());
        if every == 1 {
            trial.require_current(&score)?;
        }
        Ok(score)
    }
}
