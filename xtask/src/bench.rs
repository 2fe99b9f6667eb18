//! `cargo xtask bench`: what requests cost, on the host beside a peer, and on the target by exact counts.
//!
//! The figures are those of tests/bench, which times the host's requests, and reads, checks and shows what the target counted. Here
//! `request_costs` of tests/boot and the image itself are booted for it where QEMU counts instructions. It judges no time:
//! a machine that is busy is not a fault.

use crate::boot::Boot;
use crate::image::Recipe;
use crate::loader::Loading;
use crate::machine::Machine;
use crate::setup::{self, Ready, Toolchain};
use crate::{child, exec, image, paths, ui};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Shown by `--help`.
pub(crate) const AFTER_HELP: &str = "Host figures are medians of rounds in which every candidate has its turn, with their quartiles. \
    Compare ratios, not times, and only within one run. Target figures are exact: the same compiler gives the same numbers. \
    They are what a request takes, and what each phase of a boot takes with more RAM and with more CPUs, beside its promises";

/// The package that times and tells.
pub(crate) const PACKAGE: &str = "breakwater-bench";
/// The package and the program that the target counts.
const COUNTED: [&str; 4] = ["--package", "breakwater-boot-tests", "--bin", "request_costs"];
/// Alone, where invalidations are local, and with others, where they are broadcast.
const CPUS: [u32; 2] = [1, 4];
/// CPUs and GiB that the image itself is booted with, to show how its phases grow. The first ones are promised ...
pub(crate) const SIZES: [(u32, u32); 9] = [(1, 2), (1, 64), (8, 2), (1, 4), (1, 8), (1, 16), (1, 32), (2, 2), (4, 2)];
/// ... and every test run holds so many of them against their promises.
pub(crate) const PROMISED: usize = 2;
/// Boots of each machine: all must say the same.
const BOOTS: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(300);
/// What the program says when all is well, and what the image says.
const ENDS: [&str; 2] = ["fact holds:", "BOOT-REPORT "];

/// `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds of the host's requests
    #[arg(long, default_value_t = 25, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Only the host's requests whose name contains this
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    filter: Option<String>,
    /// Only on this machine, beside a peer
    #[arg(long, conflicts_with = "target")]
    host: bool,
    /// Only under QEMU, counted
    #[arg(long)]
    target: bool,
    /// Print the figures as one line, `BENCH-REPORT` and JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Where the plot goes, as SVG [default: bench.svg in Cargo's target directory]
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    qemu: Option<PathBuf>,
}

/// Runs `bench`.
///
/// # Errors
/// Set-up, build or a run failed, or the target's counts are not what they must be.
pub(crate) fn command(args: &Args) -> Result<()> {
    let counted = if args.host {
        None
    } else {
        let ready = setup::ready(args.qemu.as_deref())?;
        let image = image::build(&ready.toolchain, &Recipe::default())?;
        Some(boots(&ready, &image.img, &SIZES, &paths::out().join("bench"))?)
    };
    let mut bench = paths::cargo();
    bench.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        PACKAGE,
        "--",
        "--rounds",
        &if args.target { 0 } else { args.rounds }.to_string(),
    ]);
    bench.args(args.filter.iter().flat_map(|filter| ["--filter", filter]));
    bench.args(args.json.then_some("--json"));
    bench.arg("--plot").arg(args.plot.clone().unwrap_or_else(|| paths::target().join("bench.svg")));
    if let Some(file) = counted {
        bench.arg("--target").arg(file);
    }
    ui::command(&exec::shown(&bench));
    let status = bench.status().context("cannot start cargo")?;
    ensure!(status.success(), "the figures are not as they must be, or cannot be had: see above");
    Ok(())
}

/// Builds and boots `request_costs`, and boots `image` with each of `sizes`; what every boot said is in the file that is
/// returned, in `scratch`.
///
/// # Errors
/// It does not build, or a boot does not end well.
pub(crate) fn boots(ready: &Ready, image: &Path, sizes: &[(u32, u32)], scratch: &Path) -> Result<PathBuf> {
    let requests = image::program(&ready.toolchain, &COUNTED)?.img;
    std::fs::create_dir_all(scratch)?;
    let progress = ui::Progress::new((BOOTS * (CPUS.len() + sizes.len())) as u64);
    let said = |img: &Path, end, (cpus, gib): (u32, u32)| -> Result<_> {
        let machine = Machine { smp: cpus, memory: format!("{gib}G"), icount: true, ..Machine::default() };
        let mut boots = Vec::new();
        for boot in 1..=BOOTS {
            let said = boot_once(ready, img, &machine, end, scratch);
            boots.push(said.with_context(|| format!("{cpus} CPUs, {gib} GiB, boot {boot}"))?);
            progress.done(true, Some(&format!("boot {boot}, CPUs: {cpus}, GiB: {gib}")));
        }
        Ok(json!({"cpus": cpus, "gib": gib, "boots": boots}))
    };
    let runs = CPUS.map(|cpus| said(&requests, ENDS[0], (cpus, 2))).into_iter().collect::<Result<Vec<_>>>()?;
    let images = sizes.iter().map(|size| said(image, ENDS[1], *size)).collect::<Result<Vec<_>>>()?;
    let rustc = match &ready.toolchain {
        Toolchain::Pinned => std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()),
        Toolchain::BuildStd { rustc, .. } => rustc.into(),
    };
    let compiler = exec::ask(Command::new(rustc).arg("--version"))?;
    let (compiler, qemu, cpu) = (compiler.trim(), &ready.qemu.version, Machine::default().cpu);
    let file = scratch.join("target.json");
    let text = json!({"compiler": compiler, "qemu": qemu, "cpu": cpu, "runs": runs, "images": images}).to_string();
    std::fs::write(&file, text).with_context(|| paths::shown(&file))?;
    Ok(file)
}

/// Boots as `cargo xtask boot` does: time is the number of instructions, and a CPU is not late because the host is busy.
fn boot_once(ready: &Ready, img: &Path, machine: &Machine, end: &str, scratch: &Path) -> Result<String> {
    let entry = Loading::Kernel { load_address: None, append: "exit=semihosting".to_owned() };
    let boot = Boot { qemu: &ready.qemu, img, machine, entry: &entry, scratch };
    let finished = child::run(&mut boot.command()?, TIMEOUT, false)?;
    ensure!(!finished.timed_out, "no end within {} s", TIMEOUT.as_secs());
    let last = finished.serial.lines().next_back().unwrap_or_default();
    let held = finished.status == Some(0) && finished.serial.contains(end);
    ensure!(held, "it ended with {:?}; it said last: {last}", finished.status);
    Ok(finished.serial)
}
