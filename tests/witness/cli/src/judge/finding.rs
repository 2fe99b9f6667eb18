//! Violations that say the same, folded into one; and descriptors in words.

use std::collections::HashMap;
use std::fmt::{self, Write};

use breakwater_oracle::descriptor::{Descriptor, Format, Leaf, Table};
use breakwater_oracle::obligations::{Rule, Violation};

/// What makes two violations the same: all but the place in the trace.
type Key<'a> = (Rule, u32, [Option<u64>; 4], &'a str);

/// A distinct violation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    /// The first of its kind.
    pub(crate) first: Violation,
    /// How often it was found.
    pub(crate) times: u64,
}

/// All of a trace, by the line of the first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Findings {
    found: Vec<Finding>,
}

impl Findings {
    /// Folds `violations`.
    pub(crate) fn of(violations: &[Violation]) -> Self {
        let mut known: HashMap<Key<'_>, usize> = HashMap::new();
        let mut found: Vec<Finding> = Vec::new();
        for violation in violations {
            let Violation { rule, pe, va, pa, old, new, missing, .. } = violation;
            let index = *known.entry((*rule, *pe, [*va, *pa, *old, *new], missing)).or_insert(found.len());
            match found.get_mut(index) {
                Some(finding) => finding.times += violation.times,
                None => found.push(Finding { first: violation.clone(), times: violation.times }),
            }
        }
        found.sort_by_key(|finding| finding.first.line);
        Self { found }
    }

    /// True if there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.found.iter()
    }

    /// How many distinct ones.
    pub(crate) const fn len(&self) -> usize {
        self.found.len()
    }

    /// How many with all repetitions.
    pub(crate) fn total(&self) -> u64 {
        self.found.iter().map(|finding| finding.times).sum()
    }
}

impl Finding {
    /// The change of a descriptor that it is about, in words; nothing where it is about none.
    pub(crate) fn change(&self) -> Option<String> {
        let Violation { old, new, level, format, .. } = &self.first;
        let say = |word: Option<u64>| word.map(|word| spelled(word, *level, format.as_ref()));
        match (say(*old), say(*new)) {
            (Some(old), Some(new)) => Some(format!("{old} -> {new}")),
            (Some(one), None) | (None, Some(one)) => Some(one),
            (None, None) => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { rule, line, pe, pc, va, pa, missing, .. } = &self.first;
        write!(f, "line {line}, PE {pe} at {pc:#x}: {rule:?} ({})", rule.source())?;
        for (name, value) in [("VA", va), ("PA", pa)] {
            if let Some(value) = value {
                write!(f, ", {name} {value:#x}")?;
            }
        }
        if self.times > 1 {
            write!(f, ", {} times", self.times)?;
        }
        if let Some(change) = self.change() {
            write!(f, "\n    {change}")?;
        }
        write!(f, "\n    missing: {missing}\n    {}", rule.says())
    }
}

/// A descriptor's value, and what it says where that is known.
fn spelled(word: u64, level: Option<i8>, format: Option<&Format>) -> String {
    match (level, format) {
        (Some(level), Some(format)) => format!("{word:#x} ({})", in_words(format.decode(word, level), level)),
        _ => format!("{word:#x}"),
    }
}

/// A descriptor of `level` in a few words.
pub(crate) fn in_words(descriptor: Descriptor, level: i8) -> String {
    match descriptor {
        Descriptor::Invalid => "invalid".to_owned(),
        Descriptor::Table(Table { next, no_write, no_execute }) => {
            let rights = [(no_write, ", nothing writable below"), (no_execute, ", nothing executable below")];
            let rights: String = rights.iter().filter(|right| right.0).map(|right| right.1).collect();
            format!("table at {next:#x}{rights}")
        }
        Descriptor::Leaf(leaf) => leaf_in_words(leaf, level),
    }
}

fn leaf_in_words(leaf: Leaf, level: i8) -> String {
    let size = if level == 3 { "page".to_owned() } else { format!("level {level} block") };
    let (write, execute) = (if leaf.writable { 'W' } else { '-' }, if leaf.executable { 'X' } else { '-' });
    let shareability = ["NSH", "SH reserved", "OSH", "ISH"][usize::from(leaf.shareability & 3)];
    let mut words = format!("{size} {:#x} R{write}{execute} attr {} {shareability}", leaf.output, leaf.attr_index);
    let flags =
        [(!leaf.accessed, "AF=0"), (leaf.contiguous, "contiguous"), (leaf.guarded, "GP"), (leaf.no_translation, "nT")];
    for (_, flag) in flags.iter().filter(|flag| flag.0) {
        let _ = write!(words, " {flag}");
    }
    words
}
