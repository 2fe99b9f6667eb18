//! The points at which nothing may be owed: what is held there must be what memory says.

use super::element::{Element, FaultView, TableUse};
use super::entry::Translation;
use super::harm::What;
use super::memory::Memory;
use super::path::{Ending, Path, Read};
use super::permission::Permission;
use super::walk::{MOST_TABLES, is_mixed, overlapping};
use super::{Adversary, HarmKind};

type OwedHarm = (HarmKind, Option<u64>, What);

impl Adversary {
    /// `settled` by `at`: nothing is owed on the machine.
    pub(super) fn judge_settled(&mut self, at: usize) {
        self.judge_held();
        self.judge_own(at);
    }

    /// The end of a run: nothing is owed, by anybody.
    pub(super) fn judge_end(&mut self) {
        self.activate();
        self.judge_held();
        for at in 0..self.elements.len() {
            if self.elements[at].walks() {
                self.judge_own(at);
            }
            if !self.elements[at].unfinished.is_empty() {
                self.harm(at, HarmKind::Unfinished, None, "a TLBI is not completed at the end");
            }
        }
        self.judge_aliases();
    }

    /// What any PE that walks may hold.
    fn judge_held(&mut self) {
        for at in 0..self.elements.len() {
            if !self.elements[at].walks() {
                continue;
            }
            let mut debts = Vec::new();
            stale_leaves(&self.elements[at], &self.memory, &mut debts);
            stale_tables(&self.elements[at], &self.memory, &mut debts);
            if debts.is_empty() && self.elements[at].suspects_many() {
                self.elements[at].suspects.0.clear();
            }
            if let Some(root) = self.elements[at].former_roots.first().map(|held| held.what.table) {
                debts.push((HarmKind::Stale, None, What::Word("walks may begin at a root that was replaced", root)));
            }
            if !self.memory.is_settled() {
                self.pending_stores(at, &mut debts);
            }
            if !self.elements[at].cached_controls.is_empty() {
                debts.push((
                    HarmKind::Controls,
                    None,
                    "a TLB may hold other control values than those in force".into(),
                ));
            }
            for (kind, va, what) in debts {
                self.harm(at, kind, va, what);
            }
        }
    }

    /// Older values that walks may still see in place of what tables now say.
    fn pending_stores(&self, at: usize, debts: &mut Vec<OwedHarm>) {
        let element = &self.elements[at];
        for (slot, older) in self.memory.older(0, u64::MAX).filter(|(_, older)| older.is_seen_by(element.eyes())) {
            for (context, regime) in element.contexts_of(slot) {
                let Some(va) = context.va_of(slot, &regime) else { continue };
                let seen = element.seen_before(&self.memory, &context, &regime);
                if !self.memory.older_after((slot, 8), element.eyes(), &seen).any(|(_, other)| other == older) {
                    continue;
                }
                let read = |word: Option<u64>| word.map(|word| context.read(slot, va, regime.value(word), &regime));
                if read(older.value) != read(self.memory.get(slot)) {
                    debts.push((HarmKind::PendingStore, Some(va), What::Word("walks may not see the store yet", slot)));
                }
            }
        }
    }

    /// What only the PE itself can settle.
    fn judge_own(&mut self, at: usize) {
        let element = &self.elements[at];
        let latent = element.latent.iter().find(|latent| latent.by_accesses).map(|latent| latent.what);
        // What is invalid again is not filled.
        let is_filled = |view: &&FaultView| {
            let word = self.memory.get(view.slot).zip(element.regime());
            word.is_some_and(|(word, regime)| !regime.faults(word, view.level))
        };
        let view = element.fault_views.iter().filter(|view| view.is_own).find(is_filled).copied();
        let is_settling = element.is_settling && element.is_on();
        // Where nothing is translated nothing is in force: turning the MMU on asks for the synchronisation.
        if !element.older_controls.is_empty() && element.walks() {
            self.harm(at, HarmKind::Controls, None, "a control write is not synchronised");
        }
        if let Some(latent) = latent {
            let what = What::Leaf("later accesses of this PE may use it until its ISB", latent);
            self.harm(at, HarmKind::Latent, Some(latent.va), what);
        }
        if self.elements[at].is_completing && latent.is_none() {
            self.harm(at, HarmKind::Latent, None, "walks of this PE may use an invalidated table entry until its ISB");
        }
        if let Some(view) = view {
            let what = What::Word("the PE that filled it may take the fault until its DSB and ISB", view.slot);
            self.harm(at, HarmKind::Faulting, Some(view.va), what);
        }
        if is_settling {
            self.harm(at, HarmKind::Controls, None, "no ISB follows the invalidation of cached control values");
        }
    }

    /// Bytes change hands: nothing stale leads into them, no walk goes through them.
    pub(super) fn judge_frames(&mut self, at: usize, pa: u64, bytes: u64) {
        let last = pa.saturating_add(bytes.saturating_sub(1));
        for target in 0..self.elements.len() {
            let element = &self.elements[target];
            if let Some((va, what)) = leads_into(element, &self.memory, pa, last) {
                self.harm(at, HarmKind::Frame, va, what);
            }
        }
    }

    /// After boot no byte is writable through one address and executable through another.
    fn judge_aliases(&mut self) {
        if !self.permissions.has(Permission::ExecuteWritten) {
            return;
        }
        let mut written: Vec<Translation> = Vec::new();
        let mut executed: Vec<(usize, Translation)> = Vec::new();
        for (at, element) in self.elements.iter().enumerate().filter(|(_, element)| element.is_on()) {
            for leaf in
                element.leaves.iter().map(|held| held.what).filter(|leaf| is_current(element, &self.memory, leaf))
            {
                if leaf.writable {
                    written.push(leaf);
                }
                if leaf.executable {
                    executed.push((at, leaf));
                }
            }
        }
        for (at, leaf) in executed {
            let last = leaf.output + (leaf.bytes() - 1);
            if let Some(other) = written.iter().find(|other| other.leads_into(leaf.output, last)) {
                let what = What::Leaves("written through one address and executed through another", *other, leaf);
                self.harm(at, HarmKind::WriteExecute, Some(leaf.va), what);
            }
        }
    }
}

