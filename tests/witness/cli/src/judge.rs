//! `judge`: the oracle's word on a trace that anybody wrote.
//!
//! Why it exists: the oracle (`tests/witness/oracle`) is of use to whoever can say what his program did, one event a line. What must hold: the exit
//! status alone tells clean from broken from unreadable, and every violation is printed with what is needed to find it in the trace.
//! What it refuses: a trace that is malformed, that declares after it has begun, or that breaks off; a verdict on half a trace
//! would be none.
//!
//! * `trace` reads the trace once, record by record: it may be larger than memory. The oracle and every policy follow
//!   it side by side.
//! * `report` is what comes out, as text and as JSON.

mod report;
mod trace;

use std::fmt;
use std::io::BufRead;
use std::path::PathBuf;

use anyhow::Result;
use breakwater_oracle::obligations::Obligations;
use breakwater_oracle::policy::{self, Crash, Policy};
use breakwater_trace::{Event, Feature, Record, Step};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use report::{Crashed, Report};
pub(crate) use report::{by_set_and_way, doubt, not_kept, unknown};
use trace::Trace;

use crate::baseline::Baseline;
use crate::finding::fold;
use crate::names::Names;
use crate::ui;

/// Runs of a core that replaces at random: it may be lucky once.
const RANDOM_RUNS: u64 = 4;
/// Records between two looks at the clock.
const STRIDE: usize = 1 << 16;

/// What `--help` ends with.
pub const AFTER_HELP: &str = "\
The trace format is documented in tests/witness/oracle/README.md, with examples. Exit status:
  0  no violation
  1  violations
  2  no verdict: the trace is malformed, cut off or cannot be read; or an MMU is on with registers or tables that nobody
     declares, or that are not followed (one line says where, and what); or the command line is wrong

Example: rights are changed, and the TLBI is forgotten.
  printf '%s\\n' 'breakwater-trace 1' 'word 80001008 40000781' 'word 80001010 40000080000701' \\
    'word 80001018 400000c0000701' '0 1 40000000 start 2' '0 1 40000000 found mair_el2 ff' \\
    '0 1 40000000 found tcr_el2 80803519' '0 1 40000000 found ttbr0_el2 80001000' \\
    '0 1 40000000 found sctlr_el2 30cd183d' \\
    '0 2 40000004 store 8 80001018 80001018 400000c0000781' \\
    '0 3 40000008 dsb ish' '0 4 4000000c isb' 'end exit' | breakwater-witness judge -";

/// `judge`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The trace; - for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Replay it as this kind of core alone
    #[arg(long, value_name = "NAME", value_parser = policies())]
    policy: Option<Policy>,
    /// An ELF file, for the names of functions. May be given more than once
    #[arg(long = "elf", value_name = "FILE")]
    elfs: Vec<PathBuf>,
    /// Fail for new findings alone: FILE is what an earlier `judge` or `run` printed. Findings are known by their
    /// causes
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Features and errata of every PE, as the trace format spells them, before those that the trace declares: bbm=2,ets2
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    features: Vec<Feature>,
}

/// Reads a policy's name; `--help` says what each is.
fn policies() -> impl TypedValueParser<Value = Policy> {
    let known = Policy::ALL.iter().map(|policy| PossibleValue::new(policy.name()).help(policy.says()));
    PossibleValuesParser::new(known).try_map(|name| Policy::from_name(&name).ok_or("there is no such policy"))
}

/// Why a judgement ends other than with status 0.
#[derive(Debug)]
pub enum Rejected {
    /// The report lists them.
    Violations,
    /// The trace is no trace, or cannot be read: where, and why.
    Unreadable(String),
    /// Nothing was broken as far as is known, and not all is known that a verdict would rest on: where, and what.
    NoVerdict(String),
}

