//! The command line of `mutate`, and what it does.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use breakwater_trace::Feature;

use super::{Boot, Plan, Program, Reasons, Score};
use crate::Tools;
use crate::machine::Machine;

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
