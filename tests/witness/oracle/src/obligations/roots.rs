//! A PE that begins to walk a root while it may hold what another root, or an older state of this one, said.

use super::cause::{At, Lack, Missing, Remedy};
use super::change::same_leaf;
use super::context::{Context, MOST_SLOTS, PlacedWord, TableUse};
use super::debt::Debt;
use super::holder::{Pes, bit};
use super::pe::Pe;
use super::report::UnplacedViolation;
use super::{Obligations, Rule};
use crate::descriptor::{Descriptor, Format, Leaf};
use crate::regime::{Control, MemoryType};

/// Two tables, of two roots, for the same addresses.
type Pair = (TableUse, TableUse);

impl Obligations {
    /// The descriptor at the end of the walk for `va`: a leaf, or the invalid one where it ends. Nothing where memory is unknown,
    /// or where no walk begins for such an address.
    pub(super) fn walk(&self, context: usize, va: u64) -> Option<PlacedWord> {
        let regime = self.contexts[context].regime;
        let format = regime.format;
        if va >> format.input_bits != 0 {
            return None;
        }
        let mut place = TableUse::root(context, &regime);
        loop {
            let entry = format.index(va, place.level);
            let slot = place.slot(entry, self.memory.read(place.base + 8 * entry)?, &format);
            match place.below(&slot, &format) {
                Some(below) => place = below,
                None => return Some(slot),
            }
        }
    }

    /// `va` as `pe` translates it now, with its MMU on or off; at another level than EL2, as its accesses have shown
    /// it.
    pub(super) fn translate(&self, pe: u32, va: u64) -> Option<u64> {
        let state = &self.pes[pe as usize];
        if !state.levels.is_el2() {
            return state.levels.physical(va, state.now.hcr);
        }
        if !state.now.mmu_on() {
            return Some(va);
        }
        let context = *state.walks.first()?;
        let format = self.contexts[context].regime.format;
        let slot = self.walk(context, state.now.input(va, &format)?)?;
        match slot.said {
            Descriptor::Leaf(leaf) => Some(leaf.output.wrapping_add(va & (format.span(slot.level) - 1))),
            _ => None,
        }
    }

    /// `pe`, which may hold what `old` says, walks `new`: both must agree wherever both map.
    pub(super) fn compare_roots(&mut self, pe: u32, old: usize, new: usize) {
        let (one, other) = (self.contexts[old].regime, self.contexts[new].regime);
        if one.format.granule != other.format.granule {
            self.regimes_differ(pe, (old, new), None);
            return;
        }
        if let Some(stale) = self.stale_of_another_type(pe, old, other.mair) {
            self.regimes_differ(pe, (old, new), Some((stale, stale)));
        }
        let place_of = |index: usize| TableUse::root(index, &self.contexts[index].regime);
        let (mut one_place, mut other_place) = (place_of(old), place_of(new));
        let formats = (one.format, other.format);
        // Roots of different sizes: descend the larger one's first entry to the level of the other.
        while one_place.level != other_place.level {
            let (larger, format) = if one_place.level < other_place.level {
                (&mut one_place, &formats.0)
            } else {
                (&mut other_place, &formats.1)
            };
            let slot = larger.slot(0, self.memory.read(larger.base).unwrap_or(0), format);
            let Some(below) = larger.below(&slot, format) else { return };
            *larger = below;
        }
        if let Some(difference) = self.first_difference((one_place, other_place), formats) {
            self.regimes_differ(pe, (old, new), Some(difference));
        }
    }

