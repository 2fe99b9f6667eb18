//! The oracle's word on other orders than that of arrival.
//!
//! A violation is certain if it comes out in every order that fits what is known. There are far too many; those judged are the ones that differ
//! most: with the event as early and as late as can be (and so, if it is another, the event at which the oracle noticed), and some at random, in
//! which CPUs take turns after every event or hardly ever. Where one CPU had been alone until then, there is no other order.
//!
//! Violations of one rule at one instruction are decided by up to three of them. The effort is bounded; what it did not reach counts as certain:
//! a violation called chance is one that nobody looks at.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use breakwater_oracle::obligations::{At, Harm, Obligations, Rule, Violation};
use breakwater_trace::Record;

use super::graph::{Choice, Order};
use super::{Edge, Moment};

/// What makes a violation of two orders the same: its rule, where it comes from, addresses and values, and where it did
/// harm.
type Identity = (Rule, u32, u64, [Option<u64>; 3], Harmed);
/// The CPU and the instruction that a cause did harm to, if it is another than its own.
type Harmed = Option<(u32, u64)>;
/// A rule, a CPU, an instruction.
type RuleSite = (Rule, u32, u64);

/// Records between two looks at the clock.
const BETWEEN_LOOKS: u64 = 1 << 16;

/// How much may be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Records that the oracle may judge, in all orders together.
    pub(crate) records: u64,
    /// Orders at random.
    pub(crate) random: u64,
    /// Nothing is judged after it.
    pub(crate) deadline: Option<Instant>,
}

impl Default for Effort {
    fn default() -> Self {
        Self { records: 20_000_000, random: 6, deadline: None }
    }
}

impl Effort {
    /// As much as by default, until `deadline`.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weighed {
    /// For each violation: it does not rest on the order of arrival.
    pub(crate) certain: Vec<bool>,
    /// Of those, how many are called so because the effort had been used up.
    pub(crate) unexamined: usize,
    /// Violations that other orders show, and this recording did not: they rest on order too.
    pub(crate) elsewhere: Vec<Violation>,
    /// Orders judged.
    pub(crate) orders: u64,
    /// Records judged, in all of them together.
    pub(crate) records: u64,
}

/// Weighs the `violations` that the oracle found in `records` (line and record, as they arrived) after `declared`, by what `edges` say of
/// their order.
#[cfg(test)]
pub(crate) fn weigh(
    declared: &[Record],
    records: &[(u64, Record)],
    edges: &[Edge],
    violations: &[Violation],
    effort: Effort,
) -> Weighed {
    weigh_from(judged(declared), records, edges, violations, effort)
}

/// `weigh` of what followed on what the `oracle` has judged.
pub(super) fn weigh_from(
    oracle: Obligations,
    records: &[(u64, Record)],
    edges: &[Edge],
    violations: &[Violation],
    effort: Effort,
) -> Weighed {
    let order = Order::new(records, edges);
    let bench = Bench::new(oracle, &order);
    let mut weighing = Weighing { bench, order: &order, effort, done: Weighed::default() };
    weighing.run(violations);
    weighing.done
}

/// The oracle after these declarations.
fn judged(declared: &[Record]) -> Obligations {
    let mut oracle = Obligations::new();
    declared.iter().for_each(|record| oracle.step(0, record));
    oracle
}

/// What the oracle finds in as many orders as there are `seeds`: nothing, if every change is properly handed over.
pub fn in_random_orders(
    declared: &[Record],
    records: &[(u64, Record)],
    edges: &[Edge],
    seeds: std::ops::Range<u64>,
) -> Vec<Violation> {
    let order = Order::new(records, edges);
    let bench = Bench::new(judged(declared), &order);
    let mut found = bench.found.clone();
    for seed in seeds {
        let judged = bench.judge(&order, Choice::Random(seed), None, &Effort::default());
        found.extend(judged.into_iter().flat_map(|judged| judged.found));
    }
    once(found)
}

/// The first of each kind.
fn once(violations: Vec<Violation>) -> Vec<Violation> {
    let mut seen = HashSet::new();
    violations.into_iter().filter(|violation| seen.insert(kind(violation))).collect()
}

const fn identity(violation: &Violation) -> Identity {
    let Violation { rule, pe, pc, va, old, new, .. } = violation;
    (*rule, *pe, *pc, [*va, *old, *new], harmed(violation))
}

const fn harmed(violation: &Violation) -> Harmed {
    match violation.harm {
        Some(Harm::At(At { pe, pc, .. })) => Some((pe, pc)),
        Some(Harm::End) | None => None,
    }
}

const fn kind(violation: &Violation) -> RuleSite {
    (violation.rule, violation.pe, violation.pc)
}

/// The oracle, after what is the same in every order.
struct Bench {
    oracle: Obligations,
    /// What it found there.
    found: Vec<Violation>,
    /// How many records that was.
    settled: usize,
}

/// One order, judged.
struct Judged {
    found: Vec<Violation>,
    /// Where the oracle noticed them, by the events' places in the trace; nothing at the end of the recording.
    noticed: Vec<Option<Moment>>,
    records: u64,
}

impl Bench {
    fn new(mut oracle: Obligations, order: &Order<'_>) -> Self {
        let settled = order.settled();
        for number in order.linear(Choice::Arrival).into_iter().take(settled) {
            let (line, record) = order.record(number);
            oracle.step(line, record);
        }
        let found = oracle.take_violations();
        Self { oracle, found, settled }
    }

