//! Links and unlinks of tables, and what each descriptor that appears or disappears owes.

use std::sync::Arc;

use super::Obligations;
use super::cause::{Evidence, Lack, Origin, Remedy};
use super::change::{Terms, same};
use super::context::{Context, PlacedWord, Regime, Subtree, TableUse};
use super::debt::{Debt, Key};
use super::holder::{Holder, Pes, Walks};
use super::report::UnplacedViolation;
use super::{Rule, change::Weakest};
use crate::descriptor::{Descriptor, Leaf};

impl Obligations {
    /// The context of `regime`; its tables are looked at if it is new.
    pub(super) fn context(&mut self, regime: Regime) -> usize {
        if let Some(index) = self.contexts.iter().position(|context| context.in_use() && context.regime == regime) {
            return index;
        }
        let (reach, at, weakest) = (Holder::default(), Evidence(self.report.at), Weakest::NONE);
        let unmeant = Evidence(None);
        let context = Context { regime, walkers: 0, reach, latent: 0, done: at, begun: at, unmeant, weakest };
        match self.contexts.iter().position(|context| context.regime.root == u64::MAX) {
            Some(index) => {
                self.contexts()[index] = context;
                index
            }
            None => {
                self.contexts().push(context);
                self.contexts.len() - 1
            }
        }
    }

    /// Looks at all tables of a context that comes into use.
    pub(super) fn build(&mut self, index: usize) {
        let root = TableUse::root(index, &self.contexts[index].regime);
        self.link(root, false, None, false);
    }

    /// Forgets a context that nobody walks or holds.
    pub(super) fn forget_unused(&mut self) {
        for index in 0..self.contexts.len() {
            let Context { regime, .. } = self.contexts[index];
            if self.contexts[index].in_use() || regime.root == u64::MAX {
                continue;
            }
            let tree = Subtree::of(&self.memory, TableUse::root(index, &regime), &regime.format, &mut self.budget);
            tree.slots.iter().for_each(|(_, slot)| Arc::make_mut(&mut self.outputs).remove(slot, &regime));
            tree.places.iter().for_each(|place| Arc::make_mut(&mut self.frames).remove(place));
            for key in self.debts.keys() {
                let tables = self.debts().change(key, |debt| debt.context != index);
                self.release(key, &tables);
            }
            self.contexts()[index].regime.root = u64::MAX;
        }
        while self.contexts.last().is_some_and(|context| context.regime.root == u64::MAX) {
            self.contexts().pop();
        }
    }

    /// Whether `pe`, which is about to link `top`, has ordered stores before: where no old way leads to a table below,
    /// whoever sees the link sees those.
    pub(super) fn orders_before(&mut self, pe: u32, top: TableUse) -> bool {
        if !self.memory.has_ordered(pe) {
            return false;
        }
        let format = self.contexts[top.context].regime.format;
        let tree = Subtree::of(&self.memory, top, &format, &mut self.budget);
        let is_walked = |place: &TableUse| place.ghost && self.viewers_of(place) != 0;
        let is_new = |place: &TableUse| !self.frames.at(place.base).iter().any(is_walked);
        tree.places.iter().all(is_new)
    }

    /// A table becomes reachable at `top`; `by_store` if a store of a table descriptor did it, and `linker` is the PE
    /// whose order it keeps. With `judged`, that store has been found wanting already: it is not said again for each
    /// descriptor below.
    pub(super) fn link(&mut self, top: TableUse, by_store: bool, linker: Option<u32>, judged: bool) {
        let Context { regime, .. } = self.contexts[top.context];
        let tree = Subtree::of(&self.memory, top, &regime.format, &mut self.budget);
        for place in &tree.places {
            let fits = Arc::make_mut(&mut self.frames).add(*place);
            if tree.is_cut || !fits {
                self.note_limits();
            }
            self.judge_contents(place, by_store, linker);
            self.note_contradictions(place);
        }
        for (number, slot) in &tree.slots {
            self.made(top.context, slot, judged);
            if matches!(slot.said, Descriptor::Leaf(leaf) if leaf.contiguous) {
                self.judge_run(&tree.places[*number], slot);
            }
        }
    }

