//! One boot of a mutant under the witness. The trace goes through a pipe, straight to oracle and house rules; the boot ends as soon as
//! either objects.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breakwater_oracle::obligations::Rule;
use breakwater_trace::{Event, Reader, Record, Step};

use crate::child::{self, Limits};
use crate::recorded::{self, Hearing, Options};

/// How a boot went.
#[derive(Debug)]
pub(super) struct Seen {
    /// How it ended.
    pub(super) end: Ending,
    /// What the witness said first.
    pub(super) objection: Option<Objection>,
    /// Where barriers, maintenance and accesses of registers were executed, as the CPU saw the address.
    pub(super) executed: HashSet<u64>,
    /// The time that QEMU was on CPUs.
    pub(super) worked: Duration,
}

/// How a boot ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// With QEMU's exit status.
    Status(Option<i32>),
    /// It had to be ended.
    Hang,
    /// It was ended because the witness objected.
    Stopped,
}

/// What the witness objects to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Objection {
    /// A rule of the architecture.
    Rule { name: String, what: String },
    /// A promise of this image.
    House(String),
}

/// What is judged.
pub(super) struct Court {
    /// What was true before the first instruction.
    pub(super) declared: Vec<Record>,
    /// Where the image lies.
    pub(super) image: Range<u64>,
    /// It is held to house rules besides.
    pub(super) house: bool,
    /// Where the image is linked, if only what it does itself counts: firmware runs before it.
    pub(super) own_only: Option<Range<u64>>,
    /// What does not count, for a reason that the scenario gives.
    pub(super) excused: Vec<Rule>,
}

impl Court {
    /// The first objection that counts.
    fn objection(&self, hearing: &Hearing, seen: &mut (usize, usize)) -> Option<Objection> {
        let counts =
            |pc: u64| self.own_only.as_ref().is_none_or(|linked| linked.contains(&pc) || self.image.contains(&pc));
        let asked = |rule| !self.excused.contains(&rule);
        let (violations, lapses) = hearing.objections();
        let rule = violations[seen.0..].iter().find(|violation| counts(violation.pc) && asked(violation.rule));
        let rule = rule.map(|violation| Objection::Rule {
            name: format!("{:?}", violation.rule),
            what: violation.missing.clone(),
        });
        let house = || lapses[seen.1..].iter().find(|lapse| counts(lapse.step.pc));
        let found = rule.or_else(|| house().map(|lapse| Objection::House(lapse.promise.to_owned())));
        *seen = (violations.len(), lapses.len());
        found
    }
}

/// Boots as `options` say; after so much `work` of QEMU's, or when their time is up, it hangs. With `to_the_end` nothing ends it early, and
/// what was executed is kept.
///
/// # Errors
/// QEMU cannot be run, or its trace is malformed.
pub(super) fn hear(options: &Options, court: &Court, work: Duration, to_the_end: bool) -> Result<Seen> {
    let mut piped = options.clone();
    piped.trace = "/dev/stdout".into();
    let limits = Limits { timeout: options.timeout, work: Some(work), ..Limits::default() };
    let (finished, heard) = child::read(&mut recorded::command(&piped), &limits, |trace, seen| {
        let heard = listen(BufReader::with_capacity(1 << 20, trace), court, to_the_end);
        if !matches!(&heard, Ok((_, None, true))) {
            seen.enough();
        }
        heard
    })?;
    let worked = finished.worked;
    if finished.timed_out {
        return Ok(Seen { end: Ending::Hang, objection: None, executed: HashSet::new(), worked });
    }
    let (executed, objection, ended) = heard.with_context(|| format!("QEMU: {}", finished.ended()))?;
    let end = match (&objection, ended) {
        (Some(_), false) => Ending::Stopped,
        _ => Ending::Status(finished.status),
    };
    Ok(Seen { end, objection, executed, worked })
}

/// Whether a program says that nothing is owed: it reads VTTBR_EL2, which nobody else does.
fn claims(step: &Step) -> bool {
    matches!(step.event, Event::Mrs { register } if register.name() == Some("vttbr_el2"))
}

/// Hears a trace: what was executed, the first objection, and whether the trace came to its end.
fn listen(trace: impl BufRead, court: &Court, to_the_end: bool) -> Result<(HashSet<u64>, Option<Objection>, bool)> {
    let mut hearing = Hearing::new(&court.declared, court.house.then(|| court.image.clone()));
    let (mut reader, mut executed) = (Reader::new(trace), HashSet::new());
    let (mut objection, mut seen) = (None, (0, 0));
    while let Some(record) = reader.next_record()? {
        hearing.step(reader.line(), &record);
        if let Record::Step(step) = record
            && court.own_only.is_none()
            && claims(&step)
        {
            hearing.step(reader.line(), &Record::Step(Step { event: Event::Settled, ..step }));
        }
        if let Record::Step(step) = record
            && to_the_end
            && matches!(
                step.event,
                Event::Dsb(_)
                    | Event::Dmb(_)
                    | Event::Isb
                    | Event::Maintain { .. }
                    | Event::Msr { .. }
                    | Event::Mrs { .. }
            )
        {
            executed.insert(step.pc);
        }
        if objection.is_none() {
            objection = court.objection(&hearing, &mut seen);
            if objection.is_some() && !to_the_end {
                return Ok((executed, objection, false));
            }
        }
    }
    // The unchanged image has a verdict: who does something that nobody can judge is noticed.
    let unknown = hearing.unknown().filter(|_| objection.is_none()).map(ToString::to_string);
    if let Some(what) = unknown {
        return Ok((executed, Some(Objection::Rule { name: "no verdict".to_owned(), what }), true));
    }
    let verdict = hearing.verdict(reader.line().saturating_sub(1));
    ensure!(objection.is_some() || verdict.is_ok(), "{:#}", verdict.err().context("no verdict")?);
    Ok((executed, objection, true))
}
