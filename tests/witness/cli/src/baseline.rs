//! Findings that are known already: a project that has some can fail its CI for new ones alone, from the first day.
//!
//! A baseline is what an earlier run or judgement printed, kept as a file: there is no second format to write, to read
//! or to keep in step, and whoever reviews a change of it reads the findings themselves. Findings are compared by their
//! causes, which no address is part of where there are symbols. So a known cause that has come to more places than it
//! had is new: another call of the same mistake must not hide behind the first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use crate::finding::{Cause, Finding};

/// What stands before the report in a command's output.
const PREFIXES: [&str; 2] = ["WITNESS-REPORT ", "JUDGE-REPORT "];

/// Causes that are known, and at how many places each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Baseline(BTreeMap<Cause, usize>);

/// What became of a baseline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compared {
    baseline: Baseline,
    /// Causes of which nothing was found.
    gone: BTreeSet<Cause>,
    known: usize,
    new: usize,
}

impl Baseline {
    /// From the file at `path`: the output of `run` or `judge`, with or without `--json`, or the JSON of its last line
    /// alone.
    ///
    /// # Errors
    /// It cannot be read; there is no report in it, or one that names no causes.
    pub fn read(path: &Path) -> Result<Self> {
        let name = || format!("--baseline {}", path.display());
        let text = std::fs::read_to_string(path).with_context(name)?;
        Self::of(&text).with_context(name)
    }

    fn of(text: &str) -> Result<Self> {
        let report = text.lines().rev().find_map(|line| PREFIXES.iter().find_map(|prefix| line.strip_prefix(prefix)));
        let report: Value = serde_json::from_str(report.unwrap_or(text))
            .context("no line begins with WITNESS-REPORT or JUDGE-REPORT, and it is no JSON")?;
        let findings = report["findings"].as_array().ok_or_else(|| anyhow!("the report has no list of findings"))?;
        let mut known = BTreeMap::new();
        for finding in findings {
            let cause = &finding["cause"];
            let text = |name: &str| cause[name].as_str().map(ToOwned::to_owned);
            let both = text("lacks").zip(text("function")).zip(cause["places"].as_u64());
            let ((lacks, function), places) = both.ok_or_else(|| anyhow!("a finding has no cause: {finding}"))?;
            known.insert(Cause { lacks, function }, usize::try_from(places)?);
        }
        Ok(Self(known))
    }

    /// Holds `findings` against it.
    #[must_use]
    pub fn compare(&self, findings: &[Finding]) -> Compared {
        let known = findings.iter().filter(|finding| self.knows(finding)).count();
        let found: BTreeSet<&Cause> = findings.iter().map(|finding| &finding.cause).collect();
        let gone = self.0.keys().filter(|cause| !found.contains(cause)).cloned().collect();
        Compared { baseline: self.clone(), gone, known, new: findings.len() - known }
    }

    fn knows(&self, finding: &Finding) -> bool {
        self.0.get(&finding.cause).is_some_and(|places| finding.places.len() <= *places)
    }
}

impl Compared {
    /// Whether `finding` is known, at as many places at least.
    #[must_use]
    pub fn knows(&self, finding: &Finding) -> bool {
        self.baseline.knows(finding)
    }

    /// What stands before a finding.
    pub(crate) fn says(&self, finding: &Finding) -> String {
        match self.baseline.0.get(&finding.cause) {
            Some(places) if finding.places.len() > *places => {
                format!("new (known at {places} places, now at {}): ", finding.places.len())
            }
            Some(_) => "known: ".to_owned(),
            None => "new: ".to_owned(),
        }
    }

    /// Its value in the reports' JSON.
    pub(crate) fn to_json(&self) -> Value {
        let gone = self.gone.iter().map(|Cause { lacks, function }| json!({ "lacks": lacks, "function": function }));
        json!({ "known": self.known, "new": self.new, "gone": gone.collect::<Vec<_>>() })
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "against the baseline: {} known, {} new, {} gone", self.known, self.new, self.gone.len())?;
        self.gone.iter().try_for_each(|cause| write!(f, "\n  gone: {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::finding::tests::{finding, report};

    #[test]
    fn good_the_same_again_is_known() {
        let known = [finding("ISB", "map", &[0x10]), finding("TLBI", "unmap", &[0x20, 0x30])];
        let report = report(&known);
        for text in [format!("read\nWITNESS-REPORT {report}\n"), format!("JUDGE-REPORT {report}"), report] {
            let compared = Baseline::of(&text).unwrap().compare(&known);
            assert!(known.iter().all(|finding| compared.knows(finding)));
            assert_eq!(compared.to_string(), "against the baseline: 2 known, 0 new, 0 gone");
        }
    }

    #[test]
    fn good_other_addresses_are_the_same_cause() {
        let baseline = Baseline::of(&report(&[finding("ISB", "map", &[0x10])])).unwrap();
        let rebuilt = finding("ISB", "map", &[0x1230]);
        let compared = baseline.compare(std::slice::from_ref(&rebuilt));
        assert!(compared.knows(&rebuilt) && compared.says(&rebuilt) == "known: ");
    }

    #[test]
    fn bad_what_is_new_is_not_known_and_what_is_gone_is_said() {
        let baseline = Baseline::of(&report(&[finding("ISB", "map", &[0x10])])).unwrap();
        let found = [finding("ISB", "unmap", &[0x10]), finding("TLBI", "map", &[0x10])];
        let compared = baseline.compare(&found);
        assert!(found.iter().all(|finding| !compared.knows(finding) && compared.says(finding) == "new: "));
        assert_eq!(compared.to_string(), "against the baseline: 0 known, 2 new, 1 gone\n  gone: ISB in map");
        assert_eq!(compared.to_json()["gone"][0]["function"], "map");
    }

    #[test]
    fn bad_a_known_cause_at_more_places_is_new() {
        let baseline = Baseline::of(&report(&[finding("ISB", "map", &[0x10])])).unwrap();
        let twice = finding("ISB", "map", &[0x10, 0x40]);
        let compared = baseline.compare(std::slice::from_ref(&twice));
        assert!(!compared.knows(&twice));
        assert_eq!(compared.says(&twice), "new (known at 1 places, now at 2): ");
    }

    #[test]
    fn bad_what_is_no_report_is_refused() {
        for text in ["", "verdict: clean", "{}", "WITNESS-REPORT {\"findings\": [{\"rule\": \"StaleLeaf\"}]}"] {
            assert!(Baseline::of(text).is_err(), "{text}");
        }
        assert!(Baseline::read(Path::new("/nowhere/known.txt")).is_err());
    }
}
