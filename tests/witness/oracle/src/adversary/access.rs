//! Accesses: those of the trace, and those that hardware makes by itself.

use breakwater_trace::{Access, Operation};

use crate::level::ExceptionLevel;
use crate::regime::{Control, Controls};

use super::element::{Element, TableEncoding, TableUse};
use super::entry::Translation;
use super::harm::What;
use super::lines::Route;
use super::memory::Memory;
use super::path::{Ending, Path, Read};
use super::permission::Permission;
use super::roots::root_of;
use super::walk::MOST_TABLES;
use super::{Adversary, Broken, HarmKind};

impl Adversary {
    /// A word is stored; by a store-release, perhaps.
    pub(super) fn store(&mut self, at: usize, word: (u64, u64, u64), is_release: bool) {
        let (pa, ..) = word;
        let storer = self.elements[at].pe;
        self.put_off(at);
        if self.elements[at].is_cacheable() {
            if !self.lines.is_dirty(pa) {
                let mixed = self.lines.store_into(pa, self.permissions);
                self.lose(&mixed);
            }
        } else {
            let is_el2 = self.elements[at].levels.is_el2();
            if is_el2 && self.lines.is_line_dirty(pa) && self.permissions.has(Permission::EvictDirtyLine) {
                let what = "a dirty line will be written over what is stored past the cache";
                self.harm(at, HarmKind::Line, Some(pa), what);
            }
            self.lines.store_past(storer, pa, self.permissions);
        }
        let way = if self.elements[at].is_cacheable() { Route::Cached } else { Route::Past };
        if !self.memory.is_settled() {
            self.memory.reveal(pa, way);
        }
        let remember = self.permissions.has(Permission::SeeOldValueUntilDsb);
        let hidden_from = self.hidden_from(pa, way.other());
        let Some(change) = self.memory.store((storer, is_release), word, remember, hidden_from) else { return };
        if self.memory.has_ordered() && self.elements.iter().any(|element| self.leads_where_it_is_held(element, pa)) {
            self.memory.forget_order(pa);
        }
        let mut broken = None;
        for target in 0..self.elements.len() {
            if self.elements[target].may_read(pa) {
                broken = self.walk(target, |walker| walker.changed(pa, change, storer)).or(broken);
            }
        }
        match (broken, self.broken.binary_search_by_key(&pa, |broken| broken.slot)) {
            (Some(true), Ok(place)) => self.broken[place].storer = storer,
            (Some(true), Err(place)) => self.broken.insert(place, Broken { slot: pa, storer }),
            (Some(false), Ok(place)) => {
                self.broken.remove(place);
            }
            _ => {}
        }
    }

    /// Whether the descriptor at `pa` leads `element` to a table that a walk cache already leads to: the order of this
    /// store says nothing then.
    fn leads_where_it_is_held(&self, element: &Element, pa: u64) -> bool {
        let is_held = |table: u64| {
            let mut held = self.elements.iter().flat_map(|element| element.tables.iter());
            held.any(|held| held.what.next == table)
        };
        let contexts = if element.may_read(pa) { element.contexts_of(pa) } else { Vec::new() };
        contexts.iter().any(|(context, regime)| {
            let below = |context: &TableUse, (slot, word): (u64, u64)| {
                let va = context.va_of(slot, regime)?;
                match context.read(slot, va, regime.value(word), regime) {
                    Read::Table(table) => Some(TableUse::below(&table, 0)),
                    _ => None,
                }
            };
            let mut tables: Vec<TableUse> =
                self.memory.get(pa).and_then(|word| below(context, (pa, word))).into_iter().collect();
            let mut at = 0;
            while let Some(table) = tables.get(at).copied().filter(|_| at < MOST_TABLES) {
                let words = self.memory.words(table.table, table.bytes(regime), |word| word != 0);
                tables.extend(words.filter_map(|word| below(&table, word)).filter(|table| table.level <= 3));
                at += 1;
            }
            let mut words = self.elements.iter().flat_map(|element| element.cached_words.iter());
            let is_of = |slot: u64| slot == pa || tables.iter().any(|table| table.va_of(slot, regime).is_some());
            words.any(|held| is_of(held.what.slot)) || tables.iter().any(|table| is_held(table.table))
        })
    }

