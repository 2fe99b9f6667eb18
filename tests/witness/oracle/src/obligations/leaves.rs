//! What holds for every leaf in force, at every instruction.

use std::sync::Arc;

use breakwater_trace::MemoryKind;

use super::cause::{At, Lack, Remedy};
use super::context::{Context, MOST_SLOTS, PlacedWord, Regime, Subtree, TableUse};
use super::fast::FastMap;
use super::holder::bit;
use super::report::UnplacedViolation;
use super::{Obligations, Rule};
use crate::descriptor::{Descriptor, Format, Leaf};
use crate::regime::{Control, MemoryType};

/// What a trace says physical memory is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Ranges {
    ram: Vec<(u64, u64)>,
    flash: Vec<Flash>,
    no_map: Vec<(u64, u64)>,
}

/// One part of flash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Flash {
    start: u64,
    end_exclusive: u64,
    /// It had a store: a command that may program or erase any block of it, or have loads return its status.
    is_commanded: bool,
}

impl Ranges {
    pub(super) fn add(&mut self, start: u64, end_exclusive: u64, kind: MemoryKind) {
        match kind {
            MemoryKind::Ram => self.ram.push((start, end_exclusive)),
            MemoryKind::Flash => self.flash.push(Flash { start, end_exclusive, is_commanded: false }),
            MemoryKind::NoMap => self.no_map.push((start, end_exclusive)),
        }
        self.ram.sort_unstable();
        self.flash.sort_unstable_by_key(|flash| flash.start);
    }

    /// Whether `pa` is flash, where a store writes nothing that anybody knows.
    pub(super) fn is_flash(&self, pa: u64) -> bool {
        self.flash.iter().any(|flash| (flash.start..flash.end_exclusive).contains(&pa))
    }

    /// A store to flash: the part's first and last byte, if this is the first store to it.
    pub(super) fn command(&mut self, pa: u64) -> Option<(u64, u64)> {
        let part = self.flash.iter_mut().find(|flash| (flash.start..flash.end_exclusive).contains(&pa))?;
        let is_first = !std::mem::replace(&mut part.is_commanded, true);
        is_first.then_some((part.start, part.end_exclusive - 1))
    }

    /// Whether the byte at `pa` is said to be RAM.
    fn is_ram(&self, pa: u64) -> bool {
        self.ram.iter().any(|(start, end)| (*start..*end).contains(&pa))
    }

    /// The first byte from `first` to `last` that may not be mapped as Normal memory.
    fn beyond(&self, first: u64, last: u64) -> Option<u64> {
        let forbidden = self.no_map.iter().find(|(start, end)| *start <= last && first < *end);
        if let Some((start, _)) = forbidden {
            return Some(first.max(*start));
        }
        if self.ram.is_empty() {
            return None;
        }
        let mut next = first;
        let flash = self.flash.iter().map(|flash| (flash.start, flash.end_exclusive));
        let mut mappable: Vec<(u64, u64)> = self.ram.iter().copied().chain(flash).collect();
        mappable.sort_unstable();
        for (start, end) in mappable {
            if start <= next && next < end {
                next = end;
            }
        }
        (next <= last).then_some(next)
    }
}

/// Type and shareability as a small number.
type TypeClass = u8;

/// How often frames are mapped, by size, type and shareability.
#[derive(Clone, Debug, Default)]
pub(super) struct Outputs {
    classes: Vec<(MemoryType, u8)>,
    /// By log2 of the size, number of the frame and class: leaves of that size, and smaller ones inside.
    counts: FastMap<(u8, u64, TypeClass), (u32, u32)>,
    /// Contiguous runs, by table and first entry, that were not uniform when last looked at.
    unsettled: Vec<(TableUse, u64)>,
}

/// Sizes of blocks that the granules have, as log2, the smallest first.
fn sizes(regime: &Regime) -> impl Iterator<Item = u8> + use<> {
    let format = regime.format;
    (0..=3).rev().filter(move |level| *level == 3 || format.has_blocks(*level)).map(move |level| format.shift(level))
}

