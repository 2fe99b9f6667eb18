//! What the judge found, folded for the picture: by place, and by rule.

use std::collections::{BTreeMap, BTreeSet};

use breakwater_oracle::obligations::{Rule, Violation};

/// Places that are shown; findings beyond are in the table of rules alone.
const MOST_PLACES: usize = 1024;

/// What a finding rests on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Standing {
    /// One CPU's own order, or order that was observed.
    Certain,
    /// The order in which two CPUs' events happened to arrive.
    ByArrival,
}

/// What broke at one event.
#[derive(Clone, Debug)]
pub(super) struct BrokenAt {
    /// Where the instruction is, in words; nothing for what belongs to none.
    pub(super) at: String,
    /// How many distinct violations of each rule.
    pub(super) rules: Rules,
    /// What was missing, of the first.
    pub(super) missing: String,
}

/// How often a rule was broken.
#[derive(Clone, Debug)]
pub(super) struct Total {
    pub(super) count: u64,
    pub(super) cpus: BTreeSet<u32>,
    /// The first: its CPU, and where the instruction is, in words; nothing for what belongs to none.
    pub(super) first: (u32, String),
}

/// All findings.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// By CPU and line.
    pub(super) places: BTreeMap<(u32, u64), BrokenAt>,
    pub(super) rules: BTreeMap<(Standing, Rule), Total>,
    /// Those without a place on the picture.
    pub(super) unplaced: u64,
}

impl Findings {
    /// Takes in a violation that belongs to `line`.
    pub(super) fn add(&mut self, violation: &Violation, line: u64, symbol: Option<&str>, standing: Standing) {
        let Violation { rule, pe, pc, missing, .. } = violation;
        let at = match symbol {
            _ if *pc == 0 => String::new(),
            Some(symbol) => format!("{symbol} ({pc:#x})"),
            None => format!("{pc:#x}"),
        };
        let new = || Total { count: 0, cpus: BTreeSet::new(), first: (*pe, at.clone()) };
        let total = self.rules.entry((standing, *rule)).or_insert_with(new);
        total.count += 1;
        total.cpus.insert(*pe);
        if self.places.len() >= MOST_PLACES && !self.places.contains_key(&(*pe, line)) {
            self.unplaced += 1;
            return;
        }
        let new = || BrokenAt { at: at.clone(), rules: Rules::new(), missing: missing.clone() };
        let place = self.places.entry((*pe, line)).or_insert_with(new);
        *place.rules.entry((standing, *rule)).or_default() += 1;
    }

    /// Those of one CPU, by line.
    pub(super) fn of(&self, cpu: u32) -> impl Iterator<Item = (u64, &BrokenAt)> {
        self.places.range((cpu, 0)..=(cpu, u64::MAX)).map(|((_, line), place)| (*line, place))
    }

    /// How many there are, resting on what.
    pub(super) fn count(&self, standing: Standing) -> u64 {
        self.rules.iter().filter(|((of, _), _)| *of == standing).map(|(_, total)| total.count).sum()
    }
}

/// How many distinct violations of each rule there are at one place, or at several.
pub(super) type Rules = BTreeMap<(Standing, Rule), u64>;

/// `ControlChange, LineBefore ×14`: the first `most` of them.
pub(super) fn in_words(rules: &Rules, most: usize) -> String {
    let one = |((_, rule), count): (&(Standing, Rule), &u64)| match count {
        1 => format!("{rule:?}"),
        count => format!("{rule:?} ×{count}"),
    };
    let mut words: Vec<String> = rules.iter().map(one).take(most).collect();
    if rules.len() > most {
        words.push(format!("{} more", rules.len() - most));
    }
    words.join(", ")
}