    /// The way in which walks miss what is stored at `pa` the other way, if any PE walks there.
    fn hidden_from(&self, pa: u64, way: Route) -> Option<Route> {
        let permission = match way {
            Route::Cached => Permission::HideBehindLine,
            Route::Past => Permission::MissDirtyLine,
        };
        let walks_there = |element: &Element| {
            element.walks() && element.eyes().1 == way && element.may_read(pa) && !element.contexts_of(pa).is_empty()
        };
        let is_walked = self.elements.iter().any(|element| walks_there(element));
        (is_walked && self.permissions.has(permission)).then_some(way)
    }

    /// A store is done no sooner than its DSB says.
    fn put_off(&mut self, at: usize) {
        let past = !self.elements[at].is_cacheable();
        let (is_storing, is_storing_past) = (self.elements[at].is_storing, self.elements[at].is_storing_past);
        if self.permissions.has(Permission::PutOffStore) && (!is_storing || (past && !is_storing_past)) {
            self.elements[at].is_storing = true;
            self.elements[at].is_storing_past |= past;
        }
    }

    /// Firmware is called: it, or a PE that it starts, reads what this PE has stored.
    pub(super) fn call(&mut self, at: usize) {
        if self.elements[at].is_storing_past {
            self.harm(at, HarmKind::Line, None, "firmware is called before what was stored past the cache is there");
        }
    }

    /// Memory is loaded from.
    pub(super) fn load(&mut self, at: usize, access: &Access) {
        if access.device || !self.elements[at].levels.is_el2() {
            return;
        }
        let words = [access.pa & !7, access.pa.saturating_add(u64::from(access.bytes).saturating_sub(1)) & !7];
        for pa in words {
            if self.elements[at].is_cacheable() {
                if let Some(what) = self.lines.harm_to_read(pa) {
                    self.harm(at, HarmKind::Line, Some(access.va), what);
                }
            } else if self.lines.misses(pa) && self.permissions.has(Permission::MissDirtyLine) {
                self.harm(at, HarmKind::Line, Some(access.va), "a load past the cache misses what was stored into it");
            }
        }
    }

    /// DC and IC.
    pub(super) fn maintain_data(&mut self, at: usize, operation: Operation, operand: u64) {
        if matches!(operation.name(), Some("isw" | "csw" | "cisw")) {
            let pe = self.elements[at].pe;
            let pushed = self.lines.go_on(pe, operation, operand, self.permissions);
            if self.elements[at].moves_lines() {
                self.lines.abandon(pe);
            }
            return self.lose(&pushed);
        }
        let is_el2 = self.is_at_el2(at);
        let element = &self.elements[at];
        let by_address = ["zva", "gzva", "ivac", "civac", "cvac", "cvap", "cvadp", "cvau"];
        if is_el2 && element.is_ambiguous() && operation.name().is_some_and(|name| by_address.contains(&name)) {
            let what = "the operation may be translated or not: no ISB follows the change of M";
            self.harm(at, HarmKind::Window, Some(operand), what);
            return;
        }
        // An address that is not mapped faults.
        let Some(pa) = element.output_of(&self.memory, operand) else { return };
        if operation.zeroes() {
            if element.is_on() || !is_el2 {
                let block = self.elements[at].zeroed_block;
                block.words(block.start(pa)).for_each(|word| self.store(at, word, false));
            } else {
                self.harm(at, HarmKind::Faulting, Some(operand), "DC ZVA faults while the MMU is off");
            }
            return;
        }
        let skips = element.features.clean_invalidates && self.permissions.has(Permission::SkipClean);
        let pushed = self.lines.maintain(element.pe, operation, pa, skips, self.permissions);
        self.lose(&pushed);
    }

    /// A PE is done with going through its caches by set and way. What another that had its caches on holds is left.
    pub(super) fn end_rounds(&mut self) {
        let holders: Vec<u32> =
            self.elements.iter().filter(|element| element.moves_lines()).map(|element| element.pe).collect();
        let is_alone = |pe: u32| self.filled.iter().chain(&holders).all(|other| *other == pe);
        let may_skip = self.permissions.has(Permission::SkipClean);
        let skips = |pe: u32| may_skip && self.world.params.of(pe).clean_invalidates;
        for (pa, way) in self.lines.end_rounds(is_alone, skips) {
            self.memory.reveal(pa, way);
        }
    }

