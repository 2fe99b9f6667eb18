//! Every history of a world up to a length, both engines side by side, equal states merged.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::thread;

use breakwater_oracle::adversary::{Adversary, HarmKind};
use breakwater_oracle::obligations::{Obligations, Rule};
use breakwater_trace::Record;

use crate::worlds_of::World;

/// Both engines after some history.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) obligations: Obligations,
    pub(crate) adversary: Adversary,
}

impl Pair {
    /// Both after the setup of `world`. A letter has one physical address, whatever a history has mapped by then.
    pub(crate) fn new(world: &World, obligations: Obligations, mut adversary: Adversary) -> Self {
        let mut obligations = obligations.trusting_addresses();
        for (line, record) in (2..).zip(&world.setup) {
            obligations.step(line, record);
            adversary.step(line, record);
        }
        Self { obligations, adversary }
    }

    pub(crate) fn step(&mut self, line: u64, world: &World, event: usize) {
        self.obligations.step(line, &world.alphabet[event]);
        self.adversary.step(line, &world.alphabet[event]);
    }

    /// What each says: a violation, a harm.
    pub(crate) fn verdicts(&self) -> (bool, bool) {
        let objects = !self.obligations.violations().is_empty() || !self.obligations.unknowns().is_empty();
        (objects, !self.adversary.harms().is_empty())
    }

    /// Which rules are broken, which harms are done.
    fn kinds(&self) -> Kinds {
        let rules = self.obligations.violations().iter().map(|violation| violation.rule);
        let harms = self.adversary.harms().iter().map(|harm| harm.kind);
        (rules.collect::<BTreeSet<_>>().into_iter().collect(), harms.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// The reports of both, for a person.
    pub(crate) fn said(&self) -> String {
        let rules = self.obligations.violations().iter().map(ToString::to_string);
        let rules: Vec<String> = rules.chain(self.obligations.unknowns().iter().map(ToString::to_string)).collect();
        let harms: Vec<String> = self.adversary.harms().iter().map(ToString::to_string).collect();
        format!("obligations: {}\nadversary:   {}\n", or_nothing(&rules), or_nothing(&harms))
    }
}

fn or_nothing(lines: &[String]) -> String {
    if lines.is_empty() { "nothing".into() } else { lines.join("\n             ") }
}

/// 128 bits of a state: two states of a run that share them are taken as equal.
struct Fingerprints([std::hash::RandomState; 2]);

impl Fingerprints {
    fn new() -> Self {
        Self([std::hash::RandomState::new(), std::hash::RandomState::new()])
    }

    fn of(&self, pair: &Pair) -> u128 {
        let mut lanes = Lanes(self.0.each_ref().map(BuildHasher::build_hasher));
        pair.obligations.hash(&mut lanes);
        pair.adversary.hash(&mut lanes);
        u128::from(lanes.0[0].finish()) << 64 | u128::from(lanes.0[1].finish())
    }
}

/// Two hashers that are told the same.
struct Lanes([std::hash::DefaultHasher; 2]);

impl Hasher for Lanes {
    fn finish(&self) -> u64 {
        self.0[0].finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|lane| lane.write(bytes));
    }
}

/// The rules broken and the harms done at the end of a history.
pub(crate) type Kinds = (Vec<Rule>, Vec<HarmKind>);

/// What an exploration found.
#[derive(Default)]
pub(crate) struct Explored {
    /// States first reached after so many events.
    pub(crate) states: Vec<usize>,
    /// Rules that were tripped, and how often.
    pub(crate) rules: BTreeMap<Rule, usize>,
    /// Harms that were found, and how often.
    pub(crate) harms: BTreeMap<HarmKind, usize>,
    /// Histories that end in a verdict of both.
    pub(crate) judged_bad: usize,
    /// Histories on which the two differ, as traces with what each said: the shortest for each pair of rules and harms.
    pub(crate) differences: BTreeMap<Kinds, String>,
}

impl Explored {
    /// The differences, for a person.
    pub(crate) fn shown(&self) -> String {
        self.differences.values().map(|trace| format!("{trace}\n")).collect()
    }

