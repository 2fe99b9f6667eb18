//! What was found, once each, with its evidence.

use std::collections::HashMap;
use std::fmt;

use super::Rule;
use super::cause::{At, Harm, Lack, Remedy};
use super::holder::{Pes, bit};
use super::sweep::BySetAndWay;
use crate::descriptor::Format;

/// Distinct violations of one rule at one instruction of one PE that are kept. What is beyond is counted: it tells nothing new of its place,
/// and must not hide another.
const MOST_OF_A_PLACE: usize = 1000;

/// A broken rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// Line of the trace that it comes from: of the store or the write of a register that made what is owed, or of the
    /// event that does harm by itself.
    pub line: u64,
    /// The PE that executed it.
    pub pe: u32,
    /// Its instruction.
    pub pc: u64,
    /// Where it did harm, if that is elsewhere.
    pub harm: Option<Harm>,
    /// What would mend it, and where.
    pub remedy: Remedy,
    /// The virtual address whose translation is at stake.
    pub va: Option<u64>,
    /// The physical address of the descriptor, frame or word at stake.
    pub pa: Option<u64>,
    /// The descriptor or register value before.
    pub old: Option<u64>,
    /// The one after.
    pub new: Option<u64>,
    /// The level of the table that the old descriptor stood in, and how it was read; nothing if it is none.
    pub old_as: Option<(i8, Format)>,
    /// The same of the new one.
    pub new_as: Option<(i8, Format)>,
    /// The event that should have been there.
    pub missing: String,
    /// How often it was found: at the same instruction, of the same descriptors.
    pub times: u64,
}

/// Violations that were counted and not kept: as many distinct ones of their rule at their instruction are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotKept {
    /// The rule.
    pub rule: Rule,
    /// The PE that broke it.
    pub pe: u32,
    /// Its instruction.
    pub pc: u64,
    /// How often, repetitions included.
    pub times: u64,
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, pe, pc, times } = self;
        write!(f, "PE {pe} at {pc:x}: {rule:?} ({}): {times} more were counted, and are not listed", rule.source())
    }
}

/// A TLBI that takes out what another PE replaced, and that nothing seen orders behind that: no violation, and no proof that there is none.
#[derive(Clone, Copy, Debug)]
pub struct Doubt {
    pub(super) at: At,
    pub(super) va: u64,
    pub(super) storer: u32,
    pub(super) store_line: u64,
    pub(super) load_line: u64,
}

impl Doubt {
    /// The line of the TLBI.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.at.line
    }

    /// The PE that issued it.
    #[must_use]
    pub const fn pe(&self) -> u32 {
        self.at.pe
    }

    /// Its instruction.
    #[must_use]
    pub const fn pc(&self) -> u64 {
        self.at.pc
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at: At { line, pe, pc }, va, storer, store_line, load_line } = self;
        write!(
            f,
            "line {line}: PE {pe} at {pc:x}: in doubt, VA {va:x}: this TLBI takes out what PE {storer} replaced on line {store_line}, and a load \
             alone stands before it (line {load_line}). Only a branch on what was loaded orders it, which no trace shows; DSB ISHLD or wider \
             between the two would show it. Acquire, DMB and ISB alone order no TLBI"
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, line, pe, pc, missing, .. } = self;
        write!(f, "line {line}: PE {pe} at {pc:x}: {rule:?} ({})", rule.source())?;
        for (name, value) in [("VA", self.va), ("PA", self.pa)] {
            if let Some(value) = value {
                write!(f, ", {name} {value:x}")?;
            }
        }
        match (self.old, self.new) {
            (Some(old), Some(new)) => write!(f, ", {old:x} -> {new:x}")?,
            (Some(old), None) => write!(f, ", old {old:x}")?,
            (None, Some(new)) => write!(f, ", new {new:x}")?,
            (None, None) => {}
        }
        match self.harm {
            Some(Harm::At(At { line, pe, pc })) => write!(f, ", harm on line {line}: PE {pe} at {pc:x}")?,
            Some(Harm::End) => f.write_str(", owed until the end")?,
            None => {}
        }
        write!(f, ": missing: {missing}. {}", rule.says())
    }
}

/// A violation without its place and its missing event.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnplacedViolation {
    pub(super) rule: Rule,
    pub(super) va: Option<u64>,
    pub(super) pa: Option<u64>,
    pub(super) old: Option<u64>,
    pub(super) new: Option<u64>,
    pub(super) old_as: Option<(i8, Format)>,
    pub(super) new_as: Option<(i8, Format)>,
    /// What it comes from, if that is not the event being judged.
    pub(super) by: Option<At>,
    /// What would mend it; what the rule asks for, at what it comes from, if nothing else is said.
    pub(super) remedy: Option<Remedy>,
    /// What tells two findings apart that differ in what is missing alone.
    pub(super) about: &'static str,
}

impl UnplacedViolation {
    pub(super) const fn of(rule: Rule) -> Self {
        let (va, pa, old, new) = (None, None, None, None);
        Self { rule, va, pa, old, new, old_as: None, new_as: None, by: None, remedy: None, about: "" }
    }

    /// It comes from this event.
    pub(super) const fn by(mut self, at: At) -> Self {
        self.by = Some(at);
        self
    }

    /// This would mend it.
    pub(super) const fn mend(mut self, remedy: Remedy) -> Self {
        self.remedy = Some(remedy);
        self
    }

    pub(super) const fn va(mut self, va: u64) -> Self {
        self.va = Some(va);
        self
    }

    pub(super) const fn pa(mut self, pa: u64) -> Self {
        self.pa = Some(pa);
        self
    }

