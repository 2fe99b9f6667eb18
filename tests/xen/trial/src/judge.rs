//! One Xen under the witness: what it breaks, what its tables expose and what they cost.
//!
//! Why it exists: both Xens boot; what tells them apart is what an emulator does not show. What must hold: both are
//! watched in the same way, to the same place, and the figures are counted from outside, by the recorder. What it
//! refuses: figures of a run that did not reach its end.
//!
//! * [`Run::Idle`]: one CPU, until it idles; the boot is over there, so that what it leaves behind is asked too.
//! * [`Run::Several`]: four CPUs side by side, until the memory of the boot alone is given back.
//! * [`Run::Domain`]: one CPU, until Debian's kernel's user space as the first domain.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use breakwater_oracle::obligations::Rule;
use breakwater_trace::{Event, Family, Record};
use breakwater_witness::machine::Machine;
use breakwater_witness::timeline::Timeline;
use breakwater_witness::watch::{self, Ends, Outcome, Start, Subject, Testimony};
use breakwater_witness::{Tools, xen};
use object::{Object as _, ObjectSection as _};

use crate::boot::{Case, MARKER, Supply};
use crate::build::Built;

/// How a Xen is watched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Run {
    /// One CPU, to its idle loop.
    Idle,
    /// Four CPUs, to the end of init.
    Several,
    /// One CPU, to the first domain's user space.
    Domain,
}

impl Run {
    /// All.
    pub const ALL: [Self; 3] = [Self::Idle, Self::Several, Self::Domain];

    /// In tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "1 CPU, to the idle loop",
            Self::Several => "4 CPUs, to the end of init",
            Self::Domain => "1 CPU, to the domain's user space",
        }
    }

    /// On the command line.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::Idle => "watch-idle",
            Self::Several => "watch-smp4",
            Self::Domain => "watch-domain",
        }
    }
}

/// A rule, and the function in which something is wanting.
pub type Broken = (String, String);

/// What was seen of one run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// How often each rule was broken by which function, repetitions included.
    pub findings: BTreeMap<Broken, u64>,
    /// The functions of Xen that asked for mappings that break `MismatchedAttributes`, of those that the oracle keeps; an
    /// empty name where nobody is known.
    pub mismatched: BTreeSet<String>,
    /// Findings, folded by cause.
    pub causes: usize,
    /// By CPU: instructions while something was writable and executable.
    pub exposed: BTreeMap<u32, u64>,
    /// The boot CPU's instructions until its runtime root was in force and nothing writable was executable.
    pub protected: Option<u64>,
    /// The boot CPU's instructions to the end of the run.
    pub instructions: u64,
    /// TLBIs of all CPUs.
    pub tlbis: u64,
    /// DSBs.
    pub dsbs: u64,
    /// ISBs.
    pub isbs: u64,
    /// Stores to tables in force, by words.
    pub table_stores: u64,
    /// Events recorded.
    pub events: u64,
}

/// Watches `built` in this way. Files go to the scratch directory of `tools`; what the witness says goes to `said`.
///
/// # Errors
/// QEMU cannot be run; the run did not reach its end; its figures could not be taken.
pub fn watch(
    run: Run,
    built: &Built,
    tools: &Tools,
    supply: &dyn Supply,
    (timeout, said): (Duration, &Path),
) -> Result<Seen> {
    let elfs: &[PathBuf] = std::slice::from_ref(&built.elf);
    let mut ends = Ends { timeout, ..Ends::default() };
    let several = Machine { smp: 4, ..Machine::default() };
    let subject = match run {
        Run::Idle => {
            let case = Case::default();
            let (line, more) = (case.line(), case.guests(supply, &tools.scratch)?);
            let start = Start { append: &line, more: &more, ..Start::of(&built.image, elfs, &case.machine) };
            let subject = Subject::image(tools, &start)?;
            ends.addresses = subject.symbols.addresses("idle_loop");
            ensure!(!ends.addresses.is_empty(), "{} has no function idle_loop", built.name);
            ends.concludes = true;
            subject
        }
        Run::Several => {
            ends.marker = Some(xen::END.to_owned());
            xen::waiting(tools, &Start::of(&built.image, elfs, &several))?
        }
        Run::Domain => {
            ends.marker = Some(MARKER.to_owned());
            let case = Case::default();
            let (line, more) = (case.line(), case.guests(supply, &tools.scratch)?);
            let start = Start { append: &line, more: &more, ..Start::of(&built.image, elfs, &case.machine) };
            Subject::image(tools, &start)?
        }
    };
    let mut seen = Seen::default();
    let mut callers = Callers::new(&built.elf)?;
    let mut timeline = Timeline::new(&subject.loaded);
    let testimony = watch::watch(&subject, &ends, (None, false), |line, record| {
        seen.count(record);
        timeline.record(line, record);
        callers.record(line, record);
    })?;
    let dir = said.parent().context("what is said goes to a directory")?;
    fs::create_dir_all(dir).and_then(|()| fs::write(said, format!("{testimony}\n"))).context("what was said")?;
    testimony.draw(&mut timeline, &said.with_extension("svg"))?;
    seen.add(&testimony, &subject)?;
    for violation in testimony.violations.iter().filter(|violation| violation.rule == Rule::MismatchedAttributes) {
        seen.mismatched.insert(callers.before(violation.line, &subject));
    }
    Ok(seen)
}

