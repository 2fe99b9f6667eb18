//! Uses of addresses: fetches, loads and stores with the MMU on, loads with it off, and the upkeep of lines between the two.

use breakwater_trace::Access;

use super::cause::{Evidence, Lack, Missing, Origin, Remedy};
use super::change::same;
use super::context::{Context, PlacedWord, Subtree, TableUse};
use super::debt::{Debt, Key};
use super::fast::Use;
use super::holder::bit;
use super::lines::{Lines, Upkeep};
use super::memory::{Memory, index};
use super::page::Words;
use super::pe::Pe;
use super::report::UnplacedViolation;
use super::settle::own_isb;
use super::{Obligations, Rule};
use crate::descriptor::Descriptor;
use crate::maintenance::{Ordering, Reach, stored_words};
use crate::regime::Control;

impl Obligations {
    pub(super) fn load(&mut self, pe: u32, access: &Access) {
        self.access(pe, access);
        if access.device {
            return;
        }
        self.believe(pe, access);
        if self.pes.len() > 1 {
            self.pe(pe).loaded = Evidence(self.report.at.line);
        }
        if !self.pes[pe as usize].levels.is_el2() {
            return;
        }
        for (pa, ..) in stored_words(access) {
            let Some(page) = self.memory.page(pa) else { continue };
            let lines = page.lines;
            let at = index(pa);
            let finding = |rule| UnplacedViolation::of(rule).va(access.va).pa(pa);
            if self.pes[pe as usize].caches() {
                self.judge_word(at, &lines, access.va, pa, false);
            } else if !self.pes[pe as usize].now.mmu_on() && lines.dirty.has(at) && !self.is_unclear(&lines, pa) {
                let rule = if lines.half_cleaned.has(at) { Rule::CleanInvalidates } else { Rule::NotCleaned };
                let operation = if lines.half_cleaned.has(at) { "DC CIVAC" } else { "DC CVAC" };
                let missing = || format!("{operation} of the line and DSB, after the store and before this load");
                self.report.add(self.stored(finding(rule)), missing);
            }
        }
    }

    /// A load or store, before it is looked at what it finds or leaves.
    pub(super) fn access(&mut self, pe: u32, access: &Access) {
        if self.translates_at_el2(pe) {
            self.note_access(pe, access.va);
            self.use_address(pe, access.va, Use::Access { pa: access.pa });
        } else {
            self.pe(pe).levels.note_access(access.va, access.pa);
        }
    }

    pub(super) fn fetch(&mut self, pe: u32, pc: u64) {
        if !self.translates_at_el2(pe) {
            return;
        }
        if !self.pes[pe as usize].fetched {
            self.pe(pe).fetched = true;
        }
        self.use_address(pe, pc, Use::Fetch);
    }

    /// `pe` executes an instruction at `pc`. With M = 0 and I = 0 it was fetched past the caches, from where stores through them may not have
    /// arrived.
    pub(super) fn judge_code(&mut self, pe: u32, pc: u64) {
        let Pe { now, levels, .. } = self.pes[pe as usize].as_ref();
        if now.mmu_on() || now.fetches_cached() || !levels.is_el2() {
            return;
        }
        let may_miss = |memory: &Memory| memory.page(pc).is_some_and(|page| page.lines.dirty.has(index(pc)));
        if self.finished != 0 && may_miss(&self.memory) {
            self.settle_sweeps();
        }
        let Some(page) = self.memory.page(pc) else { return };
        let lines = page.lines;
        if lines.dirty.has(index(pc)) && !self.is_unclear(&lines, pc & !7) {
            let finding = UnplacedViolation::of(Rule::NotCleaned).va(pc).pa(pc & !7);
            self.report.add(self.stored(finding), || {
                "DC CVAC of the code's line and DSB, after it was written and before this fetch".into()
            });
        }
    }

    /// `pe` fetches from `va`, or loads, stores or zeroes there.
    pub(super) fn use_address(&mut self, pe: u32, va: u64, kind: Use) {
        if self.pes[pe as usize].walks.is_empty() || self.uses.found_nothing(pe, va, kind) {
            return;
        }
        let before = self.report.times;
        self.judge_use(pe, va, kind == Use::Fetch);
        if self.report.times != before || self.report.is_muted {
            return;
        }
        self.uses.note(pe, va, kind);
        if let Use::Access { pa } = kind {
            self.judge_reached(pe, va, pa);
        }
    }

