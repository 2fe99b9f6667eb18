//! The boot image on many machines, at many addresses, many times.

use super::runner::Case;
use super::{Context, figures};
use crate::child::{self, Finished};
use crate::flight::{Flight, ways};
use crate::machine::Machine;
use crate::paths;
use crate::verdict::{self, Failure};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Long enough for eight CPUs on a busy machine.
pub(super) const TIMEOUT: Duration = Duration::from_secs(300);

/// Every kind of flight, then `repeats` boots in a row with 8 CPUs.
pub(super) fn cases(repeats: u64) -> Vec<Case> {
    // Layouts are booted under the witness.
    let flights = ways::quick().into_iter().filter(|flight| flight.layout_seed.is_none());
    let mut cases: Vec<Case> = flights.map(|flight| flown(flight.name(), flight)).collect();
    cases.extend([1, 4].map(same_twice));
    cases.push(broken_on_purpose());
    let eight = || Flight { machine: Machine { smp: 8, ..Machine::default() }, ..Flight::default() };
    cases.extend((0..repeats).map(|n| flown(format!("again-{n}"), eight())));
    cases
}

fn flown(name: String, flight: Flight) -> Case {
    Case::new(format!("flight/{name}"), move |context, scratch| {
        let line = format!("cargo xtask boot {}", flight.options().join(" "));
        let flight = flight.patient()?;
        let finished = flight.fly(&context.ready.qemu, &context.image.img, scratch, TIMEOUT)?;
        let report = keep(flight.judge(&finished), &finished, scratch).context(line)?;
        // A CPU that stays away is no failure of the image's own, but it is one here.
        let online = report.pointer("/cpus/online").and_then(Value::as_u64);
        ensure!(
            online == Some(u64::from(flight.machine.smp)),
            "{online:?} CPUs are online, not {}",
            flight.machine.smp
        );
        figures::fewest_leaves(&report)?;
        figures::phases_add_up(&report, false)
    })
}

/// A matrix of an image that boots and does not say so: the first failure is told with the line that repeats it.
fn broken_on_purpose() -> Case {
    const NO_REPORT: i32 = 14;
    Case::new("flight/broken-on-purpose", |context, scratch| {
        let mut bytes = std::fs::read(&context.image.img)?;
        let word = b"BOOT-REPORT";
        let at = bytes.windows(word.len()).position(|window| window == word).context("the image reports")?;
        bytes[at] ^= 1;
        let img = scratch.join("broken.img");
        std::fs::write(&img, bytes)?;
        let xtask = |words: &[&str]| {
            let mut command = Command::new(std::env::current_exe()?);
            command.current_dir(paths::root()).env("BREAKWATER_QEMU", &context.ready.qemu.program).args(words);
            child::run(&mut command, TIMEOUT, false)
        };
        let file = |name: &str| scratch.join(name).display().to_string();
        let (img, junit, html) = (img.display().to_string(), file("junit.xml"), file("index.html"));
        let matrix = ["matrix", "--filter", "virt/kernel/smp-1", "--image", &img, "--junit", &junit, "--html", &html];
        let flown = xtask(&matrix)?;
        let told = flown.messages.lines().find_map(|line| line.trim().strip_prefix("Repeat by cargo xtask "));
        let line: Vec<&str> = told.context("no line repeats it")?.split_whitespace().collect();
        ensure!(flown.status == Some(1) && flown.serial.starts_with("0 passed, 2 failed"), "{}", flown.everything());
        let repeated = xtask(&line)?;
        ensure!(repeated.status == Some(NO_REPORT), "{line:?} ended with {:?}", repeated.status);
        for (result, what) in [(&junit, "<failure"), (&html, "0 passed, 2 failed")] {
            ensure!(std::fs::read_to_string(result)?.contains(what), "no `{what}` in {result}");
        }
        Ok(())
    })
}

/// Under --icount everything but wall time is determined: two runs say the same, to the instruction.
fn same_twice(smp: u32) -> Case {
    Case::new(format!("icount/same-twice-{smp}-cpus"), move |context, scratch| {
        let machine = Machine { smp, icount: true, ..Machine::default() };
        let run = || -> Result<String> {
            let finished = finished(context, &context.image.img, &machine, None, scratch)?;
            let report = judged(&finished, scratch)?;
            figures::phases_add_up(&report, true)?;
            Ok(finished.serial)
        };
        let (first, second) = (run()?, run()?);
        let differing = first.lines().zip(second.lines()).find(|(one, other)| one != other);
        match differing {
            None => Ok(()),
            Some((one, other)) => bail!("two runs differ:\n{one}\n{other}"),
        }
    })
}

/// Boots an image with `-kernel` and returns its report.
///
/// # Errors
/// The boot failed; the serial line is left in `scratch`.
pub(super) fn booted(
    context: &Context,
    img: &Path,
    machine: &Machine,
    load_address: Option<u64>,
    scratch: &Path,
) -> Result<Value> {
    judged(&finished(context, img, machine, load_address, scratch)?, scratch)
}

fn finished(
    context: &Context,
    img: &Path,
    machine: &Machine,
    load_address: Option<u64>,
    scratch: &Path,
) -> Result<Finished> {
    let flight = Flight { machine: machine.clone(), load_address, ..Flight::default() };
    flight.patient()?.fly(&context.ready.qemu, img, scratch, TIMEOUT)
}

/// Judges a boot and keeps what a failed one said.
pub(super) fn judged(finished: &Finished, scratch: &Path) -> Result<Value> {
    keep(verdict::judge(finished), finished, scratch)
}

fn keep(judged: Result<Value, Failure>, finished: &Finished, scratch: &Path) -> Result<Value> {
    judged.or_else(|failure| {
        let file = scratch.join("output.txt");
        std::fs::write(&file, finished.everything()).context("cannot keep the output")?;
        bail!("{failure}\n(output: {})", crate::paths::shown(&file))
    })
}
