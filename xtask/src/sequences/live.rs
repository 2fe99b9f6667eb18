//! Stores to tables in force: what each owes, and until when.

use std::collections::{BTreeMap, HashMap};

use breakwater_trace::{Barrier, Step};

use super::Findings;
use super::barriers::{Domain, Invalidation, covers_stores};
use super::reach::{self, Place};
use crate::measure::descriptor::{self, Kind};
use crate::measure::memory::{Change, Memory};

/// How far an invalidation has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Stored,
    /// A DSB has made the store visible to walks.
    Visible,
    Issued(u32, Invalidation),
    /// Complete once; the erratum wants one more.
    Repeat,
    RepeatIssued(u32, Invalidation),
    Complete(u32),
}

/// Something cached that has to go: an entry that was valid, or had other rights.
struct Owed {
    step: Step,
    slot: u64,
    place: Place,
    /// Of a table that was unlinked: the whole walk has to go.
    whole_walk: bool,
    /// What was mapped and no longer is: may not be stored to before.
    frame: Option<(u64, u64)>,
    stage: Stage,
}

/// An entry that became valid.
struct Fill {
    step: Step,
    end_exclusive: u64,
    visible: bool,
}

/// Everything that is owed.
#[derive(Default)]
pub(super) struct Live {
    owed: Vec<Owed>,
    /// By the first address translated.
    fills: BTreeMap<u64, Fill>,
    /// Last store by frame: CPU and moment.
    stores: HashMap<u64, (u32, u64)>,
    /// Last DSB of stores, ISHST or stronger, by CPU.
    settled: HashMap<u32, u64>,
    /// TLBIs under way, by CPU: issued, or complete and without their ISB.
    unfinished: HashMap<u32, (Step, Option<Invalidation>)>,
    repeat: bool,
    /// A second CPU has had its MMU on.
    pub(super) shared: bool,
}

impl Live {
    /// Nothing owed; with `repeat`, broadcasts are repeated.
    pub(super) fn new(repeat: bool) -> Self {
        Self { repeat, ..Self::default() }
    }

    /// Any store to memory, before it is judged as one to a table.
    pub(super) fn stored(&mut self, step: &Step, now: u64, pa: u64, va: Option<u64>, findings: &mut Findings) {
        self.stores.insert(pa & !0xfff, (step.cpu, now));
        self.used(step, step.pc, findings);
        if let Some(va) = va {
            self.used(step, va, findings);
        }
        let inside = |owed: &&Owed| owed.frame.is_some_and(|(start, end)| start <= pa && pa < end);
        if let Some(owed) = self.owed.iter().find(inside) {
            let evidence = format!("{pa:#x}, broken at {:#x}", owed.step.pc);
            findings.add(step, "a frame is stored to only after the invalidation of its broken mapping", evidence);
        }
    }

    /// An access or an instruction at `va`.
    pub(super) fn used(&self, step: &Step, va: u64, findings: &mut Findings) {
        let Some((start, fill)) = self.fills.range(..=va).next_back() else { return };
        if va < fill.end_exclusive && !(fill.visible && fill.step.cpu != step.cpu) {
            let evidence = format!("{va:#x}, mapped by the fill of {start:#x} at {:#x}", fill.step.pc);
            findings.add(step, "a new mapping is used only after DSB and ISB", evidence);
        }
    }

    /// A store changed a slot that walks read at `place`.
    pub(super) fn changed(
        &mut self,
        (step, now): (&Step, u64),
        change: Change,
        place: Place,
        memory: &Memory,
        findings: &mut Findings,
    ) {
        let Change { pa, old, new } = change;
        let valid = |word| descriptor::cacheable(word, place.level);
        if old == new {
            return;
        }
        // Even giving it back as unused says that nothing translates through it any more.
        if !valid(old) && self.owed.iter().any(|owed| owed.slot == pa) {
            let rule = "a broken slot is stored again only after DSB, TLBI that covers it, DSB, ISB";
            findings.add(step, rule, format!("slot {pa:#x}"));
        }
        match (valid(old), valid(new)) {
            (false, false) => {}
            (true, false) => self.broken(step, pa, old, place, memory),
            (false, true) => self.filled((step, now), change, place, memory, findings),
            (true, true) if descriptor::needs_break(old, new, place.level) => {
                findings.add(step, "a live descriptor is replaced by break, invalidate, make", format!("slot {pa:#x}"));
            }
            (true, true) => self.owe(step, pa, place, false, None),
        }
    }

    fn owe(&mut self, step: &Step, slot: u64, place: Place, whole_walk: bool, frame: Option<(u64, u64)>) {
        self.owed.push(Owed { step: *step, slot, place, whole_walk, frame, stage: Stage::Stored });
    }

