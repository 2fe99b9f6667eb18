//! What became of one program's boots, at every page offset that was tried.

use std::collections::{BTreeMap, BTreeSet};

use breakwater_oracle::obligations::Rule;
use breakwater_oracle::policy::{Crash, Policy};
use breakwater_oracle::xen::Story;

use super::watch::{Flag, Judged};

/// What boots, and what is to be flagged.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// `a` to `c`.
    pub(super) letter: char,
    /// In words.
    pub(super) title: String,
    /// CPUs.
    pub(super) cpus: u32,
    /// What the rules must flag, and nothing else.
    pub(super) expected: &'static [Flag],
    /// Whether no core may crash: where nothing is flagged, none has a reason to.
    pub(super) must_not_crash: bool,
}

impl Program {
    /// One of Xen's.
    pub(super) fn of_xen(story: Story) -> Self {
        let (letter, title, expected): (_, _, &[Flag]) = match story {
            Story::Xen411 => ('a', "(a) Xen 4.11", &[Flag::RootSwitch, Flag::Shatter, Flag::Fixmap]),
            Story::Xen00c96d77422a => ('b', "(b) Xen after 00c96d77422a", &[Flag::RootSwitch, Flag::Fixmap]),
        };
        Self { letter, title: title.to_owned(), cpus: 1, expected, must_not_crash: false }
    }

    /// Ours.
    pub(super) fn ours(name: &str, cpus: u32) -> Self {
        let title = format!("(c) {name}, {cpus} CPU{}", if cpus == 1 { "" } else { "s" });
        Self { letter: 'c', title, cpus, expected: &[], must_not_crash: true }
    }
}

/// One kind of core.
#[derive(Clone, Default, Debug)]
pub(super) struct Column {
    /// Boots that crashed ...
    pub(super) crashed: u64,
    /// ... of how many.
    pub(super) tried: u64,
    /// Page offsets at which one did.
    pub(super) pages: BTreeSet<u16>,
    /// The first of them.
    pub(super) first: Option<(u16, Crash)>,
}

/// Something that was flagged.
#[derive(Clone, Debug)]
pub(super) struct Flagged {
    pub(super) rule: Rule,
    /// At how many page offsets.
    pub(super) offsets: usize,
    /// The first page offset.
    pub(super) page: u16,
    /// The evidence there.
    pub(super) evidence: String,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub(super) program: Program,
    /// Page offsets tried.
    pub(super) offsets: usize,
    /// Events of all boots.
    pub(super) events: u64,
    pub(super) flagged: BTreeMap<(Flag, Rule), Flagged>,
    pub(super) columns: BTreeMap<Policy, Column>,
    /// Page offsets at which not exactly the expected was flagged.
    pub(super) unlike: BTreeSet<u16>,
}

impl Row {
    /// From the boots at each page offset, the lowest first.
    pub(super) fn new(program: Program, boots: &[(u16, Judged)]) -> Self {
        let (offsets, events) = (boots.len(), boots.iter().map(|(_, judged)| judged.events).sum());
        let (flagged, columns, unlike) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut row = Self { program, offsets, events, flagged, columns, unlike };
        boots.iter().for_each(|(page, judged)| row.add(*page, judged));
        row
    }

    fn add(&mut self, page: u16, judged: &Judged) {
        for (flag, rule) in &judged.flagged {
            let evidence = || judged.findings.iter().find(|finding| finding.breaks(*rule)).map(ToString::to_string);
            let new = || Flagged { rule: *rule, offsets: 0, page, evidence: evidence().unwrap_or_default() };
            self.flagged.entry((*flag, *rule)).or_insert_with(new).offsets += 1;
        }
        let found: BTreeSet<Flag> = judged.flagged.iter().map(|(flag, _)| *flag).collect();
        if found != self.program.expected.iter().copied().collect() {
            self.unlike.insert(page);
        }
        for (policy, fate) in &judged.fates {
            let column = self.columns.entry(*policy).or_default();
            column.crashed += fate.crashed;
            column.tried += fate.tried;
            if let Some(crash) = &fate.first {
                column.pages.insert(page);
                column.first.get_or_insert_with(|| (page, crash.clone()));
            }
        }
    }

    /// What was flagged anywhere, in the words of the story.
    pub(super) fn flags(&self) -> String {
        let names: BTreeSet<Flag> = self.flagged.keys().map(|(flag, _)| *flag).collect();
        let names: Vec<String> = names.into_iter().map(Flag::name).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    }

    /// Why the row is not what it should be; nothing if it is.
    #[must_use]
    pub fn wrong(&self) -> Option<String> {
        let Program { title, expected, must_not_crash, .. } = &self.program;
        if let Some(page) = self.unlike.first() {
            let expected: Vec<String> = expected.iter().map(|flag| flag.name()).collect();
            let expected = if expected.is_empty() { "nothing".to_owned() } else { expected.join(", ") };
            let evidence = self.flagged.values().filter(|flagged| flagged.page == *page);
            let evidence: Vec<&str> = evidence.map(|flagged| flagged.evidence.as_str()).collect();
            let (offsets, found) = (self.unlike.len(), self.flags());
            return Some(format!(
                "{title}: {expected} should be flagged; at {offsets} page offsets it is not so, among them {page}. Flagged: {found}\n{}",
                evidence.join("\n")
            ));
        }
        let crashed = self.columns.iter().filter(|_| *must_not_crash);
        let crashed = crashed.filter_map(|(policy, column)| Some((policy, column.first.as_ref()?)));
        let crashed: Vec<String> = crashed
            .map(|(policy, (page, crash))| format!("{title}, {}, page {page}: {crash}", policy.name()))
            .collect();
        if crashed.is_empty() { None } else { Some(crashed.join("\n")) }
    }
}

/// Page offsets as stretches.
pub(super) fn stretches(pages: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut stretches: Vec<(u16, u16)> = Vec::new();
    for page in pages {
        match stretches.last_mut() {
            Some((_, last)) if *last + 1 == *page => *last = *page,
            _ => stretches.push((*page, *page)),
        }
    }
    stretches
}
