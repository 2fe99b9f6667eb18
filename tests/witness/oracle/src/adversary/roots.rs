//! Which controls may be in force, and where walks may begin under them.
//!
//! Why: until a context synchronisation a register has its old or its new value, each whatever the others have, and a walk may begin at a
//! root that was replaced until everything is invalidated.

use crate::descriptor::Format;
use crate::regime::{Control, Controls};

use super::element::{Element, TableEncoding, TableUse, WalkedFrame, route_of};
use super::entry::{Held, TableEntry};
use super::lines::Route;
use super::memory::Memory;

/// So many sets of controls are told apart.
const MOST_POSSIBLE: usize = 64;

/// A root, and how walks from there read and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Begun {
    pub(super) root: u64,
    pub(super) regime: TableEncoding,
    pub(super) way: Route,
}

impl Element {
    /// Every set of controls that may be in force, the newest first: nothing orders the registers among themselves.
    pub(super) fn possible_controls(&self) -> Vec<Controls> {
        let mut possible = vec![self.controls];
        for (control, value) in &self.older_controls {
            for at in 0..possible.len().min(MOST_POSSIBLE) {
                let mut other = possible[at];
                other.set(*control, *value);
                if !possible.contains(&other) {
                    possible.push(other);
                }
            }
        }
        possible
    }

    /// Values that `control` may have.
    pub(super) fn values_of(&self, control: Control) -> impl Iterator<Item = u64> {
        let older = self.older_controls.iter().filter(move |older| older.0 == control).map(|older| older.1);
        older.chain(std::iter::once(self.controls.get(control)))
    }

    /// Entries that come about may be used by other PEs: the roots and sizes of which.
    pub(super) fn shared_roots(&self) -> Vec<(u64, u64)> {
        let mut possible = if self.levels.is_el3() { Vec::new() } else { self.possible_controls() };
        possible.retain(|controls| controls.mmu_on() && controls.common_not_private());
        possible.iter().map(|controls| (controls.ttbr0, controls.tcr)).collect()
    }

    /// Whether it is not known if accesses are translated.
    pub(super) fn is_ambiguous(&self) -> bool {
        !self.levels.is_el3() && self.values_of(Control::Sctlr).any(|sctlr| sctlr & 1 != self.controls.sctlr & 1)
    }

    /// The roots that walks may begin from: those in force, and former ones.
    pub(super) fn roots(&self) -> Vec<(TableUse, TableEncoding)> {
        let mut roots = self.roots_in_force();
        if !self.former_roots.is_empty() && self.walks() {
            for regime in self.regimes() {
                let of = |held: &Held<WalkedFrame>| {
                    let WalkedFrame { table, level } = held.what;
                    (
                        TableUse {
                            level,
                            va: 0,
                            table,
                            link: TableUse::ROOT,
                            no_write: false,
                            no_execute: false,
                            doom: held.doom,
                        },
                        regime,
                    )
                };
                roots.extend(self.former_roots.iter().map(of));
            }
        }
        roots
    }

    /// Roots are in force, or no longer.
    pub(super) fn retire_roots(&mut self, before: &[(TableUse, TableEncoding)]) {
        let now = self.roots_in_force();
        for (root, _) in before.iter().filter(|(root, _)| !now.iter().any(|(other, _)| other.table == root.table)) {
            let what = WalkedFrame { table: root.table, level: root.level };
            if let Err(at) = self.former_roots.binary_search_by_key(&what, |held| held.what) {
                self.former_roots.insert(at, Held { what, doom: 0 });
            }
        }
        self.former_roots.retain(|held| !now.iter().any(|(root, _)| root.table == held.what.table));
    }

    /// From where, and how, walks may begin and read.
    pub(super) fn begun(&self) -> Vec<Begun> {
        let mut begun = Vec::new();
        let possible = if self.levels.is_el3() { Vec::new() } else { self.possible_controls() };
        for controls in possible.iter().filter(|controls| controls.mmu_on()) {
            let Some(regime) = TableEncoding::of(controls, &self.features) else { continue };
            let one = Begun { root: root_of(controls, &regime.format).table, regime, way: route_of(controls) };
            if !begun.contains(&one) {
                begun.push(one);
            }
        }
        begun
    }

    pub(super) fn roots_in_force(&self) -> Vec<(TableUse, TableEncoding)> {
        let mut roots: Vec<(TableUse, TableEncoding)> = Vec::new();
        if self.older_controls.is_empty() {
            let regime = self.regime().filter(|_| self.is_on());
            roots.extend(regime.map(|regime| (root_of(&self.controls, &regime.format), regime)));
            return roots;
        }
        let possible = if self.levels.is_el3() { Vec::new() } else { self.possible_controls() };
        for controls in possible.iter().filter(|controls| controls.mmu_on()) {
            let Some(regime) = TableEncoding::of(controls, &self.features) else { continue };
            let root = root_of(controls, &regime.format);
            if !roots.iter().any(|other| other.0.table == root.table && other.1 == regime) {
                roots.push((root, regime));
            }
        }
        roots
    }

    /// How walks may read descriptors below the root.
    pub(super) fn regimes(&self) -> Vec<TableEncoding> {
        if self.older_controls.is_empty() {
            return self.regime().into_iter().collect();
        }
        let mut regimes: Vec<TableEncoding> = Vec::new();
        for (_, regime) in self.roots_in_force() {
            if !regimes.contains(&regime) {
                regimes.push(regime);
            }
        }
        regimes
    }

    /// The stores that whoever walks to `context` has seen, where one way alone leads there.
    pub(super) fn seen_before(&self, memory: &Memory, context: &TableUse, regime: &TableEncoding) -> Vec<(u32, u8)> {
        let (mut seen, mut at) = (Vec::new(), *context);
        while memory.has_ordered() && at.link != TableUse::ROOT {
            seen.extend(at.came(memory, regime));
            let above = |held: &&Held<TableEntry>| {
                let table = TableUse::below(&held.what, 0);
                table.level == at.level - 1 && table.va_of(at.link, regime).is_some()
            };
            let mut ways = self.tables.iter().filter(above);
            match (ways.next(), ways.next()) {
                (Some(way), None) => at = TableUse::below(&way.what, 0),
                _ => break,
            }
        }
        seen
    }

    /// The tables that `slot` stands in.
    pub(super) fn contexts_of(&self, slot: u64) -> Vec<(TableUse, TableEncoding)> {
        let mut contexts = self.roots();
        contexts.retain(|(context, regime)| context.va_of(slot, regime).is_some());
        for regime in self.regimes() {
            for held in self.tables.iter().filter(|held| held.what.next <= slot) {
                let context = TableUse::below(&held.what, held.doom);
                if context.level <= 3 && context.va_of(slot, &regime).is_some() {
                    contexts.push((context, regime));
                }
            }
        }
        contexts
    }
}

pub(super) fn root_of(controls: &Controls, format: &Format) -> TableUse {
    let table = controls.root(format);
    TableUse {
        level: format.start_level,
        va: 0,
        table,
        link: TableUse::ROOT,
        no_write: false,
        no_execute: false,
        doom: 0,
    }
}
