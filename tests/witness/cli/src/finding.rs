//! Violations as a person reads them, folded: one finding for all that have one cause.
//!
//! A cause is something wanting at one place of the code: one ISB that a function leaves out is one finding, whatever
//! rules it breaks, on however many CPUs, for however many pages, and wherever the harm shows. Each finding says what
//! it broke, rule by rule, and ends with what to do.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::{self, Write};

use breakwater_oracle::descriptor::{Descriptor, Format, Leaf, TableDescriptor};
use breakwater_oracle::obligations::{At, Harm, Lack, Remedy, Rule, Violation};
use serde_json::{Value, json};

use crate::names::Names;

/// Places that a finding names in words; JSON has more.
const MOST_PLACES: usize = 4;
/// Places that it has in JSON.
const MOST_PLACES_IN_JSON: usize = 100;

/// What makes violations one finding, and stays the same when the image is built again.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cause {
    /// What is wanting.
    pub lacks: String,
    /// The function in which it is; without symbols the address of the instruction.
    pub function: String,
}

impl Cause {
    fn of(remedy: &Remedy, symbols: &Names) -> Self {
        let At { pc, .. } = remedy.at;
        let function = symbols.place(pc).map_or_else(|| format!("{pc:#x}"), |(name, _)| name.to_owned());
        Self { lacks: remedy.lack.name().to_owned(), function }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lacks, function } = self;
        write!(f, "{lacks} in {function}")
    }
}

/// What a cause broke of one rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symptom {
    /// The rule.
    pub rule: Rule,
    /// Distinct violations of it.
    pub violations: u64,
    /// How often it was broken, repetitions included.
    pub times: u64,
    /// Distinct descriptors at stake; 0 where it is not about descriptors.
    pub descriptors: u64,
    /// The lowest and the highest virtual address at stake.
    pub vas: Option<(u64, u64)>,
}

/// A distinct finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What it comes from.
    pub cause: Cause,
    /// The first violation.
    pub first: Violation,
    /// All of them, the first included, by their numbers among the violations judged.
    pub members: Vec<usize>,
    /// Where the first one's instruction is: symbol and offset, if there are symbols.
    pub place: Option<String>,
    /// Where something is to be done about it.
    pub remedy_place: Option<String>,
    /// Instructions at which the same is wanting.
    pub places: BTreeSet<u64>,
    /// The CPUs that executed what it comes from.
    pub cpus: BTreeSet<u32>,
    /// What it broke, rule by rule, in the order in which they were found.
    pub symptoms: Vec<Symptom>,
    /// Where harm was done, by CPU and symbol and offset or address: the first line, and how often. The end of the
    /// recording is none of them.
    pub harms: BTreeMap<(u32, String), (u64, u64)>,
    /// It was owed until the end.
    pub until_the_end: bool,
    /// How often it was seen, repetitions at the same descriptor included.
    pub times: u64,
    /// It was found in the order in which the recorder's callbacks arrived, and need not happen in another that the values observed allow.
    pub rests_on_order: bool,
}

/// Folds `violations`, in the order of the first of each cause.
pub(crate) fn fold(violations: &[Violation], symbols: &Names) -> Vec<Finding> {
    let mut known: HashMap<Cause, usize> = HashMap::new();
    let mut found: Vec<Finding> = Vec::new();
    let mut subjects = HashSet::new();
    for (number, violation) in violations.iter().enumerate() {
        let cause = Cause::of(&violation.remedy, symbols);
        let index = *known.entry(cause.clone()).or_insert(found.len());
        if index == found.len() {
            found.push(Finding::new(cause, violation, symbols));
        }
        let Violation { rule, va, pa, old, new, old_as, new_as, .. } = violation;
        let is_descriptor = old_as.is_some() || new_as.is_some();
        let is_new = is_descriptor && subjects.insert((index, *rule, [*va, *pa, *old, *new]));
        found[index].add(number, violation, is_new, symbols);
    }
    found
}