/// Which of Xen's init functions ran last: whoever asks the editor for something while Xen boots is one. A recording
/// tells of a function when control comes to it from another page, as it does when the editor returns.
struct Callers {
    init: Range<u64>,
    /// By line of the recording.
    ran: BTreeMap<u64, u64>,
}

impl Callers {
    fn new(elf: &Path) -> Result<Self> {
        let bytes = fs::read(elf).with_context(|| elf.display().to_string())?;
        let section = object::File::parse(&*bytes)?.section_by_name(".init.text").map(|section| {
            let start = section.address();
            start..start + section.size()
        });
        Ok(Self { init: section.context("Xen has no .init.text")?, ran: BTreeMap::new() })
    }

    fn record(&mut self, line: u64, record: &Record) {
        let Record::Step(step) = record else { return };
        if matches!(step.event, Event::Fetch { .. }) && self.init.contains(&step.pc) {
            self.ran.insert(line, step.pc);
        }
    }

    /// The name of the one that ran last before this line; empty if there is none.
    fn before(&self, line: u64, subject: &Subject) -> String {
        let last = self.ran.range(..line).next_back().and_then(|(_, pc)| subject.symbols.place(*pc));
        last.map(|(name, _)| name.to_owned()).unwrap_or_default()
    }
}

impl Seen {
    fn count(&mut self, record: &Record) {
        let Record::Step(step) = record else { return };
        match step.event {
            Event::Maintain { operation, .. } if operation.family() == Some(Family::Tlbi) => self.tlbis += 1,
            Event::Dsb(_) => self.dsbs += 1,
            Event::Isb => self.isbs += 1,
            _ => {}
        }
    }

    fn add(&mut self, testimony: &Testimony, subject: &Subject) -> Result<()> {
        if !matches!(testimony.outcome, Outcome::Reached(_)) {
            let last = testimony.serial.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            bail!("{}, after: {}", testimony.outcome.says(), last.trim());
        }
        if let Some(unknown) = testimony.unknowns.first() {
            bail!("no verdict: {unknown}");
        }
        // A CPU that never came breaks nothing.
        let up = testimony.cpus.values().filter(|cpu| cpu.started && cpu.mmu_was_on).count();
        ensure!(up == subject.cpus as usize, "of {} CPUs {up} came up", subject.cpus);
        for finding in &testimony.findings {
            for symptom in &finding.symptoms {
                self.broke(symptom.rule, &finding.cause.function, symptom.times);
            }
        }
        for more in &testimony.not_kept {
            let function = subject.symbols.place(more.pc).map_or("?", |(name, _)| name);
            self.broke(more.rule, function, more.times);
        }
        self.causes = testimony.findings.len();
        self.events = testimony.events;
        let measured = testimony.measured.as_ref().map_err(|why| anyhow::anyhow!("no figures: {why}"))?;
        let started = measured.cpus.iter().filter(|cpu| cpu.start.is_some());
        self.exposed = started.map(|cpu| (cpu.cpu, cpu.writable_executable)).collect();
        let boot = measured.cpus.iter().find(|cpu| cpu.cpu == measured.boot_cpu).context("no CPU has started")?;
        self.instructions = boot.instructions;
        self.protected = measured.to_runtime_root.map(|root| root.max(boot.writable_executable_until));
        self.table_stores = measured.live_stores;
        Ok(())
    }

    fn broke(&mut self, rule: Rule, function: &str, times: u64) {
        *self.findings.entry((format!("{rule:?}"), without_paths(function))).or_default() += times;
    }

    /// How often a rule was broken, wherever.
    #[must_use]
    pub fn of_rule(&self, rule: &str) -> u64 {
        self.findings.iter().filter(|((broken, _), _)| broken == rule).map(|(_, violations)| violations).sum()
    }
}

/// A function of Rust's by its own name and those of its types, without the modules that they are in.
fn without_paths(name: &str) -> String {
    let mut text = String::new();
    for (index, part) in name.split("::").enumerate() {
        let is_path = |letter: char| letter.is_alphanumeric() || letter == '_';
        let kept = text.trim_end_matches(is_path).len();
        if index > 0 && kept < text.len() {
            text.truncate(kept);
        } else if index > 0 {
            text.push_str("::");
        }
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_a_rust_function_is_named_without_its_modules() {
        assert_eq!(without_paths("xen_pt_update"), "xen_pt_update");
        assert_eq!(without_paths("core::fmt::write"), "write");
        assert_eq!(
            without_paths("<xen::el2::El2 as core::machine::Machine>::store_run"),
            "<El2 as Machine>::store_run"
        );
    }

    #[test]
    fn good_how_often_a_rule_was_broken_is_a_sum() {
        let mut seen = Seen::default();
        for (rule, function, times) in [
            (Rule::FillSync, "map", 2),
            (Rule::FillSync, "unmap", 3),
            (Rule::FillSync, "map", 4),
            (Rule::RootSwitch, "map", 1),
        ] {
            seen.broke(rule, function, times);
        }
        assert_eq!((seen.of_rule("FillSync"), seen.of_rule("RootSwitch"), seen.of_rule("LineAfter")), (9, 1, 0));
        assert_eq!(seen.findings.len(), 3);
    }
}
