//! Stores: to tables in use, and to anything else.

use std::sync::Arc;

use breakwater_trace::Access;

use super::cause::{At, Evidence, Lack, Missing, Remedy};
use super::change::{Terms, same};
use super::context::{Context, PlacedWord, Regime, TableUse};
use super::debt::{Debt, Detour};
use super::holder::{Holder, Pes};
use super::lines::Waiting;
use super::memory::index;
use super::page::Words;
use super::report::UnplacedViolation;
use super::switching::Stores;
use super::{Obligations, Rule};
use crate::descriptor::Descriptor;
use crate::maintenance::{StoredWord, stored_words};

impl Obligations {
    pub(super) fn store(&mut self, pe: u32, access: &Access) {
        self.access(pe, access);
        if self.ranges.is_flash(access.pa) {
            return self.command_flash(access.pa);
        }
        if access.device {
            return;
        }
        self.memory.releasing = access.release.then_some(pe);
        self.store_words(pe, stored_words(access));
        self.memory.releasing = None;
    }

    /// A store to flash at `pa`: what its part holds from here on, and what walks read there, is not known.
    fn command_flash(&mut self, pa: u64) {
        let Some((first, last)) = self.ranges.command(pa) else { return };
        self.uses.change();
        self.memory.forget(first, last);
        if let Some(place) = self.frames.in_use(first, last) {
            let base = place.base;
            self.not_known(format!(
                "a store to the flash from {first:x} at {pa:x}: what the table in use at {base:x} holds"
            ));
        }
    }

    /// `pe` stores words that follow each other.
    pub(super) fn store_words(&mut self, pe: u32, words: impl Iterator<Item = StoredWord> + Clone) {
        if !self.store_plainly(pe, words.clone()) {
            words.for_each(|word| self.store_word(pe, word));
        }
    }

    /// The same, where no rule asks what was there: through the caches, to one page, and to no table. Nearly every
    /// store is such. Returns whether this is one.
    fn store_plainly(&mut self, pe: u32, words: impl Iterator<Item = StoredWord> + Clone) -> bool {
        let mut stored = Words::default();
        let (mut pages, mut page) = (words.clone().map(|(pa, ..)| pa >> 12), None);
        let is_one_page = pages.all(|number| *page.get_or_insert(number) == number);
        let Some(page) = page.filter(|_| is_one_page && self.pes[pe as usize].caches()) else { return false };
        if !self.frames.at(page << 12).is_empty() {
            return false;
        }
        words.clone().for_each(|(pa, ..)| stored.insert(index(pa)));
        self.overtake(page, &stored);
        if !self.pes[pe as usize].stores.any {
            self.pe(pe).stores.any = true;
        }
        let line_bytes = self.params.of(pe).line_bytes;
        self.memory.store_cached(self.report.at, page << 12, words, line_bytes);
        true
    }

    /// `words` of a page are stored: what maintenance was begun before may have passed their lines.
    fn overtake(&mut self, page: u64, words: &Words) {
        let waits = |waiting: &Waiting| waiting.pa >> 12 == page;
        for other in self.pes.iter_mut().filter(|other| other.maintained.iter().any(waits)) {
            let here = Arc::make_mut(other).maintained.iter_mut().filter(|waiting| waits(waiting));
            here.for_each(|waiting| waiting.overtake(words));
        }
        self.overtake_sweeps(page, words);
    }

