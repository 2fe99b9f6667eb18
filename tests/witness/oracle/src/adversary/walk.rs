//! What may be cached: every walk that may happen, with every value that it may read, through everything that may be held.
//!
//! What must hold: after each event the sets of a PE are closed, so that the next event need only look at what it changes. What an
//! entry was derived from decides its doom: through a table entry that a pending TLBI will remove, an entry comes about before that
//! TLBI takes effect, so the same TLBI removes it if it names it.

use crate::descriptor::Descriptor;
use crate::regime::{Control, MemoryType};

use super::class::{Class, ISSUED};
use super::element::{CachedWord, Element, FaultView, TableEncoding, TableUse, WalkedFrame};
use super::entry::{Exclusion, Held, TableEntry, Translation};
use super::harm::{HarmKind, UnplacedHarm, What};

use super::lines::{Lines, Route};
use super::memory::{Memory, Older, WordChange};
use super::path::{Path, Read};
use super::permission::{Permission, Permissions};
use super::roots::Begun;

/// A PE with more is judged by these alone: hostile tables must not run away.
const MOST_LEAVES: usize = 1 << 16;
pub(super) const MOST_TABLES: usize = 1 << 11;

/// Walks of one PE.
pub(super) struct Walker<'a> {
    pub(super) memory: &'a Memory,
    pub(super) lines: &'a Lines,
    pub(super) classes: &'a [Class],
    pub(super) permissions: Permissions,
    pub(super) exclusion: Exclusion,
    pub(super) element: &'a mut Element,
    pub(super) findings: &'a mut Vec<UnplacedHarm>,
    /// Leaves that a walk has read anew, not doomed.
    pub(super) fresh: &'a mut Vec<Translation>,
    /// A fault has become a table: what is below it is read anew, held or not.
    pub(super) is_linked: bool,
}

/// A value that a walk may read, and the pending invalidations that end this.
type Visible = (u64, u64, u32);

