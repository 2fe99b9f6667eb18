//! What a watched run comes to.

use std::fmt;

use breakwater_trace::End;

use super::judge::Judged;
use super::run::{Ends, Ran};
use super::subject::Subject;
use crate::baseline::Compared;
use crate::finding::Finding;

/// Shown by `--help`.
pub const EXIT_STATUSES: &str = "\
Exit status: 0 the end was reached, every CPU that started had its MMU on, and nothing was found; 1 set-up or build failed; \
2 wrong command line; 20 violations were found (with --baseline: new ones); 21 a CPU that started never had its MMU on; 22 the image crashed or ended before its end; \
23 time was up; 24 no verdict (the recording is incomplete, or an MMU is on with what the oracle does not know or follow)";

/// How the run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As it was to end: how.
    Reached(&'static str),
    /// Before that: why.
    Crash(String),
    /// Not in time.
    Timeout(String),
    /// Without a complete recording: why.
    Unrecorded(String),
}

/// The verdict, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Verdict {
    /// Rules were broken, in ways that no baseline knows.
    Findings,
    /// It crashed, or ended before its end.
    Crash,
    /// A CPU that started never had its MMU on.
    NeverOn,
    /// Time was up.
    Timeout,
    /// The recording is incomplete, or an MMU is on with what the oracle does not know or follow.
    Undecided,
    /// None of that.
    Clean,
}

impl Verdict {
    /// The exit status of the command.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Findings => 20,
            Self::NeverOn => 21,
            Self::Crash => 22,
            Self::Timeout => 23,
            Self::Undecided => 24,
        }
    }

    /// Its name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Findings => "findings",
            Self::NeverOn => "never-on",
            Self::Crash => "crash",
            Self::Timeout => "timeout",
            Self::Undecided => "no-verdict",
        }
    }
}

/// A verdict other than clean, as the command's error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict and why, in one line.
    pub line: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Rejected {}

impl Outcome {
    /// How it ended, in words.
    #[must_use]
    pub fn says(&self) -> String {
        match self {
            Self::Reached(how) => format!("reached: {how}"),
            Self::Crash(why) => format!("crash: {why}"),
            Self::Timeout(why) => format!("timeout: {why}"),
            Self::Unrecorded(why) => format!("no complete recording: {why}"),
        }
    }
}

/// What the last record of the trace means: one that the machine was made to write claims nothing, unless the boot was to
/// be over with it.
pub(crate) fn meant(ran: &Ran, ends: &Ends) -> Option<End> {
    match ran.end {
        Some(End::Exit | End::Limit) if ends.concludes && !ran.finished.timed_out => Some(End::Exit),
        Some(End::Exit) if ran.finished.marked || ran.finished.timed_out => Some(End::Limit),
        end => end,
    }
}

/// How the run ended.
pub(crate) fn outcome(subject: &Subject, ends: &Ends, ran: &Ran, judged: &Judged) -> Outcome {
    let finished = &ran.finished;
    if judged.never_entered {
        return Outcome::Unrecorded(format!("what is to be judged was never entered ({})", finished.ended()));
    }
    let looping = judged.cpus.iter().find(|(_, cpu)| cpu.loops());
    if let Some((cpu, seen)) = looping {
        let (syndrome, link, fault_address) = seen.last;
        return Outcome::Crash(format!(
            "CPU {cpu} takes exceptions in a loop: ESR_EL2 {syndrome:#x}, ELR_EL2 {link:#x}, FAR_EL2 {fault_address:#x}"
        ));
    }
    match ran.end {
        None => {
            let why = format!("it breaks off ({})", finished.ended());
            return Outcome::Unrecorded(why);
        }
        Some(End::Cap) => return Outcome::Unrecorded("it grew larger than any boot's".to_owned()),
        Some(End::Limit) if ends.instructions.is_some() && ends.addresses.is_empty() => {
            return Outcome::Reached("the instruction count");
        }
        Some(End::Limit) => return Outcome::Reached("the symbol, or the instruction count"),
        Some(End::Exit) => {}
    }
    if finished.marked {
        return Outcome::Reached("the text on the serial line");
    }
    if finished.timed_out {
        return Outcome::Timeout(format!("no end within {:.1} s", finished.took.as_secs_f64()));
    }
    if finished.too_much {
        return Outcome::Crash("the guest wrote more than any boot does, and was stopped".to_owned());
    }
    if finished.status != Some(0) {
        return Outcome::Crash(format!("QEMU ended with {}", finished.ended()));
    }
    if ends.asked() {
        return Outcome::Crash("the machine ended before what was waited for".to_owned());
    }
    match subject.own_end.and_then(|own_end| own_end(finished)) {
        Some(why) => Outcome::Crash(why),
        None => Outcome::Reached("the machine's own end"),
    }
}

/// The verdict on it all. What a baseline knows fails nothing.
pub(crate) fn verdict(
    outcome: &Outcome,
    findings: &[Finding],
    compared: Option<&Compared>,
    judged: &Judged,
) -> (Verdict, String) {
    let certain = findings.iter().filter(|finding| !finding.rests_on_order);
    let (known, new): (Vec<_>, Vec<_>) =
        certain.partition(|finding| compared.is_some_and(|compared| compared.knows(finding)));
    let (certain, known) = (new.len() + judged.lapses.len(), known.len());

    let never: Vec<String> =
        judged.cpus.iter().filter(|(_, cpu)| cpu.started && !cpu.mmu_was_on).map(|(cpu, _)| cpu.to_string()).collect();
    if certain > 0 {
        let new = if compared.is_some() { "new " } else { "" };
        return (Verdict::Findings, format!("{certain} {new}findings"));
    }
    if let Outcome::Crash(why) = outcome {
        return (Verdict::Crash, why.clone());
    }
    if let Outcome::Unrecorded(why) = outcome {
        return (Verdict::Undecided, format!("no complete recording: {why}"));
    }
    if judged.cpus.is_empty() {
        return (Verdict::NeverOn, "no CPU executed an instruction".to_owned());
    }
    // A CPU whose regime is not followed has not been seen with its MMU on, for that reason.
    if !never.is_empty() && judged.unknowns.is_empty() {
        let which = if never.len() == 1 { "CPU" } else { "CPUs" };
        return (Verdict::NeverOn, format!("{which} {} never had the MMU on ({})", never.join(", "), outcome.says()));
    }
    if let Outcome::Timeout(why) = outcome {
        return (Verdict::Timeout, why.clone());
    }
    if let Some(unknown) = judged.unknowns.first() {
        return (Verdict::Undecided, format!("trace {unknown}"));
    }
    if known > 0 {
        return (Verdict::Clean, format!("no new finding; {known} that the baseline knows"));
    }
    (Verdict::Clean, "no violation".to_owned())
}