    /// RTGRMW: what a table holds is known and visible before it is linked.
    fn judge_contents(&mut self, place: &TableUse, by_store: bool, linker: Option<u32>) {
        let mut entry = 0;
        while entry < place.entries {
            let pa = place.base + 8 * entry;
            let here = (512 - super::memory::index(pa) as u64).min(place.entries - entry);
            self.judge_lines(place, pa);
            if by_store && !self.is_known(pa, here) {
                let finding = UnplacedViolation::of(Rule::ChildContents).va(place.va).pa(place.base);
                self.report
                    .add(finding, || format!("stores that fill {pa:x}, and DSB ISHST, before the table is linked"));
            }
            if !self.memory.is_seen(pa) {
                (entry..entry + here).for_each(|entry| self.judge_unseen(place, entry, linker));
            }
            entry += here;
        }
    }

    fn is_known(&self, pa: u64, words: u64) -> bool {
        let Some(page) = self.memory.page(pa) else { return false };
        let all = super::page::Words::span(super::memory::index(pa), words as usize);
        let missing = all.without(&page.known);
        // What a device wrote is there, whatever it is.
        let is_written = |pa| !missing.has(super::memory::index(pa)) || self.memory.contradicted(pa).is_some();
        page.declared || missing.is_empty() || (0..words).all(|word| is_written(pa + 8 * word))
    }

    /// What walkers may still see in the place of a word is judged as a change of that word. A walk reads a table after
    /// the descriptor that leads to it: one that sees the link of `linker` sees what a DMB of that PE orders before it.
    fn judge_unseen(&mut self, place: &TableUse, entry: u64, linker: Option<u32>) {
        let Context { regime, walkers, .. } = self.contexts[place.context];
        let pa = place.base + 8 * entry;
        let now = place.slot(entry, self.memory.read(pa).unwrap_or(0), &regime.format);
        let mut earlier: Vec<(PlacedWord, Pes)> = Vec::new();
        let store = self.memory.writer(pa).unwrap_or(self.report.at);
        self.forgive(place.context, &now);
        for unseen in self.memory.unseen(pa, linker) {
            let by = unseen.by & walkers;
            let Some(word) = unseen.older else {
                if by != 0 {
                    let finding = UnplacedViolation::of(Rule::ChildContents).va(place.va).pa(place.base).by(store);
                    let storer = unseen.storer;
                    self.report.add(finding.mend(Remedy::after(Lack::StoreDsb, store)), || {
                        format!(
                            "DSB ISHST or wider by PE {storer} after its store to {pa:x}, before the table is linked"
                        )
                    });
                }
                continue;
            };
            let older = place.slot(entry, word, &regime.format);
            if same(older.said, now.said, regime.mair) {
                continue;
            }
            let held = if older.said == Descriptor::Invalid { 0 } else { by };
            if held != 0 {
                self.judge_in_place(place, &older, &now, by, Some(store));
                // Two walks through the new link may each find another old value.
                for (other, others) in &earlier {
                    self.judge_in_place(place, other, &older, by & others, Some(store));
                }
                earlier.push((older, by));
                self.judge_beside(place.context, &older, by);
                self.judge_stray(place.context, &older, by);
            }
            let debt = self.debt_for(place, &now, older.said, older.word, unseen.storer, held, walkers);
            // It can be used once the link is seen.
            let origin = Evidence(Origin { since: store, done: self.report.at, goes_on: true });
            self.debts().owe((now.level, now.va), Debt { visible: unseen.by, origin, ..debt });
            if let Some(below) = place.below(&older, &regime.format).filter(|_| held != 0) {
                self.unlink(TableUse { ghost: true, ..below }, unseen.storer, held);
            }
        }
    }

    /// A table stops being reachable at `top`: whoever may hold the descriptor that led there may hold what is below.
    pub(super) fn unlink(&mut self, top: TableUse, pe: u32, viewers: Pes) {
        let Context { regime, .. } = self.contexts[top.context];
        let tree = Subtree::of(&self.memory, top, &regime.format, &mut self.budget);
        for place in &tree.places {
            if !place.ghost {
                Arc::make_mut(&mut self.frames).remove(place);
            }
            let fits = Arc::make_mut(&mut self.frames).add(TableUse { ghost: true, ..*place });
            if tree.is_cut || !fits {
                self.note_limits();
            }
        }
        for (number, slot) in &tree.slots {
            if !top.ghost {
                Arc::make_mut(&mut self.outputs).remove(slot, &regime);
            }
            // It still stands there: whoever does not see the unlinking reads it, and that is a matter of the debt for the link.
            let debt = self.debt_for(&tree.places[*number], slot, slot.said, slot.word, pe, viewers, viewers);
            self.debts().owe((slot.level, slot.va), Debt { visible: 0, ..debt });
        }
    }

