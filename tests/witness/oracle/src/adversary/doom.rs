//! What a TLBI that is being issued will remove from one PE: what it names, but for what walks bring back.

use super::class::{FORGOTTEN, ISSUED, Scope};
use super::element::{TableEncoding, TableUse, WalkedFrame};
use super::entry::Held;
use super::walk::Walker;

impl Walker<'_> {
    /// A TLBI with `scope` is issued, and reaches this PE. TLBIs take effect in any order before their DSB: what is doomed is what no walk
    /// brings back without anything that this one removes, whatever the others will.
    pub(super) fn doom(&mut self, bit: u32, scope: &Scope, is_own: bool) {
        // Any TLBI of the regime clears what is cached by physical address.
        for held in &mut self.element.cached_words {
            held.doom |= ISSUED;
        }
        for held in self.element.leaves.iter_mut().filter(|held| scope.names_leaf(&held.what)) {
            held.doom |= ISSUED;
        }
        if self.element.tables.iter().any(|held| scope.names_table(&held.what)) {
            let named = self.element.tables.iter_mut().filter(|held| scope.names_table(&held.what));
            named.for_each(|held| held.doom |= ISSUED);
        }
        if scope.is_everything() {
            self.doom_controls(ISSUED, is_own);
            self.element.former_roots.iter_mut().for_each(|held| held.doom |= ISSUED);
        }
        self.bring_back(ISSUED, scope);
        self.bring_back_words();
        self.doom_walked(ISSUED);
        self.element.name_issued(bit);
    }

    /// What memory may still be read as is cached by its address again, if a walk gets there.
    fn bring_back_words(&mut self) {
        if !self.element.walks() {
            return;
        }
        for at in 0..self.element.cached_words.len() {
            let word = self.element.cached_words[at].what;
            let mut older = self.memory.older(word.slot, 8);
            let is_seen =
                older.any(|(_, older)| older.is_seen_by(self.element.eyes()) && older.value == Some(word.value));
            let is_walked =
                || self.element.contexts_of(word.slot).iter().any(|(context, _)| context.doom & ISSUED == 0);
            if is_seen && is_walked() {
                self.element.cached_words[at].doom &= !ISSUED;
            }
        }
    }

    fn doom_controls(&mut self, bit: u32, is_own: bool) {
        let element = &mut *self.element;
        if let Some(garbage) = element.garbage.as_mut().filter(|_| is_own) {
            *garbage |= bit;
        }
        let older = if element.older_controls.is_empty() { Vec::new() } else { element.possible_controls() };
        let older = older.get(1..).unwrap_or_default();
        let unknown = element.older_controls.iter().filter(|(control, value)| element.controls.get(*control) == *value);
        let unknown = unknown.fold(0, |all, (control, _)| all | 1 << *control as u8);
        for held in &mut element.cached_controls {
            let was_unknown = held.what.unknown() & unknown != 0;
            if !was_unknown && !older.iter().any(|controls| held.what.is_of(controls)) {
                held.doom |= bit;
            }
        }
    }

    /// Hardware that lacks a permission to cache holds only what memory says.
    pub(super) fn forget(&mut self, leaves: bool, tables: bool) {
        let everything = Scope { first: 0, last: u64::MAX, level: None, leaves_only: false };
        if leaves {
            self.element.leaves.iter_mut().for_each(|held| held.doom |= FORGOTTEN);
        }
        if tables {
            self.element.tables.iter_mut().for_each(|held| held.doom |= FORGOTTEN);
        }
        self.bring_back(FORGOTTEN, &everything);
        self.element.leaves.retain(|held| held.doom & FORGOTTEN == 0);
        self.element.tables.retain(|held| held.doom & FORGOTTEN == 0);
    }

    /// What walks can still derive is not doomed.
    fn bring_back(&mut self, bit: u32, scope: &Scope) {
        if !self.element.walks() {
            return;
        }
        for (root, regime) in self.element.roots() {
            if root.doom & bit == 0 {
                self.bring_back_in(&root, &regime, scope);
            }
        }
        for regime in self.element.regimes() {
            self.bring_back_below(bit, scope, &regime);
        }
    }

    fn bring_back_below(&mut self, bit: u32, scope: &Scope, regime: &TableEncoding) {
        // Sorted by level: what a table leads to is decided before it is walked.
        let mut at = 0;
        while let Some(Held { what: table, doom }) = self.element.tables.get(at).copied() {
            let overlaps = table.va <= scope.last && scope.first <= table.last();
            if doom & bit == 0 && overlaps && table.level < 3 {
                self.bring_back_in(&TableUse::below(&table, doom), regime, scope);
            }
            at += 1;
        }
    }

    fn bring_back_in(&mut self, context: &TableUse, regime: &TableEncoding, scope: &Scope) {
        let shift = regime.format.shift(context.level);
        let entries = regime.format.entries(context.level);
        let first = scope.first.saturating_sub(context.va) >> shift;
        let last = (scope.last.saturating_sub(context.va) >> shift).min(entries - 1);
        if scope.last < context.va || first > last {
            return;
        }
        let seen = self.element.seen_before(self.memory, context, regime);
        for visible in self.visible(context.table + 8 * first, 8 * (last - first + 1), &seen, regime) {
            self.derive(context, visible, regime, false);
        }
    }

    fn doom_walked(&mut self, bit: u32) {
        let element = &*self.element;
        let roots = element.roots();
        let is_lost = |held: &Held<WalkedFrame>| {
            let by_root = roots.iter().any(|(root, _)| root.table == held.what.table && root.doom & bit == 0);
            let mut tables = element.tables.iter();
            let mut by_table = || tables.any(|table| table.what.next == held.what.table && table.doom & bit == 0);
            !(by_root || (element.walks() && by_table()))
        };
        let lost: Vec<usize> = (0..element.walked.len()).filter(|at| is_lost(&element.walked[*at])).collect();
        lost.into_iter().for_each(|at| self.element.walked[at].doom |= bit);
    }
}