    fn judge_use(&mut self, pe: u32, va: u64, is_fetch: bool) {
        self.use_between(pe, va, is_fetch);
        if self.debts.is_empty() && self.broken.is_empty() {
            return;
        }
        let state = &self.pes[pe as usize];
        if !state.now.mmu_on() {
            return;
        }
        // Until a context synchronisation it may walk any of several roots.
        let (walks, now) = (state.walks.clone(), state.now);
        let mut keys: Vec<(u64, Key)> = Vec::new();
        for context in walks.iter() {
            let format = self.contexts[*context].regime.format;
            let Some(va) = now.input(va, &format) else { continue };
            let places = (format.start_level..=3).map(|level| (va, (level, va & !(format.span(level) - 1))));
            keys.extend(places);
        }
        if walks.len() > 1 {
            keys.sort_unstable();
            keys.dedup();
        }
        for (va, key) in keys {
            self.use_place(pe, va, key, is_fetch);
        }
        if self.broken.is_empty() {
            return;
        }
        for context in walks.iter() {
            if let Some(va) = now.input(va, &self.contexts[*context].regime.format) {
                self.use_broken(pe, va, *context, is_fetch);
            }
        }
    }

    /// A use while it is not certain whether the MMU is on, or while another root may still be cached.
    fn use_between(&mut self, pe: u32, va: u64, is_fetch: bool) {
        let state = &self.pes[pe as usize];
        let (now, next) = (state.now, state.next);
        // The root that was written last.
        let regime = self.regime(pe, &next);
        let is_last = |context: &&usize| regime == Some(self.contexts[**context].regime);
        let Some(context) = state.walks.iter().find(is_last).or(state.walks.last()).copied() else { return };
        let uncertain = is_fetch && state.is_uncertain();
        let others = |context: &Context| (context.reach.held() | context.latent) & bit(pe) != 0;
        if !uncertain && (self.contexts.len() < 2 || self.contexts.iter().filter(|one| others(one)).count() < 2) {
            return;
        }
        let format = self.contexts[context].regime.format;
        let Some(input) = next.input(va, &format) else { return };
        let Some(slot) = self.walk(context, input) else { return };
        let Descriptor::Leaf(leaf) = slot.said else { return };
        let offset = input & (format.span(slot.level) - 1);
        if uncertain && leaf.output.wrapping_add(offset) != va {
            let finding = self.unsynchronised(pe, Rule::ControlSync).va(va).old(now.sctlr).now(next.sctlr);
            self.report.add(finding, || "ISB after the write of SCTLR_EL2.M, before this use".into());
        }
        for other in 0..self.contexts.len() {
            let held = others(&self.contexts[other]) && other != context;
            let new_only = held && self.walk(other, input).is_some_and(|old| old.said == Descriptor::Invalid);
            if new_only {
                let write = self.pes[pe as usize].wrote(Control::Ttbr0).unwrap_or(self.report.at);
                let finding = UnplacedViolation::of(Rule::RootSwitch).va(va).by(write).now(slot.word);
                let finding = finding.read_as(slot.level, format).mend(Remedy::after(Lack::Tlbi, write));
                self.report.add(finding, || {
                    "TLBI ALLE2, DSB and ISB before the use of an address that the old root does not map".into()
                });
            }
        }
    }

    fn use_place(&mut self, pe: u32, va: u64, key: Key, is_fetch: bool) {
        let needs_sync = is_fetch || !self.params.of(pe).ets2;
        let of_its_own = |context: usize| self.pes[pe as usize].walks.contains(&context);
        let mut found: Option<(UnplacedViolation, Missing)> = None;
        for debt in self.debts.at(key) {
            let (unsynced, gone) = (debt.unsynced & bit(pe) != 0, debt.gone_for(pe));
            let gone = gone && !debt.is_fill() && !self.still_says(pe, va, key, debt.said);
            let finding = |rule| UnplacedViolation::of(rule).va(va).pa(debt.slot).by(debt.since());
            let isb = || self.wanting_isb(pe, debt.storer, debt.origin.0);
            found = found.or(match () {
                () if debt.is_fill() && debt.detour.is_some() && of_its_own(debt.context) => {
                    debt.detour.map(|detour| (finding(detour.rule()), debt.unseen()))
                }
                // What is not visible yet wants a DSB of whoever stored: no ISB of this PE's is missing.
                () if debt.is_fill()
                    && debt.visible & bit(pe) != 0
                    && (of_its_own(debt.context) || unsynced && needs_sync) =>
                {
                    Some((finding(Rule::NotVisible), debt.unseen()))
                }
                () if debt.is_fill() && unsynced && needs_sync => Some((finding(Rule::FillSync), isb())),
                () if !debt.is_fill() && gone && debt.latent & bit(pe) != 0 => {
                    Some((finding(Rule::CompletionSync), self.wanting_isb(pe, pe, debt.origin.0)))
                }
                () if !debt.is_fill() && gone && unsynced && is_fetch => Some((finding(Rule::FetchSync), isb())),
                () => None,
            });
        }
        let lags = || self.debts.lags(key, self.contexts.len());
        let isb = |rule, (storer, origin): (u32, Origin)| {
            (UnplacedViolation::of(rule).va(va).by(origin.since), self.wanting_isb(pe, storer, origin))
        };
        if found.is_none() && needs_sync {
            let lag = lags().find(|lag| lag.fill & bit(pe) != 0);
            found = lag.map(|lag| isb(Rule::FillSync, lag.filler.0));
        }
        if found.is_none() && is_fetch {
            let mut gone = lags().flat_map(|lag| lag.fetched(pe));
            let gone = gone.find(|gone| !self.still_says(pe, va, key, gone.said));
            found = gone.map(|gone| isb(Rule::FetchSync, gone.by.0));
        }
        let Some((finding, missing)) = found.filter(|_| self.maps(pe, va)) else { return };
        if missing.remedy.at == self.report.at {
            self.pe(pe).used = Evidence(Some(self.report.at));
        }
        self.report.add(finding.mend(missing.remedy), || missing.says);
    }

