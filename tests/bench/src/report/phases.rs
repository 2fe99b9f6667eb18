//! What a boot of the image costs, phase by phase, with so much RAM and so many CPUs: read from the report that the image
//! ends with, where QEMU counts instructions.
//!
//! What must hold: all boots of one machine say the same of every phase; the machine is the one that was asked for; and
//! each figure is within its promise. The promises are of one compiler, the pinned one: another is held to wider bounds.

use super::counts::{Said, cpus_in_words};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Names of the image: the phase that zeroes the frametable, the area it is in, and the sum of all phases.
const FRAMETABLE: &str = "frametable";
pub(super) const TOTAL: &str = "total";
const PAGE_BYTES: u64 = 4096;
const GIB: u64 = 1 << 30;

/// A figure that is promised of a boot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    pub(super) figure: &'static str,
    /// Of a machine with one CPU and so much RAM.
    gib: u64,
    phase: &'static str,
    /// Of the phase, what each 4 KiB of the frametable takes.
    is_each_page: bool,
    /// What the pinned compiler took when the promise was made.
    pub(super) measured: f64,
    /// What any compiler may take (issue 16).
    pub(super) bound: f64,
}

/// The promises: figure, GiB, phase, measured, bound. After a change of the image or of the compiler, `cargo xtask bench
/// --target` shows what each takes now, in the column "counted": that is the new `measured`.
pub(super) const PROMISES: [Promise; 7] = [
    Promise::new("whole boot, 2 GiB", 2, TOTAL, 484_962.0, 600_000.0),
    Promise::new("whole boot, 64 GiB", 64, TOTAL, 9_759_893.0, 10_500_000.0),
    Promise::each_page("frametable, each 4 KiB, 2 GiB", 2, 146.98, 150.0),
    Promise::each_page("frametable, each 4 KiB, 64 GiB", 64, 146.06, 150.0),
    Promise::new("free init", 2, "free init", 14_990.0, 20_000.0),
    Promise::new("device tree, 1 MiB", 2, "device tree", 67_625.0, 80_000.0),
    Promise::new("audit, 2 GiB", 2, "audit", 41_299.0, 80_000.0),
];

impl Promise {
    const fn new(figure: &'static str, gib: u64, phase: &'static str, measured: f64, bound: f64) -> Self {
        Self { figure, gib, phase, is_each_page: false, measured, bound }
    }

    const fn each_page(figure: &'static str, gib: u64, measured: f64, bound: f64) -> Self {
        Self { figure, gib, phase: FRAMETABLE, is_each_page: true, measured, bound }
    }
}

/// A promise allows so many times what was measured.
pub(super) const MARGIN: f64 = 1.02;
/// Whose the promises are.
const TOOLCHAIN: &str = include_str!("../../../../rust-toolchain.toml");

/// A promise beside what was counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Held {
    pub(super) figure: &'static str,
    /// `None`: no such machine was booted, or its boot has no such phase.
    pub(super) counted: Option<f64>,
    pub(super) at_most: f64,
    /// So much better than it was that the promise should say so.
    pub(super) can_be_tightened: bool,
}

/// What all boots of one machine said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Boot {
    pub(super) cpus: u32,
    pub(super) gib: u64,
    pub(super) boots: usize,
    /// In the order of the boot; the last is their sum.
    pub(super) phases: Vec<Phase>,
    /// Instructions of that phase for each 4 KiB of the frametable.
    pub(super) frametable_each_page: f64,
}

/// One phase, as the image reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Phase {
    pub(super) name: String,
    stores: u64,
    tlbis: u64,
    dsbs: u64,
    isbs: u64,
    frames: u64,
    pub(super) instructions: u64,
}

/// What is read of a boot's report.
#[derive(Debug, Deserialize)]
struct Reported {
    ram_bytes: u64,
    cpus: Cpus,
    areas: Vec<Area>,
    phases: Vec<Phase>,
    total: Phase,
}

#[derive(Debug, Deserialize)]
struct Cpus {
    online: u32,
}

#[derive(Debug, Deserialize)]
struct Area {
    name: String,
    mapped: u64,
}

/// The compiler that is pinned, as its version.
pub(super) fn pinned() -> &'static str {
    let channel = TOOLCHAIN.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    channel.unwrap_or("none")
}