/// [`fold`], with what is known of each violation: a finding rests on order unless one of its violations is certain.
pub(crate) fn weighed(violations: &[Violation], certain: &[bool], symbols: &Names) -> Vec<Finding> {
    let mut found = fold(violations, symbols);
    for finding in &mut found {
        finding.rests_on_order = !finding.members.iter().any(|number| certain.get(*number) == Some(&true));
    }
    found
}

/// Symbol and offset of an address.
pub(crate) fn place(symbols: &Names, pc: u64) -> Option<String> {
    symbols.place(pc).map(|(name, offset)| if offset == 0 { name.to_owned() } else { format!("{name}+{offset:#x}") })
}

/// Symbol, offset and address; the address alone where there is no symbol.
fn spelled_place(place: Option<&str>, pc: u64) -> String {
    place.map_or_else(|| format!("{pc:#x}"), |place| format!("{place} ({pc:#x})"))
}

/// The lower and the higher of both.
fn joined(vas: Option<(u64, u64)>, va: Option<u64>) -> Option<(u64, u64)> {
    match (vas, va) {
        (Some((low, high)), Some(va)) => Some((low.min(va), high.max(va))),
        (vas, va) => vas.or(va.map(|va| (va, va))),
    }
}

impl Symptom {
    /// The rest of a line about it: addresses and counts.
    fn counts(&self) -> String {
        let mut words = match self.vas {
            Some((low, high)) if low != high => format!(", VA {low:#x} to {high:#x}"),
            Some((va, _)) => format!(", VA {va:#x}"),
            None => String::new(),
        };
        if self.descriptors > 1 {
            let _ = write!(words, ", {} descriptors", self.descriptors);
        }
        if self.times > 1 {
            let _ = write!(words, ", seen {} times", self.times);
        }
        words
    }

    fn to_json(&self) -> Value {
        json!({
            "rule": format!("{:?}", self.rule),
            "arm": self.rule.arm(),
            "origin": self.rule.origin().says(),
            "va": self.vas.map(|(low, _)| hex(&low)),
            "va_last": self.vas.map(|(_, high)| hex(&high)),
            "violations": self.violations,
            "descriptors": self.descriptors,
            "times": self.times,
        })
    }
}

/// JSON has no integers of 64 bits that every reader reads.
fn hex(value: &u64) -> String {
    format!("{value:#x}")
}

impl Finding {
    fn new(cause: Cause, first: &Violation, symbols: &Names) -> Self {
        Self {
            cause,
            first: first.clone(),
            members: Vec::new(),
            place: place(symbols, first.pc),
            remedy_place: place(symbols, first.remedy.at.pc),
            places: BTreeSet::new(),
            cpus: BTreeSet::new(),
            symptoms: Vec::new(),
            harms: BTreeMap::new(),
            until_the_end: false,
            times: 0,
            rests_on_order: false,
        }
    }

    fn add(&mut self, number: usize, violation: &Violation, is_new_descriptor: bool, symbols: &Names) {
        let Violation { rule, pe, va, times, remedy, harm, .. } = violation;
        self.members.push(number);
        self.times += times;
        self.places.insert(remedy.at.pc);
        self.cpus.insert(*pe);
        match harm {
            Some(Harm::At(At { line, pe, pc })) => {
                let place = place(symbols, *pc).unwrap_or_else(|| hex(pc));
                self.harms.entry((*pe, place)).or_insert((*line, 0)).1 += times;
            }
            Some(Harm::End) => self.until_the_end = true,
            None => {}
        }
        let index = self.symptoms.iter().position(|symptom| symptom.rule == *rule).unwrap_or_else(|| {
            self.symptoms.push(Symptom { rule: *rule, violations: 0, times: 0, descriptors: 0, vas: None });
            self.symptoms.len() - 1
        });
        let symptom = &mut self.symptoms[index];
        symptom.violations += 1;
        symptom.times += times;
        symptom.descriptors += u64::from(is_new_descriptor);
        symptom.vas = joined(symptom.vas, *va);
    }

