//! A boot that the recorder watched, before the oracle: does every barrier and invalidation stand where the architecture wants it?
//!
//! Why it exists: QEMU hides all of this. An image without one DSB, TLBI or DC boots there as well as one that has them all. What the
//! recorder cannot know is declared here: what QEMU loads, what memory is, what the CPU model gets wrong. Nothing of the
//! image's own code is asked, and no event is written by hand.
//!
//! `mutate` is the proof that it bites: the image with one instruction removed, weakened or moved, again and again.
//!
//! What it refuses: a trace that is malformed or breaks off.

mod conduct;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breakwater_oracle::obligations::{Obligations, Unknown, Violation};
use breakwater_trace::{Feature, HEADER, Reader, Record};

pub(crate) use conduct::Conduct;
pub use conduct::Lapse;

use crate::finding::{Finding, fold};
use crate::loader::{Loaded, virt_load_address};
use crate::machine::Machine;
use crate::names::Names;
use crate::{Tools, child, qemu};

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The emulator and the recorder.
    pub tools: Tools,
    /// The raw image.
    pub image: PathBuf,
    /// Its ELF file, for symbols.
    pub elf: Option<PathBuf>,
    /// Where the image lies in physical memory; by default where QEMU's virt machine puts a Linux `Image` given as `-kernel`.
    pub load_address: Option<u64>,
    /// `-M`.
    pub machine: String,
    /// `-cpu`.
    pub cpu: String,
    /// `-smp`.
    pub smp: u32,
    /// `-m`.
    pub memory: String,
    /// `-append`.
    pub append: String,
    /// Adds `-icount shift=0,sleep=off`; one CPU only, because QEMU then gives plugins wrong CPU numbers.
    pub icount: bool,
    /// Further arguments. Without a `-kernel` or a loader device among them the image is passed as a kernel, with the command line.
    pub extra: Vec<String>,
    /// Where the trace goes.
    pub trace: PathBuf,
    /// Ends the run after this many instructions of a CPU; for images that do not end by themselves.
    pub limit: Option<u64>,
    /// Records fetches too, for a profile and the image's entry among the milestones.
    pub fetches: bool,
    /// Records every load, not those with the MMU off alone.
    pub loads: bool,
    /// Records those besides that say something of the order between CPUs.
    pub shared_loads: bool,
    /// The largest trace; by default the recorder's own limit.
    pub cap_bytes: Option<u64>,
    /// Features and errata that every CPU is judged by.
    pub features: Vec<Feature>,
    /// The image is held to house rules besides.
    pub house_rules: bool,
    /// Ends the run, as a failure.
    pub timeout: Duration,
}

impl Options {
    /// One cortex-a57 with 2 GiB: the machine that this project's promises are about.
    #[must_use]
    pub fn new(tools: &Tools, image: &Path, trace: &Path) -> Self {
        Self {
            tools: tools.clone(),
            image: image.into(),
            elf: None,
            load_address: None,
            machine: "virt,virtualization=on,gic-version=3".into(),
            cpu: "cortex-a57".into(),
            smp: 1,
            memory: "2G".into(),
            append: String::new(),
            icount: false,
            extra: Vec::new(),
            trace: trace.into(),
            limit: None,
            fetches: true,
            loads: false,
            shared_loads: false,
            cap_bytes: None,
            features: Vec::new(),
            house_rules: false,
            timeout: Duration::from_secs(60),
        }
    }
}

/// Runs it to its end; QEMU's exit status, if it had one. The trace is then complete, or absent.
pub(crate) fn run(options: &Options) -> Result<Option<i32>> {
    ensure!(
        !options.icount || options.smp == 1,
        "icount with {} CPUs: QEMU then runs them in one thread and gives plugins wrong CPU numbers",
        options.smp
    );
    let _ = fs::remove_file(&options.trace);
    let finished = child::run(&mut command(options), options.timeout, false)?;
    ensure!(!finished.timed_out, "the image did not end within {} s", options.timeout.as_secs());
    let (ended, exists) = (finished.ended(), options.trace.exists());
    ensure!(exists, "QEMU wrote no trace: plugins need QEMU 9.2 or later, built with them ({ended})");
    Ok(finished.status)
}

/// QEMU with the recorder; the trace goes to `options.trace`.
pub(crate) fn command(options: &Options) -> Command {
    let mut plugin = format!("{},out={}", options.tools.plugin.display(), options.trace.display());
    if let Some(limit) = options.limit {
        plugin += &format!(",limit={limit}");
    }
    if options.fetches {
        plugin += ",fetches=on";
    }
    if options.loads {
        plugin += ",loads=all";
    } else if options.shared_loads {
        plugin += ",loads=shared";
    }
    if let Some(cap) = options.cap_bytes {
        plugin += &format!(",cap={cap}");
    }
    let mut command = options.tools.qemu.command();
    command.args(["-M", &options.machine, "-cpu", &options.cpu, "-smp", &options.smp.to_string()]);
    command.args(["-m", &options.memory, "-plugin", &plugin]);
    qemu::quiet_console(&mut command, "null");
    if options.icount {
        command.args(["-icount", "shift=0,sleep=off", "-accel", "tcg,thread=single"]);
    } else {
        command.args(["-accel", "tcg,thread=multi"]);
    }
    let has = |is: fn(&str) -> bool| options.extra.iter().any(|argument| is(argument));
    if !has(|argument| argument.starts_with("loader,")) {
        command.args(["-append", &options.append]);
        if !has(|argument| argument == "-kernel") {
            command.arg("-kernel").arg(&options.image);
        }
    }
    command.args(&options.extra);
    command
}