impl Outputs {
    fn class(&mut self, leaf: Leaf, regime: &Regime) -> Option<TypeClass> {
        let class = (MemoryType::of(regime.mair, leaf.attr_index), leaf.shareability);
        match self.classes.iter().position(|known| *known == class) {
            Some(index) => Some(index as TypeClass),
            None if self.classes.len() < 200 => {
                self.classes.push(class);
                Some((self.classes.len() - 1) as TypeClass)
            }
            None => None,
        }
    }

    fn adjust(&mut self, slot: &PlacedWord, leaf: Leaf, regime: &Regime, change: impl Fn(u32) -> u32) {
        let Some(class) = self.class(leaf, regime) else { return };
        let own = regime.format.shift(slot.level);
        for size in sizes(regime).filter(|size| *size >= own) {
            let key = (size, leaf.output >> size, class);
            let counts = self.counts.entry(key).or_default();
            let count = if size == own { &mut counts.0 } else { &mut counts.1 };
            *count = change(*count);
            if *counts == (0, 0) {
                self.counts.remove(&key);
            }
        }
    }

    fn unsettled(&mut self, place: &TableUse, start: u64) {
        if self.unsettled.len() < 4096 && !self.unsettled.contains(&(*place, start)) {
            self.unsettled.push((*place, start));
        }
    }

    /// A leaf goes.
    pub(super) fn remove(&mut self, slot: &PlacedWord, regime: &Regime) {
        if let Descriptor::Leaf(leaf) = slot.said {
            self.adjust(slot, leaf, regime, |count| count.saturating_sub(1));
        }
    }

    /// A leaf comes; returns true if its frame, or a part of it, is mapped with another type or shareability.
    fn add(&mut self, slot: &PlacedWord, leaf: Leaf, regime: &Regime) -> bool {
        self.adjust(slot, leaf, regime, |count| count.saturating_add(1));
        let Some(own_class) = self.class(leaf, regime) else { return false };
        let own = regime.format.shift(slot.level);
        let others = (0..self.classes.len() as TypeClass).filter(|class| *class != own_class);
        others.into_iter().any(|class| {
            sizes(regime).filter(|size| *size >= own).any(|size| {
                let (equal, smaller) =
                    self.counts.get(&(size, leaf.output >> size, class)).copied().unwrap_or_default();
                equal != 0 || (size == own && smaller != 0)
            })
        })
    }
}

impl Obligations {
    /// Judges a leaf that comes into force.
    pub(super) fn judge_leaf(&mut self, context: usize, slot: &PlacedWord, leaf: Leaf) {
        let Context { regime, unmeant, .. } = self.contexts[context];
        let memory_type = MemoryType::of(regime.mair, leaf.attr_index);
        let by = self.memory.writer(slot.pa).unwrap_or(self.report.at);
        let unmeant = unmeant.0;
        let finding = |rule| {
            let finding = UnplacedViolation::of(rule).va(slot.va).pa(leaf.output).by(by);
            finding.now(slot.word).read_as(slot.level, regime.format).unmeant(unmeant)
        };
        if leaf.executable && leaf.writable {
            self.report.add(finding(Rule::WriteExecute), || "XN, or AP[2] and no DBM, in the descriptor".into());
        }
        let is_reserved = MemoryType::is_reserved(regime.mair, leaf.attr_index);
        if is_reserved {
            let missing = || format!("an encoding that has a meaning, at index {} of MAIR_EL2", leaf.attr_index);
            self.report.add(self.of_types(context, finding(Rule::TypeReserved)), missing);
        }
        if leaf.executable && memory_type.is_device() && !is_reserved {
            // RAM is executed from: there it is the type that is wrong.
            let (finding, is_ram) = (finding(Rule::DeviceExecute), self.ranges.is_ram(leaf.output));
            let finding = if is_ram { self.of_types(context, finding) } else { finding };
            let index = leaf.attr_index;
            self.report.add(finding, || match is_ram {
                true => format!("a Normal type at index {index} of MAIR_EL2, or another index in the descriptor"),
                false => "XN in the descriptor".into(),
            });
        }
        let last = leaf.output.saturating_add(regime.format.span(slot.level) - 1);
        if !memory_type.is_device()
            && !is_reserved
            && let Some(byte) = self.ranges.beyond(leaf.output, last)
        {
            self.report.add(finding(Rule::BeyondRam), || format!("RAM that may be mapped, at {byte:x}"));
        }
        if Arc::make_mut(&mut self.outputs).add(slot, leaf, &regime) {
            let missing =
                || "invalidation of the frame's other mapping, of another type or shareability, before".into();
            let unmeant = self.contexts.iter().find_map(|context| context.unmeant.0);
            let finding = match self.types_written(context) {
                Some(write) => finding(Rule::MismatchedAttributes).by(write).mend(Remedy::before(Lack::Break, write)),
                None => finding(Rule::MismatchedAttributes),
            };
            self.report.add(finding.unmeant(unmeant), missing);
        }
    }