    /// The PE at `at` has done something: with its caches on, lines come and go.
    pub(super) fn fill_caches(&mut self, at: usize) {
        if self.elements[at].moves_lines() {
            let pe = self.elements[at].pe;
            if let Err(place) = self.filled.binary_search(&pe) {
                self.filled.insert(place, pe);
            }
            if self.lines.has_rounds() {
                self.lines.abandon(pe);
            }
        }
    }

    /// A line from before may be written over these words.
    fn lose(&mut self, words: &[u64]) {
        for word in words {
            for target in 0..self.elements.len() {
                self.walk(target, |walker| walker.lose(*word));
            }
        }
    }

    /// Whether EL2 translates what the PE does; harm where walks may happen and nobody knows.
    fn is_at_el2(&mut self, at: usize) -> bool {
        let element = &self.elements[at];
        let level = element.levels.now();
        if level == ExceptionLevel::Unknown && element.walks() {
            self.harm(at, HarmKind::Unsupported, None, "nobody knows at which exception level this is done");
        }
        level == ExceptionLevel::El2
    }

    /// A load or store of the trace.
    pub(super) fn use_for_access(&mut self, at: usize, access: &Access) {
        if !self.is_at_el2(at) {
            self.elements[at].levels.note_access(access.va, access.pa);
            return;
        }
        let element = &self.elements[at];
        if element.is_ambiguous() && !access.device {
            let what = "the access may be translated or not: no ISB follows the change of M";
            self.harm(at, HarmKind::Window, Some(access.va), what);
            return;
        }
        if !element.is_on() {
            if element.features.strict_switch && element.was_on && !access.device {
                self.elements[at].window_access = true;
            }
            return;
        }
        self.use_at(at, access.va, false);
    }

    /// Execution continues at `pc`.
    pub(super) fn use_for_fetch(&mut self, at: usize, pc: u64) {
        if !self.is_at_el2(at) {
            return;
        }
        if !self.elements[at].has_fetched {
            self.elements[at].has_fetched = true;
        }
        let element = &self.elements[at];
        if element.is_ambiguous() {
            let possible = element.possible_controls();
            let mut translating = possible.iter().filter(|controls| controls.mmu_on());
            if !translating.all(|controls| element.runs_in_place(&self.memory, controls, pc)) {
                let what = "the fetch may be translated or not: no ISB follows the change of M";
                self.harm(at, HarmKind::Window, Some(pc), what);
            }
        } else if element.is_on() {
            self.use_at(at, pc, true);
        }
    }

    fn use_at(&mut self, at: usize, va: u64, is_fetch: bool) {
        self.use_other_root(at, va);
        let element = &self.elements[at];
        // Nothing is in flux: what memory says is what a use finds.
        if element.fault_views.is_empty()
            && element.latent.is_empty()
            && self.broken.is_empty()
            && self.memory.is_settled()
        {
            return;
        }
        for path in element.paths(&self.memory, va) {
            match path.ending {
                Ending::Unknown => {}
                Ending::Fault => self.use_broken(at, va, &path, is_fetch),
                Ending::Leaf(leaf) => {
                    if self.may_fault(at, va, &path, is_fetch) {
                        let what = "the use may find the fault that was there before the fill";
                        self.harm(at, HarmKind::Faulting, Some(va), what);
                    }
                    self.use_latent(at, va, &leaf, is_fetch);
                }
            }
        }
    }

