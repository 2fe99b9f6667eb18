//! Watches an image boot, instruction by instruction, and says where it breaks the architecture.
//!
//! Why it exists: no emulator and hardly a board shows a missing invalidation; whether one is missing can be seen from outside, in what the
//! image does to its tables, registers and TLBs. The image needs no annotation and no cooperation, so it may be anyone's.
//!
//! What must hold: the oracle (`tests/witness/oracle`) judges, the recorder (`tests/witness/recorder`) only writes down, and nothing the image says of itself is
//! believed. A clean verdict means that the end was reached, that every CPU that started had its MMU on, and that no rule was broken.
//!
//! What it refuses: `--icount` with several CPUs, because QEMU then gives plugins wrong CPU numbers.

pub(crate) mod entry;
mod features;
pub(crate) mod judge;
mod report;
pub(crate) mod run;
pub(crate) mod subject;
mod verdict;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use breakwater_oracle::obligations::{BySetAndWay, Doubt, NotKept, Unknown, Violation};
use breakwater_trace::{End, Feature, Record};

pub use entry::{From, Payload};
pub use run::Ends;
pub(crate) use subject::bring;
pub use subject::{OwnEnd, Start, Subject};
pub use verdict::{EXIT_STATUSES, Outcome, Rejected, Verdict};

pub use self::judge::CpuSeen;
use self::judge::Judge;
use crate::baseline::Compared;
use crate::exec;
use crate::finding::{self, Finding};
use crate::measure::Measurement;
use crate::order::{Effort, Recording};
use crate::recorded::Lapse;
use crate::timeline::{Standing, Timeline};
use crate::ui;

/// Records between two looks at the clock.
const BETWEEN_LOOKS: u64 = 1 << 16;

/// Records between two looks at memory, and what has to be left then: they may be stores to as many new pages, of
/// which each takes some kilobytes.
const BETWEEN_ROOM: u64 = 1 << 13;
const ROOM_BYTES: usize = 96 << 20;

/// Refuses to go on where memory is nearly used up: Rust would end the process where it stands, its files left behind.
///
/// # Errors
/// [`Rejected`]: there is no verdict.
pub(crate) fn require_room() -> Result<()> {
    let mut room: Vec<u8> = Vec::new();
    let reserved = room.try_reserve_exact(ROOM_BYTES);
    // Else the compiler may leave out what nobody uses.
    std::hint::black_box(&room);
    ensure!(
        reserved.is_ok(),
        Rejected { verdict: Verdict::Undecided, line: "no-verdict: memory is used up".to_owned() }
    );
    Ok(())
}

/// What was seen of one run.
pub struct Testimony {
    /// What was watched.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What it comes to.
    pub verdict: Verdict,
    /// Why, in one line.
    pub why: String,
    /// The violations, each.
    pub violations: Vec<Violation>,
    /// The same, folded.
    pub findings: Vec<Finding>,
    /// Against a baseline: what is new, and what is gone.
    pub compared: Option<Compared>,
    /// Violations that were counted and not kept: of one rule, at one instruction of one CPU, the oracle keeps so many.
    pub not_kept: Vec<NotKept>,
    /// TLBIs that only a branch orders behind another CPU's stores: no recording shows branches, so these fail nothing.
    pub doubts: Vec<Doubt>,
    /// DC by set and way, and what it counted for.
    pub swept: Vec<BySetAndWay>,
    /// What another order of events that fits the values observed would have shown, and this run did not. It fails nothing.
    pub elsewhere: Vec<Finding>,
    /// Violations that count as certain because there was too much to weigh.
    pub unweighed: usize,
    /// House rules that were broken.
    pub lapses: Vec<Lapse>,
    /// What a verdict would have to rest on besides, and is not known.
    pub unknowns: Vec<Unknown>,
    /// Where the image lay whose entry was waited for.
    pub entered: Option<u64>,
    /// Each CPU that executed an instruction.
    pub cpus: BTreeMap<u32, CpuSeen>,
    /// Figures, or why there are none.
    pub measured: Result<Measurement, String>,
    /// What the CPUs were judged by, as the trace format spells it.
    pub features: Vec<String>,
    /// Declarations in front of the recording, for whoever judges it again.
    pub declared: Vec<Record>,
    /// What its last record means: that the boot is over, or only the recording.
    pub end: Option<End>,
    /// What it said on its serial line.
    pub serial: String,
    /// Events recorded.
    pub events: u64,
    /// Time for it all.
    pub seconds: f64,
}

