//! Accesses that no translation explains: the trace contradicts what is known of the tables.
//!
//! **Why it exists.** An access tells where it led. If neither the tables of its PE nor anything older that its TLB may
//! still hold leads there, then the tables hold something else than this engine knows: a device wrote them, or a
//! declaration is missing. What was judged by them means nothing then.
//!
//! **What must hold.** Only what is certainly wrong is said. Anything that a TLB may hold by what is owed explains an
//! access: what walkers may still see, what no TLBI has removed, other roots, what reset left. So does a word on the
//! way that nobody knows, or that a cache line may hide.

use breakwater_trace::Event;

use super::Obligations;
use super::context::{Context, PlacedWord, TableUse};
use super::debt::Debt;
use super::holder::{Pes, bit};
use super::memory::index;
use super::pe::{ControlCause, Progress};
use super::unknown::{MOST_ACCESSES, Unknown, unsupported};
use crate::descriptor::Descriptor;
use crate::regime::Controls;

/// An access that nothing explains, as far as the lines have come. A store's line follows the access, so that another
/// PE may have used what it stores, and written that down, before: the store is then its next event.
#[derive(Clone, Debug)]
pub(super) struct StrangeAccess {
    pe: u32,
    va: u64,
    pa: u64,
    /// PEs without an event since.
    awaited: Pes,
    /// What is not known if it is the next event of none.
    pub(super) note: Unknown,
}

impl StrangeAccess {
    /// Whether `pe` may have stored what it used.
    pub(super) const fn awaits(&self, pe: u32) -> bool {
        self.awaited & bit(pe) != 0
    }
}

/// More tables on the ways of one address than any history leaves; beyond, whatever was reached is explained.
const MOST_TABLES: usize = 64;

impl Obligations {
    /// `pe`, which EL2 translates, accessed `va` and reached `pa`: is there a translation that leads there? A use that
    /// goes through a broken descriptor is a matter of [`Rule::BrokenUse`](super::Rule::BrokenUse).
    pub(super) fn judge_reached(&mut self, pe: u32, va: u64, pa: u64) {
        let is_asked = !self.trusts_addresses && !self.is_full();
        if !is_asked || self.translate(pe, va) == Some(pa) || self.is_explained(pe, va, pa) {
            return;
        }
        let state = &self.pes[pe as usize];
        let ends = state.walks.iter().map(|context| {
            let input = state.now.input(va, &self.contexts[*context].regime.format);
            (*context, input.and_then(|input| self.walk(*context, input).map(|slot| (input, slot))))
        });
        let ends: Vec<_> = ends.collect();
        let is_broken = |end: &(usize, Option<(u64, PlacedWord)>)| {
            end.1.is_some_and(|(_, slot)| self.broken.contains_key(&slot.pa))
        };
        if ends.iter().any(is_broken) {
            return;
        }
        let found: Vec<String> = ends.iter().map(|(context, end)| self.finds(*context, *end)).collect();
        let what = format!("PE {pe} reaches {pa:x} at {va:x}, where {}", found.join(", "));
        let note = Unknown { line: self.report.at.line, what, is_access: true };
        match self.others(pe) {
            0 => self.note_unknown(note),
            awaited => self.strange.push(StrangeAccess { pe, va, pa, awaited, note }),
        }
    }

    /// `pe` has done `event`: has it stored the descriptor that an earlier line has used?
    pub(super) fn explain_accesses(&mut self, pe: u32, event: &Event) {
        let strange = std::mem::take(&mut self.strange);
        for mut access in strange {
            let StrangeAccess { pe: whose, va, pa, awaited, .. } = access;
            let is_explained = || self.translate(whose, va) == Some(pa) || self.is_explained(whose, va, pa);
            match event {
                Event::Store(_) if awaited & bit(pe) != 0 && is_explained() => continue,
                // An atomic instruction has a line for each of its accesses.
                Event::Load(_) => {}
                _ => access.awaited &= !bit(pe),
            }
            match access.awaited {
                0 => self.note_unknown(access.note),
                _ => self.strange.push(access),
            }
        }
    }

    /// Whether as many accesses as are said are not explained, or wait to be.
    fn is_full(&self) -> bool {
        let said = self.unknowns.iter().filter(|unknown| unknown.is_access).count();
        said >= MOST_ACCESSES || self.strange.len() >= MOST_ACCESSES
    }