fn is_current(element: &Element, memory: &Memory, leaf: &Translation) -> bool {
    Path::of(element, memory, leaf.va).is_some_and(|path| path.says(leaf))
}

fn stale_leaves(element: &Element, memory: &Memory, debts: &mut Vec<OwedHarm>) {
    for (first, last) in element.suspects.0.iter() {
        for leaf in overlapping(&element.leaves, *first, *last) {
            match Path::of(element, memory, leaf.va) {
                Some(path) if path.ending == Ending::Unknown => {}
                Some(path) if path.says(&leaf) => {
                    if element.features.contiguous && is_mixed(element, memory, &leaf, &path) {
                        let what = What::Text("a contiguous run has valid descriptors that differ in bit or rights");
                        debts.push((HarmKind::Contiguous, Some(leaf.va), what));
                    }
                }
                _ => debts.push((
                    HarmKind::Stale,
                    Some(leaf.va),
                    What::Leaf("a TLB may hold what memory does not say", leaf),
                )),
            }
        }
    }
}

fn stale_tables(element: &Element, memory: &Memory, debts: &mut Vec<OwedHarm>) {
    for table in element.tables.iter().map(|held| held.what) {
        let is_suspect = element.suspects.0.iter().any(|(first, last)| table.va <= *last && *first <= table.last());
        if is_suspect && !Path::of(element, memory, table.va).is_some_and(|path| path.holds_table(&table)) {
            let what = What::table("a walk cache may hold what memory does not say", &table);
            debts.push((HarmKind::Stale, Some(table.va), what));
        }
    }
    for word in element.cached_words.iter().map(|held| held.what) {
        let what = What::Word("an older descriptor may be cached by its address", word.slot);
        debts.push((HarmKind::Stale, None, what));
    }
}

/// The former roots that accesses may use until the ISB, and the tables that they lead to.
fn latent_tables(element: &Element, memory: &Memory) -> Vec<u64> {
    let Some(regime) = element.regime() else { return Vec::new() };
    let level = regime.format.start_level;
    let root = |table: &u64| TableUse {
        level,
        va: 0,
        table: *table,
        link: TableUse::ROOT,
        no_write: false,
        no_execute: false,
        doom: 0,
    };
    let mut tables: Vec<TableUse> = element.latent_roots.iter().map(root).collect();
    let mut at = 0;
    while let Some(context) = tables.get(at).copied().filter(|_| at < MOST_TABLES) {
        for (slot, word) in memory.words(context.table, context.bytes(&regime), |_| true) {
            let Some(va) = context.va_of(slot, &regime) else { continue };
            if let Read::Table(table) = context.read(slot, va, regime.value(word), &regime)
                && table.level < 3
            {
                tables.push(TableUse::below(&table, 0));
            }
        }
        at += 1;
    }
    tables.into_iter().map(|context| context.table).collect()
}

/// What of `element` has to do with the bytes `first..=last`.
fn leads_into(element: &Element, memory: &Memory, first: u64, last: u64) -> Option<(Option<u64>, What)> {
    let mut leaves = element.leaves.iter().map(|held| held.what);
    let stale = |leaf: &Translation| leaf.leads_into(first, last) && !is_current(element, memory, leaf);
    if let Some(leaf) = leaves.find(stale) {
        return Some((Some(leaf.va), What::Leaf("a stale entry that leads to the frame may be held", leaf)));
    }
    let page = element.regime().map_or(4096, |regime| regime.format.granule.page_bytes());
    let within = |table: u64| table <= last && first <= table.saturating_add(page - 1);
    if let Some(table) = element.tables.iter().map(|held| held.what).find(|table| within(table.next)) {
        return Some((Some(table.va), What::table("the frame is a table that may be walked", &table)));
    }
    if let Some(trail) = element.trails.iter().find(|trail| within(trail.table)) {
        let what = What::Word("the frame is a table of a walk that a stale entry comes from", trail.table);
        return Some((Some(trail.va), what));
    }
    if let Some((root, _)) = element.roots().iter().find(|(root, _)| within(root.table)) {
        return Some((Some(root.va), What::Word("the frame is a root that walks begin at", root.table)));
    }
    if let Some(table) = latent_tables(element, memory).into_iter().find(|table| within(*table)) {
        return Some((
            None,
            What::Word("the frame is a table of a former root that accesses may use until the ISB", table),
        ));
    }
    let walked = element.walked.iter().find(|held| within(held.what.table));
    if let Some(frame) = walked {
        return Some((
            None,
            What::Word("descriptors of the former table may be cached by their address", frame.what.table),
        ));
    }
    let leads = |value: u64| {
        let regime = element.regime()?;
        let (root, _) = element.roots().first().copied()?;
        (regime.format.start_level..=3).find(|level| {
            let context = TableUse { level: *level, ..root };
            match context.read(0, 0, regime.value(value), &regime) {
                Read::Leaf(leaf) => leaf.leads_into(first, last),
                Read::Table(table) => within(table.next),
                Read::Fault => false,
            }
        })
    };
    let word = element.cached_words.iter().map(|held| held.what).find(|word| leads(word.value).is_some())?;
    Some((None, What::Word("an older descriptor that leads to the frame may be cached", word.slot)))
}