impl Walker<'_> {
    pub(super) fn find(&mut self, kind: HarmKind, va: u64, what: impl Into<What>) {
        self.findings.push(UnplacedHarm { kind, va: Some(va), what: what.into() });
    }

    /// Every walk from every root in force, of which these have not begun before.
    pub(super) fn explore_roots(&mut self, begins: &[Begun]) {
        self.element.suspect_everything();
        for (root, regime) in self.element.roots() {
            for begun in begins.iter().filter(|begun| (begun.root, begun.regime) == (root.table, regime)) {
                self.explore_lines(root, &regime, begun.way);
            }
            self.explore(root, &regime);
        }
        // What was held already is read anew: memory may have changed meanwhile, or how it is read.
        let held = self.element.tables.clone();
        for regime in self.element.regimes() {
            for Held { what: table, doom } in held.iter().filter(|held| held.what.level < 3) {
                self.explore(TableUse::below(table, *doom), &regime);
            }
        }
    }

    /// An entry may hold the index of its memory type: MAIR_EL2 says anew what that means.
    pub(super) fn change_types(&mut self, old: u64, new: u64) {
        if old == new {
            return;
        }
        let held = self.element.leaves.clone();
        for (index, Held { what, doom }) in (0..8).flat_map(|index| held.iter().map(move |held| (index, held))) {
            let memory = MemoryType::of(new, index);
            if what.memory == MemoryType::of(old, index) && memory != what.memory {
                let leaf = Translation { memory, ..*what };
                self.add_leaf(leaf, *doom);
                self.fresh.push(leaf);
            }
        }
    }

    /// Every walk from `context` on.
    pub(super) fn explore(&mut self, context: TableUse, regime: &TableEncoding) {
        self.note_walked(&context);
        let (first, bytes) = (context.table, context.bytes(regime));
        let seen = self.element.seen_before(self.memory, &context, regime);
        let visible = self.visible(first, bytes, &seen, regime);
        if context.doom == 0 && self.permissions.has(Permission::ReadUnknown) {
            let unknown = self.older(first, bytes, &seen).any(|(_, older)| older.value.is_none());
            if unknown || (visible.is_empty() && self.memory.words(first, bytes, |_| true).next().is_none()) {
                self.find(
                    HarmKind::Unknown,
                    context.va,
                    What::Word("a walk reads a table that may hold anything", first),
                );
            }
        }
        self.see_old_faults(&context, regime);
        for (slot, value, doom) in visible {
            self.derive(&context, (slot, value, doom), regime, true);
        }
    }

    /// A walk through `context` may read a fault where memory says a descriptor by now.
    fn see_old_faults(&mut self, context: &TableUse, regime: &TableEncoding) {
        if self.memory.is_settled() || !self.permissions.has(Permission::SeeFaultUntilIsb) {
            return;
        }
        let (memory, eyes) = (self.memory, self.element.eyes());
        let seen = self.element.seen_before(memory, context, regime);
        let shift = regime.format.shift(context.level);
        for (slot, older) in memory.older_after((context.table, context.bytes(regime)), eyes, &seen) {
            let Some(va) = context.va_of(slot, regime) else { continue };
            let faults = |value: Option<u64>| value.is_some_and(|word| regime.faults(word, context.level));
            if faults(older.value) && !faults(memory.get(slot)) {
                let is_own = older.storer() == self.element.pe;
                self.see_fault(FaultView { slot, level: context.level, va, shift, is_own });
            }
        }
    }

    /// Where walks begin they read each word of each table from `top` down, through its line or past it.
    fn explore_lines(&mut self, top: TableUse, regime: &TableEncoding, way: Route) {
        if self.lines.is_empty() {
            return;
        }
        let (lines, memory) = (self.lines, self.memory);
        let (mut tables, mut at) = (vec![top], 0);
        while let Some(context) = tables.get(at).copied().filter(|_| at < MOST_TABLES) {
            for (slot, word) in memory.words(context.table, context.bytes(regime), |_| true) {
                let Some(va) = context.va_of(slot, regime) else { continue };
                if let Some(what) = lines.harm_to_walk(slot, way) {
                    self.find(HarmKind::Line, va, what);
                }
                if let Read::Table(table) = context.read(slot, va, regime.value(word), regime)
                    && table.level < 3
                {
                    tables.push(TableUse::below(&table, 0));
                }
            }
            at += 1;
        }
    }

    /// A line from before may be written over the word at `pa`.
    pub(super) fn lose(&mut self, pa: u64) {
        let walks = self.element.walks() && self.element.eyes().1 == Route::Cached && self.lines.loses(pa);
        let contexts = if walks { self.element.contexts_of(pa) } else { Vec::new() };
        if let Some(va) = contexts.iter().find_map(|(context, regime)| context.va_of(pa, regime)) {
            self.find(HarmKind::Line, va, "an older line may be written over a descriptor that is walked");
        }
    }

    /// Older values in `bytes` from `first` that a walk which has seen these stores may read.
    fn older(&self, first: u64, bytes: u64, seen: &[(u32, u8)]) -> impl Iterator<Item = (u64, &Older)> {
        self.memory.older_after((first, bytes), self.element.eyes(), seen)
    }

    /// Every value that a walk which has seen these stores may read in `bytes` from `first`, and that matters.
    pub(super) fn visible(&self, first: u64, bytes: u64, seen: &[(u32, u8)], regime: &TableEncoding) -> Vec<Visible> {
        let matters = |value: u64| regime.value(value) & 1 != 0;
        let early = self.permissions.has(Permission::SeeStoreBeforeDsb);
        let pending = |slot| self.older(slot, 8, seen).next().is_some();
        let newest = self.memory.words(first, bytes, matters);
        let newest = newest.filter(|word| early || !pending(word.0));
        let older = self.older(first, bytes, seen);
        let older = older.filter_map(|(slot, older)| older.value.map(|value| (slot, value, 0)));
        let cached = self.element.cached_words.iter().filter(|held| (first..first + bytes).contains(&held.what.slot));
        let mut all: Vec<Visible> = cached.map(|held| (held.what.slot, held.what.value, held.doom)).collect();
        all.extend(older);
        all.extend(newest.map(|(slot, value)| (slot, value, 0)));
        all
    }

    fn note_walked(&mut self, context: &TableUse) {
        if self.element.features.ntlbpa || !self.permissions.has(Permission::CacheByPhysicalAddress) {
            return;
        }
        let walked = &mut self.element.walked;
        let what = WalkedFrame { table: context.table, level: context.level };
        match walked.binary_search_by_key(&what, |held| held.what) {
            Ok(at) if walked[at].doom & !context.doom != 0 => walked[at].doom &= context.doom,
            Ok(_) => {}
            Err(at) => walked.insert(at, Held { what, doom: context.doom }),
        }
    }

    /// A walk through `context` reads a value. With `deep` it goes on below.
    pub(super) fn derive(&mut self, context: &TableUse, visible: Visible, regime: &TableEncoding, deep: bool) {
        let (slot, word, doom) = visible;
        let Some(va) = context.va_of(slot, regime) else { return };
        let ends = context.doom | doom;
        match context.read(slot, va, regime.value(word), regime) {
            Read::Fault => {}
            Read::Leaf(leaf) => {
                self.read_type_otherwise(context, word, va, regime);
                self.read_type_by_cached_controls(context, word, leaf, ends, regime);
                let doom = self.matching(ends, |class| class.names_leaf(&leaf));
                if self.add_leaf(leaf, doom) && doom == 0 && deep {
                    self.fresh.push(leaf);
                }
            }
            Read::Table(table) => {
                let doom = self.matching(ends, |class| class.names_table(&table));
                if let Some(doom) = self.add_table(table, doom)
                    && deep
                    && table.level < 3
                {
                    self.explore(TableUse::below(&table, doom), regime);
                }
            }
        }
    }

    /// Hardware makes what it likes of a reserved encoding of MAIR_EL2.
    fn read_type_otherwise(&mut self, context: &TableUse, word: u64, va: u64, regime: &TableEncoding) {
        let descriptor = regime.format.decode(regime.value(word), context.level);
        if let Descriptor::Leaf(leaf) = descriptor
            && MemoryType::is_reserved(regime.mair, leaf.attr_index)
            && self.permissions.has(Permission::UseReserved)
        {
            self.find(HarmKind::Reserved, va, "a leaf names a reserved encoding of MAIR_EL2");
        }
    }

    /// RVNRFW: a TLB may hold MAIR_EL2 as it was, and read the types of new leaves by that.
    fn read_type_by_cached_controls(
        &mut self,
        context: &TableUse,
        word: u64,
        leaf: Translation,
        ends: u32,
        regime: &TableEncoding,
    ) {
        let Descriptor::Leaf(said) = regime.format.decode(regime.value(word), context.level) else { return };
        let held = self.element.cached_controls.iter().map(|held| (held.what.mair(), held.doom));
        let latent = self.element.latent_mairs.iter().map(|mair| (*mair, 0));
        let mairs: Vec<(u64, u32)> = held.chain(latent).collect();
        for (mair, doom) in mairs {
            let memory = MemoryType::of(mair, said.attr_index);
            if memory != leaf.memory && self.element.controls.mair == regime.mair {
                let leaf = Translation { memory, ..leaf };
                let doom = self.matching(ends | doom, |class| class.names_leaf(&leaf));
                self.add_leaf(leaf, doom);
            }
        }
    }

    fn matching(&self, bits: u32, names: impl Fn(&Class) -> bool) -> u32 {
        if bits == 0 {
            return 0;
        }
        let classes = self.classes.iter().enumerate().filter(|(bit, class)| bits >> bit & 1 != 0 && names(class));
        // What is not named is not doomed already.
        classes.fold(bits & ISSUED, |doom, (bit, _)| doom | 1 << bit)
    }

    /// The doom of what is derived in two ways: it goes when both have gone.
    fn either(&self, one: u32, other: u32) -> u32 {
        let both = one & other;
        if both == one || both == other {
            return both;
        }
        let groups = Class::groups(self.classes).filter(|group| one & group != 0 && other & group != 0);
        groups.fold(both, |doom, group| if both & group == 0 { doom | (one | other) & group } else { doom })
    }

    /// Adds a leaf entry; it keeps the dooms that all its derivations have. Whether it is held.
    fn add_leaf(&mut self, leaf: Translation, doom: u32) -> bool {
        match self.element.leaves.binary_search_by(|held| held.what.cmp(&leaf)) {
            Ok(at) => self.element.leaves[at].doom = self.either(self.element.leaves[at].doom, doom),
            Err(_) if self.element.leaves.len() >= MOST_LEAVES => return false,
            Err(at) => {
                self.compare_leaf(&leaf);
                self.compare_run(&leaf);
                self.element.leaves.insert(at, Held { what: leaf, doom });
                self.element.note_attributes((leaf.memory, leaf.shareability));
            }
        }
        true
    }

    /// Adds a table entry; returns its doom if there is something new to walk.
    fn add_table(&mut self, table: TableEntry, doom: u32) -> Option<u32> {
        match self.element.tables.binary_search_by(|held| held.what.cmp(&table)) {
            Ok(at) => {
                let before = self.element.tables[at].doom;
                let doom = self.either(before, doom);
                if doom != before {
                    self.element.tables[at].doom = doom;
                }
                let is_new = doom != before || std::mem::take(&mut self.is_linked);
                is_new.then_some(doom)
            }
            Err(at) if self.element.tables.len() < MOST_TABLES => {
                self.compare_table(&table);
                self.element.tables.insert(at, Held { what: table, doom });
                self.element.trails.retain(|trail| trail.table != table.next);
                Some(doom)
            }
            Err(_) => None,
        }
    }

    fn compare_leaf(&mut self, leaf: &Translation) {
        for old in overlapping(&self.element.leaves, leaf.va, leaf.last()) {
            if let Some(why) = self.exclusion.between(&old, leaf, self.memory) {
                self.find(HarmKind::Conflict, leaf.va.max(old.va), What::Leaves(why, old, *leaf));
            }
        }
        if !self.tables_at(leaf.level, leaf.va).is_empty() && self.excludes(leaf) {
            self.find(HarmKind::Conflict, leaf.va, What::Leaf("a table entry and a block", *leaf));
        }
    }

    /// Table entries that stand for addresses from `va` at `level`.
    fn tables_at(&self, level: i8, va: u64) -> &[Held<TableEntry>] {
        let tables = &self.element.tables;
        let first = tables.partition_point(|held| (held.what.level, held.what.va) < (level, va));
        let count = tables[first..].partition_point(|held| (held.what.level, held.what.va) == (level, va));
        &tables[first..first + count]
    }

    /// While two roots may be in force, only their leaves are compared: each has tables of its own.
    fn excludes(&self, block: &Translation) -> bool {
        self.element.values_of(Control::Ttbr0).all(|ttbr0| ttbr0 == self.element.controls.ttbr0)
            && self.exclusion.of_block_and_table(block)
    }

    fn compare_table(&mut self, table: &TableEntry) {
        let same_place = |held: &&Held<TableEntry>| held.what.slot == table.slot;
        if let Some(old) = self.tables_at(table.level, table.va).iter().find(same_place).map(|held| held.what) {
            self.find(HarmKind::Conflict, table.va, What::table("two entries of one table descriptor", &old));
        }
        let is_block = |leaf: &Translation| leaf.va == table.va && leaf.level == table.level;
        let blocks = overlapping(&self.element.leaves, table.va, table.va);
        if let Some(block) = blocks.into_iter().find(is_block)
            && self.excludes(&block)
        {
            self.find(HarmKind::Conflict, table.va, What::Leaf("a block and a table entry", block));
        }
    }

    /// The value of `slot` has changed.
    /// Returns whether it is now broken, if it is walked and this changed.
    pub(super) fn changed(&mut self, slot: u64, change: WordChange, storer: u32) -> Option<bool> {
        self.keep_by_physical_address(slot, change);
        if !self.element.walks() {
            return None;
        }
        self.lose(slot);
        let mut broken = None;
        for (context, regime) in &self.element.contexts_of(slot) {
            broken = self.changed_in(context, regime, slot, change, storer).or(broken);
        }
        broken
    }

    fn changed_in(
        &mut self,
        context: &TableUse,
        regime: &TableEncoding,
        slot: u64,
        change: WordChange,
        storer: u32,
    ) -> Option<bool> {
        let va = context.va_of(slot, regime)?;
        let faults = |value: u64| context.read(slot, va, regime.value(value), regime) == Read::Fault;
        let is_fault = faults(change.new);
        let was_fault = change.old.is_none_or(faults);
        self.element.suspect(va, va + (regime.format.span(context.level) - 1));
        if change.old.is_none() && self.permissions.has(Permission::ReadUnknown) {
            self.find(HarmKind::Unknown, va, What::Word("a walk may have read the word before anybody wrote it", slot));
        } else if is_fault {
            self.element.fault_views.retain(|view| view.slot != slot);
        } else if was_fault && self.permissions.has(Permission::SeeFaultUntilIsb) {
            let (level, shift) = (context.level, regime.format.shift(context.level));
            self.see_fault(FaultView { slot, level, va, shift, is_own: storer == self.element.pe });
        }
        self.is_linked = was_fault && !is_fault;
        if self.is_linked
            && context.level < 3
            && let Read::Table(table) = context.read(slot, va, regime.value(change.new), regime)
        {
            self.explore_lines(TableUse::below(&table, 0), regime, self.element.eyes().1);
        }
        self.derive_all(context, regime, slot);
        self.is_linked = false;
        if let Read::Leaf(leaf) = context.read(slot, va, regime.value(change.new), regime) {
            // What is held already may come after what is held as well: of rights the order counts, and contents may have changed meanwhile.
            self.compare_leaf(&leaf);
        }
        (is_fault != was_fault).then_some(is_fault)
    }

    /// Every value of `slot` that a walk through `context` may read.
    pub(super) fn derive_all(&mut self, context: &TableUse, regime: &TableEncoding, slot: u64) {
        let seen = self.element.seen_before(self.memory, context, regime);
        for visible in self.visible(slot, 8, &seen, regime) {
            self.derive(context, visible, regime, true);
        }
    }

    fn see_fault(&mut self, view: FaultView) {
        if let Err(at) = self.element.fault_views.binary_search(&view) {
            self.element.fault_views.insert(at, view);
        }
    }

    /// The descriptor that `slot` held stays in a cache indexed by its address.
    fn keep_by_physical_address(&mut self, slot: u64, change: WordChange) {
        let Some(regime) = self.element.regime().filter(|_| !self.element.walked.is_empty()) else { return };
        let page = regime.format.granule.page_bytes();
        let is_in = |held: &&Held<WalkedFrame>| slot.checked_sub(held.what.table).is_some_and(|offset| offset < page);
        let frames: Vec<_> = self.element.walked.iter().filter(is_in).copied().collect();
        let Some(doom) = frames.iter().map(|held| held.doom).reduce(|all, doom| all & doom) else { return };
        let means = |value: u64, frame: &Held<WalkedFrame>| {
            let descriptor = regime.format.decode(regime.value(value), frame.what.level);
            if regime.format.may_be_cached(descriptor) { descriptor } else { Descriptor::Invalid }
        };
        let same = |value: u64| frames.iter().all(|frame| means(value, frame) == means(change.new, frame));
        self.element.cached_words.retain(|held| held.what.slot != slot || !same(held.what.value));
        let Some(value) = change.old.filter(|value| !same(*value)) else { return };
        if frames.iter().all(|frame| means(value, frame) == Descriptor::Invalid) {
            return;
        }
        let (what, words) = (CachedWord { slot, value }, &mut self.element.cached_words);
        match words.binary_search_by_key(&what, |held| held.what) {
            Ok(at) => words[at].doom &= doom,
            Err(at) => words.insert(at, Held { what, doom }),
        }
    }
}