    /// Whether it broke `rule`.
    #[must_use]
    pub fn breaks(&self, rule: Rule) -> bool {
        self.symptoms.iter().any(|symptom| symptom.rule == rule)
    }

    /// The change of the first descriptor, in words; nothing where it is about none.
    pub(crate) fn change(&self) -> Option<String> {
        let Violation { old, new, old_as, new_as, .. } = &self.first;
        match (old.map(|old| spelled(old, old_as.as_ref())), new.map(|new| spelled(new, new_as.as_ref()))) {
            (Some(old), Some(new)) => Some(format!("{old} -> {new}")),
            (Some(one), None) | (None, Some(one)) => Some(one),
            (None, None) => None,
        }
    }

    /// What to do, and where.
    #[must_use]
    pub fn to_do(&self) -> String {
        let Violation { pe, missing, remedy: Remedy { lack, side, at }, .. } = &self.first;
        let what = match lack {
            Lack::Isb => "an ISB",
            Lack::StoreDsb => "a DSB ISHST or wider",
            Lack::TlbiDsb => "a DSB for loads and stores, as far as the TLBI reaches",
            Lack::Tlbi | Lack::Break | Lack::Own(_) => missing,
        };
        let place = spelled_place(self.remedy_place.as_deref(), at.pc);
        let cpu = if at.pe == *pe { String::new() } else { format!("CPU {} ", at.pe) };
        let mut words = format!("{what}: {cpu}{} {place}, line {}", side.says(), at.line);
        if self.places.len() > 1 {
            let _ = write!(words, ", and at {} more places of the same function", self.places.len() - 1);
        }
        words
    }

    /// Its value in the reports' JSON. Addresses are text: JSON has no integers of 64 bits that every reader reads.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Violation { rule, line, pe, pc, pa, old, new, missing, remedy, .. } = &self.first;
        let harms = self.harms.iter().take(MOST_PLACES_IN_JSON);
        let harms = harms
            .map(|((cpu, place), (line, times))| json!({ "cpu": cpu, "place": place, "line": line, "times": times }));
        let vas = self.symptoms.first().and_then(|symptom| symptom.vas);
        json!({
            "rule": format!("{rule:?}"),
            "arm": rule.arm(),
            "origin": rule.origin().says(),
            "cpu": pe,
            "cpus": self.cpus,
            "pc": hex(pc),
            "symbol": self.place,
            "line": line,
            "va": vas.map(|(low, _)| hex(&low)),
            "va_last": vas.map(|(_, high)| hex(&high)),
            "pa": pa.as_ref().map(hex),
            "old": old.as_ref().map(hex),
            "new": new.as_ref().map(hex),
            "change": self.change(),
            "missing": missing,
            "to_do": {
                "says": self.to_do(),
                "side": remedy.side.says(),
                "pc": hex(&remedy.at.pc),
                "symbol": self.remedy_place,
                "line": remedy.at.line,
            },
            "cause": { "lacks": self.cause.lacks, "function": self.cause.function, "places": self.places.len() },
            "symptoms": self.symptoms.iter().map(Symptom::to_json).collect::<Vec<_>>(),
            "harm": harms.collect::<Vec<_>>(),
            "until_the_end": self.until_the_end,
            "violations": self.members.len(),
            "times": self.times,
            "rests_on_order": self.rests_on_order,
        })
    }

    /// Where it did harm, in words.
    fn harm(&self) -> Option<String> {
        let named = self.harms.iter().take(MOST_PLACES);
        let mut words: Vec<String> =
            named.map(|((cpu, place), (line, _))| format!("CPU {cpu} at {place}, line {line}")).collect();
        if self.harms.len() > MOST_PLACES {
            words.push(format!("{} more places", self.harms.len() - MOST_PLACES));
        }
        if self.until_the_end {
            words.push("owed until the end".to_owned());
        }
        (!words.is_empty()).then(|| words.join("; "))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { rule, line, pe, pc, pa, missing, .. } = &self.first;
        let cpus = match self.cpus.iter().filter(|cpu| *cpu != pe).count() {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        let place = spelled_place(self.place.as_deref(), *pc);
        write!(f, "{rule:?} ({}): CPU {pe}{cpus} at {place}, line {line}", rule.source())?;
        let Some((first, rest)) = self.symptoms.split_first() else { return Ok(()) };
        f.write_str(&first.counts())?;
        if let (Some(pa), 1) = (pa, self.members.len()) {
            write!(f, ", PA {pa:#x}")?;
        }
        let mut more = String::new();
        if let Some(change) = self.change() {
            let _ = write!(more, "\n    {}{change}", if first.violations > 1 { "the first: " } else { "" });
        }
        let _ = write!(more, "\n    missing: {missing}\n    {}", rule.says());
        for symptom in rest {
            let _ = write!(more, "\n    also {:?} ({}){}", symptom.rule, symptom.rule.source(), symptom.counts());
        }
        if let Some(harm) = self.harm() {
            let _ = write!(more, "\n    harm: {harm}");
        }
        if self.rests_on_order {
            more += "\n    This rests on the order in which two CPUs' events arrived; other orders that fit the values observed do not show it.";
        }
        let _ = write!(more, "\n    to do: {}", self.to_do());
        f.write_str(&more)
    }
}

