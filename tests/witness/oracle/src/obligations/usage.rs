//! Uses of addresses: fetches, loads and stores with the MMU on, loads with it off, and the upkeep of lines between the two.

use breakwater_trace::Access;

use super::context::{Context, TableUse};
use super::debt::Key;
use super::holder::bit;
use super::lines::{Lines, Upkeep};
use super::memory::index;
use super::report::UnplacedViolation;
use super::{Obligations, Rule};
use crate::descriptor::Descriptor;
use crate::maintenance::{Ordering, Reach, stored_words};

impl Obligations {
    pub(super) fn load(&mut self, pe: u32, access: &Access) {
        self.note_access(pe, access.va);
        self.use_address(pe, access.va, false);
        if access.device {
            return;
        }
        for (pa, ..) in stored_words(access) {
            let Some(page) = self.memory.page(pa) else { continue };
            let lines = page.lines;
            let at = index(pa);
            let finding = |rule| UnplacedViolation::of(rule).va(access.va).pa(pa);
            if self.pes[pe as usize].caches() {
                self.judge_word(at, &lines, access.va, pa);
            } else if !self.pes[pe as usize].now.mmu_on() && lines.dirty.has(at) {
                let rule = if lines.half_cleaned.has(at) { Rule::CleanInvalidates } else { Rule::NotCleaned };
                let operation = if lines.half_cleaned.has(at) { "DC CIVAC" } else { "DC CVAC" };
                let missing = || format!("{operation} of the line and DSB, after the store and before this load");
                self.report.add(finding(rule), missing);
            }
        }
    }

    pub(super) fn fetch(&mut self, pe: u32, pc: u64) {
        if !self.pes[pe as usize].fetched {
            self.pe(pe).fetched = true;
        }
        self.use_address(pe, pc, true);
    }

    /// `pe` executes an instruction at `pc`. With M = 0 and I = 0 it was fetched past the caches, from where stores through them may not have
    /// arrived.
    pub(super) fn judge_code(&mut self, pe: u32, pc: u64) {
        let now = self.pes[pe as usize].now;
        if now.mmu_on() || now.fetches_cached() {
            return;
        }
        let Some(page) = self.memory.page(pc) else { return };
        if page.lines.dirty.has(index(pc)) {
            let finding = UnplacedViolation::of(Rule::NotCleaned).va(pc).pa(pc & !7);
            self.report.add(finding, || {
                "DC CVAC of the code's line and DSB, after it was written and before this fetch".into()
            });
        }
    }

    /// `pe` fetches from `va`, or loads or stores there.
    pub(super) fn use_address(&mut self, pe: u32, va: u64, is_fetch: bool) {
        if self.pes[pe as usize].walks.is_empty() {
            return;
        }
        self.use_between(pe, va, is_fetch);
        if self.debts.is_empty() && self.broken.is_empty() {
            return;
        }
        let state = &self.pes[pe as usize];
        if !state.now.mmu_on() {
            return;
        }
        let Some(context) = state.walks.first().copied() else { return };
        let format = self.contexts[context].regime.format;
        let Some(va) = state.now.input(va, &format) else { return };
        for level in format.start_level..=3 {
            self.use_place(pe, va, (level, va & !(format.span(level) - 1)), is_fetch);
        }
        if !self.broken.is_empty() {
            self.use_broken(pe, va, context, is_fetch);
        }
    }

