//! What a verdict would have to rest on, and nobody has said.
//!
//! What cannot be known is not clean: an MMU that is on with registers, tables or formats that this judge does not know translates all the
//! same. What is known is judged, and a violation stands; that there is none then means nothing.

use std::fmt;

use breakwater_trace::Feature;

use super::Obligations;
use super::context::{MOST_SLOTS, Regime};
use super::memory::index;
use super::page::Words;
use crate::params::Features;
use crate::regime::{Control, Controls, Unsupported};

/// More of them than anybody reads: each is of another PE, or of another kind.
const MOST: usize = 64;

/// Something that is not known, or not followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unknown {
    /// Line of the trace from which on it matters.
    pub line: u64,
    /// What, with its value.
    pub what: String,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: no verdict", self.line, self.what)
    }
}

/// Bits of TCR2_EL2 that give descriptors or rights another meaning.
const OF_TCR2: [(u32, &str); 7] =
    [(0, "PnCH"), (1, "PIE"), (3, "POE"), (4, "AIE"), (5, "D128"), (10, "PTTWI"), (11, "HAFT")];

impl Obligations {
    /// What no verdict can be given without, in the order in which it came to matter; each once.
    #[must_use]
    pub fn unknowns(&self) -> &[Unknown] {
        &self.unknowns
    }

    /// Notes that something is not known at the line that is being judged.
    pub(super) fn not_known(&mut self, what: String) {
        if self.unknowns.len() < MOST && self.unknowns.iter().all(|unknown| unknown.what != what) {
            self.unknowns.push(Unknown { line: self.report.at.line, what });
        }
    }

    /// A `word` line.
    pub(super) fn declare_word(&mut self, pa: u64, value: u64) {
        match self.memory.read(pa) {
            _ if self.begun => self.not_known(format!("the word {pa:x} is declared after the first event")),
            Some(other) if other != value => {
                self.not_known(format!("the word {pa:x} is declared to hold {other:x} and {value:x}"));
            }
            _ => {}
        }
        self.memory.declare(pa, value);
    }

    /// A `feature` line. What is said of every PE may have exceptions, and comes before them.
    pub(super) fn declare_feature(&mut self, cpu: Option<u32>, feature: Feature) {
        if self.begun {
            self.not_known(format!("feature {feature} is declared after the first event"));
        }
        if let Some(other) = self.params.contradicts(cpu, feature) {
            let whose = cpu.map_or("all".to_owned(), |cpu| cpu.to_string());
            self.not_known(format!("feature {whose} {feature} contradicts {other}"));
        }
        self.params.set(cpu, feature);
    }

    /// A `found` line of a control.
    pub(super) fn note_found(&mut self, pe: u32, control: Control, value: u64) {
        let state = &self.pes[pe as usize];
        let (is_late, other) = (!state.arriving, state.now.get(control));
        if is_late {
            self.not_known(format!(
                "PE {pe}: {} is found to hold {value:x} after the PE's first event",
                control.name()
            ));
        } else if state.known >> control as u8 & 1 != 0 && other != value {
            self.not_known(format!("PE {pe}: {} is found to hold {other:x} and {value:x}", control.name()));
        }
    }

    /// The tables are larger, or one of them is reached in more ways, than this engine follows.
    pub(super) fn note_limits(&mut self) {
        let what =
            format!("tables of more than {MOST_SLOTS} descriptors, or reached in too many ways, are not followed");
        self.not_known(what);
    }

    /// `pe` may translate under `controls`: what of them nobody knows, or this judge does not.
    pub(super) fn note_controls(&mut self, pe: u32, controls: &Controls) {
        let known = self.pes[pe as usize].known;
        let needed = [Control::Tcr, Control::Mair, Control::Ttbr0];
        for control in needed.into_iter().filter(|control| known >> *control as u8 & 1 == 0) {
            let (name, sctlr) = (control.name(), controls.sctlr);
            self.not_known(format!(
                "PE {pe} has SCTLR_EL2 = {sctlr:x}, whose M is 1, and nothing says what {name} holds"
            ));
        }
        if let Some(what) = unsupported(controls, self.params.of(pe)) {
            self.not_known(format!("PE {pe} translates with {what}"));
        }
    }

    /// A root comes into force: a table of which nothing is known says nothing.
    pub(super) fn note_root(&mut self, pe: u32, regime: &Regime) {
        let Regime { format, root, .. } = *regime;
        let entries = format.entries(format.start_level);
        let known = (0..entries.div_ceil(512)).any(|number| {
            let pa = root.wrapping_add(number << super::memory::SHIFT);
            let own = Words::span(index(pa), entries.min(512) as usize);
            self.memory.page(pa).is_some_and(|page| !page.known.and(&own).is_empty())
        });
        if !known {
            self.not_known(format!("PE {pe} walks from the root {root:x}, of which no word is known"));
        }
    }
}

/// What of `controls` this judge does not follow.
fn unsupported(controls: &Controls, features: &Features) -> Option<String> {
    let Controls { tcr, hcr, tcr2, .. } = *controls;
    if controls.e2h() {
        return Some(format!("HCR_EL2 = {hcr:x}, whose E2H is 1: the EL2&0 regime is not followed"));
    }
    let set: Vec<&str> = OF_TCR2.into_iter().filter(|(bit, _)| tcr2 >> bit & 1 != 0).map(|(_, name)| name).collect();
    if !set.is_empty() {
        return Some(format!("TCR2_EL2 = {tcr2:x}, whose {} is 1: such descriptors are not followed", set.join(", ")));
    }
    match controls.format(features) {
        Ok(_) => None,
        Err(Unsupported::Granule) => Some(format!("TCR_EL2 = {tcr:x}, whose TG0 is reserved")),
        Err(Unsupported::InputSize) => {
            Some(format!("TCR_EL2 = {tcr:x}, whose T0SZ is {}: reserved for this granule", tcr & 0x3f))
        }
    }
}