    /// What a walk of `context` finds at its end, in words.
    fn finds(&self, context: usize, end: Option<(u64, PlacedWord)>) -> String {
        let Context { regime, .. } = &self.contexts[context];
        let root = regime.root;
        match end {
            None => format!("no walk begins at the root {root:x}"),
            Some((input, PlacedWord { pa, word, level, said, .. })) => {
                let place = format!("the walk from {root:x} finds {word:x} at {pa:x}, level {level}:");
                match said {
                    Descriptor::Leaf(leaf) => {
                        let output = leaf.output.wrapping_add(input & (regime.format.span(level) - 1));
                        format!("{place} {output:x}")
                    }
                    _ => format!("{place} no mapping"),
                }
            }
        }
    }

    fn is_explained(&self, pe: u32, va: u64, pa: u64) -> bool {
        let (state, features) = (&self.pes[pe as usize], self.params.of(pe));
        let is_garbage =
            state.owed.iter().any(|owed| owed.cause == ControlCause::Reset && owed.progress != Progress::Invalidated);
        let in_force: Vec<Controls> = core::iter::once(state.now).chain(state.between.iter().copied()).collect();
        let explains = |controls: &Controls| match controls.mmu_on() {
            true => unsupported(controls, features).is_some(),
            false => va == pa,
        };
        if is_garbage || in_force.iter().any(explains) {
            return true;
        }
        // RQLGWZ: what another PE holds, too.
        let shares = features.cnp && in_force.iter().any(Controls::common_not_private);
        (0..self.contexts.len()).any(|number| {
            let context = &self.contexts[number];
            let may_hold = (context.walkers | context.reach.held() | context.latent) & bit(pe) != 0;
            let inputs = in_force.iter().filter_map(|controls| controls.input(va, &context.regime.format));
            (may_hold || shares && context.in_use()) && inputs.into_iter().any(|va| self.leads(pe, number, va, pa))
        })
    }

    /// Whether something that `pe` may walk, see or hold of context `number` leads from `va` to `pa`, or is not known.
    fn leads(&self, pe: u32, number: usize, va: u64, pa: u64) -> bool {
        let Context { regime, .. } = &self.contexts[number];
        let format = &regime.format;
        let mut places = vec![TableUse::root(number, regime)];
        let mut next = 0;
        while let Some(place) = places.get(next).copied() {
            let entry = format.index(va, place.level);
            let at = place.base + 8 * entry;
            let Some(word) = self.memory.read(at).filter(|_| next < MOST_TABLES && !self.is_hidden(&place, at)) else {
                return true;
            };
            let unseen = self.memory.unseen(at, None);
            let mut older = unseen.iter().filter(|unseen| unseen.by & bit(pe) != 0);
            if older.clone().any(|unseen| unseen.older.is_none()) {
                return true;
            }
            let words = core::iter::once(word).chain(older.by_ref().filter_map(|unseen| unseen.older));
            let slots = words.map(|word| place.slot(entry, word, format));
            let key = (place.level, va & !(format.span(place.level) - 1));
            let may_use = |debt: &&Debt| (debt.holder.held() | debt.seen_by() | debt.latent) & bit(pe) != 0;
            let debts = self.debts.at(key).iter().filter(may_use);
            let owed =
                debts.map(|debt| PlacedWord { pa: at, level: key.0, va: key.1, word: debt.word, said: debt.said });
            for slot in slots.chain(owed) {
                match slot.said {
                    Descriptor::Leaf(leaf) if leaf.output.wrapping_add(va - key.1) == pa => return true,
                    _ => places.extend(place.below(&slot, format)),
                }
            }
            next += 1;
        }
        false
    }

    /// Whether a walk may find something else in the word at `pa` than memory holds, for want of upkeep of its line.
    fn is_hidden(&self, place: &TableUse, pa: u64) -> bool {
        let Some(lines) = self.memory.page(pa).map(|page| page.lines) else { return false };
        let is_cached = self.contexts[place.context].regime.walks_cacheable;
        let past = [&lines.uncached, &lines.exposed, &lines.pushed, &lines.unclear];
        if is_cached { past.iter().any(|words| words.has(index(pa))) } else { lines.dirty.has(index(pa)) }
    }
}