    /// The ISB that `pe` owes before it uses what `storer` changed. Where that is itself, it belongs behind the DSB;
    /// else before the first use that came after the DSB, which may be this one.
    fn wanting_isb(&self, pe: u32, storer: u32, origin: Origin) -> Missing {
        if storer == pe {
            return own_isb(pe, origin);
        }
        let first = self.pes[pe as usize].used.0.filter(|used| used.line > origin.done.line);
        let remedy = Remedy::before(Lack::Isb, first.unwrap_or(self.report.at));
        Missing { remedy, says: format!("ISB by PE {pe} before this use") }
    }

    /// `finding` comes from the store that left what its word of memory holds.
    fn stored(&self, finding: UnplacedViolation) -> UnplacedViolation {
        match finding.pa.and_then(|pa| self.memory.writer(pa)) {
            Some(store) => finding.by(store).mend(Remedy::after(Lack::Own(finding.rule), store)),
            None => finding,
        }
    }

    /// Whether every root that `pe` may walk says of `va`, at `key`, what is gone from another, or `pe` may hold it because of another: to use
    /// the one is to use the other.
    fn still_says(&self, pe: u32, va: u64, key: Key, gone: Descriptor) -> bool {
        let holds = |debt: &Debt| debt.said == gone && debt.holder.held() & bit(pe) != 0;
        if self.debts.at(key).iter().any(holds) {
            return true;
        }
        let walks = &self.pes[pe as usize].walks;
        walks.iter().all(|context| {
            let mair = self.contexts[*context].regime.mair;
            let end = self.walk(*context, va);
            end.is_some_and(|slot| (slot.level, slot.va) == key && same(slot.said, gone, mair))
        })
    }

    /// Whether `pe`'s tables, as memory holds them, map `va`.
    fn maps(&self, pe: u32, va: u64) -> bool {
        let ends = |context: &usize| self.walk(*context, va).is_some_and(|slot| slot.said != Descriptor::Invalid);
        self.pes[pe as usize].walks.iter().any(ends)
    }

    /// Whether the walk for `va` ends at a descriptor that was broken, by this PE or, for a fetch, by any.
    fn use_broken(&mut self, pe: u32, va: u64, context: usize, is_fetch: bool) {
        let Some(slot) = self.walk(context, va) else { return };
        if slot.said != Descriptor::Invalid {
            return;
        }
        let breaker = self.broken.get(&slot.pa).copied();
        if breaker.is_some_and(|breaker| breaker == pe || is_fetch) {
            let finding = self.stored(UnplacedViolation::of(Rule::BrokenUse).va(va).pa(slot.pa));
            self.report.add(finding, || "the store that makes a valid descriptor, before this use".into());
        }
    }

    /// A table's words on the page of `pa`, which walks read through the caches, or past them.
    pub(super) fn judge_lines(&mut self, place: &TableUse, pa: u64) {
        let Some(lines) = self.memory.page(pa).map(|page| page.lines) else { return };
        let Lines { dirty, uncached, exposed, pushed, unclear, .. } = lines;
        let own = Words::span(index(pa), (place.entries - (pa - place.base) / 8) as usize);
        let is_cached = self.contexts[place.context].regime.walks_cacheable;
        let doubtful = if is_cached { exposed.or(&uncached).or(&pushed).or(&unclear) } else { dirty };
        let Some(at) = doubtful.and(&own).first().filter(|_| self.is_walked(place)) else { return };
        let word = (pa & !0xfff) + 8 * at as u64;
        self.judge_walked(place.va, word, is_cached);
    }