    /// `finding` is about what MAIR_EL2 holds: it comes from the register's last write by a PE that walks `context`.
    fn of_types(&self, context: usize, finding: UnplacedViolation) -> UnplacedViolation {
        let Context { walkers, unmeant, .. } = self.contexts[context];
        if unmeant.0.is_some() {
            return finding;
        }
        let walker = (0..self.pes.len() as u32).find(|pe| walkers & bit(*pe) != 0);
        match walker.and_then(|pe| self.pes[pe as usize].wrote(Control::Mair)) {
            Some(write) => finding.by(write).about("MAIR_EL2"),
            // What it holds since reset nobody knows.
            None => finding.mend(Remedy::at(Lack::Own(Rule::ControlUnknown), self.report.at)),
        }
    }

    /// The write of MAIR_EL2 that makes what `context` says another type, where its root is still cached as it was.
    fn types_written(&self, context: usize) -> Option<At> {
        let Context { regime, walkers, .. } = self.contexts[context];
        let is_before = |other: &Context| other.regime.root == regime.root && other.regime.mair != regime.mair;
        self.contexts.iter().find(|other| other.in_use() && is_before(other))?;
        let walker = (0..self.pes.len() as u32).find(|pe| walkers & bit(*pe) != 0)?;
        self.pes[walker as usize].wrote(Control::Mair).filter(|write| *write == self.report.at)
    }

    /// IPGVGZ, RQTRPM: the run around `slot` after a store to it.
    pub(super) fn judge_run(&mut self, place: &TableUse, slot: &PlacedWord) {
        let Context { regime: Regime { format, .. }, weakest, .. } = self.contexts[place.context];
        let Descriptor::Leaf(leaf) = slot.said else { return };
        if !weakest.contiguous {
            return;
        }
        let run = format.run_entries(slot.level);
        let index = (slot.pa - place.base) / 8;
        let (start, span) = (index & !(run - 1), format.span(slot.level));
        for entry in start..(start + run).min(place.entries) {
            let word = self.memory.read(place.base + 8 * entry).unwrap_or(0);
            let other = place.slot(entry, word, &format);
            let Descriptor::Leaf(beside) = other.said else { continue };
            if !leaf.contiguous && !beside.contiguous {
                continue;
            }
            let first = leaf.output.wrapping_sub((index - start) * span);
            let expected = Leaf { output: first.wrapping_add((entry - start) * span), ..leaf };
            let alike =
                |leaf: Leaf| Leaf { writable: false, executable: false, guarded: false, accessed: false, ..leaf };
            // From level 1 on the bit may change entry by entry; rights may at any level, and so may nT.
            let bit = if weakest.bbm > 0 { leaf.contiguous } else { beside.contiguous };
            if beside != expected && alike(Leaf { contiguous: bit, ..beside }) == alike(expected) {
                Arc::make_mut(&mut self.outputs).unsettled(place, start);
            } else if beside != expected || first & (run * span - 1) != 0 {
                let by = self.memory.writer(slot.pa).unwrap_or(self.report.at);
                let finding = UnplacedViolation::of(Rule::RunMisprogrammed).va(slot.va).pa(slot.pa).by(by);
                let finding = finding.old(word).now(slot.word);
                let finding = finding.read_as(slot.level, format);
                let missing = || format!("an invalid entry at VA {:x}, or one of the same run", other.va);
                self.report.add(finding, missing);
                return;
            }
        }
    }

