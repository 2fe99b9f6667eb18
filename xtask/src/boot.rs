//! `cargo xtask boot`: set up, build, boot, judge.

use crate::flight::Flight;
use crate::image::{self, Image};
use crate::loader::{self, Loading};
use crate::machine::Machine;
use crate::setup::{self, Qemu};
use crate::{child, exec, paths, ui};
use anyhow::{Result, ensure};
use breakwater_witness::qemu::quiet_console;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Shown by `--help`.
pub(crate) const EXIT_STATUSES: &str = "Exit status: 0 success, 1 set-up or build failed, 2 wrong command line, 10 hang, 11 panic, \
    12 exception, 13 refused, 14 no report, 15 malformed report, 16 audit found a mismatch, 17 QEMU's status was not 0, 18 endless output, \
    19 booted, but CPUs that maxcpus lets run are not online";

/// From how many CPUs on QEMU runs them in one thread: CPUs that wait by WFE are then idle, and not before.
const ONE_THREAD_FROM: u32 = 9;

/// `cargo xtask boot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flight: Flight,
    /// Boot this image in place of ours: one that is built on the same core, whose report is judged in the same way
    #[arg(long, value_name = "FILE", conflicts_with_all = ["layout_seed", "earlycon"])]
    image: Option<PathBuf>,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    qemu: Option<PathBuf>,
    /// Wait for a debugger on port 1234 before the first instruction
    #[arg(long)]
    gdb: bool,
    /// Print the report as JSON on standard output, and nothing else there
    #[arg(long)]
    json: bool,
    /// Seconds until a boot counts as hung
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
}

/// One boot, ready to run.
pub(crate) struct Boot<'a> {
    pub(crate) qemu: &'a Qemu,
    pub(crate) img: &'a Path,
    pub(crate) machine: &'a Machine,
    pub(crate) entry: &'a Loading,
    /// Where files for this boot alone may go.
    pub(crate) scratch: &'a Path,
}

impl Boot<'_> {
    /// The QEMU command line.
    ///
    /// # Errors
    /// The machine or the way in cannot be had.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = self.qemu.command();
        command.args(self.machine.arguments()?);
        if self.machine.smp >= ONE_THREAD_FROM && !self.machine.icount {
            command.args(["-accel", "tcg,thread=single"]);
        }
        command.args(loader::arguments(self.entry, self.machine, self.img, self.scratch)?);
        quiet_console(&mut command, "stdio");
        Ok(command)
    }
}

/// The command line with a way to leave QEMU: the image parks by default, for the sake of boards.
pub(crate) fn with_exit(append: &str) -> String {
    if append.split_whitespace().any(|word| word.starts_with("exit=")) {
        return append.to_owned();
    }
    format!("{append} exit=semihosting").trim().to_owned()
}

/// The command line of a test's boot: unless it says otherwise itself, it waits for every CPU, however long the host has
/// other things to do.
pub(crate) fn patient(append: &str) -> String {
    if append.contains("cpu-timeout=") {
        return append.to_owned();
    }
    format!("{append} cpu-timeout=600")
}

/// Runs `boot`; of its options some were `given`. A failed boot is an error of type [`crate::verdict::Failure`].
///
/// # Errors
/// Set-up, build or boot failed.
pub(crate) fn command(args: &Args, given: &[String]) -> Result<()> {
    // Checked before anything is fetched or built.
    let flight = args.flight.settled(|id| given.iter().any(|given| given == id))?;
    let (qemu, image) = match &args.image {
        Some(img) => {
            ensure!(img.is_file(), "there is no file {}", img.display());
            (setup::emulator(args.qemu.as_deref())?, Image::foreign(img))
        }
        None => {
            let ready = setup::ready(args.qemu.as_deref())?;
            (ready.qemu, image::build(&ready.toolchain, &flight.recipe())?)
        }
    };
    if flight.layout_seed.is_some() {
        ui::step("Layout", &format!("symbol order {:016x}", image.order_hash));
    }
    let report = run(args, &flight, &qemu, &image)?;
    if args.json {
        anstream::println!("{report}");
    }
    Ok(())
}

fn run(args: &Args, flight: &Flight, qemu: &Qemu, image: &Image) -> Result<Value> {
    let mut command = flight.command(qemu, &image.img, &paths::out().join("boot"))?;
    if args.gdb {
        command.args(["-S", "-s"]);
        anstream::eprintln!("attach with: gdb-multiarch {} -ex 'target remote :1234'", paths::shown(&image.elf));
        anstream::eprintln!("then: break primary_entry (before the MMU is on, use the load address instead), continue");
    }
    ui::command(&exec::shown(&command));
    let timeout = if args.gdb { Duration::from_secs(24 * 3600) } else { Duration::from_secs(args.timeout) };
    let finished = child::run_until(&mut command, &flight.limits(timeout), !args.json)?;
    for line in finished.messages.lines() {
        anstream::eprintln!("{line}");
    }
    let verdict = flight.judge(&finished);
    if let (Err(_), true) = (&verdict, args.json) {
        anstream::eprint!("{}", finished.serial);
    }
    let report = verdict?;
    let pages = report.pointer("/audit/pages").and_then(Value::as_u64).unwrap_or_default();
    ui::step("Booted", &format!("in {:.2} s: {pages} pages audited, as declared", finished.took.as_secs_f64()));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_an_exit_is_added_only_where_none_is_given() {
        assert_eq!(with_exit(""), "exit=semihosting");
        assert_eq!(with_exit("exit=psci"), "exit=psci");
        assert_eq!(with_exit("noexit=1"), "noexit=1 exit=semihosting");
        assert_eq!(patient("exit=psci"), "exit=psci cpu-timeout=600");
        assert_eq!(patient("cpu-timeout=1 exit=psci"), "cpu-timeout=1 exit=psci");
    }
}
