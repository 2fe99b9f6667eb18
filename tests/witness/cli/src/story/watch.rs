//! One trace, watched by the oracle and by cores of every kind at once.

use std::collections::{BTreeMap, BTreeSet};

use breakwater_oracle::obligations::{Obligations, Rule, Violation};
use breakwater_oracle::policy::{Crash, Policy, Replay};
use breakwater_oracle::xen::{FIXMAP, XEN};
use breakwater_trace::{Event, Record, Step};

use crate::finding::{Finding, fold};
use crate::names::Names;

/// Bytes in the 2 MiB that the story's addresses are counted in.
const BLOCK_BYTES: u64 = 2 << 20;

/// The seed of a boot, as `breakwater_oracle::xen` has it: other page offsets have other luck.
const fn seed_of(page_offset: u16, boot: u64) -> u64 {
    boot << 9 | page_offset as u64
}

/// A core of one kind, until it crashes.
struct Core {
    policy: Policy,
    replay: Replay,
    crash: Option<Crash>,
}

/// Follows a trace, record by record.
pub(super) struct Watch {
    obligations: Obligations,
    cores: Vec<Core>,
    events: u64,
    started: BTreeSet<u32>,
}

impl Watch {
    /// For a boot of an image at `page_offset`; cores that chance plays a part in are watched `boots` times.
    pub(super) fn new(page_offset: u16, boots: u64) -> Self {
        let of_kind = |policy: &Policy| {
            let (policy, boots) = (*policy, if policy.is_random() { boots } else { 1 });
            let core = move |boot| Replay::new(policy, seed_of(page_offset, boot));
            (0..boots).map(move |boot| Core { policy, replay: core(boot), crash: None })
        };
        let cores = Policy::ALL.iter().flat_map(of_kind).collect();
        Self { obligations: Obligations::new(), cores, events: 0, started: BTreeSet::new() }
    }

    /// The record on `line`.
    pub(super) fn step(&mut self, line: u64, record: &Record) {
        self.obligations.step(line, record);
        for core in self.cores.iter_mut().filter(|core| core.crash.is_none()) {
            core.crash = core.replay.step(line, record);
        }
        if let Record::Step(Step { cpu, event, .. }) = record {
            self.events += 1;
            if matches!(event, Event::Start { .. }) {
                self.started.insert(*cpu);
            }
        }
    }

    /// What became of it.
    pub(super) fn judged(self) -> Judged {
        let mut fates = BTreeMap::new();
        for core in self.cores {
            let fate: &mut Fate = fates.entry(core.policy).or_default();
            fate.tried += 1;
            fate.crashed += u64::from(core.crash.is_some());
            fate.first = fate.first.take().or(core.crash);
        }
        let violations = self.obligations.violations();
        let flagged = violations.iter().map(|violation| (Flag::of(violation), violation.rule)).collect();
        let findings = fold(violations, &Names::default());
        Judged { events: self.events, cpus: self.started.len(), flagged, findings, fates }
    }
}

/// What became of one trace.
pub(super) struct Judged {
    /// Its events.
    pub(super) events: u64,
    /// CPUs that started.
    pub(super) cpus: usize,
    /// What the rules flag.
    pub(super) flagged: BTreeSet<(Flag, Rule)>,
    /// The same with its evidence.
    pub(super) findings: Vec<Finding>,
    /// What each kind of core made of it.
    pub(super) fates: BTreeMap<Policy, Fate>,
}

impl Judged {
    /// Nothing was flagged, and no core crashed.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.fates.values().all(|fate| fate.crashed == 0)
    }
}

/// Boots of one trace on one kind of core.
#[derive(Clone, Default)]
pub(super) struct Fate {
    /// How many crashed ...
    pub(super) crashed: u64,
    /// ... of how many.
    pub(super) tried: u64,
    /// How the first of them did.
    pub(super) first: Option<Crash>,
}

/// A violation, by its part in the story.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Flag {
    /// TTBR0_EL2 is written with the MMU on, and the new root says something else.
    RootSwitch,
    /// The block of the image becomes a table of pages in place.
    Shatter,
    /// A fixmap slot leads elsewhere without having been cleared.
    Fixmap,
    /// What the story does not tell of.
    Other(Rule),
}

impl Flag {
    fn of(violation: &Violation) -> Self {
        let is_in = |base| violation.va.is_some_and(|va| (base..base + BLOCK_BYTES).contains(&va));
        match violation.rule {
            Rule::RootSwitch => Self::RootSwitch,
            Rule::SizeChange if is_in(XEN) => Self::Shatter,
            Rule::OutputChange if is_in(FIXMAP) => Self::Fixmap,
            rule => Self::Other(rule),
        }
    }

    /// In the words of the story.
    pub(super) fn name(self) -> String {
        match self {
            Self::RootSwitch => "root switch".to_owned(),
            Self::Shatter => "shatter".to_owned(),
            Self::Fixmap => "fixmap".to_owned(),
            Self::Other(rule) => format!("{rule:?}"),
        }
    }
}