    /// Runs whose entries were changed one by one agree when nothing is owed.
    pub(super) fn judge_runs_at_rest(&mut self) {
        if self.outputs.unsettled.is_empty() {
            return;
        }
        let mut runs = self.outputs.unsettled.clone();
        runs.retain(|(place, start)| {
            if !self.frames.at(place.base).contains(place) {
                return false;
            }
            let Some(context) = self.contexts.get(place.context) else { return false };
            let format = context.regime.format;
            let last = (start + format.run_entries(place.level)).min(place.entries);
            let slots = (*start..last)
                .map(|entry| place.slot(entry, self.memory.read(place.base + 8 * entry).unwrap_or(0), &format));
            let mut leaves = slots.filter_map(|slot| match slot.said {
                Descriptor::Leaf(leaf) => Some((slot, Leaf { output: 0, accessed: true, ..leaf })),
                _ => None,
            });
            let Some((_, first)) = leaves.next() else { return false };
            let Some((slot, _)) = leaves.find(|(_, leaf)| *leaf != first) else { return false };
            if first.contiguous || matches!(slot.said, Descriptor::Leaf(leaf) if leaf.contiguous) {
                // The store to the run that came last left it so.
                let by = (*start..last).filter_map(|entry| self.memory.writer(place.base + 8 * entry));
                let by = by.max_by_key(|at| at.line).unwrap_or(context.begun.0);
                let finding =
                    UnplacedViolation::of(Rule::RunMisprogrammed).va(slot.va).pa(slot.pa).by(by).now(slot.word);
                let missing = || "the same bit and rights in each valid entry of the run".into();
                self.report.add(finding.read_as(slot.level, format), missing);
                return true;
            }
            false
        });
        Arc::make_mut(&mut self.outputs).unsettled = runs;
    }

    /// After boot: no page writable through one address and executable through another.
    pub(super) fn judge_aliases(&mut self) {
        let mut left = 8 * MOST_SLOTS;
        let begun = self.contexts.iter().filter(|context| context.walkers & self.walking != 0);
        let begun = begun.map(|context| context.begun.0).max_by_key(|at| at.line).unwrap_or_default();
        let mut executable: Vec<(u64, u64, PlacedWord, Format)> = Vec::new();
        let mut writable: Vec<(u64, u64, PlacedWord, Format)> = Vec::new();
        for index in 0..self.contexts.len() {
            let Context { regime, walkers, .. } = self.contexts[index];
            if walkers & self.walking == 0 {
                continue;
            }
            for slot in Subtree::of(&self.memory, TableUse::root(index, &regime), &regime.format, &mut left).slots {
                let (_, slot) = slot;
                let Descriptor::Leaf(leaf) = slot.said else { continue };
                let last = leaf.output.saturating_add(regime.format.span(slot.level) - 1);
                if leaf.executable {
                    executable.push((leaf.output, last, slot, regime.format));
                } else if leaf.writable {
                    writable.push((leaf.output, last, slot, regime.format));
                }
            }
        }
        // Ends do not nest in order, so the greatest end so far decides whether anything before can meet.
        writable.sort_unstable_by_key(|(first, last, ..)| (*first, *last));
        let mut greatest = 0;
        let ends: Vec<u64> = writable
            .iter()
            .map(|(_, last, ..)| {
                greatest = greatest.max(*last);
                greatest
            })
            .collect();
        for (first, last, slot, format) in executable {
            let from = ends.partition_point(|end| *end < first);
            let met =
                writable[from..].iter().take_while(|(start, ..)| *start <= last).find(|(_, end, ..)| *end >= first);
            if let Some((start, _, other, other_format)) = met {
                let writers = [slot.pa, other.pa].into_iter().filter_map(|pa| self.memory.writer(pa));
                let by = writers.max_by_key(|at| at.line).unwrap_or(begun);
                let finding = UnplacedViolation::of(Rule::WriteExecuteAlias).va(slot.va).pa(first.max(*start)).by(by);
                let finding = finding.old(other.word).now(slot.word).read_as(slot.level, format);
                let finding = finding.old_read_as(other.level, *other_format);
                self.report.add(finding, || format!("removal of the writable mapping at VA {:x}", other.va));
            }
        }
    }
}
