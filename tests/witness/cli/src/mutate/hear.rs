//! One boot of a mutant under the witness. The trace goes through a pipe, straight to oracle and house rules; the boot ends as soon as
//! either objects.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breakwater_oracle::obligations::Rule;
use breakwater_trace::{Event, Reader, Record, Step};

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
    let begun = Instant::now();
    let messages = options.image.with_extension("messages");
    let mut piped = options.clone();
    piped.trace = "/dev/stdout".into();
    let mut command = recorded::command(&piped);
    command.stdout(Stdio::piped()).stderr(File::create(&messages)?);
    let mut child =
        command.spawn().with_context(|| format!("{} cannot be run", options.tools.qemu.program.display()))?;
    let trace = child.stdout.take().context("QEMU has no standard output")?;
    let (child, over) = (Mutex::new(child), AtomicBool::new(false));
    let (heard, (late, worked)) = scope(|scope| {
        let guard = scope.spawn(|| end_late(&child, &over, begun + options.timeout, work));
        let heard = listen(BufReader::with_capacity(1 << 20, trace), court, to_the_end);
        if !matches!(&heard, Ok((_, None, true))) {
            let _ = locked(&child).kill();
        }
        over.store(true, Ordering::Relaxed);
        (heard, guard.join().unwrap_or_default())
    });
    let status = locked(&child).wait()?.code();
    if late {
        return Ok(Seen { end: Ending::Hang, objection: None, executed: HashSet::new(), worked });
    }
    let (executed, objection, ended) = heard.with_context(|| said(&messages))?;
    let end = match (&objection, ended) {
        (Some(_), false) => Ending::Stopped,
        _ => Ending::Status(status),
    };
    Ok(Seen { end, objection, executed, worked })
}

fn locked(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What QEMU itself said.
fn said(messages: &Path) -> String {
    let text = std::fs::read_to_string(messages).unwrap_or_default();
    format!("QEMU said: {}", text.lines().next_back().unwrap_or("nothing"))
}

/// Ends a boot that works too much or takes too long; whether it did, and how much the boot has worked.
fn end_late(child: &Mutex<Child>, over: &AtomicBool, deadline: Instant, work: Duration) -> (bool, Duration) {
    let process = locked(child).id();
    loop {
        let worked = time_on_cpus(process);
        if over.load(Ordering::Relaxed) {
            return (false, worked);
        }
        if worked > work || Instant::now() > deadline {
            let _ = locked(child).kill();
            return (true, worked);
        }
        sleep(Duration::from_millis(5));
    }
}

/// How long the threads of a process have been on CPUs, all together; nothing where the system does not say it so. A process that waits for
/// a busy host does not become older by it.
fn time_on_cpus(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The program's name stands in parentheses, and may hold anything; utime and stime are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(1000 * ticks / rustix::param::clock_ticks_per_second().max(1))
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
    let verdict = hearing.verdict(reader.line().saturating_sub(1));
    ensure!(objection.is_some() || verdict.is_ok(), "{:#}", verdict.err().context("no verdict")?);
    Ok((executed, objection, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Whether a script is ended for its work, of which it may do a tenth of a second.
    fn hangs(script: &str, deadline: Instant) -> bool {
        let child = Mutex::new(Command::new("sh").args(["-c", script]).spawn().expect("sh starts"));
        let over = AtomicBool::new(false);
        let (late, _) = scope(|scope| {
            let guard = scope.spawn(|| end_late(&child, &over, deadline, Duration::from_millis(100)));
            while locked(&child).try_wait().expect("it is a child").is_none() {
                sleep(Duration::from_millis(5));
            }
            over.store(true, Ordering::Relaxed);
            guard.join().expect("it does not panic")
        });
        late
    }

    #[test]
    fn bad_who_works_for_ever_hangs() {
        assert!(hangs("while :; do :; done", Instant::now() + Duration::from_secs(3600)));
    }

    #[test]
    fn good_who_waits_for_the_host_does_not_hang() {
        assert!(!hangs("exec sleep 0.5", Instant::now() + Duration::from_secs(3600)));
    }

    #[test]
    fn bad_who_waits_for_ever_hangs_by_the_clock() {
        assert!(hangs("exec sleep 3600", Instant::now()));
    }
}