    pub(crate) fn total(&self) -> usize {
        self.states.iter().sum()
    }
}

/// How a history came about: its last event, and what came before.
struct Step {
    before: usize,
    event: usize,
}

fn history(steps: &[Step], mut at: usize) -> Vec<usize> {
    let mut events = Vec::new();
    while let Some(step) = at.checked_sub(1).map(|index| &steps[index]) {
        events.push(step.event);
        at = step.before;
    }
    events.reverse();
    events
}

/// What follows a state after one event.
enum Next {
    /// A state that was not known before its level began.
    State(u128, Box<Pair>),
    /// Both object.
    Bad(Box<Pair>),
    /// One of them does.
    Difference(Box<Pair>),
}

/// A state of the frontier, and the step that led to it.
type Reached = (usize, Pair);

/// Explores `world` from `start` up to `depth` events; a history ends where either engine objects. Both CPUs of a small machine are used.
pub(crate) fn explore(world: &World, start: Pair, depth: usize) -> Explored {
    explore_until(world, start, depth, |_| false)
}

/// The same, but ends when `enough` says so of a level's differences.
pub(crate) fn explore_until(
    world: &World,
    start: Pair,
    depth: usize,
    enough: impl Fn(&BTreeMap<Kinds, String>) -> bool,
) -> Explored {
    let mut explored = Explored { states: vec![1], ..Explored::default() };
    let fingerprints = Fingerprints::new();
    let mut known = HashSet::from([fingerprints.of(&start)]);
    let mut steps: Vec<Step> = Vec::new();
    let mut frontier = vec![(0, start)];
    for length in 1..=depth {
        let mut next: Vec<Reached> = Vec::new();
        let mut count = 0;
        // In pieces, so that what waits to be merged stays small.
        for piece in frontier.chunks(1 << 9) {
            for (before, event, found) in expanded(world, piece, length, &known, &fingerprints) {
                match found {
                    Next::State(fingerprint, after) if known.insert(fingerprint) => {
                        count += 1;
                        steps.push(Step { before, event });
                        if length < depth {
                            next.push((steps.len(), *after));
                        }
                    }
                    Next::State(..) => {}
                    Next::Bad(after) => note(&mut explored, &after),
                    Next::Difference(after) => {
                        let shown = || {
                            let mut events = history(&steps, before);
                            events.push(event);
                            world.trace(&events) + &after.said()
                        };
                        explored.differences.entry(after.kinds()).or_insert_with(shown);
                    }
                }
            }
        }
        explored.states.push(count);
        if enough(&explored.differences) {
            break;
        }
        frontier = next;
    }
    explored
}

/// Every event after every state of `piece`, on as many threads as there are CPUs.
fn expanded(
    world: &World,
    piece: &[Reached],
    length: usize,
    known: &HashSet<u128>,
    fingerprints: &Fingerprints,
) -> Vec<(usize, usize, Next)> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = piece.len().div_ceil(threads).max(1);
    let expand = |states: &[Reached]| {
        let after = states.iter().flat_map(|(at, pair)| {
            (0..world.alphabet.len())
                .filter_map(move |event| Some((*at, event, follow(world, pair, event, length, known, fingerprints)?)))
        });
        after.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let running: Vec<_> = piece.chunks(share).map(|states| scope.spawn(|| expand(states))).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("an engine never panics")).collect()
    })
}

fn follow(
    world: &World,
    pair: &Pair,
    event: usize,
    length: usize,
    known: &HashSet<u128>,
    fingerprints: &Fingerprints,
) -> Option<Next> {
    let mut after = pair.clone();
    after.step(length as u64 + 100, world, event);
    match after.verdicts() {
        (false, false) if matches!(world.alphabet[event], Record::End(_)) => None,
        (false, false) => {
            let fingerprint = fingerprints.of(&after);
            (!known.contains(&fingerprint)).then(|| Next::State(fingerprint, Box::new(after)))
        }
        (true, true) => Some(Next::Bad(Box::new(after))),
        _ => Some(Next::Difference(Box::new(after))),
    }
}

fn note(explored: &mut Explored, pair: &Pair) {
    explored.judged_bad += 1;
    for violation in pair.obligations.violations() {
        *explored.rules.entry(violation.rule).or_default() += 1;
    }
    for harm in pair.adversary.harms() {
        *explored.harms.entry(harm.kind).or_default() += 1;
    }
}