    /// A leaf that is gone from the tables of context `old`, still cached by `pe`, and of another type by `mair`:
    /// RVNRFW, a TLB may keep the type or look it up, so that it may be there as both.
    fn stale_of_another_type(&self, pe: u32, old: usize, mair: u64) -> Option<PlacedWord> {
        let before = self.contexts[old].regime.mair;
        if before == mair {
            return None;
        }
        let types = |leaf: Leaf| [before, mair].map(|mair| MemoryType::of(mair, leaf.attr_index));
        let is_held = |debt: &Debt| debt.context == old && debt.holder.held() & bit(pe) != 0;
        let differs = |debt: &Debt| {
            matches!(debt.said, Descriptor::Leaf(leaf) if {
                let [before, after] = types(leaf);
                before != after
            })
        };
        let stale = self.debts.iter().filter(|(_, debt)| is_held(debt) && differs(debt));
        let stale = stale.map(|((level, va), debt)| {
            let Debt { slot: pa, word, said, .. } = *debt;
            PlacedWord { pa, level, va, word, said }
        });
        stale.min_by_key(|slot| slot.va)
    }

    /// What `pe` may hold of context `old` differs from what `new` says. The register that it changed last is what it
    /// comes from: another root, or the same one read in another way.
    fn regimes_differ(&mut self, pe: u32, (old, new): (usize, usize), difference: Option<(PlacedWord, PlacedWord)>) {
        let (before, after) = (self.contexts[old].regime, self.contexts[new].regime);
        let write = |control| self.pes[pe as usize].wrote(control).unwrap_or(self.report.at);
        let (control, change) = match () {
            () if before.root != after.root => {
                return self.roots_differ(write(Control::Ttbr0), self.awaited(old, bit(pe)), (old, new), difference);
            }
            () if before.mair != after.mair => (Control::Mair, Some((before.mair, after.mair))),
            () if before.big_endian != after.big_endian => (Control::Sctlr, None),
            () => (Control::Tcr, None),
        };
        let Pe { now, next, .. } = *self.pes[pe as usize];
        let written = (now.get(control), next.get(control));
        let change = change.or_else(|| (written.0 != written.1).then_some(written));
        let (name, at, unmeant) = (control.name(), write(control), self.unmeant(old, new));
        let missing = || match unmeant {
            Some(_) => format!("ISB after the write of {name}, before M = 1"),
            None => format!("M = 0 and ISB before the write of {name}, then ISB, TLBI ALLE2, DSB NSH, ISB and M = 1"),
        };
        let finding = UnplacedViolation::of(Rule::ControlChange).by(at).mend(Remedy::before(Lack::Break, at));
        let finding = finding.unmeant(unmeant);
        let finding = difference.map_or(finding, |(slot, _)| finding.va(slot.va)).about(name);
        self.report.add(change.map_or(finding, |(old, new)| finding.old(old).now(new)), missing);
    }

    /// The write of a control that wants an ISB, if one of two contexts is walked only because there is none.
    fn unmeant(&self, one: usize, other: usize) -> Option<At> {
        [one, other].into_iter().find_map(|context| self.contexts[context].unmeant.0)
    }

    /// What is wanting for a TLBI on its way to remove what `pes` hold of a context, if there is one.
    fn awaited(&self, context: usize, pes: Pes) -> Option<Missing> {
        let reach = &self.contexts[context].reach;
        (reach.on_its_way() & pes != 0).then(|| reach.wanting())
    }

    /// The event that brings a descriptor at `pa` beside those of another root: its store, or the last write of a root
    /// by one of `pes`.
    fn root_write(&self, pes: Pes, pa: u64) -> At {
        let at = self.report.at;
        if self.memory.writer(pa) == Some(at) {
            return at;
        }
        let walkers = (0..self.pes.len() as u32).filter(|pe| pes & bit(*pe) != 0);
        let writes = walkers.filter_map(|pe| self.pes[pe as usize].wrote(Control::Ttbr0));
        writes.max_by_key(|write| write.line).unwrap_or(at)
    }