    /// A use through the root that was written last, which maps `va`, may begin at another one, which does not.
    fn use_other_root(&mut self, at: usize, va: u64) {
        let element = &self.elements[at];
        if element.former_roots.is_empty() && element.latent_roots.is_empty() && element.older_controls.is_empty() {
            return;
        }
        let Some(path) = Path::of(element, &self.memory, va) else { return };
        let Some(regime) = element.regime().filter(|_| matches!(path.ending, Ending::Leaf(_))) else { return };
        let former = element.former_roots.iter().map(|held| held.what.table);
        let former = former.chain(element.latent_roots.iter().copied());
        let level = regime.format.start_level;
        let root =
            |table| TableUse { level, va: 0, table, link: TableUse::ROOT, no_write: false, no_execute: false, doom: 0 };
        let mut others: Vec<(TableUse, TableEncoding)> = former.map(|table| (root(table), regime)).collect();
        others.extend(element.roots_in_force());
        let faults = |(root, regime): &(TableUse, TableEncoding)| {
            Path::from(*root, regime, &self.memory, va).ending == Ending::Fault
        };
        if others.iter().any(faults) {
            self.harm(at, HarmKind::Faulting, Some(va), "the use may begin at another root, which does not map it");
        }
    }

    fn use_broken(&mut self, at: usize, va: u64, path: &Path, is_fetch: bool) {
        let Ok(place) = self.broken.binary_search_by_key(&path.slot, |broken| broken.slot) else { return };
        if is_fetch || self.broken[place].storer == self.elements[at].pe {
            self.harm(at, HarmKind::Broken, Some(va), "the use goes through a broken entry");
        }
    }

    /// Whether a use by this PE may find a fault where memory now says a translation.
    fn may_fault(&self, at: usize, va: u64, path: &Path, is_fetch: bool) -> bool {
        let element = &self.elements[at];
        let is_old_fault = |(slot, level): (u64, i8)| element.may_fault_at(&self.memory, slot, level);
        let in_view = || element.fault_views.iter().any(|view| va >> view.shift == view.va >> view.shift);
        path.slots().any(is_old_fault) || ((is_fetch || !element.features.ets2) && in_view())
    }

    fn use_latent(&mut self, at: usize, va: u64, leaf: &Translation, is_fetch: bool) {
        let element = &self.elements[at];
        // What is held again may be used as well, with or without the synchronisation: that is not due yet.
        let is_held = |old: &Translation| element.leaves.binary_search_by(|held| held.what.cmp(old)).is_ok();
        let mut latent = element.latent.iter().filter(|latent| is_fetch || latent.by_accesses);
        let old = latent.find(|latent| latent.what.covers(va) && latent.what != *leaf && !is_held(&latent.what));
        if let Some(old) = old {
            let what =
                What::Leaf("the use may go through what was invalidated since the last ISB of this PE", old.what);
            self.harm(at, HarmKind::Latent, Some(va), what);
        }
    }

    /// Hardware reads what is Normal, fetches what is executable, and software writes what is writable: through a translation that is new.
    pub(super) fn speculate(&mut self, at: usize, leaf: &Translation) {
        let permissions = self.permissions;
        let is_written = leaf.writable && leaf.executable && permissions.has(Permission::ExecuteWritten);
        let is_fetched = leaf.executable && leaf.memory.is_device() && permissions.has(Permission::SpeculateFetch);
        let is_read = !leaf.memory.is_device() && permissions.has(Permission::SpeculateRead) && !self.is_ram(leaf);
        let alias = permissions.has(Permission::MixAliases).then(|| self.alias_of(leaf)).flatten();
        let is_harmless = !is_written && !is_fetched && !is_read && alias.is_none();
        // Whatever is no longer current is judged as stale.
        if is_harmless || !Path::of(&self.elements[at], &self.memory, leaf.va).is_some_and(|path| path.says(leaf)) {
            return;
        }
        let va = Some(leaf.va);
        if is_written {
            self.harm(at, HarmKind::WriteExecute, va, What::Leaf("one address is written and executed", *leaf));
        }
        if is_fetched {
            self.harm(at, HarmKind::DeviceFetch, va, What::Leaf("a speculative fetch reaches Device memory", *leaf));
        }
        if is_read {
            self.harm(at, HarmKind::BeyondRam, va, What::Leaf("a speculative read reaches what is no RAM", *leaf));
        }
        if let Some(alias) = alias {
            self.harm(
                at,
                HarmKind::Alias,
                va,
                What::Leaves("a frame is seen with two sets of attributes", *leaf, alias),
            );
        }
    }

