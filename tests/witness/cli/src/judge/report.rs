//! What a judgement says: in words, and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use breakwater_oracle::obligations::{BySetAndWay, Doubt, NotKept, Unknown};
use breakwater_oracle::policy::{Crash, Policy};
use serde_json::{Value, json};

use crate::baseline::Compared;
use crate::finding::Finding;

/// Findings shown in words; JSON has them all.
const SHOWN: usize = 100;

/// How a kind of core would have crashed.
#[derive(Debug)]
pub(crate) struct Crashed {
    /// How often ...
    pub(crate) times: u64,
    /// ... in how many runs.
    pub(crate) runs: u64,
    /// The first of them.
    pub(crate) first: Crash,
}

/// A judgement.
#[derive(Debug)]
pub(crate) struct Report {
    /// Records of the trace, declarations included.
    pub(crate) records: usize,
    /// Events among them.
    pub(crate) events: usize,
    /// Fetches, loads and stores among those: what a core translates.
    pub(crate) accesses: usize,
    /// What was broken.
    pub(crate) findings: Vec<Finding>,
    /// Against a baseline: what is new, and what is gone.
    pub(crate) compared: Option<Compared>,
    /// What was counted besides.
    pub(crate) not_kept: Vec<NotKept>,
    /// What nothing in the trace settles; it fails nothing.
    pub(crate) doubts: Vec<Doubt>,
    /// DC by set and way, and what it counted for.
    pub(crate) swept: Vec<BySetAndWay>,
    /// What a verdict would have to rest on besides, and is not known.
    pub(crate) unknowns: Vec<Unknown>,
    /// The kinds of core asked, and what would have become of each.
    pub(crate) policies: Vec<(Policy, Option<Crashed>)>,
}

impl Report {
    /// Violations by rule, repetitions included.
    fn by_rule(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for symptom in self.findings.iter().flat_map(|finding| &finding.symptoms) {
            *counts.entry(format!("{:?}", symptom.rule)).or_default() += symptom.times;
        }
        for counted in &self.not_kept {
            *counts.entry(format!("{:?}", counted.rule)).or_default() += counted.times;
        }
        counts
    }

    /// Whether anything was found that no baseline knows.
    pub(crate) fn is_rejected(&self) -> bool {
        self.findings.iter().any(|finding| !self.compared.as_ref().is_some_and(|compared| compared.knows(finding)))
    }

    /// Distinct violations.
    fn distinct(&self) -> usize {
        self.findings.iter().map(|finding| finding.members.len()).sum()
    }

    /// Violations, repetitions included.
    fn total(&self) -> u64 {
        self.by_rule().values().sum()
    }

    /// The JUDGE-REPORT line's value.
    pub(crate) fn to_json(&self) -> Value {
        let policies = self.policies.iter().map(|(policy, crashed)| {
            json!({
                "name": policy.name(),
                "crashes": crashed.is_some(),
                "line": crashed.as_ref().map(|crashed| crashed.first.line),
                "pe": crashed.as_ref().map(|crashed| crashed.first.pe),
                "va": crashed.as_ref().map(|crashed| hex(crashed.first.va)),
                "what": crashed.as_ref().map(|crashed| crashed.first.to_string()),
            })
        });
        json!({
            "version": 1,
            "records": self.records,
            "events": self.events,
            "unknown": self.unknowns.iter().map(unknown).collect::<Vec<_>>(),
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "baseline": self.compared.as_ref().map(Compared::to_json),
            "distinct": self.distinct(),
            "not_kept": self.not_kept.iter().map(not_kept).collect::<Vec<_>>(),
            "total": self.total(),
            "doubts": self.doubts.iter().map(doubt).collect::<Vec<_>>(),
            "by_set_and_way": self.swept.iter().map(by_set_and_way).collect::<Vec<_>>(),
            "by_rule": self.by_rule(),
            "policies": policies.collect::<Vec<_>>(),
        })
    }
}

/// JSON has no integers of 64 bits that every reader reads.
fn hex(value: u64) -> String {
    format!("{value:#x}")
}

/// The JSON of violations that were counted and not kept.
pub(crate) fn not_kept(counted: &NotKept) -> Value {
    let NotKept { rule, pe, pc, times } = counted;
    json!({ "rule": format!("{rule:?}"), "pe": pe, "pc": hex(*pc), "times": times })
}

/// The JSON of a doubt.
pub(crate) fn doubt(doubt: &Doubt) -> Value {
    json!({ "line": doubt.line(), "pe": doubt.pe(), "pc": hex(doubt.pc()), "says": doubt.to_string() })
}

/// The JSON of DC by set and way.
pub(crate) fn by_set_and_way(swept: &BySetAndWay) -> Value {
    let (line, pe, pc) = (swept.line(), swept.pe(), hex(swept.pc()));
    json!({ "line": line, "pe": pe, "pc": pc, "counted": swept.has_counted(), "says": swept.to_string() })
}

/// What is not known, as reports have it.
pub(crate) fn unknown(unknown: &Unknown) -> Value {
    json!({ "line": unknown.line, "what": unknown.what })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.findings.iter().take(SHOWN) {
            let known = self.compared.as_ref().map(|compared| compared.says(finding)).unwrap_or_default();
            writeln!(f, "{known}{finding}")?;
        }
        if self.findings.len() > SHOWN {
            writeln!(f, "... and {} more, all of them in the JUDGE-REPORT line", self.findings.len() - SHOWN)?;
        }
        for counted in &self.not_kept {
            writeln!(f, "{counted}")?;
        }
        for doubt in &self.doubts {
            writeln!(f, "{doubt}")?;
        }
        for swept in &self.swept {
            writeln!(f, "{swept}")?;
        }
        for (policy, crashed) in self.policies.iter().filter(|_| self.accesses != 0) {
            match crashed {
                None => writeln!(f, "{}: would have run through", policy.name())?,
                Some(Crashed { times, runs, first }) if runs > &1 => {
                    writeln!(f, "{}: would have crashed in {times} of {runs} runs: {first}", policy.name())?;
                }
                Some(Crashed { first, .. }) => writeln!(f, "{}: would have crashed: {first}", policy.name())?,
            }
        }
        let by_rule: Vec<String> = self.by_rule().iter().map(|(rule, count)| format!("{rule} {count}")).collect();
        if let Some(compared) = &self.compared {
            writeln!(f, "{compared}")?;
        }
        let crashing = self.policies.iter().filter(|(_, crashed)| crashed.is_some()).count();
        for unknown in &self.unknowns {
            writeln!(f, "{unknown}")?;
        }
        if self.findings.is_empty() && !self.unknowns.is_empty() {
            write!(f, "{} events: no verdict", self.events)?;
        } else if self.findings.is_empty() {
            write!(f, "{} events: no violation", self.events)?;
        } else {
            let (findings, distinct, total) = (self.findings.len(), self.distinct(), self.total());
            let by_rule = by_rule.join(", ");
            write!(
                f,
                "{} events: {findings} findings; {distinct} distinct violations, {total} in all ({by_rule})",
                self.events
            )?;
        }
        match self.accesses {
            0 => write!(f, "; no fetch, load or store: nothing shows what a core makes of it"),
            _ => write!(f, "; {crashing} of {} kinds of core would have crashed", self.policies.len()),
        }
    }
}
