//! The boot image on many machines, at many addresses, many times.

use super::runner::Case;
use super::{Context, figures};
use crate::boot::{Boot, patient};
use crate::child::{self, Finished};
use crate::loader::Loading;
use crate::machine::Machine;
use crate::verdict;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Long enough for eight CPUs on a busy machine.
pub(super) const TIMEOUT: Duration = Duration::from_secs(300);

/// The CPU models that every test run boots on.
pub(super) const CPUS: [&str; 9] = [
    "cortex-a53",
    "cortex-a57",
    "cortex-a72",
    "cortex-a76",
    "neoverse-n1",
    "neoverse-n2",
    "neoverse-v1",
    "cortex-a710",
    "max",
];

/// Load addresses, each with the memory that it needs.
pub(super) const ADDRESSES: [(&str, u64, &str); 7] = [
    ("2m", 0x4060_0000, "2G"),
    ("64k", 0x4081_0000, "2G"),
    ("4k", 0x4008_1000, "2G"),
    ("first-page", 0x4000_1000, "2G"),
    ("across-2m", 0x403f_f000, "2G"),
    ("across-1g", 0x7fff_f000, "2G"),
    ("above-4g", 0x1_4000_3000, "6G"),
];

/// Every machine and address, then `repeats` boots in a row with 8 CPUs.
pub(super) fn cases(repeats: u64) -> Vec<Case> {
    let base = Machine::default;
    let mut cases = Vec::new();
    for smp in [1, 2, 4, 8] {
        cases.push(plain(format!("matrix/smp-{smp}"), Machine { smp, ..base() }, None));
    }
    for memory in ["256M", "2G", "8G"] {
        cases.push(plain(format!("matrix/memory-{memory}"), Machine { memory: memory.to_owned(), ..base() }, None));
    }
    cases.push(plain("matrix/two-banks".to_owned(), Machine { numa: true, ..base() }, None));
    for cpu in CPUS {
        cases.push(plain(format!("matrix/cpu-{cpu}"), Machine { cpu: cpu.to_owned(), ..base() }, None));
    }
    for gic in ["2", "3"] {
        let machine = Machine { gic: gic.to_owned(), smp: 8, ..base() };
        cases.push(plain(format!("matrix/gic-{gic}"), machine, None));
    }
    for (name, address, memory) in ADDRESSES {
        let machine = Machine { memory: memory.to_owned(), ..base() };
        cases.push(plain(format!("matrix/load-{name}"), machine, Some(address)));
    }
    cases.extend([1, 4].map(same_twice));
    cases.extend((0..repeats).map(|n| plain(format!("repeat/8-cpus-{n}"), Machine { smp: 8, ..base() }, None)));
    cases
}

fn plain(name: String, machine: Machine, load_address: Option<u64>) -> Case {
    Case::new(name, move |context, scratch| {
        let report = booted(context, &context.image.img, &machine, load_address, scratch)?;
        // A CPU that stays away is no failure of the image's own, but it is one here.
        let online = report.pointer("/cpus/online").and_then(Value::as_u64);
        ensure!(online == Some(u64::from(machine.smp)), "{online:?} CPUs are online, not {}", machine.smp);
        if let Some(address) = load_address {
            let start = report.pointer("/image/start").and_then(Value::as_u64);
            ensure!(start == Some(address), "the image is at {start:x?}, not at {address:#x}");
        }
        figures::fewest_leaves(&report)?;
        figures::phases_add_up(&report, false)
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
    let entry = Loading::Kernel { load_address, append: patient("exit=semihosting") };
    let boot = Boot { qemu: &context.ready.qemu, img, machine, entry: &entry, scratch };
    child::run(&mut boot.command()?, TIMEOUT, false)
}

/// Judges a boot and keeps what a failed one said.
pub(super) fn judged(finished: &Finished, scratch: &Path) -> Result<Value> {
    verdict::judge(finished).or_else(|failure| {
        let file = scratch.join("output.txt");
        std::fs::write(&file, finished.everything()).context("cannot keep the output")?;
        bail!("{failure}\n(output: {})", crate::paths::shown(&file))
    })
}