    fn is_ram(&self, leaf: &Translation) -> bool {
        let (first, last) = (leaf.output, leaf.output + (leaf.bytes() - 1));
        if self.world.no_map.iter().any(|(start, end)| *start <= last && first < *end) {
            return false;
        }
        let mut next = first;
        while let Some((_, end)) = self.world.ram.iter().find(|(start, end)| *start <= next && next < *end) {
            if *end > last {
                return true;
            }
            next = *end;
        }
        self.world.ram.is_empty()
    }

    /// A current translation of any PE to the same bytes with other attributes.
    fn alias_of(&self, leaf: &Translation) -> Option<Translation> {
        let (first, last) = (leaf.output, leaf.output + (leaf.bytes() - 1));
        // Most leaves agree in their attributes: the cheaper question first.
        let differs = |other: &Translation| {
            (other.memory, other.shareability) != (leaf.memory, leaf.shareability) && other.leads_into(first, last)
        };
        let attributes = (leaf.memory, leaf.shareability);
        let mixes =
            |element: &Element| element.is_on() && element.attributes.0.iter().any(|other| *other != attributes);
        for element in self.elements.iter().filter(|element| mixes(element)) {
            let mut others = element.leaves.iter().map(|held| held.what).filter(differs);
            let is_current =
                |other: &Translation| Path::of(element, &self.memory, other.va).is_some_and(|path| path.says(other));
            if let Some(found) = others.find(is_current) {
                return Some(found);
            }
        }
        None
    }
}

impl Element {
    /// Whether a walk, or a cache filled by one, may have to do with the word at `pa`; in doubt, yes.
    fn may_read(&self, pa: u64) -> bool {
        let near = |table: u64| pa.wrapping_sub(table) < 1 << 16;
        let is_root = |ttbr0: u64| near(ttbr0 & 0xffff_ffff_ffc0) || ttbr0 & 0x3c != 0;
        self.tables.iter().any(|held| near(held.what.next))
            || self.walked.iter().any(|held| near(held.what.table))
            || self.former_roots.iter().any(|held| near(held.what.table))
            || (self.walks() && self.values_of(Control::Ttbr0).any(is_root))
    }

    /// The walks of `va` from each root that may be in force, as memory is.
    fn paths(&self, memory: &Memory, va: u64) -> Vec<Path> {
        if self.older_controls.is_empty() {
            return Path::of(self, memory, va).into_iter().collect();
        }
        let Some(regime) = self.regime() else { return Vec::new() };
        let Some(va) = self.controls.input(va, &regime.format) else { return Vec::new() };
        self.roots_in_force().iter().map(|(root, regime)| Path::from(*root, regime, memory, va)).collect()
    }

    /// Whether the code at `pc` stands, executable, at its own physical address under `controls`; where nothing is known, yes.
    pub(super) fn runs_in_place(&self, memory: &Memory, controls: &Controls, pc: u64) -> bool {
        let Some(regime) = TableEncoding::of(controls, &self.features) else { return true };
        let Some(va) = controls.input(pc, &regime.format) else { return false };
        match Path::from(root_of(controls, &regime.format), &regime, memory, va).ending {
            Ending::Leaf(leaf) => {
                let is_executable = leaf.executable && !(controls.wxn() && leaf.writable);
                is_executable && leaf.output + (va - leaf.va) == pc
            }
            Ending::Fault => false,
            Ending::Unknown => true,
        }
    }

    /// Whether a walk of this PE may read a fault, an older value, at `slot`.
    pub(super) fn may_fault_at(&self, memory: &Memory, slot: u64, level: i8) -> bool {
        let Some(regime) = self.regime() else { return false };
        let mut older = memory.older(slot, 8).filter(|(_, older)| older.is_seen_by(self.eyes()));
        older.any(|(_, older)| older.value.is_some_and(|value| regime.faults(value, level)))
    }

    /// Where `va` leads, as memory says; itself where nothing is known; nowhere if it is not mapped.
    fn output_of(&self, memory: &Memory, va: u64) -> Option<u64> {
        if !self.levels.is_el2() {
            return self.levels.physical(va, self.controls.hcr);
        }
        if !self.is_on() {
            return Some(va);
        }
        match Path::of(self, memory, va)?.ending {
            Ending::Leaf(leaf) => Some(leaf.output + (va & (leaf.bytes() - 1))),
            Ending::Unknown => Some(va),
            Ending::Fault => None,
        }
    }
}