    /// It concerns a context that is walked only for want of an ISB after this write of a control, if so.
    pub(super) const fn unmeant(self, write: Option<At>) -> Self {
        match write {
            Some(write) => self.by(write).mend(Remedy::after(Lack::Isb, write)),
            None => self,
        }
    }

    /// It is about this, among several of its kind at one instruction.
    pub(super) const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// Old and new are descriptors of `level`.
    pub(super) const fn read_as(mut self, level: i8, format: Format) -> Self {
        (self.old_as, self.new_as) = (Some((level, format)), Some((level, format)));
        self
    }

    /// The old one stood at another `level`, or was read in another way.
    pub(super) const fn old_read_as(mut self, level: i8, format: Format) -> Self {
        self.old_as = Some((level, format));
        self
    }

    pub(super) const fn old(mut self, old: u64) -> Self {
        self.old = Some(old);
        self
    }

    pub(super) const fn now(mut self, new: u64) -> Self {
        self.new = Some(new);
        self
    }
}

/// Rule, place, addresses and values, what it is about, and the PE and instruction that did harm.
type Identity = (Rule, u32, u64, [Option<u64>; 3], &'static str, Option<(u32, u64)>);

/// What became of the violations of one rule at one instruction of one PE.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Distinct ones that are kept.
    kept: usize,
    /// Others, repetitions included.
    not_kept: u64,
}

/// The violations so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) at: At,
    /// No event is being judged: the trace has ended.
    pub(super) at_end: bool,
    pub(super) off: Option<Rule>,
    /// What is found is not the image's doing.
    pub(super) is_muted: bool,
    /// PEs that translate by a regime that is not followed: what they do from there on is not judged, and has no
    /// verdict.
    left: Pes,
    pub(super) violations: Vec<Violation>,
    /// Violations, repetitions included.
    pub(super) times: u64,
    /// Violations that were taken away.
    taken: usize,
    /// Which of all violations each one is, those taken away included.
    seen: HashMap<Identity, usize>,
    places: HashMap<(Rule, u32, u64), Counted>,
    doubts: Vec<Doubt>,
    /// DC by set and way that is over.
    pub(super) swept: Vec<BySetAndWay>,
}

impl Report {
    /// `pe` translates by a regime that is not followed.
    pub(super) fn leave(&mut self, pe: u32) {
        self.left |= bit(pe);
    }

    /// Notes what `finding` says: of the event being judged, or of an earlier one that does harm there.
    pub(super) fn add(&mut self, finding: UnplacedViolation, missing: impl FnOnce() -> String) {
        let UnplacedViolation { rule, va, pa, old, new, old_as, new_as, by, remedy, about } = finding;
        let at = by.unwrap_or(self.at);
        let At { line, pe, pc } = at;
        let harm = match () {
            () if self.at_end => Some(Harm::End),
            () => (at != self.at).then_some(Harm::At(self.at)),
        };
        let remedy = remedy.unwrap_or(Remedy::at(Lack::Own(rule), at));
        let whose = if self.at_end { pe } else { self.at.pe };
        if self.off == Some(rule) || self.is_muted || self.left & bit(whose) != 0 {
            return;
        }
        self.times += 1;
        let number = self.taken + self.violations.len();
        let harmed = harm.map(|harm| match harm {
            Harm::At(At { pe, pc, .. }) => (pe, pc),
            Harm::End => (u32::MAX, 0),
        });
        let identity = (rule, pe, pc, [va, old, new], about, harmed);
        if let Some(known) = self.seen.get(&identity) {
            if let Some(violation) = known.checked_sub(self.taken).and_then(|index| self.violations.get_mut(index)) {
                violation.times += 1;
            }
            return;
        }
        let place = self.places.entry((rule, pe, pc)).or_default();
        if place.kept >= MOST_OF_A_PLACE {
            place.not_kept += 1;
            return;
        }
        place.kept += 1;
        self.seen.insert(identity, number);
        let (missing, times) = (missing(), 1);
        self.violations.push(Violation {
            rule,
            line,
            pe,
            pc,
            harm,
            remedy,
            va,
            pa,
            old,
            new,
            old_as,
            new_as,
            missing,
            times,
        });
    }

    /// Notes a doubt: one for each TLBI of a PE, by its instruction, and PE whose stores it takes out.
    pub(super) fn doubt(&mut self, doubt: Doubt) {
        let place = |doubt: &Doubt| (doubt.at.pe, doubt.at.pc, doubt.storer);
        if self.doubts.len() < MOST_OF_A_PLACE && !self.doubts.iter().any(|known| place(known) == place(&doubt)) {
            self.doubts.push(doubt);
        }
    }

    /// The doubts so far.
    pub(super) fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    /// What was counted and not kept, by rule, PE and instruction.
    pub(super) fn not_kept(&self) -> Vec<NotKept> {
        let places = self.places.iter().filter(|(_, place)| place.not_kept != 0);
        let counted = |(&(rule, pe, pc), place): (&_, &Counted)| NotKept { rule, pe, pc, times: place.not_kept };
        let mut not_kept: Vec<NotKept> = places.map(counted).collect();
        not_kept.sort_unstable_by_key(|counted| (counted.rule, counted.pe, counted.pc));
        not_kept
    }

    /// Nothing found, at the same event.
    pub(super) fn emptied(&self) -> Self {
        Self { at: self.at, off: self.off, ..Self::default() }
    }

    /// The violations since this was called last.
    pub(super) fn take(&mut self) -> Vec<Violation> {
        self.taken += self.violations.len();
        std::mem::take(&mut self.violations)
    }
}