    /// `pe` stores the bits `mask` of the word at `pa`.
    fn store_word(&mut self, pe: u32, (pa, mask, bits): StoredWord) {
        let how = self.pes[pe as usize].may_cache();
        let cached = how.unwrap_or(true);
        let line_bytes = self.params.of(pe).line_bytes;
        self.overtake(pa >> 12, &Words::span(index(pa), 1));
        let stores = self.pes[pe as usize].stores;
        let after = Stores { any: true, uncached: stores.uncached || !cached };
        if stores != after {
            self.pe(pe).stores = after;
        }
        if !cached && self.pes[pe as usize].unordered.last().is_none_or(|last| last >> 12 != pa >> 12) {
            self.pe(pe).unordered.push(pa);
        }
        if !cached && self.pes[pe as usize].levels.is_el2() && self.memory.is_dirty(pa, line_bytes) {
            let finding = UnplacedViolation::of(Rule::LineBefore).pa(pa);
            let finding = finding.mend(Remedy::before(Lack::Own(Rule::LineBefore), self.report.at));
            self.report.add(finding, || "DC CIVAC of the line, which is dirty, and DSB before this store".into());
        }
        let (stored, mixed) = self.memory.store(self.report.at, (pa, mask, bits), how, line_bytes);
        if !mixed.is_empty() {
            self.judge_dirtied(pa, &mixed);
        }
        let places = self.frames.at(pa).to_vec();
        if !places.is_empty() {
            self.uses.change();
        }
        for place in places {
            let Some(entry) = place.entry(pa) else { continue };
            let Regime { format, walks_cacheable, .. } = self.contexts[place.context].regime;
            let old = place.slot(entry, stored.old.unwrap_or(0), &format);
            let new = place.slot(entry, stored.new.unwrap_or(0), &format);
            let detour = Detour::of(how.unwrap_or(walks_cacheable), walks_cacheable);
            if detour.is_none() {
                self.reveal(&place, &new);
            }
            if stored.old == stored.new {
                continue;
            }
            if detour == Some(Detour::PastCaches) {
                self.judge_line_in_use(&place, &new);
            }
            self.change(pe, &place, &old, &new, detour);
        }
    }

    /// Who may see a change in the table at `place`.
    pub(super) fn viewers_of(&self, place: &TableUse) -> Pes {
        if !place.ghost {
            return self.viewers(place.context);
        }
        let walkers = self.contexts[place.context].walkers;
        self.ways_to(place).fold(0, |pes, debt| pes | debt.holder.held() | (debt.seen_by() & walkers)) & self.walking
    }

    /// One descriptor of a table that may be walked changes.
    fn change(&mut self, pe: u32, place: &TableUse, old: &PlacedWord, new: &PlacedWord, detour: Option<Detour>) {
        let Context { regime, ref reach, .. } = self.contexts[place.context];
        let (reach, key) = (reach.held(), (new.level, new.va));
        if same(old.said, new.said, regime.mair) {
            return;
        }
        let viewers = self.viewers_of(place);
        if place.ghost && viewers == 0 {
            return;
        }
        let below = place.below(new, &regime.format);
        let linker = below.filter(|below| self.orders_before(pe, *below)).map(|_| pe);
        if !place.ghost {
            Arc::make_mut(&mut self.outputs).remove(old, &regime);
        }
        let mut judged = self.judge_in_place(place, old, new, viewers, None);
        let held = match old.said {
            Descriptor::Invalid => 0,
            _ if place.ghost => viewers,
            _ => reach,
        };
        if self.debts.at(key).iter().any(|debt| debt.slot == new.pa) {
            self.debts().go_on(key, new.pa);
        }
        let mut debt = self.debt_for(place, new, old.said, old.word, pe, held, viewers);
        (debt.detour, debt.in_place) = (detour.filter(|_| viewers != 0), Evidence(judged));
        if place.ghost {
            debt.holder.go_with(&self.doomed(place, new));
            self.comes_by(place, &mut debt);
        }
        self.debts().owe(key, debt);
        if new.said != Descriptor::Invalid {
            self.broken.remove(&new.pa);
        } else if viewers != 0 {
            self.broken.insert(new.pa, pe);
            self.unfill(place.context, new);
        }
        if let Some(below) = place.below(old, &regime.format) {
            self.unlink(below, pe, held);
        }
        if place.ghost {
            self.haunt(place, new, pe, viewers);
            return;
        }
        if new.said != Descriptor::Invalid {
            judged |= self.made(place.context, new, judged);
            self.judge_run(place, new);
        }
        if let Some(below) = below {
            self.link(below, true, linker, judged);
        }
    }

    /// Nothing is filled in at `slot` any more.
    fn unfill(&mut self, context: usize, slot: &PlacedWord) {
        let key = (slot.level, slot.va);
        let fills = |debt: &Debt| debt.is_fill() && (debt.context, debt.slot) == (context, slot.pa);
        if self.debts.at(key).iter().any(fills) {
            let tables = self.debts().change(key, |debt| !fills(debt));
            self.release(key, &tables);
        }
        if self.debts.lags_at(key, context) {
            self.debts().unfill(key, context);
        }
    }