    fn broken(&mut self, step: &Step, slot: u64, old: u64, place: Place, memory: &Memory) {
        self.fills.remove(&place.va);
        if descriptor::kind(old, place.level) == Kind::Leaf {
            let start = descriptor::address(old, place.level);
            let frame = Some((start, start + (1 << descriptor::offset_bits(place.level))));
            return self.owe(step, slot, place, false, frame);
        }
        let (frames, leaves) = reach::below(memory, old, place);
        for frame in frames {
            self.owe(step, slot, place, true, Some((frame, frame + 0x1000)));
        }
        for leaf in leaves.iter().filter(|leaf| descriptor::cacheable(leaf.word, leaf.place.level)) {
            self.owe(step, slot, leaf.place, true, None);
        }
    }

    fn filled(
        &mut self,
        (step, now): (&Step, u64),
        Change { new, .. }: Change,
        place: Place,
        memory: &Memory,
        findings: &mut Findings,
    ) {
        if descriptor::kind(new, place.level) == Kind::Table {
            let (frames, _) = reach::below(memory, new, place);
            for frame in frames {
                let Some((cpu, stored)) = self.stores.get(&frame) else { continue };
                if *stored < now && self.settled.get(cpu).is_none_or(|settled| settled < stored) {
                    let rule = "a DSB comes between the stores to a table and its link into tables in force";
                    findings.add(step, rule, format!("table {frame:#x}"));
                }
            }
        }
        let end_exclusive = place.va + (1 << descriptor::offset_bits(place.level));
        self.fills.insert(place.va, Fill { step: *step, end_exclusive, visible: false });
    }

    /// A DSB.
    pub(super) fn dsb(&mut self, cpu: u32, now: u64, barrier: Barrier) {
        if covers_stores(barrier, Domain::Inner) {
            self.settled.insert(cpu, now);
            self.fills.values_mut().filter(|fill| fill.step.cpu == cpu).for_each(|fill| fill.visible = true);
        }
        if let Some((_, tlbi)) = self.unfinished.get_mut(&cpu)
            && tlbi.is_some_and(|tlbi| tlbi.completed_by(barrier))
        {
            *tlbi = None;
        }
        for owed in &mut self.owed {
            owed.stage = match owed.stage {
                Stage::Stored if owed.step.cpu == cpu && covers_stores(barrier, Domain::Inner) => Stage::Visible,
                Stage::Issued(by, tlbi) if by == cpu && tlbi.completed_by(barrier) => {
                    let again = self.repeat && tlbi.domain > Domain::Own;
                    if again { Stage::Repeat } else { Stage::Complete(cpu) }
                }
                Stage::RepeatIssued(by, tlbi) if by == cpu && tlbi.completed_by(barrier) => Stage::Complete(cpu),
                stage => stage,
            };
        }
    }

    /// A TLBI of the EL2 regime.
    pub(super) fn invalidated(&mut self, step: &Step, tlbi: Invalidation) {
        self.unfinished.insert(step.cpu, (*step, Some(tlbi)));
        let reaches = !self.shared || tlbi.domain > Domain::Own;
        for owed in &mut self.owed {
            let bytes = 1 << descriptor::offset_bits(owed.place.level);
            owed.stage = match owed.stage {
                Stage::Visible if reaches && tlbi.covers(owed.place.va, bytes, owed.place.level, owed.whole_walk) => {
                    Stage::Issued(step.cpu, tlbi)
                }
                // Any broadcast operation repeats for all.
                Stage::Repeat if tlbi.domain > Domain::Own => Stage::RepeatIssued(step.cpu, tlbi),
                stage => stage,
            };
        }
    }

    /// An ISB.
    pub(super) fn isb(&mut self, cpu: u32) {
        self.owed.retain(|owed| owed.stage != Stage::Complete(cpu));
        if self.fills.values().any(|fill| fill.visible) {
            self.fills.retain(|_, fill| !(fill.visible && fill.step.cpu == cpu));
        }
        if self.unfinished.get(&cpu).is_some_and(|(_, tlbi)| tlbi.is_none()) {
            self.unfinished.remove(&cpu);
        }
    }

    /// The recording ends: nothing may be owed.
    pub(super) fn end(&self, findings: &mut Findings) {
        for fill in self.fills.values() {
            findings.add(&fill.step, "a fill is followed by DSB and ISB", "");
        }
        for owed in &self.owed {
            let evidence = format!("slot {:#x}", owed.slot);
            findings.add(&owed.step, "a break or change is followed by DSB, TLBI that covers it, DSB, ISB", evidence);
        }
        for (step, _) in self.unfinished.values() {
            findings.add(step, "a TLBI is followed by DSB of loads and stores and by ISB", "");
        }
    }
}