/// Whether `compiler`, as it says its version, is the pinned one.
pub(super) fn is_pinned(compiler: &str) -> bool {
    compiler.split_whitespace().nth(1) == Some(pinned())
}

/// Every promise, beside what `boots` took that `compiler` made.
pub(super) fn held(compiler: &str, boots: &[Boot]) -> Vec<Held> {
    let is_pinned = is_pinned(compiler);
    let one = |promise: &Promise| {
        let Promise { figure, gib, phase, is_each_page, measured, bound } = *promise;
        let boot = boots.iter().find(|boot| (boot.cpus, boot.gib) == (1, gib));
        let counted = boot.and_then(|boot| {
            let instructions = boot.instructions(phase)? as f64;
            Some(if is_each_page { boot.frametable_each_page } else { instructions })
        });
        let with_margin = if is_each_page { measured * MARGIN } else { (measured * MARGIN).floor() };
        let at_most = if is_pinned { with_margin.min(bound) } else { bound };
        let can_be_tightened = is_pinned && counted.is_some_and(|counted| counted * MARGIN < measured);
        Held { figure, counted, at_most, can_be_tightened }
    };
    PROMISES.iter().map(one).collect()
}

impl Held {
    /// What is wrong, if anything is.
    pub(super) fn broken(&self) -> Option<String> {
        let Self { figure, counted, at_most, .. } = self;
        match counted {
            None => Some(format!("{figure}: no boot shows it")),
            Some(counted) if counted <= at_most => None,
            Some(counted) => {
                let [counted, at_most] = [*counted, *at_most].map(in_full);
                Some(format!("{figure}: {counted} instructions, more than {at_most}"))
            }
        }
    }
}

/// A count; with two digits more where it is an average.
pub(super) fn in_full(count: f64) -> String {
    if count.fract() == 0.0 { format!("{count:.0}") } else { format!("{count:.2}") }
}

impl Boot {
    /// Of what the boots of one machine said.
    ///
    /// # Errors
    /// A report is missing or malformed, is of another machine or says nothing of instructions; or there is but one boot,
    /// or two of them differ.
    pub(super) fn of(said: &Said) -> Result<Self> {
        let machine = format!("{}, {} GiB", cpus_in_words(said.cpus), said.gib);
        let read = |serial: &String| Self::read(serial, said).with_context(|| machine.clone());
        let read = said.boots.iter().map(read).collect::<Result<Vec<_>>>()?;
        let [first, _, ..] = read.as_slice() else { bail!("{machine}: one boot shows nothing of being exact") };
        for other in &read {
            let mut pairs = first.phases.iter().zip(&other.phases);
            if let Some((first, second)) = pairs.find(|(first, second)| first != second) {
                bail!("two boots with {machine} count differently: {first:?}, then {second:?}");
            }
            ensure!(first == other, "two boots with {machine} have different phases");
        }
        Ok(first.clone())
    }

    fn read(serial: &str, said: &Said) -> Result<Self> {
        let report =
            serial.lines().find_map(|line| line.strip_prefix("BOOT-REPORT ")).context("no line BOOT-REPORT")?;
        ensure!(!report.contains("\"instructions\":null"), "this QEMU does not count instructions");
        let report: Reported = serde_json::from_str(report).context("the line BOOT-REPORT")?;
        let Reported { ram_bytes, cpus, areas, mut phases, total } = report;
        let (online, gib) = (cpus.online, ram_bytes / GIB);
        ensure!((online, gib) == (said.cpus, said.gib), "the report is of {online} CPUs and {gib} GiB");
        let mapped = areas.iter().find(|area| area.name == FRAMETABLE).map_or(0, |area| area.mapped);
        ensure!(mapped >= PAGE_BYTES, "no frametable");
        let zeroed = phases.iter().find(|phase| phase.name == FRAMETABLE).context("no phase frametable")?;
        let frametable_each_page = zeroed.instructions as f64 / (mapped / PAGE_BYTES) as f64;
        phases.push(total);
        Ok(Self { cpus: online, gib, boots: said.boots.len(), phases, frametable_each_page })
    }

    /// What the phase of that name took.
    pub(super) fn instructions(&self, phase: &str) -> Option<u64> {
        Some(self.phases.iter().find(|one| one.name == phase)?.instructions)
    }
}
