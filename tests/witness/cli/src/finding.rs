//! Violations as a person reads them, folded: one finding for all that say the same.

use std::collections::HashMap;
use std::fmt::{self, Write};

use breakwater_oracle::descriptor::{Descriptor, Format, Leaf, TableDescriptor};
use breakwater_oracle::obligations::{Rule, Violation};
use serde_json::{Value, json};

use crate::names::Names;

/// What makes violations one finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// A place in the code that breaks a rule in one way, however many pages it breaks it for: rule, CPU, instruction, and what was missing but
    /// for the addresses in it.
    Instruction,
    /// A descriptor for which a rule is broken in one way, wherever: rule, CPU, addresses and values, and what was missing.
    Descriptor,
}

/// Rule, CPU, then what [`By`] says.
type Key = (Rule, u32, Option<u64>, [Option<u64>; 4], String);

impl By {
    fn key(self, violation: &Violation) -> Key {
        let Violation { rule, pe, pc, va, pa, old, new, missing, .. } = violation;
        match self {
            Self::Instruction => (*rule, *pe, Some(*pc), [None; 4], without_numbers(missing)),
            Self::Descriptor => (*rule, *pe, None, [*va, *pa, *old, *new], missing.clone()),
        }
    }
}

/// A distinct finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The first violation.
    pub first: Violation,
    /// All of them, the first included, by their numbers among the violations judged.
    pub members: Vec<usize>,
    /// Where the instruction is: symbol and offset, if there are symbols.
    pub place: Option<String>,
    /// The lowest and the highest virtual address at stake.
    pub vas: Option<(u64, u64)>,
    /// How often it was seen, repetitions at the same descriptor included.
    pub times: u64,
    /// It was found in the order in which the recorder's callbacks arrived, and need not happen in another that the values observed allow.
    pub rests_on_order: bool,
}

/// Folds `violations`, in the order of the first of each kind; by descriptors, in the order of the trace.
pub(crate) fn fold(violations: &[Violation], by: By, symbols: &Names) -> Vec<Finding> {
    let mut known: HashMap<Key, usize> = HashMap::new();
    let mut found: Vec<Finding> = Vec::new();
    for (number, violation) in violations.iter().enumerate() {
        let index = *known.entry(by.key(violation)).or_insert(found.len());
        match found.get_mut(index) {
            Some(finding) => finding.add(number, violation),
            None => found.push(Finding {
                first: violation.clone(),
                members: vec![number],
                place: place(symbols, violation.pc),
                vas: violation.va.map(|va| (va, va)),
                times: violation.times,
                rests_on_order: false,
            }),
        }
    }
    if by == By::Descriptor {
        found.sort_by_key(|finding| finding.first.line);
    }
    found
}

/// [`fold`], with what is known of each violation: a finding rests on order unless one of its violations is certain.
pub(crate) fn weighed(violations: &[Violation], certain: &[bool], symbols: &Names) -> Vec<Finding> {
    let mut found = fold(violations, By::Instruction, symbols);
    for finding in &mut found {
        finding.rests_on_order = !finding.members.iter().any(|number| certain.get(*number) == Some(&true));
    }
    found
}

/// Symbol and offset of an address.
pub(crate) fn place(symbols: &Names, pc: u64) -> Option<String> {
    symbols.place(pc).map(|(name, offset)| if offset == 0 { name.to_owned() } else { format!("{name}+{offset:#x}") })
}

/// A sentence with every number in it, hexadecimal ones included, left out.
fn without_numbers(text: &str) -> String {
    let word = |word: &str| {
        let digits = word.trim_start_matches("0x").trim_matches(|c: char| !c.is_ascii_alphanumeric());
        !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            && digits.bytes().any(|b| b.is_ascii_digit())
    };
    text.split(' ').map(|part| if word(part) { "N" } else { part }).collect::<Vec<_>>().join(" ")
}

impl Finding {
    fn add(&mut self, number: usize, violation: &Violation) {
        self.members.push(number);
        self.times += violation.times;
        self.vas = match (self.vas, violation.va) {
            (Some((low, high)), Some(va)) => Some((low.min(va), high.max(va))),
            (vas, va) => vas.or(va.map(|va| (va, va))),
        };
    }

    /// The change of the first descriptor, in words; nothing where it is about none.
    pub(crate) fn change(&self) -> Option<String> {
        let Violation { old, new, level, format, .. } = &self.first;
        let say = |word: Option<u64>| word.map(|word| spelled(word, *level, format.as_ref()));
        match (say(*old), say(*new)) {
            (Some(old), Some(new)) => Some(format!("{old} -> {new}")),
            (Some(one), None) | (None, Some(one)) => Some(one),
            (None, None) => None,
        }
    }