impl Testimony {
    /// Puts what was found into the picture of the run, and writes it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn draw(&self, timeline: &mut Timeline, file: &Path) -> Result<()> {
        for finding in &self.findings {
            let standing = if finding.rests_on_order { Standing::ByArrival } else { Standing::Certain };
            for violation in finding.members.iter().filter_map(|number| self.violations.get(*number)) {
                timeline.violation(violation, finding.place.as_deref(), standing);
            }
        }
        timeline.write(file, &format!("{}: {} ({})", self.name, self.verdict.name(), self.why))
    }
}

/// QEMU's command line for a run, as a person would type it.
pub(crate) fn shown(subject: &Subject, ends: &Ends) -> String {
    exec::shown(&run::command(subject, ends))
}

/// Runs the subject under the recorder and judges it. The recording, packed, is kept as `trace` if that is asked for.
/// `each` is shown every record, and what has been found so far.
///
/// # Errors
/// QEMU cannot be run, or writes no trace that can be read; [`Rejected`] where memory is used up.
pub fn watch(
    subject: &Subject,
    ends: &Ends,
    (trace, live): (Option<&Path>, bool),
    mut each: impl FnMut(u64, &Record),
) -> Result<Testimony> {
    let began = Instant::now();
    let mut judge = Judge::new(subject)?;
    let mut recording = Recording::new();
    let mut counter = ui::Counter::new("Watching", live);
    let ran = run::run(subject, ends, (trace, live), |line, record| {
        if line.is_multiple_of(BETWEEN_LOOKS) {
            counter.says(|| judge.progress());
        }
        if line.is_multiple_of(BETWEEN_ROOM) {
            require_room()?;
        }
        recording.record(line, record, || judge.oracle());
        judge.record(line, record);
        each(line, record);
        Ok(())
    })?;
    let judged = judge.finish(verdict::meant(&ran, ends));
    let weighed = recording.weigh(verdict::meant(&ran, ends), &judged.violations, Effort::until(began + ends.timeout));
    // Where a loader put the image is known now.
    let symbols = match (&subject.from, judged.entered) {
        (From::Payload(payload), Some(pa)) => &payload.names(pa)?,
        _ => &subject.symbols,
    };
    let findings = finding::weighed(&judged.violations, &weighed.certain, symbols);
    let outcome = verdict::outcome(subject, ends, &ran, &judged);
    let compared = subject.baseline.as_ref().map(|baseline| baseline.compare(&findings));
    let (verdict, why) = verdict::verdict(&outcome, &findings, compared.as_ref(), &judged);
    let feature = |record: &Record| match record {
        Record::Feature { feature, .. } => Some(spelled(*feature)),
        _ => None,
    };
    Ok(Testimony {
        name: subject.name.clone(),
        features: judged.declared.iter().filter_map(feature).collect(),
        outcome,
        verdict,
        why,
        violations: judged.violations,
        findings,
        compared,
        not_kept: judged.not_kept,
        doubts: judged.doubts,
        swept: judged.swept,
        elsewhere: finding::weighed(&weighed.elsewhere, &[], symbols),
        unweighed: weighed.unexamined,
        lapses: judged.lapses,
        unknowns: judged.unknowns,
        entered: judged.entered,
        cpus: judged.cpus,
        measured: judged.measured,
        declared: judged.declared,
        end: verdict::meant(&ran, ends),
        serial: ran.finished.serial,
        events: judged.events,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// A feature as the trace format spells it.
fn spelled(feature: Feature) -> String {
    let line = Record::Feature { cpu: None, feature }.to_string();
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}