impl Rejected {
    /// The exit status of the command.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Violations => 1,
            Self::Unreadable(_) | Self::NoVerdict(_) => 2,
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violations => f.write_str("the trace breaks rules"),
            Self::Unreadable(why) | Self::NoVerdict(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Rejected {}

/// Runs `judge`: prints the violations, the policies that would have crashed, a summary and the JUDGE-REPORT line.
///
/// # Errors
/// [`Rejected`].
pub fn command(args: &Args) -> Result<()> {
    let policies = args.policy.as_ref().map_or(Policy::ALL, std::slice::from_ref);
    let unusable = |why: anyhow::Error| Rejected::Unreadable(format!("{why:#}"));
    let symbols = Names::read(&args.elfs, &[], &[]).map_err(unusable)?;
    let baseline = args.baseline.as_deref().map(Baseline::read).transpose().map_err(unusable)?;
    let report = trace::open(&args.file).and_then(|input| judge(input, &args.features, policies, &symbols));
    let mut report = report.map_err(|why| Rejected::Unreadable(format!("{}: {why}", args.file.display())))?;
    report.compared = baseline.map(|baseline| baseline.compare(&report.findings));
    anstream::println!("{report}");
    anstream::println!("JUDGE-REPORT {}", report.to_json());
    match report.unknowns.first() {
        _ if report.is_rejected() => Err(Rejected::Violations.into()),
        Some(unknown) => Err(Rejected::NoVerdict(format!("{}: {unknown}", args.file.display())).into()),
        None => Ok(()),
    }
}

/// Judges a trace with `features` of all PEs in front, and replays it as each of `policies`.
///
/// # Errors
/// Where it is malformed or out of order, or that it breaks off.
pub(crate) fn judge(
    input: impl BufRead,
    features: &[Feature],
    policies: &[Policy],
    symbols: &Names,
) -> Result<Report, String> {
    let mut counter = ui::Counter::new("Judging", true);
    let mut bench = Bench::new(policies);
    for feature in features {
        bench.step(0, &Record::Feature { cpu: None, feature: *feature });
    }
    let mut trace = Trace::new(input);
    while let Some((line, record)) = trace.next()? {
        bench.step(line, &record);
        if bench.records.is_multiple_of(STRIDE) {
            counter.says(|| format!("{} events", bench.events));
        }
    }
    Ok(bench.report(symbols))
}

/// The oracle and the kinds of core that follow a trace.
struct Bench {
    records: usize,
    events: usize,
    /// Events that a core translates an address for.
    accesses: usize,
    obligations: Obligations,
    replays: policy::Replays,
    cores: Vec<Core>,
}

/// A run of one kind of core, and the first crash in it.
struct Core {
    policy: Policy,
    crash: Option<Crash>,
}

impl Bench {
    fn new(policies: &[Policy]) -> Self {
        let kinds: Vec<(Policy, u64)> =
            policies.iter().flat_map(|policy| (0..runs(*policy)).map(|seed| (*policy, seed))).collect();
        let cores = kinds.iter().map(|(policy, _)| Core { policy: *policy, crash: None }).collect();
        let replays = policy::Replays::new(kinds);
        Self { records: 0, events: 0, accesses: 0, obligations: Obligations::new(), replays, cores }
    }

    fn step(&mut self, line: u64, record: &Record) {
        self.records += 1;
        if let Record::Step(Step { event, .. }) = record {
            self.events += 1;
            self.accesses += usize::from(matches!(event, Event::Fetch { .. } | Event::Load(_) | Event::Store(_)));
        }
        self.obligations.step(line, record);
        let enters = matches!(record, Record::Step(Step { event: Event::Enter { .. }, .. }));
        let cores = &mut self.cores;
        self.replays.step(line, record, |number, crash| {
            cores[number].crash.get_or_insert(crash);
        });
        // How a loader's boot would have gone is not asked.
        if enters {
            self.cores.iter_mut().for_each(|core| core.crash = None);
        }
    }

    fn report(self, symbols: &Names) -> Report {
        let mut policies: Vec<(Policy, Option<Crashed>)> = Vec::new();
        for Core { policy, crash, .. } in self.cores {
            if policies.last().is_none_or(|(last, _)| *last != policy) {
                policies.push((policy, None));
            }
            let Some((_, crashed)) = policies.last_mut() else { continue };
            match (crashed, crash) {
                (_, None) => {}
                (Some(crashed), Some(_)) => crashed.times += 1,
                (none, Some(first)) => *none = Some(Crashed { times: 1, runs: runs(policy), first }),
            }
        }
        let Self { records, events, accesses, obligations, .. } = self;
        Report {
            records,
            events,
            accesses,
            compared: None,
            findings: fold(obligations.violations(), symbols),
            not_kept: obligations.not_kept(),
            doubts: obligations.doubts().to_vec(),
            swept: obligations.by_set_and_way(),
            unknowns: obligations.unknowns().to_vec(),
            policies,
        }
    }
}

const fn runs(policy: Policy) -> u64 {
    if policy.is_random() { RANDOM_RUNS } else { 1 }
}
