//! What a watched run says, in words and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::Testimony;
use super::judge::CpuSeen;
use crate::baseline::Compared;
use crate::finding::Finding;
use crate::judge::{by_set_and_way, doubt, not_kept, unknown};
use crate::measure::CpuFigures;

/// Findings shown in words; JSON has them all.
const SHOWN: usize = 60;

impl Testimony {
    /// By rule: how many findings break it, and how often, with what was counted and not kept.
    fn by_rule(&self) -> BTreeMap<String, (usize, u64)> {
        let mut counts: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        for symptom in self.findings.iter().flat_map(|finding| &finding.symptoms) {
            let (findings, times) = counts.entry(format!("{:?}", symptom.rule)).or_default();
            *findings += 1;
            *times += symptom.times;
        }
        for counted in &self.not_kept {
            counts.entry(format!("{:?}", counted.rule)).or_default().1 += counted.times;
        }
        counts
    }

    fn figures(&self, cpu: u32) -> Option<&CpuFigures> {
        self.measured.as_ref().ok()?.cpus.iter().find(|figures| figures.cpu == cpu)
    }

    /// The WITNESS-REPORT line's value.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rules = self.by_rule();
        let rules = rules
            .iter()
            .map(|(rule, (findings, times))| (rule.clone(), json!({ "findings": findings, "times": times })));
        json!({
            "version": 1,
            "image": self.name,
            "verdict": self.verdict.name(),
            "exit_status": self.verdict.exit_code(),
            "why": self.why,
            "end": self.outcome.says(),
            "events": self.events,
            "seconds": (self.seconds * 1000.0).round() / 1000.0,
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "not_kept": self.not_kept.iter().map(not_kept).collect::<Vec<_>>(),
            "doubts": self.doubts.iter().map(doubt).collect::<Vec<_>>(),
            "by_set_and_way": self.swept.iter().map(by_set_and_way).collect::<Vec<_>>(),
            "in_other_orders": self.elsewhere.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "unweighed": self.unweighed,
            "unknown": self.unknowns.iter().map(unknown).collect::<Vec<_>>(),
            "baseline": self.compared.as_ref().map(Compared::to_json),
            "by_rule": rules.collect::<serde_json::Map<_, _>>(),
            "house_rules": self.lapses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "features": self.features,
            "to_runtime_root": self.measured.as_ref().ok().and_then(|measured| measured.to_runtime_root),
            "not_measured": self.measured.as_ref().err(),
            "cpus": self.cpus.iter().map(|(cpu, seen)| self.cpu_json(*cpu, seen)).collect::<Vec<_>>(),
        })
    }

    fn cpu_json(&self, cpu: u32, seen: &CpuSeen) -> Value {
        let figures = self.figures(cpu);
        json!({
            "cpu": cpu,
            "mmu_was_on": seen.mmu_was_on,
            "instructions": figures.map(|figures| figures.instructions),
            "instructions_mmu_on": figures.map(|figures| figures.mmu_on),
            "writable_executable": figures.map(|figures| figures.writable_executable),
            "root_switches": figures.map(|figures| figures.switches.len()),
            "exceptions": seen.exceptions,
        })
    }
}

impl fmt::Display for Testimony {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.findings.iter().take(SHOWN) {
            let known = self.compared.as_ref().map(|compared| compared.says(finding)).unwrap_or_default();
            writeln!(f, "{known}{finding}")?;
        }
        if self.findings.len() > SHOWN {
            writeln!(f, "... and {} more, all of them in the WITNESS-REPORT line", self.findings.len() - SHOWN)?;
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
        for lapse in &self.lapses {
            writeln!(f, "{lapse}")?;
        }
        for unknown in &self.unknowns {
            writeln!(f, "{unknown}")?;
        }
        if !self.findings.is_empty() {
            writeln!(f)?;
        }
        writeln!(f, "{}: {} events, {}", self.name, self.events, self.outcome.says())?;
        for (cpu, seen) in &self.cpus {
            writeln!(f, "  CPU {cpu}: {}", self.cpu_line(*cpu, seen))?;
        }
        if let Err(why) = &self.measured {
            writeln!(f, "  instructions and W+X windows were not measured: {why}")?;
        }
        for (rule, (findings, times)) in self.by_rule() {
            writeln!(f, "  {rule}: {findings} findings, {times} times")?;
        }
        if let Some(compared) = &self.compared {
            writeln!(f, "  {compared}")?;
        }
        let resting = self.findings.iter().filter(|finding| finding.rests_on_order).count();
        if resting > 0 {
            writeln!(f, "  {resting} of them rest on arrival order and do not count")?;
        }
        for finding in self.elsewhere.iter().take(SHOWN) {
            writeln!(f, "  not in this run, but in another order that fits the values observed:\n  {finding}")?;
        }
        if self.unweighed > 0 {
            writeln!(f, "  {} violations were not weighed against other orders, and count", self.unweighed)?;
        }
        write!(f, "verdict: {} ({})", self.verdict.name(), self.why)
    }
}

impl Testimony {
    fn cpu_line(&self, cpu: u32, seen: &CpuSeen) -> String {
        let on = if seen.mmu_was_on { "MMU was on" } else { "MMU was never on" };
        let figures = self.figures(cpu).map(|figures| {
            format!(
                "; {} instructions, {} of them with the MMU on, {} with memory writable and executable",
                figures.instructions, figures.mmu_on, figures.writable_executable
            )
        });
        let exceptions = match seen.exceptions {
            0 => String::new(),
            count => {
                let (syndrome, link, fault_address) = seen.last;
                format!(
                    "; {count} exceptions, the last: ESR_EL2 {syndrome:#x}, ELR_EL2 {link:#x}, FAR_EL2 {fault_address:#x}"
                )
            }
        };
        format!("{on}{}{exceptions}", figures.unwrap_or_default())
    }
}