    /// Judges what is not settled, until `wanted` is found; nothing if the time of `effort` is up before.
    fn judge(&self, order: &Order<'_>, choice: Choice, wanted: Option<&Identity>, effort: &Effort) -> Option<Judged> {
        let mut oracle = self.oracle.clone();
        let mut judged = Judged { found: Vec::new(), noticed: Vec::new(), records: 0 };
        for number in order.linear(choice).into_iter().skip(self.settled) {
            let (line, record) = order.record(number);
            oracle.step(line, record);
            judged.records += 1;
            if judged.records.is_multiple_of(BETWEEN_LOOKS) && effort.is_late() {
                return None;
            }
            if oracle.violations().is_empty() {
                continue;
            }
            let found = oracle.take_violations();
            let moment = match record {
                Record::Step(step) => Some(Moment { cpu: step.cpu, line }),
                _ => None,
            };
            judged.noticed.extend(found.iter().map(|_| moment));
            let enough = wanted.is_some_and(|wanted| found.iter().any(|violation| identity(violation) == *wanted));
            judged.found.extend(found);
            if enough {
                break;
            }
        }
        Some(judged)
    }
}

struct Weighing<'a> {
    bench: Bench,
    order: &'a Order<'a>,
    effort: Effort,
    done: Weighed,
}

impl Weighing<'_> {
    fn run(&mut self, violations: &[Violation]) {
        let settled: HashSet<Identity> = self.bench.found.iter().map(identity).collect();
        self.done.certain = vec![true; violations.len()];
        if self.bench.settled == self.order.len() {
            return;
        }
        let mut open: Vec<usize> =
            (0..violations.len()).filter(|number| !settled.contains(&identity(&violations[*number]))).collect();
        // As it arrived, but for loads that arrived before their stores.
        let Some(arrived) = self.judge(Choice::Arrival, None) else {
            self.done.unexamined = open.len();
            return;
        };
        let noticed: HashMap<Identity, Option<Moment>> =
            arrived.found.iter().map(identity).zip(arrived.noticed.iter().copied()).collect();
        self.keep(&mut open, violations, &arrived);
        let known: HashSet<RuleSite> = violations.iter().chain(&self.bench.found).map(kind).collect();
        let mut elsewhere = arrived.found;
        for seed in 0..self.effort.random {
            let Some(mut judged) = self.judge(Choice::Random(seed), None) else { break };
            self.keep(&mut open, violations, &judged);
            elsewhere.append(&mut judged.found);
        }
        elsewhere.retain(|violation| !known.contains(&kind(violation)));
        self.done.elsewhere = once(elsewhere);
        self.decide(&open, violations, &noticed);
    }

    /// Judges an order; nothing once the effort has been used up.
    fn judge(&mut self, choice: Choice, wanted: Option<&Identity>) -> Option<Judged> {
        let most = (self.order.len() - self.bench.settled) as u64;
        if self.done.records + most > self.effort.records || self.effort.is_late() {
            return None;
        }
        let judged = self.bench.judge(self.order, choice, wanted, &self.effort)?;
        self.done.orders += 1;
        self.done.records += judged.records;
        Some(judged)
    }

    /// Those of the `open` violations that were not found rest on order.
    fn keep(&mut self, open: &mut Vec<usize>, violations: &[Violation], judged: &Judged) {
        let found: HashSet<Identity> = judged.found.iter().map(identity).collect();
        open.retain(|number| {
            let kept = found.contains(&identity(&violations[*number]));
            self.done.certain[*number] = kept;
            kept
        });
    }

    /// Judges those that are still open with their events as early and as late as can be.
    fn decide(&mut self, open: &[usize], violations: &[Violation], noticed: &HashMap<Identity, Option<Moment>>) {
        let mut kinds: Vec<((RuleSite, Harmed), Vec<usize>)> = Vec::new();
        let mut known: HashMap<(RuleSite, Harmed), usize> = HashMap::new();
        for number in open {
            let kind = (kind(&violations[*number]), harmed(&violations[*number]));
            let index = *known.entry(kind).or_insert(kinds.len());
            match kinds.get_mut(index) {
                Some((_, members)) => members.push(*number),
                None => kinds.push((kind, vec![*number])),
            }
        }
        for (_, members) in &kinds {
            let mut three = vec![members[0], members[members.len() / 2], members[members.len() - 1]];
            three.dedup();
            let verdicts: Vec<Option<bool>> = three
                .iter()
                .map(|number| {
                    let violation = &violations[*number];
                    self.holds(violation, noticed.get(&identity(violation)).copied().flatten())
                })
                .collect();
            // One that is certain makes the others so that no order has refuted; so does one that could not be examined.
            if verdicts.contains(&None) && !verdicts.contains(&Some(true)) {
                self.done.unexamined += members.len();
            } else if !verdicts.contains(&Some(true)) {
                members.iter().for_each(|number| self.done.certain[*number] = false);
            }
            for (number, verdict) in three.iter().zip(&verdicts) {
                self.done.certain[*number] &= *verdict != Some(false);
            }
        }
    }

    /// Whether the violation comes out however its event, and the event at which it was noticed, lie; nothing if the effort has been used up.
    fn holds(&mut self, violation: &Violation, noticed: Option<Moment>) -> Option<bool> {
        let event = Moment { cpu: violation.pe, line: violation.line };
        let wanted = identity(violation);
        let harm = match violation.harm {
            Some(Harm::At(At { line, pe, .. })) => Some(Moment { cpu: pe, line }),
            Some(Harm::End) | None => None,
        };
        // What is declared before the recording is no event.
        let event = (violation.line != 0).then_some(event);
        let mut moments: Vec<Moment> = event.into_iter().chain(harm).chain(noticed).collect();
        moments.dedup();
        for choice in moments.iter().flat_map(|moment| [Choice::Early(*moment), Choice::Late(*moment)]) {
            let judged = self.judge(choice, Some(&wanted))?;
            if !judged.found.iter().any(|found| identity(found) == wanted) {
                return Some(false);
            }
        }
        Some(true)
    }
}