    /// What another root says differs from what is cached of `old`. A TLBI is wanting, if nothing else is `missing`.
    fn roots_differ(
        &mut self,
        by: At,
        missing: Option<Missing>,
        (old, new): (usize, usize),
        difference: Option<(PlacedWord, PlacedWord)>,
    ) {
        let finding = UnplacedViolation::of(Rule::RootSwitch).by(by);
        let finding = finding.mend(missing.as_ref().map_or(Remedy::before(Lack::Tlbi, by), |missing| missing.remedy));
        let finding = finding.unmeant(self.unmeant(old, new));
        let format = |context: usize| self.contexts[context].regime.format;
        let finding = difference.map_or(finding.va(0), |(before, after)| {
            let finding = finding.va(after.va.max(before.va)).old(before.word).now(after.word);
            finding.read_as(after.level, format(new)).old_read_as(before.level, format(old))
        });
        self.report.add(finding, || match missing {
            Some(missing) => missing.says,
            None => {
                "M = 0, ISB, TLBI ALLE2, DSB NSH, ISB before the new root, or roots that agree wherever both map".into()
            }
        });
    }

    /// The first address that both map, and differently, with both descriptors.
    fn first_difference(&self, top: Pair, formats: (Format, Format)) -> Option<(PlacedWord, PlacedWord)> {
        let (mut pairs, mut left) = (vec![top], MOST_SLOTS);
        while let Some((one, other)) = pairs.pop() {
            let same_table = one.base == other.base && formats.0 == formats.1;
            let same_rights = (one.no_write, one.no_execute) == (other.no_write, other.no_execute);
            let same_types = self.contexts[one.context].regime.mair == self.contexts[other.context].regime.mair;
            if same_table && same_rights && same_types {
                continue;
            }
            for entry in 0..one.entries.min(other.entries) {
                left = left.checked_sub(1)?;
                let read = |place: &TableUse, format| {
                    let word = self.memory.read(place.base + 8 * entry).unwrap_or(0);
                    let slot = place.slot(entry, word, format);
                    (place.below(&slot, format), slot)
                };
                let ((below_one, before), (below_other, after)) = (read(&one, &formats.0), read(&other, &formats.1));
                match (below_one, below_other) {
                    (Some(below_one), Some(below_other)) => pairs.push((below_one, below_other)),
                    _ if self.disagree(&one, &before, &other, &after, &formats) => {
                        return Some((before, after));
                    }
                    _ => {}
                }
            }
        }
        None
    }

    fn disagree(
        &self,
        one: &TableUse,
        before: &PlacedWord,
        other: &TableUse,
        after: &PlacedWord,
        formats: &(Format, Format),
    ) -> bool {
        let types = |place: &TableUse, leaf: Leaf| {
            crate::regime::MemoryType::of(self.contexts[place.context].regime.mair, leaf.attr_index)
        };
        match (before.said, after.said) {
            (Descriptor::Leaf(old), Descriptor::Leaf(new)) => {
                let plain = |leaf: Leaf| Leaf { attr_index: 0, ..leaf };
                types(one, old) != types(other, new) || plain(old) != plain(new)
            }
            (Descriptor::Leaf(_), Descriptor::Table(_)) => self.maps_anything(other, after, &formats.1),
            (Descriptor::Table(_), Descriptor::Leaf(_)) => self.maps_anything(one, before, &formats.0),
            _ => false,
        }
    }

    fn maps_anything(&self, place: &TableUse, slot: &PlacedWord, format: &Format) -> bool {
        let Some(below) = place.below(slot, format) else { return false };
        let tree = super::context::Subtree::of(&self.memory, below, format, &mut { MOST_SLOTS });
        tree.slots.iter().any(|(_, slot)| matches!(slot.said, Descriptor::Leaf(_)))
    }

