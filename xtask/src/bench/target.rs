//! Boots `request_costs` of tests/boot where QEMU counts instructions, and reads its lines.

use super::report::{Cost, Run, Target};
use crate::boot::{Boot, patient};
use crate::loader::Loading;
use crate::machine::Machine;
use crate::setup::{self, Ready};
use crate::{exec, guest, image, paths, ui};
use anyhow::{Context, Result, bail, ensure};
use breakwater_image::Elf;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The package and the program.
const PACKAGE: &str = "breakwater-boot-tests";
const PROGRAM: &str = "request_costs";
/// Alone, where invalidations are local, and with others, where they are broadcast.
const CPUS: [u32; 2] = [1, 4];
/// Boots with each number of CPUs.
const BOOTS: u32 = 2;
const TIMEOUT: Duration = Duration::from_secs(300);
/// What the program says when all is well.
const END: &str = "fact holds:";

/// Sets up, builds, boots, reads.
///
/// # Errors
/// Set-up, build or a boot failed, or two boots did not say the same.
pub(super) fn run(qemu: Option<&Path>) -> Result<Target> {
    counted(&setup::ready(qemu)?, &paths::out().join("bench"))
}

/// Builds, boots, reads; files for these boots alone go to `scratch`.
///
/// # Errors
/// As [`run`].
pub(crate) fn counted(ready: &Ready, scratch: &Path) -> Result<Target> {
    let img = build(ready)?;
    std::fs::create_dir_all(scratch)?;
    let progress = ui::Progress::new(u64::from(BOOTS) * CPUS.len() as u64);
    let mut runs = Vec::new();
    for cpus in CPUS {
        let mut seen: Option<Run> = None;
        for boot in 1..=BOOTS {
            let run = Run { cpus, requests: boot_once(ready, &img, cpus, scratch)? };
            progress.done(
                true,
                Some(&format!("boot {boot} with {}: {} requests counted", cpus_in_words(cpus), run.requests.len())),
            );
            if let Some(before) = &seen {
                same(before, &run)?;
            }
            seen = Some(run);
        }
        runs.extend(seen);
    }
    let compiler =
        exec::ask(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version"))?;
    Ok(Target {
        compiler: compiler.trim().to_owned(),
        qemu: ready.qemu.version.clone(),
        cpu: Machine::default().cpu,
        boots: BOOTS,
        runs,
    })
}

/// `1 CPU`, `4 CPUs`.
pub(super) fn cpus_in_words(cpus: u32) -> String {
    format!("{cpus} CPU{}", if cpus == 1 { "" } else { "s" })
}

fn build(ready: &Ready) -> Result<PathBuf> {
    let mut cargo = image::cargo(&ready.toolchain, "build", None);
    cargo.args(["--package", PACKAGE, "--bin", PROGRAM]);
    exec::run(&mut cargo).with_context(|| format!("{PROGRAM} of tests/boot does not build"))?;
    let out = paths::out().join("tests");
    std::fs::create_dir_all(&out)?;
    let linked = paths::target().join(paths::TARGET).join("release").join(PROGRAM);
    Ok(image::place(&linked, &Elf::read(&linked)?, &out, PROGRAM)?.img)
}

fn boot_once(ready: &Ready, img: &Path, cpus: u32, scratch: &Path) -> Result<Vec<Cost>> {
    let machine = Machine { smp: cpus, icount: true, ..Machine::default() };
    let entry = Loading::Kernel { load_address: None, append: patient("exit=semihosting") };
    let boot = Boot { qemu: &ready.qemu, img, machine: &machine, entry: &entry, scratch };
    let finished = guest::run(&mut boot.command()?, TIMEOUT, false)?;
    ensure!(!finished.timed_out, "{PROGRAM} with {}: no end within {} s", cpus_in_words(cpus), TIMEOUT.as_secs());
    ensure!(
        finished.status == Some(0) && finished.serial.contains(END),
        "{PROGRAM} with {} ended with {:?}; it said last: {}",
        cpus_in_words(cpus),
        finished.status,
        finished.serial.lines().next_back().unwrap_or_default()
    );
    read(&finished.serial)
}

/// The costs in what the program said, without what reading the counters costs.
///
/// # Errors
/// A line is malformed, or instructions were not counted.
pub(super) fn read(serial: &str) -> Result<Vec<Cost>> {
    let lines = serial.lines().filter_map(|line| line.strip_prefix("bench "));
    let mut costs = lines.map(cost).collect::<Result<Vec<_>>>()?;
    ensure!(costs.first().is_some_and(|first| first.name == "idle"), "no line `bench idle`");
    let idle = costs.remove(0);
    ensure!((idle.stores, idle.tlbis, idle.dsbs, idle.isbs, idle.frames) == (0, 0, 0, 0, 0), "idling cost {idle:?}");
    for cost in &mut costs {
        cost.instructions = cost.instructions.saturating_sub(idle.instructions);
    }
    ensure!(!costs.is_empty(), "no request was counted");
    Ok(costs)
}

fn cost(line: &str) -> Result<Cost> {
    let mut words = line.split_whitespace();
    let name = words.next().context("a line without a name")?.to_owned();
    let mut number = |key: &str| -> Result<i64> {
        let word = words.next().with_context(|| format!("`bench {line}` has no {key}"))?;
        let value = word.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
        match value {
            Some("uncounted") => bail!("this QEMU does not count instructions: `bench {line}`"),
            Some(value) => value.parse().with_context(|| format!("`bench {line}`: {word}")),
            None => bail!("`bench {line}` has `{word}` where {key} belongs"),
        }
    };
    let mut count = |key: &str| number(key).and_then(|number| Ok(u64::try_from(number)?));
    let (instructions, stores) = (count("instructions")?, count("stores")?);
    let (tlbis, dsbs, isbs) = (count("tlbis")?, count("dsbs")?, count("isbs")?);
    Ok(Cost { name, instructions, stores, tlbis, dsbs, isbs, frames: number("frames")? })
}

/// Whether two boots say the same.
///
/// # Errors
/// The first request whose cost differs.
pub(super) fn same(one: &Run, other: &Run) -> Result<()> {
    let mut pairs = one.requests.iter().zip(&other.requests);
    if let Some((first, second)) = pairs.find(|(first, second)| first != second) {
        bail!("two boots with {} count differently: {first:?}, then {second:?}", cpus_in_words(one.cpus));
    }
    ensure!(one == other, "two boots with {} make different requests", cpus_in_words(one.cpus));
    Ok(())
}