    /// A use while it is not certain whether the MMU is on, or while another root may still be cached.
    fn use_between(&mut self, pe: u32, va: u64, is_fetch: bool) {
        let state = &self.pes[pe as usize];
        let Some(context) = state.walks.last().copied() else { return };
        let (now, next) = (state.now, state.next);
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
            let finding = UnplacedViolation::of(Rule::ControlSync).va(va).old(now.sctlr).now(next.sctlr);
            self.report.add(finding, || "ISB after the write of SCTLR_EL2.M, before this use".into());
        }
        for other in 0..self.contexts.len() {
            let held = others(&self.contexts[other]) && other != context;
            let new_only = held && self.walk(other, input).is_some_and(|old| old.said == Descriptor::Invalid);
            if new_only {
                let finding = UnplacedViolation::of(Rule::RootSwitch).va(va).now(slot.word);
                self.report.add(finding, || {
                    "TLBI ALLE2, DSB and ISB before the use of an address that the old root does not map".into()
                });
            }
        }
    }

    fn use_place(&mut self, pe: u32, va: u64, key: Key, is_fetch: bool) {
        let needs_sync = is_fetch || !self.params.of(pe).ets2;
        let of_its_own = |context: usize| self.pes[pe as usize].walks.contains(&context);
        let mut found: Option<(Rule, u64, String)> = None;
        for debt in self.debts.at(key) {
            let (unsynced, gone) = (debt.unsynced & bit(pe) != 0, debt.gone_for(pe));
            let isb = || format!("ISB by PE {pe} before this use");
            found = found.or(match () {
                () if debt.is_fill() && debt.visible & bit(pe) != 0 && of_its_own(debt.context) => {
                    let missing = format!("DSB ISHST or wider by PE {} after its store", debt.storer);
                    Some((Rule::NotVisible, debt.slot, missing))
                }
                () if debt.is_fill() && unsynced && needs_sync => Some((Rule::FillSync, debt.slot, isb())),
                () if !debt.is_fill() && gone && debt.latent & bit(pe) != 0 => {
                    Some((Rule::CompletionSync, debt.slot, isb()))
                }
                () if !debt.is_fill() && gone && unsynced && is_fetch => Some((Rule::FetchSync, debt.slot, isb())),
                () => None,
            });
        }
        let lag = self.debts.lag(key);
        let isb = || format!("ISB by PE {pe} before this use");
        if found.is_none() && needs_sync && lag.is_some_and(|lag| lag.fill & bit(pe) != 0) {
            found = Some((Rule::FillSync, 0, isb()));
        }
        if found.is_none() && is_fetch && lag.is_some_and(|lag| lag.fetch() & bit(pe) != 0) {
            found = Some((Rule::FetchSync, 0, isb()));
        }
        if found.is_some() && !self.maps(pe, va) {
            return;
        }
        if let Some((rule, slot, missing)) = found {
            let finding = UnplacedViolation::of(rule).va(va);
            self.report.add(if slot == 0 { finding } else { finding.pa(slot) }, || missing);
        }
    }

    /// Whether `pe`'s tables, as memory holds them, map `va`.
    fn maps(&self, pe: u32, va: u64) -> bool {
        let context = self.pes[pe as usize].walks.first();
        let end = context.and_then(|context| self.walk(*context, va));
        end.is_some_and(|slot| slot.said != Descriptor::Invalid)
    }

    /// Whether the walk for `va` ends at a descriptor that was broken, by this PE or, for a fetch, by any.
    fn use_broken(&mut self, pe: u32, va: u64, context: usize, is_fetch: bool) {
        let Some(slot) = self.walk(context, va) else { return };
        if slot.said != Descriptor::Invalid {
            return;
        }
        let breaker = self.broken.get(&(slot.level, slot.va)).copied();
        if breaker.is_some_and(|breaker| breaker == pe || is_fetch) {
            let finding = UnplacedViolation::of(Rule::BrokenUse).va(va).pa(slot.pa);
            self.report.add(finding, || "the store that makes a valid descriptor, before this use".into());
        }
    }

    /// A table's words on one page, which walks read through the caches.
    pub(super) fn judge_lines(&mut self, place: &TableUse, pa: u64, lines: Lines) {
        let own = super::memory::Words::span(index(pa), (place.entries - (pa - place.base) / 8) as usize);
        let doubtful = lines.exposed.or(&lines.uncached).or(&lines.pushed).and(&own);
        if let Some(at) = doubtful.first() {
            let word = (pa & !0xfff) + 8 * at as u64;
            self.judge_word(at, &lines, place.va, word);
        }
    }

    fn judge_word(&mut self, at: usize, lines: &Lines, va: u64, pa: u64) {
        let finding = |rule| UnplacedViolation::of(rule).va(va).pa(pa);
        if lines.exposed.has(at) {
            self.report.add(finding(Rule::LineBefore), || "DC IVAC of the line and DSB before it is written".into());
        }
        if lines.pushed.has(at) {
            let missing = || "DC IVAC in place of the clean, after the writes".into();
            self.report.add(finding(Rule::LineCleaned), missing);
        } else if lines.uncached.has(at) {
            let missing = || "DMB, DC IVAC of the line and DSB after it is written".into();
            self.report.add(finding(Rule::LineAfter), missing);
        }
    }

    pub(super) fn issue_line(&mut self, pe: u32, pa: u64, upkeep: Upkeep) {
        let line_bytes = self.params.of(pe).line_bytes;
        let page = self.memory.page_mut(pa);
        let waiting = page.lines.maintain(pa, index(pa), upkeep, line_bytes);
        let all = &mut self.pe(pe).maintained;
        match all.iter_mut().find(|other| other.is_like(&waiting)) {
            Some(other) => other.join(&waiting),
            None => all.push(waiting),
        }
    }

    /// `pe` orders its stores before what follows.
    pub(super) fn order_lines(&mut self, pe: u32) {
        if self.pes[pe as usize].unordered.is_empty() {
            return;
        }
        for pa in std::mem::take(&mut self.pe(pe).unordered) {
            self.memory.page_mut(pa).lines.unordered = super::memory::Words::default();
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
        if self.pes[pe as usize].maintained.is_empty() {
            return;
        }
        for waiting in std::mem::take(&mut self.pe(pe).maintained) {
            self.memory.page_mut(waiting.pa).lines.complete(&waiting);
        }
    }
}