/// The image of `options`, where QEMU loads it.
///
/// # Errors
/// The image cannot be read or is no arm64 Image.
pub(crate) fn loaded(options: &Options) -> Result<Loaded> {
    let bytes = fs::read(&options.image).with_context(|| options.image.display().to_string())?;
    let pa = options.load_address.map_or_else(|| virt_load_address(&bytes), Ok)?;
    Ok(Loaded { pa, bytes })
}

/// What was true before the first instruction of a boot of `image` as `options` say.
///
/// # Errors
/// The amount of memory is none.
pub(crate) fn declarations(image: &Loaded, options: &Options) -> Result<Vec<Record>> {
    let memory = Machine { memory: options.memory.clone(), ..Machine::default() }.declared()?;
    let strict = options.house_rules.then_some(Feature::StrictSwitch);
    let features = options.features.iter().copied().chain(strict);
    let features = features.map(|feature| Record::Feature { cpu: None, feature });
    let words = image.words().map(|(pa, value)| Record::Word { pa, value });
    Ok(memory.into_iter().chain(features).chain(words).collect())
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    /// By the oracle.
    pub(crate) findings: Vec<Finding>,
    /// Beyond it.
    pub(crate) lapses: Vec<Lapse>,
    /// What is not known that a verdict would rest on.
    pub(crate) unknowns: Vec<Unknown>,
}

impl Verdict {
    /// A line or more for each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let findings = self.findings.iter().map(ToString::to_string);
        let beyond = self.lapses.iter().map(ToString::to_string);
        findings.chain(beyond).chain(self.unknowns.iter().map(ToString::to_string)).collect()
    }
}

/// Judges the recorded boot of `image` as `options` say.
///
/// # Errors
/// A trace that cannot be read, is malformed or breaks off.
pub(crate) fn judge(image: &Loaded, options: &Options) -> Result<Verdict> {
    let name = || options.trace.display().to_string();
    let file = File::open(&options.trace).with_context(name)?;
    let extent = image.pa..image.pa + image.bytes.len() as u64;
    let declared = declarations(image, options)?;
    judge_records(BufReader::with_capacity(1 << 20, file), &declared, options.house_rules.then_some(extent))
        .with_context(name)
}

/// [`judge`] of a trace that is no file.
///
/// # Errors
/// A malformed or cut-off trace.
pub(crate) fn judge_records(trace: impl BufRead, declared: &[Record], house: Option<Range<u64>>) -> Result<Verdict> {
    let mut hearing = Hearing::new(declared, house);
    let mut reader = Reader::new(trace);
    while let Some(record) = reader.next_record()? {
        hearing.step(reader.line(), &record);
    }
    hearing.verdict(reader.line().saturating_sub(1))
}

/// A recorded boot as it is heard, record by record.
pub(crate) struct Hearing {
    obligations: Obligations,
    conduct: Option<Conduct>,
    ended: bool,
}

impl Hearing {
    /// Before the first record, but for what is `declared`; an image that is held to house rules lies at `house`.
    pub(crate) fn new(declared: &[Record], house: Option<Range<u64>>) -> Self {
        let mut hearing = Self { obligations: Obligations::new(), conduct: house.map(Conduct::new), ended: false };
        declared.iter().for_each(|record| hearing.step(0, record));
        hearing
    }

    /// Hears `record`, which stands on `line` of the trace.
    pub(crate) fn step(&mut self, line: u64, record: &Record) {
        self.obligations.step(line, record);
        if let Some(conduct) = &mut self.conduct {
            conduct.record(line, record);
        }
        self.ended = matches!(record, Record::End(_));
    }

    /// What the oracle and the house rules have found so far.
    pub(crate) fn objections(&self) -> (&[Violation], &[Lapse]) {
        (self.obligations.violations(), self.conduct.as_ref().map_or(&[], Conduct::lapses))
    }

    /// What no verdict can be given without, if anything.
    pub(crate) fn unknown(&self) -> Option<&Unknown> {
        self.obligations.unknowns().first()
    }

    /// Everything that was found.
    ///
    /// # Errors
    /// The trace breaks off, after `line`.
    pub(crate) fn verdict(self, line: u64) -> Result<Verdict> {
        ensure!(self.ended, "the trace breaks off after line {line}: it has no end record");
        Ok(Verdict {
            findings: fold(self.obligations.violations(), &Names::default()),
            lapses: self.conduct.map(Conduct::into_lapses).unwrap_or_default(),
            unknowns: self.obligations.unknowns().to_vec(),
        })
    }
}

/// Writes a trace that stands by itself, for `judge`: the declarations, then what was recorded.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn save(options: &Options, to: &Path) -> Result<()> {
    let declared = declarations(&loaded(options)?, options)?;
    let name = || to.display().to_string();
    let mut out = BufWriter::new(File::create(to).with_context(name)?);
    writeln!(out, "{HEADER}").with_context(name)?;
    for record in declared {
        writeln!(out, "{record}").with_context(name)?;
    }
    let recorded = BufReader::new(File::open(&options.trace).with_context(|| options.trace.display().to_string())?);
    for line in recorded.lines().skip(1) {
        writeln!(out, "{}", line?).with_context(name)?;
    }
    out.flush().with_context(name)
}