    /// A walk for `va` reads the word at `pa`.
    fn judge_walked(&mut self, va: u64, pa: u64, is_cached: bool) {
        let Some(lines) = self.memory.page(pa).map(|page| page.lines) else { return };
        if is_cached {
            self.judge_word(index(pa), &lines, va, pa, true);
        } else if lines.dirty.has(index(pa)) && !self.is_unclear(&lines, pa) {
            let missing = || "DC CVAC of the table's line and DSB, before a walk that goes past the caches".into();
            self.report.add(self.stored(UnplacedViolation::of(Rule::NotCleaned).va(va).pa(pa)), missing);
        }
    }

    /// A word of a table that is walked through the caches was stored past them: a dirty line may be evicted over it at any time.
    pub(super) fn judge_line_in_use(&mut self, place: &TableUse, slot: &PlacedWord) {
        let is_exposed = self.memory.page(slot.pa).is_some_and(|page| page.lines.exposed.has(index(slot.pa)));
        if is_exposed && self.is_walked(place) {
            let finding = UnplacedViolation::of(Rule::LineBefore).va(slot.va).pa(slot.pa);
            let finding = finding.mend(Remedy::before(Lack::Own(Rule::LineBefore), self.report.at));
            self.report.add(finding, || "DC IVAC of the line and DSB before it is written".into());
        }
    }

    /// Whether a PE may walk the table at `place`.
    fn is_walked(&self, place: &TableUse) -> bool {
        let walkers = self.contexts[place.context].walkers & self.walking;
        walkers != 0 && (!place.ghost || self.viewers_of(place) != 0)
    }

    /// Walks of the tables of `place` see what `slot` holds, if they wait for nothing but its line.
    pub(super) fn reveal(&mut self, place: &TableUse, slot: &PlacedWord) {
        let key = (slot.level, slot.va);
        let hidden = |debt: &Debt| debt.detour.is_some() && (debt.context, debt.slot) == (place.context, slot.pa);
        if !self.debts.at(key).iter().any(hidden) {
            return;
        }
        let tables = self.debts().change(key, |debt| {
            if hidden(debt) {
                debt.detour = None;
            }
            true
        });
        self.release(key, &tables);
    }

    /// The upkeep of lines of the page of `pa` is done.
    pub(super) fn reveal_lines(&mut self, pa: u64) {
        for place in self.frames.at(pa).to_vec() {
            let Context { regime, .. } = self.contexts[place.context];
            let Some(lines) = self.memory.page(pa).map(|page| page.lines) else { return };
            let hidden = if regime.walks_cacheable { lines.uncached } else { lines.dirty };
            let first = place.base.max(pa & !0xfff);
            let words = (first..place.base + 8 * place.entries).step_by(8).take_while(|word| word >> 12 == pa >> 12);
            for word in words.filter(|word| !hidden.has(index(*word))) {
                let slot = place.slot((word - place.base) / 8, 0, &regime.format);
                self.reveal(&place, &slot);
            }
        }
    }

    /// A walk of `context` begins where none was: its tables are read through the caches, or past them.
    pub(super) fn judge_lines_of(&mut self, context: usize) {
        let Context { regime, .. } = self.contexts[context];
        let root = TableUse::root(context, &regime);
        for place in Subtree::of(&self.memory, root, &regime.format, &mut self.budget).places {
            let bytes = 8 * place.entries;
            (place.base..place.base + bytes).step_by(1 << 12).for_each(|pa| self.judge_lines(&place, pa));
        }
    }

    /// Whether the word at `pa`, whose line matters now, was stored nobody knows how; says so if it was.
    fn is_unclear(&mut self, lines: &Lines, pa: u64) -> bool {
        let is_unclear = lines.unclear.has(index(pa));
        if is_unclear {
            let sctlr = "and nothing says what SCTLR holds there";
            self.not_known(format!("the word {pa:x} was stored at another exception level than EL2, {sctlr}"));
        }
        is_unclear
    }