    /// A new descriptor in a table that only old table descriptors lead to: it may be cached, and is stale at once.
    fn haunt(&mut self, place: &TableUse, new: &PlacedWord, pe: u32, viewers: Pes) {
        if new.said == Descriptor::Invalid || viewers == 0 {
            return;
        }
        self.judge_beside(place.context, new, viewers);
        self.judge_stray(place.context, new, viewers);
        let mut debt = self.debt_for(place, new, new.said, new.word, pe, viewers, viewers);
        debt.holder.go_with(&self.doomed(place, new));
        self.comes_by(place, &mut debt);
        self.debts().owe((new.level, new.va), Debt { visible: 0, ..debt });
    }

    /// What is owed for a table that only old table descriptors lead to comes from those.
    fn comes_by(&self, place: &TableUse, debt: &mut Debt) {
        if let Some(way) = self.ways_to(place).next() {
            (debt.origin, debt.note, debt.in_place) = (way.origin, way.note, way.in_place);
        }
    }

    /// What is wanting for `viewers` not to come to `place` by the old table descriptor of `way`.
    fn missing_way(&self, place: &TableUse, way: &Debt, viewers: Pes) -> Missing {
        let Context { regime, .. } = self.contexts[place.context];
        let level = place.level - 1;
        let seen = self.seen((level, place.va & !(regime.format.span(level) - 1)), way);
        way.missing(viewers & (way.holder.held() | seen), seen)
    }

    /// The old table descriptors that lead to `place`.
    fn ways_to(&self, place: &TableUse) -> impl Iterator<Item = &Debt> {
        let format = self.contexts[place.context].regime.format;
        let (level, base, link) = (place.level - 1, place.base, place.link);
        let key = (level, place.va & !(format.span(level) - 1));
        self.debts.at(key).iter().filter(move |debt| {
            (debt.context, debt.slot) == (place.context, link)
                && matches!(debt.said, Descriptor::Table(table) if table.next == base)
        })
    }

    /// What is on its way to the walk of `slot`, in a table that only old table descriptors lead to: the TLBI that removes those takes with
    /// it what is walked through them for the addresses that it names.
    fn doomed(&self, place: &TableUse, slot: &PlacedWord) -> Holder {
        let Context { regime, walkers, .. } = &self.contexts[place.context];
        let last = slot.va + (regime.format.span(slot.level) - 1);
        let mut doomed: Option<Holder> = None;
        for way in self.ways_to(place) {
            let here = way.holder.of_walks(slot.va, last);
            let survives = (way.seen_by() & walkers) | (here.held() & !here.on_its_way());
            doomed = Some(doomed.unwrap_or(here).only(!survives));
        }
        doomed.unwrap_or_default()
    }

    /// Old and new may be cached at once by `viewers`; where no walk led there when it was stored, because its store,
    /// `unseen`, had no DSB.
    pub(super) fn judge_in_place(
        &mut self,
        place: &TableUse,
        old: &PlacedWord,
        new: &PlacedWord,
        viewers: Pes,
        unseen: Option<At>,
    ) -> bool {
        if viewers == 0 {
            return false;
        }
        let Context { regime, weakest, .. } = self.contexts[place.context];
        let bytes = regime.format.span(new.level);
        let (mair, old_mair) = (regime.mair, regime.mair);
        let terms = Terms { memory: &self.memory, mair, old_mair, weakest, bytes };
        let Some(rule) = terms.conflict(old.said, new.said) else { return false };
        let finding = UnplacedViolation::of(rule).va(new.va).pa(new.pa).old(old.word).now(new.word);
        let finding = finding.read_as(new.level, regime.format).mend(Remedy::before(Lack::Break, self.report.at));
        // In a table that only old table descriptors lead to: it is those that should be gone.
        let way = self.ways_to(place).next().filter(|_| place.ghost);
        if let Some((since, missing)) = way.map(|way| (way.since(), self.missing_way(place, way, viewers))) {
            self.report.add(finding.by(since).mend(missing.remedy), || missing.says);
            return true;
        }
        if let Some(store) = unseen {
            let missing = || "DSB ISHST or wider after this store, before the table is linked".into();
            self.report.add(finding.by(store).mend(Remedy::after(Lack::StoreDsb, store)), missing);
            return true;
        }
        let non_l = match (old.said, new.said) {
            (Descriptor::Table(_), _) | (_, Descriptor::Table(_)) => "a non-L TLBI",
            _ => "TLBI",
        };
        self.report.add(finding, || {
            format!(
                "break first: an invalid descriptor, DSB ISHST, {non_l} that reaches every PE, DSB ISH, then this store"
            )
        });
        true
    }
}