/// Entries of `leaves` that translate something in `first..=last`.
pub(super) fn overlapping(leaves: &[Held<Translation>], first: u64, last: u64) -> Vec<Translation> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(shift) = leaves.get(from).map(|held| held.what.shift) {
        let end = from + leaves[from..].partition_point(|held| held.what.shift == shift);
        let size = &leaves[from..end];
        let base = first >> shift << shift;
        let start = size.partition_point(|held| held.what.va < base);
        found.extend(size[start..].iter().take_while(|held| held.what.va <= last).map(|held| held.what));
        from = end;
    }
    found
}

// Contiguous runs: one descriptor may be taken for all of its run (RQTRPM), so that an inconsistent run translates as no descriptor
// of it says. Invalid descriptors may stand among set ones (IPGVGZ); they translate nothing.

/// Whether the run of which `leaf` is one translates as its descriptors say.
fn is_aligned(leaf: &Translation, regime: &TableEncoding) -> bool {
    let bytes = regime.format.run_entries(leaf.level) << leaf.shift;
    leaf.va % bytes == leaf.output % bytes
}

impl Walker<'_> {
    /// A leaf comes to be held: entries of one run that disagree translate, each for all of the run, as no descriptor says. Rights are no part
    /// of that while they are being changed entry by entry.
    pub(super) fn compare_run(&mut self, leaf: &Translation) {
        if !self.element.features.contiguous || !self.permissions.has(Permission::CacheContiguousRun) {
            return;
        }
        let Some(regime) = self.element.regime() else { return };
        if leaf.contiguous && !is_aligned(leaf, &regime) {
            self.find(HarmKind::Contiguous, leaf.va, "the output addresses of a contiguous run are not aligned to it");
        }
        let bytes = regime.format.run_entries(leaf.level) << leaf.shift;
        let first = leaf.va & !(bytes - 1);
        for other in overlapping(&self.element.leaves, first, first + (bytes - 1)) {
            let is_of_run = other.shift == leaf.shift && (leaf.contiguous || other.contiguous);
            if is_of_run && other.va != leaf.va && self.disagrees(leaf, &other) {
                let what = What::Leaves("a run may translate as no descriptor says", other, *leaf);
                self.find(HarmKind::Contiguous, other.va, what);
            }
        }
    }

    fn disagrees(&self, one: &Translation, other: &Translation) -> bool {
        let base = |leaf: &Translation| leaf.output.wrapping_sub(leaf.va);
        let attributes = |leaf: &Translation| (base(leaf), leaf.memory, leaf.shareability);
        // Setting or clearing the bit one by one is what BBM level 1 and 2 allow: judged when it is over.
        attributes(one) != attributes(other) || (one.contiguous != other.contiguous && self.exclusion.bbm < 1)
    }
}

