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

mod boot;
mod change;
mod hear;
mod redundant;
mod score;
mod sites;
mod source;
mod trial;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use breakwater_trace::Feature;

use crate::machine::Machine;
use crate::{Tools, ui};

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
    /// Only those of functions whose names contain this, inlined ones included.
    pub only: Option<String>,
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
        let (every, only) = (self.every.max(1), self.only.clone());
        let trial = Trial::open(self, tools)?;
        let mut chosen = trial.chosen(every);
        if let Some(only) = &only {
            chosen.retain(|mutant| mutant.is_of(only));
            ensure!(!chosen.is_empty(), "no barrier and no maintenance instruction is of `{only}`");
        }
        let progress = ui::Progress::new(chosen.len() as u64);
        let fates =
            trial.judge(&chosen, |mutant, fate| progress.done(fate.is_good(), Some(&format!("{mutant}: {fate}"))))?;
        let score = Score::new(chosen.into_iter().cloned().zip(fates).collect());
        if every == 1 && only.is_none() {
            trial.require_current(&score)?;
        }
        Ok(score)
    }
}

/// `mutate`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// The image's ELF file, with symbols; what it loads is booted as a Linux arm64 Image
    #[arg(long, value_name = "FILE")]
    elf: PathBuf,
    /// CPU models; one boot of each
    #[arg(long, default_value = "cortex-a57", value_name = "LIST", value_delimiter = ',')]
    cpu: Vec<String>,
    /// Number of CPUs
    #[arg(long, default_value_t = 2, value_name = "N")]
    smp: u32,
    /// Memory, with K, M or G; a bare number is MiB
    #[arg(long, default_value = "256M", value_name = "SIZE")]
    memory: String,
    /// Command line of the image
    #[arg(long, default_value = "", value_name = "LINE", allow_hyphen_values = true)]
    append: String,
    /// Features and errata of every CPU, as the trace format spells them: bbm=2,ets2
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    features: Vec<Feature>,
    /// Which instructions may be missing, and why
    #[arg(long, value_name = "FILE.toml")]
    redundant: Option<PathBuf>,
    /// Weaken and swap the instructions of these routines too, in the first boot
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    weaken: Vec<String>,
    /// Only every Nth mutant, and those that another instruction covers
    #[arg(long, default_value_t = 1, value_name = "N")]
    every: usize,
    /// Only those of functions whose names contain this, inlined ones included
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    pub qemu: Option<PathBuf>,
}

/// Tries all mutants, and prints what became of them and the MUTATION-REPORT line.
///
/// # Errors
/// An unchanged image is not clean, a reason is out of date, a mutant survived, or QEMU cannot be run.
pub fn command(args: &Args, tools: &Tools) -> Result<()> {
    let boot = |cpu: &String| {
        let machine = Machine { cpu: cpu.clone(), smp: args.smp, memory: args.memory.clone(), ..Machine::default() };
        Boot { append: args.append.clone(), features: args.features.clone(), ..Boot::new(cpu, machine) }
    };
    let plan = Plan {
        image: Program { elf: &args.elf, boots: args.cpu.iter().map(boot).collect() },
        twin: None,
        reasons: args.redundant.as_deref().map(Reasons::read).transpose()?.unwrap_or_default(),
        weakened: args.weaken.iter().cloned().collect(),
        only: args.only.clone(),
        every: args.every,
    };
    plan.score(tools)?.said()
}

impl Score {
    /// Prints it, and requires that no mutant survived.
    ///
    /// # Errors
    /// One did.
    pub fn said(&self) -> Result<()> {
        anstream::println!("{self}");
        anstream::println!("MUTATION-REPORT {}", self.to_json());
        ensure!(self.is_whole(), "{}", self.summary());
        Ok(())
    }
}
