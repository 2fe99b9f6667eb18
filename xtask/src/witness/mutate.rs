//! `cargo xtask witness --mutate`: is every barrier and every maintenance instruction of the built image missed when it is gone?
//!
//! Why it exists: a witness that never objects proves nothing, and an instruction that nobody misses is either superfluous or
//! untested. So each DSB, ISB, TLBI, DC and IC of the whole image, boot assembly and Rust alike and wherever the compiler has inlined
//! it to, is replaced by NOP, one at a time, and the image is booted under oracle and house rules.
//!
//! What must hold: every mutant is killed, by the witness or by the boot itself, or it is redundant for a reason that the repository names and
//! that is checked (`tests/witness/redundant.toml`). Where no boot of the image executes it, or none misses it, its twin is tried: what comes from
//! the same lines of the source but is inlined elsewhere, in the image or in a program that makes every kind of request
//! (`tests/boot/src/bin/every_request.rs`), and that says after each that nothing is owed.
//!
//! * `sites` finds the instructions, `source` their lines; `scenario` has the boots, `watch` runs one.
//! * `redundant` reads the reasons, `trial` decides what becomes of a site, `score` adds up and prints.

mod redundant;
mod scenario;
mod score;
mod sites;
mod source;
mod trial;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::setup::{self, Qemu};
use crate::{exec, image, paths, suite, ui};
use breakwater_image::Elf;

pub(crate) use score::Score;
pub(crate) use sites::{NOP, spell};
use trial::Trial;

/// The package and the program that make every kind of request.
const REQUESTS: (&str, &str) = ("breakwater-boot-tests", "every_request");

/// Builds everything and tries every `every`th site.
///
/// # Errors
/// Set-up or build failed, an unchanged image is not clean, a reason is out of date, or a mutant survived.
pub(crate) fn command(qemu: Option<&Path>, every: usize) -> Result<()> {
    let ready = setup::ready(qemu)?;
    let image = image::build(&ready.toolchain, &image::Recipe::default())?;
    let requests = requests(&ready.toolchain)?;
    let scratch = paths::out().join("mutate");
    let score = score(&ready.qemu, suite::recorder()?, [&image.elf, &requests], &scratch, every)?;
    anstream::println!("{score}");
    anstream::println!("MUTATION-REPORT {}", score.to_json());
    ensure!(score.is_whole(), "{}", score.summary());
    Ok(())
}

/// Builds the program of requests; its ELF file.
///
/// # Errors
/// It does not build.
pub(crate) fn requests(toolchain: &setup::Toolchain) -> Result<PathBuf> {
    let (package, program) = REQUESTS;
    exec::run(image::cargo(toolchain, "build", None).args(["--package", package, "--bin", program]))?;
    Ok(paths::target().join(paths::TARGET).join("release").join(program))
}

/// Tries every `every`th site of the first of `elves`, with the second as its twin; 1 for all. Files go to `scratch`.
///
/// # Errors
/// An unchanged image is not clean, a reason is out of date, or QEMU cannot be run.
pub(crate) fn score(qemu: &Qemu, plugin: PathBuf, elves: [&Path; 2], scratch: &Path, every: usize) -> Result<Score> {
    std::fs::create_dir_all(scratch).with_context(|| scratch.display().to_string())?;
    let reasons = redundant::read(&paths::root().join("tests/witness/redundant.toml"))?;
    let tools = scenario::Tools { qemu, plugin, scratch: scratch.to_path_buf() };
    let [image, requests] = [Elf::read(elves[0])?, Elf::read(elves[1])?];
    let trial = Trial::open([(&image, elves[0]), (&requests, elves[1])], &tools, reasons, every)?;
    let chosen = trial.chosen(every);
    let progress = ui::Progress::new(chosen.len() as u64);
    let fates = trial.judge(&chosen, |site, fate| progress.done(fate.is_good(), Some(&format!("{site}: {fate}"))))?;
    let score = Score::new(chosen.into_iter().cloned().zip(fates).collect());
    if every <= 1 {
        trial.require_current(&score)?;
    }
    Ok(score)
}