/// Whether a held leaf that is current belongs to a run whose valid descriptors do not all say the same of bit and rights.
pub(super) fn is_mixed(element: &Element, memory: &Memory, leaf: &Translation, path: &Path) -> bool {
    let Some(regime) = element.regime() else { return false };
    let table = path.slot & !(regime.format.granule.page_bytes() - 1);
    let entries = regime.format.entries(leaf.level);
    let va = leaf.va & !((entries << leaf.shift) - 1);
    let context =
        TableUse { level: leaf.level, va, table, link: TableUse::ROOT, no_write: false, no_execute: false, doom: 0 };
    let said = |slot: u64, word: u64| {
        let va = context.va_of(slot, &regime)?;
        let Read::Leaf(leaf) = context.read(slot, va, regime.value(word), &regime) else { return None };
        Some((leaf.contiguous, leaf.writable, leaf.executable, leaf.guarded))
    };
    let bytes = (8 * regime.format.run_entries(leaf.level)).min(context.bytes(&regime));
    let first = table + (path.slot - table) / bytes * bytes;
    let mut of_run: Vec<_> = memory.words(first, bytes, |_| true).filter_map(|(slot, word)| said(slot, word)).collect();
    of_run.sort_unstable();
    of_run.dedup();
    of_run.len() > 1 && of_run.iter().any(|said| said.0)
}