/// A descriptor's value, and what it says where that is known.
fn spelled(word: u64, read_as: Option<&(i8, Format)>) -> String {
    match read_as {
        Some((level, format)) => format!("{word:#x} ({})", in_words(format.decode(word, *level), *level)),
        None => format!("{word:#x}"),
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
pub(crate) mod tests {
    use super::*;

    use breakwater_oracle::obligations::Side;
    use breakwater_oracle::params::Features;
    use breakwater_oracle::regime::Controls;

    fn violation(rule: Rule, pc: u64, va: u64) -> Violation {
        let at = At { line: 7, pe: 0, pc };
        let remedy = Remedy { lack: Lack::Own(rule), side: Side::At, at };
        let missing = format!("TLBI of {va:x}, then DSB");
        let (harm, va, pa, old, new, old_as, new_as) = (None, Some(va), None, None, None, None, None);
        Violation { rule, line: 7, pe: 0, pc, harm, remedy, va, pa, old, new, old_as, new_as, missing, times: 2 }
    }

    /// The same, at stake wherever it is used, and mended by an ISB behind `pc`.
    fn without_isb(rule: Rule, pc: u64, used_at: u64) -> Violation {
        let violation = violation(rule, pc, 0x1000);
        let remedy = Remedy { lack: Lack::Isb, side: Side::After, at: At { line: 8, pe: 0, pc: pc + 4 } };
        Violation { remedy, harm: Some(Harm::At(At { line: 9, pe: 0, pc: used_at })), ..violation }
    }

    /// A finding that lacks this, at these places.
    pub(crate) fn finding(lacks: &str, function: &str, places: &[u64]) -> Finding {
        let cause = Cause { lacks: lacks.to_owned(), function: function.to_owned() };
        let mut finding = Finding::new(cause, &violation(Rule::StaleLeaf, 4, 0), &Names::default());
        finding.places = places.iter().copied().collect();
        finding
    }

    /// The report of `findings`, as far as baselines ask.
    pub(crate) fn report(findings: &[Finding]) -> String {
        json!({ "findings": findings.iter().map(Finding::to_json).collect::<Vec<_>>() }).to_string()
    }

    /// Functions `map` at 0x1000 and `unmap` at 0x2000.
    fn symbols() -> Names {
        Names::of_functions(&[("map", 0x1000), ("unmap", 0x2000)], 0x1000..0x3000)
    }

    #[test]
    fn good_one_mistake_for_many_pages_is_one_finding() {
        let rule = Rule::WriteExecute;
        let all = [violation(rule, 4, 0x1000), violation(rule, 8, 0x1000), violation(rule, 4, 0x3000)];
        let folded = fold(&all, &Names::default());
        assert_eq!(folded.len(), 2);
        let first = &folded[0];
        assert_eq!((first.symptoms[0].vas, first.times), (Some((0x1000, 0x3000)), 4));
        assert_eq!(first.members, [0, 2]);
        assert!(first.to_string().contains("VA 0x1000 to 0x3000, seen 4 times"), "{first}");
    }

    #[test]
    fn good_descriptors_are_counted_where_it_is_about_descriptors() {
        let leaf = |va: u64| {
            let format = Controls { tcr: 0x8080_3519, ..Controls::default() }.format(&Features::default());
            let new_as = format.ok().map(|format| (3, format));
            Violation { new: Some(va), new_as, ..violation(Rule::WriteExecute, 4, va) }
        };
        let folded = fold(&[leaf(0x1000), leaf(0x2000), leaf(0x2000)], &Names::default());
        assert_eq!((folded[0].symptoms[0].descriptors, folded[0].symptoms[0].violations), (2, 3));
        let folded = fold(&[violation(Rule::LineBefore, 4, 1), violation(Rule::LineBefore, 4, 2)], &Names::default());
        assert_eq!((folded[0].symptoms[0].descriptors, folded[0].symptoms[0].violations), (0, 2));
    }

    #[test]
    fn good_one_isb_missing_in_a_function_that_two_places_call_is_one_finding() {
        let rules = [Rule::FillSync, Rule::FillSync, Rule::CompletionSync];
        let all: Vec<_> =
            rules.iter().zip([0x9000, 0xa000, 0x9000]).map(|(r, at)| without_isb(*r, 0x1010, at)).collect();
        let folded = fold(&all, &symbols());
        let [finding] = folded.as_slice() else { panic!("{folded:#?}") };
        assert_eq!(finding.cause.to_string(), "ISB in map");
        let symptoms: Vec<_> = finding.symptoms.iter().map(|symptom| (symptom.rule, symptom.violations)).collect();
        assert_eq!(symptoms, [(Rule::FillSync, 2), (Rule::CompletionSync, 1)]);
        assert_eq!(finding.harms.len(), 2);
        for part in ["also CompletionSync", "CPU 0 at 0xa000, line 9", "to do: an ISB: after map+0x14 (0x1014), line 8"]
        {
            assert!(finding.to_string().contains(part), "{part}: {finding}");
        }
        assert_eq!(finding.to_json()["symptoms"][1]["rule"], "CompletionSync");
    }

    #[test]
    fn bad_two_isbs_missing_in_two_functions_are_two_findings() {
        let all = [0x1010, 0x2010].map(|pc| without_isb(Rule::FillSync, pc, 0x9000));
        assert_eq!(fold(&all, &symbols()).len(), 2);
        // Without symbols nobody knows functions.
        let same = [0x1010, 0x1020].map(|pc| without_isb(Rule::FillSync, pc, 0x9000));
        assert_eq!((fold(&same, &symbols()).len(), fold(&same, &Names::default()).len()), (1, 2));
        assert!(fold(&same, &symbols())[0].to_string().contains("and at 1 more places"));
    }

    #[test]
    fn bad_different_things_missing_in_one_function_are_different_findings() {
        let isb = without_isb(Rule::FillSync, 0x1010, 0x9000);
        let dsb = Remedy { lack: Lack::StoreDsb, ..isb.remedy };
        let all = [isb.clone(), Violation { remedy: dsb, ..isb }, violation(Rule::WriteExecute, 0x1010, 0)];
        assert_eq!(fold(&all, &symbols()).len(), 3);
    }
}