    /// A word that was stored past the caches is read through them. The upkeep of tables belongs before the event with
    /// which walks begin to read them, for all of them together; that of data, with the store.
    fn judge_word(&mut self, at: usize, lines: &Lines, va: u64, pa: u64, is_walk: bool) {
        if self.is_unclear(lines, pa) {
            return;
        }
        let event = self.report.at;
        let finding = |rule| {
            let finding = self.stored(UnplacedViolation::of(rule).va(va).pa(pa));
            if is_walk { finding.mend(Remedy::before(Lack::Own(rule), event)) } else { finding }
        };
        let (before, cleaned, after) =
            (finding(Rule::LineBefore), finding(Rule::LineCleaned), finding(Rule::LineAfter));
        if lines.exposed.has(at) {
            self.report.add(before, || "DC IVAC of the line and DSB before it is written".into());
        }
        if lines.pushed.has(at) {
            self.report.add(cleaned, || "DC IVAC in place of the clean, after the writes".into());
        } else if lines.uncached.has(at) {
            self.report.add(after, || "DMB, DC IVAC of the line and DSB after it is written".into());
        }
    }

    pub(super) fn issue_line(&mut self, pe: u32, pa: u64, upkeep: Upkeep) {
        let line_bytes = self.params.of(pe).line_bytes;
        let page = self.memory.page_mut(pa);
        let waiting = page.lines.maintain(pa, index(pa), upkeep, line_bytes);
        if upkeep.cleans {
            self.judge_pushed(pa, waiting.line());
        }
        let all = &mut self.pe(pe).maintained;
        match all.iter_mut().find(|other| other.is_like(&waiting)) {
            Some(other) => other.join(&waiting),
            None => all.push(waiting),
        }
    }

    /// A word of a line is stored into the caches. Whatever else the line holds from before was stored past them goes where the line goes.
    pub(super) fn judge_dirtied(&mut self, pa: u64, mixed: &Words) {
        for place in self.frames.at(pa).to_vec() {
            if !self.contexts[place.context].regime.walks_cacheable || !self.is_walked(&place) {
                continue;
            }
            let words = (place.base..place.base + 8 * place.entries).step_by(8);
            let mut here = words.filter(|word| word >> 12 == pa >> 12 && mixed.has(index(*word)));
            if let Some(word) = here.next() {
                let missing = || format!("DMB, DC IVAC of the line and DSB after {word:x} was written past the caches");
                let finding = self.stored(UnplacedViolation::of(Rule::LineAfter).va(place.va).pa(word));
                // What was stored before any walk of it belongs to the upkeep of all tables.
                let Evidence(begun) = self.contexts[place.context].begun;
                let is_before = finding.by.is_some_and(|store| store.line < begun.line);
                let upkeep = Remedy::before(Lack::Own(Rule::LineAfter), begun);
                self.report.add(if is_before { finding.mend(upkeep) } else { finding }, missing);
            }
        }
    }

    /// Lines of the page of `pa` are cleaned: what they hold may go over what was stored past the caches, in a table
    /// that is walked through them.
    pub(super) fn judge_pushed(&mut self, pa: u64, cleaned: &Words) {
        let Some(lines) = self.memory.page(pa).map(|page| page.lines) else { return };
        let pushed = lines.pushed.and(cleaned);
        if pushed.is_empty() {
            return;
        }
        for place in self.frames.at(pa).to_vec() {
            if !self.contexts[place.context].regime.walks_cacheable || !self.is_walked(&place) {
                continue;
            }
            let words = (place.base..place.base + 8 * place.entries).step_by(8);
            let here = words.filter(|word| word >> 12 == pa >> 12);
            for word in here.filter(|word| pushed.has(index(*word))).take(1).collect::<Vec<_>>() {
                self.judge_word(index(word), &lines, place.va, word, true);
            }
        }
    }

    /// `pe` orders its stores before what follows.
    pub(super) fn order_lines(&mut self, pe: u32) {
        if self.pes[pe as usize].unordered.is_empty() {
            return;
        }
        for pa in std::mem::take(&mut self.pe(pe).unordered) {
            self.memory.page_mut(pa).lines.unordered = Words::default();
        }
    }

    pub(super) fn complete_lines(&mut self, pe: u32, ordering: &Ordering) {
        if ordering.stores {
            self.order_lines(pe);
        }
        // Lines are of shareable memory: the DSB has to reach as far.
        if !ordering.is_full() || ordering.reach == Reach::Own {
            return;
        }
        self.finish_sweeps(pe);
        if self.pes[pe as usize].maintained.is_empty() {
            return;
        }
        let reveals = self.debts.any_detour();
        for waiting in std::mem::take(&mut self.pe(pe).maintained) {
            self.memory.page_mut(waiting.pa).lines.complete(waiting.upkeep, waiting.line(), waiting.reached());
            if reveals {
                self.reveal_lines(waiting.pa);
            }
        }
    }
}