    /// A descriptor appears in `context`: whoever walks it may also hold what other roots say of the same address.
    pub(super) fn judge_other_roots(&mut self, context: usize, slot: &PlacedWord) {
        if self.contexts.len() < 2 {
            return;
        }
        let Descriptor::Leaf(new) = slot.said else { return };
        for other in 0..self.contexts.len() {
            let both = self.contexts[other].reach.held() & self.viewers(context);
            if other == context || both == 0 || self.contexts[other].regime == self.contexts[context].regime {
                continue;
            }
            let Some(old) = self.walk(other, slot.va) else { continue };
            if let Descriptor::Leaf(leaf) = old.said
                && (old.level != slot.level || !same_leaf(leaf, new, self.contexts[context].regime.mair))
            {
                let (by, missing) = (self.root_write(both, slot.pa), self.awaited(other, both));
                self.roots_differ(by, missing, (other, context), Some((old, *slot)));
            }
        }
    }

    /// `pe` begins to walk `index`: what it may still see of old descriptors, it may cache; what it holds of them is beside the new ones.
    pub(super) fn see_old_values(&mut self, pe: u32, index: usize) {
        if self.debts.none_open() {
            return;
        }
        let (mut beside, mut seen) = (Vec::new(), Vec::new());
        for key in self.debts.keys() {
            let sees = |debt: &Debt| debt.context == index && self.may_read(key, debt) & bit(pe) != 0;
            let mut seen_now = self.debts.at(key).iter().map(sees).collect::<Vec<_>>().into_iter();
            let tables = self.debts().change(key, |debt| {
                if seen_now.next() == Some(true) {
                    if debt.is_fill() {
                        debt.unsynced |= bit(pe);
                    } else {
                        debt.holder.hold(bit(pe));
                        let Debt { slot: pa, word, said, .. } = *debt;
                        seen.push(PlacedWord { pa, level: key.0, va: key.1, word, said });
                    }
                }
                if debt.holder.held() & bit(pe) != 0 {
                    beside.push(key.1);
                }
                true
            });
            self.release(key, &tables);
            self.debts().watch(pe, key);
        }
        for old in seen {
            self.judge_stray(index, &old, bit(pe));
            self.judge_beside(index, &old, bit(pe));
        }
        beside.sort_unstable();
        beside.dedup();
        for va in beside {
            for slot in self.path(index, va) {
                self.judge_beside(index, &slot, bit(pe));
            }
        }
    }

    /// `pes` may see, and cache, `stray`, which is not what `context` says now: is that beside what they hold of other roots?
    pub(super) fn judge_stray(&mut self, context: usize, stray: &PlacedWord, pes: Pes) {
        for other in (0..self.contexts.len()).filter(|other| *other != context) {
            // Roots of different granules are no match for each other anyway.
            let granule = |context: usize| self.contexts[context].regime.format.granule;
            if self.contexts[other].reach.held() & pes == 0 || granule(other) != granule(context) {
                continue;
            }
            let Some(live) = self.walk(other, stray.va) else { continue };
            let leaves = matches!((stray.said, live.said), (Descriptor::Leaf(_), Descriptor::Leaf(_)));
            if leaves && self.beside(context, stray, (other, (live.level, live.va)), live.said).is_some() {
                let (by, missing) = (self.root_write(pes, stray.pa), self.awaited(other, pes));
                self.roots_differ(by, missing, (other, context), Some((live, *stray)));
            }
        }
    }

    /// The descriptors of the walk for `va` that may be cached.
    fn path(&self, context: usize, va: u64) -> Vec<PlacedWord> {
        let Context { regime, .. } = &self.contexts[context];
        let mut path = Vec::new();
        let mut place = TableUse::root(context, regime);
        if va >> regime.format.input_bits != 0 {
            return path;
        }
        loop {
            let entry = regime.format.index(va, place.level);
            let Some(word) = self.memory.read(place.base + 8 * entry) else { return path };
            let slot = place.slot(entry, word, &regime.format);
            if slot.said != Descriptor::Invalid {
                path.push(slot);
            }
            match place.below(&slot, &regime.format) {
                Some(below) => place = below,
                None => return path,
            }
        }
    }
}