    /// The debt for `said`, which stood in `slot` of the table at `place`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn debt_for(
        &self,
        place: &TableUse,
        slot: &PlacedWord,
        said: Descriptor,
        word: u64,
        storer: u32,
        held: Pes,
        viewers: Pes,
    ) -> Debt {
        let unsynced = match said {
            Descriptor::Invalid | Descriptor::Leaf(_) => viewers,
            Descriptor::Table(_) => 0,
        };
        let TableUse { context, way, .. } = *place;
        // Where a root is left, what removes all of it removes this as well.
        let (mut holder, note) = (Holder::by(held), Evidence::default());
        holder.go_with(&self.contexts[context].reach);
        let (origin, in_place) = (Evidence(Origin::of(self.report.at)), Evidence(false));
        let (slot, visible, detour, latent) = (slot.pa, Pes::MAX, None, 0);
        Debt {
            context,
            slot,
            way,
            word,
            said,
            storer,
            visible,
            detour,
            holder,
            unsynced,
            latent,
            note,
            origin,
            in_place,
        }
    }

    /// Table descriptors that nobody sees or holds any more: their tables are no ghosts any more.
    pub(super) fn release(&mut self, key: Key, tables: &[Debt]) {
        for debt in tables {
            let Descriptor::Table(table) = debt.said else { continue };
            let ghosts = self.frames.at(table.next).iter().filter(|place| {
                place.ghost && (place.context, place.va, place.link) == (debt.context, key.1, debt.slot)
            });
            for place in ghosts.copied().collect::<Vec<_>>() {
                Arc::make_mut(&mut self.frames).remove(&place);
            }
        }
    }

    /// A descriptor that may be cached appears in `context`: is anything cached that may not be beside it?
    /// Returns true if there is; with `judged` that is not asked.
    pub(super) fn made(&mut self, context: usize, slot: &PlacedWord, judged: bool) -> bool {
        let key = (slot.level, slot.va);
        if !self.broken.is_empty() {
            self.broken.remove(&slot.pa);
        }
        if let Descriptor::Leaf(leaf) = slot.said {
            self.judge_leaf(context, slot, leaf);
        }
        let mair = self.contexts[context].regime.mair;
        if self.debts.lags_at(key, context) {
            self.debts().returns(key, context, |said| same(said, slot.said, mair));
        }
        if !self.debts.none_open() {
            self.forgive(context, slot);
            if !judged && self.judge_beside(context, slot, self.viewers(context)) {
                return true;
            }
        }
        self.judge_other_roots(context, slot);
        judged
    }

    /// What is cached of `slot` is what it says again. Another root that says the same settles nothing for a PE that holds what this one said.
    fn forgive(&mut self, context: usize, slot: &PlacedWord) {
        let (key, mair) = ((slot.level, slot.va), self.contexts[context].regime.mair);
        let is_over = |debt: &Debt| debt.context == context && !debt.is_fill() && same(debt.said, slot.said, mair);
        if self.debts.at(key).iter().any(is_over) {
            let tables = self.debts().change(key, |debt| !is_over(debt));
            self.release(key, &tables);
        }
    }

    /// PEs that walk and may hold what `context` says.
    pub(super) fn viewers(&self, context: usize) -> Pes {
        let Context { reach, walkers, .. } = &self.contexts[context];
        (reach.held() | walkers) & self.walking
    }

    /// Judges `slot`, which `viewers` may cache, against what they may hold already.
    pub(super) fn judge_beside(&mut self, context: usize, slot: &PlacedWord, viewers: Pes) -> bool {
        let (format, mut found) = (self.contexts[context].regime.format, Vec::new());
        self.for_each_beside(context, slot, |key, debt| {
            let seen = self.seen(key, debt);
            let pes = (debt.holder.held() | seen) & viewers;
            if pes == 0 {
                return;
            }
            // Each root has tables of its own.
            let of_other_root = debt.context != context && matches!(debt.said, Descriptor::Table(_));
            if of_other_root && matches!(slot.said, Descriptor::Table(_)) {
                return;
            }
            if let Some(rule) = self.beside(context, slot, (debt.context, key), debt.said) {
                let rule = if debt.holder.wants_repeat(pes) { Rule::RepeatTlbi } else { rule };
                let finding = UnplacedViolation::of(rule).va(slot.va).pa(slot.pa).by(debt.since());
                let finding = finding.old(debt.word).now(slot.word).read_as(slot.level, format);
                let old_format = self.contexts.get(debt.context).map_or(format, |context| context.regime.format);
                found.push((finding.old_read_as(key.0, old_format), debt.missing(pes, seen)));
            }
        });
        let any = !found.is_empty();
        self.add_all(found);
        any
    }

    /// Whether the word of `debt` is still one that `context` reaches at `key`, through tables as they are.
    pub(super) fn is_live(&self, key: Key, debt: &Debt) -> bool {
        let Some(context) = self.contexts.get(debt.context) else { return false };
        let shift = context.regime.format.shift(key.0);
        self.frames.at(debt.slot).iter().any(|place| {
            let here = |entry: u64| place.va + (entry << shift) == key.1;
            let of_context = !place.ghost && (place.context, place.level) == (debt.context, key.0);
            of_context && place.entry(debt.slot).is_some_and(here)
        })
    }

    /// Whose walkers may still see the descriptor of `debt`: its store has no DSB, and some way leads to it.
    pub(super) fn seen(&self, key: Key, debt: &Debt) -> Pes {
        let Some(context) = self.contexts.get(debt.context) else { return 0 };
        match debt.seen_by() & context.walkers {
            0 => 0,
            seen if self.is_live(key, debt) => seen,
            seen => seen & self.still_linked(key, debt.context, Walks::All, true),
        }
    }

    /// The debts for places that overlap with `slot`'s.
    fn for_each_beside(&self, context: usize, slot: &PlacedWord, mut visit: impl FnMut(Key, &Debt)) {
        let format = self.contexts[context].regime.format;
        let span = format.span(slot.level);
        self.debts.at((slot.level, slot.va)).iter().for_each(|debt| visit((slot.level, slot.va), debt));
        for level in -1..slot.level {
            if self.debts.count(level) != 0 {
                let key = (level, slot.va & !(format.span(level) - 1));
                self.debts.at(key).iter().for_each(|debt| visit(key, debt));
            }
        }
        let Descriptor::Leaf(new) = slot.said else { return };
        let deeper: usize = (slot.level + 1..=3).map(|level| self.debts.count(level)).sum();
        if deeper != 0 {
            let below = |key: Key| key.0 > slot.level && key.1.wrapping_sub(slot.va) < span;
            self.debts.iter().filter(|(key, _)| below(*key)).for_each(|(key, debt)| visit(key, debt));
        }
        let run = format.run_entries(slot.level);
        let run_va = slot.va & !(run * span - 1);
        for entry in 0..run {
            let key = (slot.level, run_va + entry * span);
            if key.1 != slot.va {
                let either = |old: Leaf| old.contiguous || new.contiguous;
                let in_run = |debt: &&Debt| matches!(debt.said, Descriptor::Leaf(old) if either(old));
                self.debts.at(key).iter().filter(in_run).for_each(|debt| visit(key, debt));
            }
        }
    }

    /// The rule by which `slot` of `context`, and what another context, or this one, said at `key`, may not be cached together.
    pub(super) fn beside(
        &self,
        context: usize,
        slot: &PlacedWord,
        (of, key): (usize, Key),
        old: Descriptor,
    ) -> Option<Rule> {
        let old_mair = self.contexts.get(of).map_or(0, |of| of.regime.mair);
        let Context { regime, weakest, .. } = &self.contexts[context];
        let bytes = regime.format.span(slot.level.max(key.0));
        let terms = Terms { memory: &self.memory, mair: regime.mair, old_mair, weakest: *weakest, bytes };
        if key == (slot.level, slot.va) {
            return terms.conflict(old, slot.said);
        }
        let (Descriptor::Leaf(before), Descriptor::Leaf(after)) = (old, slot.said) else { return None };
        if key.0 == slot.level {
            // Another entry of a contiguous run: its translation may be cached for the whole run.
            let whole = Leaf { output: before.output.wrapping_add(slot.va.wrapping_sub(key.1)), ..before };
            return terms.leaves(whole, after).map(|_| Rule::RunInvalidation);
        }
        let block = if key.0 < slot.level { before } else { after };
        let (before, after) = if key.0 < slot.level {
            (Leaf { output: before.output.wrapping_add(slot.va - key.1), ..before }, after)
        } else {
            (before, Leaf { output: after.output.wrapping_add(key.1 - slot.va), ..after })
        };
        terms.size(block).or_else(|| terms.leaves(Leaf { contiguous: after.contiguous, ..before }, after))
    }
}
