//! What a verdict would have to rest on, and nobody has said.
//!
//! What cannot be known is not clean: an MMU that is on with registers, tables or formats that this judge does not know translates all the
//! same. What is known is judged, and a violation stands; that there is none then means nothing.

use std::fmt;

use breakwater_trace::{Access, Event, Feature};

use super::Obligations;
use super::context::{MOST_SLOTS, Regime, TableUse};
use super::holder::{Pes, bit};
use super::memory::{Contradiction, index};
use super::page::Words;
use crate::maintenance::stored_words;
use crate::params::Features;
use crate::regime::{Control, Controls, Unsupported};

/// More of them than anybody reads: each is of another PE, or of another kind.
const MOST: usize = 64;

/// More accesses that nothing explains: one cause makes many of them.
pub(super) const MOST_ACCESSES: usize = 16;

/// Something that is not known, or not followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unknown {
    /// Line of the trace from which on it matters.
    pub line: u64,
    /// What, with its value.
    pub what: String,
    /// It is an access that no translation explains.
    pub is_access: bool,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: no verdict", self.line, self.what)
    }
}

/// A load that found what nobody has stored, as far as the lines have come. A store's line follows its access, so the
/// store may be the next event of another PE.
#[derive(Clone, Debug)]
pub(super) struct EarlyLoad {
    pa: u64,
    /// The bytes that were read.
    mask: u64,
    contradiction: Contradiction,
    /// PEs without an event since.
    awaited: Pes,
    /// What is not known if it is the next event of none.
    notes: Vec<Unknown>,
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
        self.note_unknown(Unknown { line: self.report.at.line, what, is_access: false });
    }

    pub(super) fn note_unknown(&mut self, new: Unknown) {
        let most = if new.is_access { MOST_ACCESSES } else { MOST };
        let alike = self.unknowns.iter().filter(|unknown| unknown.is_access == new.is_access);
        if alike.clone().count() < most && alike.into_iter().all(|unknown| unknown.what != new.what) {
            self.unknowns.push(new);
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
        // With E2H they may have been written by their names at EL1.
        let needed = [Control::Tcr, Control::Mair, Control::Ttbr0].into_iter().filter(|_| !controls.e2h());
        for control in needed.filter(|control| known >> *control as u8 & 1 == 0) {
            let (name, sctlr) = (control.name(), controls.sctlr);
            self.not_known(format!(
                "PE {pe} has SCTLR_EL2 = {sctlr:x}, whose M is 1, and nothing says what {name} holds"
            ));
        }
        if controls.e2h() {
            self.report.leave(pe);
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

    /// Whether `access`, a load of `pe`, finds something else than the word that is known, and nothing explains that.
    #[must_use]
    pub fn contradicts(&self, pe: u32, access: &Access) -> bool {
        self.pes.len() > pe as usize
            && !access.device
            && stored_words(access).any(|word| self.contradiction(pe, word).is_some())
    }

    /// What is known of the word at `pa`, in whose bytes of `mask` a load of `pe` found `found`, if it cannot have
    /// found that. A load sees another PE's store, or what was there before, until that PE's DSB; what it stored itself
    /// it sees at once. Past the caches it misses a dirty line, and through them it may hit one from before a store.
    fn contradiction(&self, pe: u32, (pa, mask, found): (u64, u64, u64)) -> Option<u64> {
        let known = self.memory.read(pa).filter(|known| (known ^ found) & mask != 0)?;
        let lines = self.memory.page(pa)?.lines;
        let at = index(pa);
        let may_hide = match self.pes[pe as usize].may_cache() {
            Some(true) => lines.uncached.has(at),
            Some(false) => lines.dirty.has(at),
            None => lines.uncached.has(at) || lines.dirty.has(at),
        };
        let unseen = self.memory.unseen(pa, None);
        // Of what is no descriptor the value is not kept.
        let is_older = |older: u64| (older ^ found) & mask == 0 || older == 0 && found & mask & 1 == 0;
        let may_be_older = unseen.iter().any(|unseen| unseen.storer != pe)
            && unseen.iter().any(|unseen| unseen.older.is_none_or(is_older));
        (!may_hide && !lines.unclear.has(at) && !may_be_older).then_some(known)
    }

    /// The PEs beside `pe`.
    pub(super) fn others(&self, pe: u32) -> Pes {
        let others = self.pes.iter().enumerate().filter(|(other, state)| *other != pe as usize && state.exists);
        others.fold(0, |others, (other, _)| others | bit(other as u32))
    }

    /// `pe` loads: where memory holds something else than what is known, a device has written it, or another order of
    /// the PEs. A table in use keeps what is known of it, which may be cached; the rest is known no more. Whether a PE
    /// has just stored it, whose line is yet to come, shows the next event of each.
    pub(super) fn believe(&mut self, pe: u32, access: &Access) {
        for word in stored_words(access) {
            let Some(known) = self.contradiction(pe, word) else { continue };
            let (pa, mask, found) = word;
            let contradiction = Contradiction { line: self.report.at.line, found, known };
            let awaited = self.others(pe);
            if awaited != 0 {
                self.early.push(EarlyLoad { pa, mask, contradiction, awaited, notes: Vec::new() });
            }
            let holds = |place: &&TableUse| place.entry(pa).is_some();
            let places: Vec<TableUse> = self.frames.at(pa).iter().filter(holds).copied().collect();
            if places.is_empty() {
                self.uses.change();
                self.memory.contradict(pa, contradiction);
            }
            if let Some(place) = places.iter().find(|place| !place.ghost || self.viewers_of(place) != 0) {
                self.note_contradicted(place.base, pa, contradiction);
            }
        }
    }

    /// A table becomes reachable at `place`.
    pub(super) fn note_contradictions(&mut self, place: &TableUse) {
        let mut words = (0..place.entries).map(|entry| place.base + 8 * entry);
        if let Some((pa, found)) = words.find_map(|pa| self.memory.contradicted(pa).map(|found| (pa, found))) {
            self.note_contradicted(place.base, pa, found);
        }
    }

    fn note_contradicted(&mut self, base: u64, pa: u64, Contradiction { line, found, known }: Contradiction) {
        let what = format!(
            "the word {pa:x} of the table at {base:x}: the load of line {line} finds {found:x}, where {known:x} was known"
        );
        match self.early.iter_mut().find(|early| early.pa == pa && early.contradiction.line == line) {
            Some(early) => early.notes.push(Unknown { line: self.report.at.line, what, is_access: false }),
            None => self.not_known(what),
        }
    }

    /// `pe` does `event`: if that is the store that an earlier line has loaded from, nothing contradicts memory.
    pub(super) fn explain_loads(&mut self, pe: u32, event: &Event) {
        let mut early = std::mem::take(&mut self.early);
        early.retain_mut(|load| {
            let EarlyLoad { pa, mask, contradiction: Contradiction { line, found, known }, .. } = *load;
            let of_word = |access: &Access| stored_words(access).find(|word| word.0 == pa);
            let stores_it = |access| {
                of_word(access).is_some_and(|(_, stored, bits)| ((known & !stored | bits) ^ found) & mask == 0)
            };
            match event {
                _ if load.awaited & bit(pe) == 0 => return true,
                // An atomic instruction has a line for each of its accesses.
                Event::Load(access) if of_word(access).is_some() => return true,
                Event::Store(access) if stores_it(access) => {
                    if self.memory.contradicted(pa).is_some_and(|other| other.line == line) {
                        self.memory.restore(pa, known);
                    }
                    return false;
                }
                _ => {}
            }
            load.awaited &= !bit(pe);
            if load.awaited == 0 {
                self.note_all(&mut load.notes);
            }
            load.awaited != 0
        });
        self.early = early;
    }

    /// No more lines come: what has not explained a load does not.
    pub(super) fn give_up_loads(&mut self) {
        std::mem::take(&mut self.strange).into_iter().for_each(|strange| self.note_unknown(strange.note));
        for mut load in std::mem::take(&mut self.early) {
            self.note_all(&mut load.notes);
        }
    }

    fn note_all(&mut self, notes: &mut Vec<Unknown>) {
        notes.drain(..).for_each(|unknown| self.note_unknown(unknown));
    }
}

/// What of `controls` this judge does not follow.
pub(super) fn unsupported(controls: &Controls, features: &Features) -> Option<String> {
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