    /// Its value in the WITNESS-REPORT line. Addresses are text: JSON has no integers of 64 bits that every reader reads.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Violation { rule, line, pe, pc, pa, old, new, missing, .. } = &self.first;
        let hex = |value: &u64| format!("{value:#x}");
        json!({
            "rule": format!("{rule:?}"),
            "arm": rule.arm(),
            "origin": rule.origin().says(),
            "cpu": pe,
            "pc": hex(pc),
            "symbol": self.place,
            "line": line,
            "va": self.vas.map(|(low, _)| hex(&low)),
            "va_last": self.vas.map(|(_, high)| hex(&high)),
            "pa": pa.as_ref().map(hex),
            "old": old.as_ref().map(hex),
            "new": new.as_ref().map(hex),
            "change": self.change(),
            "missing": missing,
            "descriptors": self.members.len(),
            "times": self.times,
            "rests_on_order": self.rests_on_order,
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { rule, pe, pc, pa, missing, .. } = &self.first;
        // The end of a recording has no instruction.
        let place = match &self.place {
            Some(place) => format!("{place} ({pc:#x})"),
            None if *pc == 0 => "the end".to_owned(),
            None => format!("{pc:#x}"),
        };
        write!(f, "{rule:?} ({}): CPU {pe} at {place}", rule.source())?;
        match self.vas {
            Some((low, high)) if low != high => write!(f, ", VA {low:#x} to {high:#x}")?,
            Some((va, _)) => write!(f, ", VA {va:#x}")?,
            None => {}
        }
        if let (Some(pa), 1) = (pa, self.members.len()) {
            write!(f, ", PA {pa:#x}")?;
        }
        let count = self.members.len();
        if count > 1 {
            write!(f, ", {count} descriptors")?;
        }
        if self.times > count as u64 {
            write!(f, ", seen {} times", self.times)?;
        }
        let mut more = String::new();
        if let Some(change) = self.change() {
            let _ = write!(more, "\n    {}{change}", if count > 1 { "the first: " } else { "" });
        }
        let _ = write!(more, "\n    missing: {missing}\n    {}", rule.says());
        if self.rests_on_order {
            more += "\n    This rests on the order in which two CPUs' events arrived; other orders that fit the values observed do not show it.";
        }
        f.write_str(&more)
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
        Descriptor::Table(TableDescriptor { next, no_write, no_execute }) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(rule: Rule, pc: u64, va: u64) -> Violation {
        Violation {
            rule,
            line: 7,
            pe: 0,
            pc,
            va: Some(va),
            pa: None,
            old: None,
            new: None,
            level: None,
            format: None,
            missing: format!("TLBI of {va:x}, then DSB"),
            times: 2,
        }
    }

    #[test]
    fn good_one_mistake_for_many_pages_is_one_finding() {
        let rule = Rule::WriteExecute;
        let folded = fold(
            &[violation(rule, 4, 0x1000), violation(rule, 8, 0x1000), violation(rule, 4, 0x3000)],
            By::Instruction,
            &Names::default(),
        );
        assert_eq!(folded.len(), 2);
        assert_eq!(
            (folded[0].vas, folded[0].times, folded[0].members.as_slice()),
            (Some((0x1000, 0x3000)), 4, &[0, 2][..])
        );
        assert!(folded[0].to_string().contains("VA 0x1000 to 0x3000, 2 descriptors, seen 4 times"), "{}", folded[0]);
    }

    #[test]
    fn good_different_mistakes_stay_apart() {
        let other = Violation { missing: "DSB".to_owned(), ..violation(Rule::StaleLeaf, 4, 0x1000) };
        let all = [violation(Rule::StaleLeaf, 4, 0x1000), other, violation(Rule::OutputChange, 4, 0x1000)];
        assert_eq!(fold(&all, By::Instruction, &Names::default()).len(), 3);
    }

    #[test]
    fn good_one_descriptor_broken_in_two_places_is_one_finding() {
        let rule = Rule::WriteExecute;
        let all = [violation(rule, 4, 0x1000), violation(rule, 8, 0x1000), violation(rule, 4, 0x3000)];
        let folded = fold(&all, By::Descriptor, &Names::default());
        assert_eq!((folded.len(), folded[0].times, folded[0].members.as_slice()), (2, 4, &[0, 1][..]));
    }
}
