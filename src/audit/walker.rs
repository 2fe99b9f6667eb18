//! Reads every slot of every table, and notes runs of leaves: what is alike is compared, and judged once.

use super::bits::{self, Seen};
use super::{Audit, Finding, Memory, Position, Scratch};
use crate::addr::{Frame, Level, PAGE_BYTES, PhysAddr, PhysSpan, SLOTS, VirtAddr, VirtSpan};
use crate::walk::ReadTable;

/// Runs grow from the front of the scratch space, tables from its back.
pub(super) struct Walker<'a, R> {
    reader: &'a R,
    memory: Memory<'a>,
    scratch: &'a mut [Scratch],
    runs: usize,
    tables: usize,
    full: bool,
    audit: Audit,
}

/// A table on the way: where it is, what it translates, and what the tables above forbid.
#[derive(Clone, Copy)]
struct TableUse {
    frame: Frame,
    level: Level,
    virt: VirtAddr,
    forbidden: u64,
}

impl<'a, R: ReadTable> Walker<'a, R> {
    pub(super) fn new(reader: &'a R, memory: Memory<'a>, scratch: &'a mut [Scratch]) -> Self {
        Self { reader, memory, scratch, runs: 0, tables: 0, full: false, audit: Audit::default() }
    }

    pub(super) fn walk(&mut self, root: Frame) {
        self.visit(TableUse { frame: root, level: Level::L0, virt: VirtAddr::at(0), forbidden: 0 });
    }

    /// What was counted and found, the runs in ascending virtual order, and the tables.
    pub(super) fn into_parts(self) -> (Audit, &'a mut [Scratch], &'a [Scratch]) {
        let (runs, rest) = self.scratch.split_at_mut(self.runs);
        (self.audit, runs, rest.split_at(rest.len() - self.tables).1)
    }

    /// At most four deep: levels only go down.
    fn visit(&mut self, table: TableUse) {
        if !self.enter(table) {
            return;
        }
        let mut index = 0;
        while index < SLOTS {
            index += self.same(table.frame, index, 0, 0);
            if index >= SLOTS {
                break;
            }
            let raw = self.reader.descriptor(table.frame, index);
            let offset = (index as u64) << table.level.shift();
            // Below 2^48: 512 slots of the level span what the table translates.
            let virt = table.virt.checked_add(offset).unwrap_or(table.virt);
            let place = Position { table: table.frame, level: table.level, index, virt };
            let mut judged = 1;
            match (raw & bits::TYPE, table.level.next()) {
                (3, Some(level)) => self.descend(place, level, raw, table.forbidden),
                (3, None) => judged = self.leaves(place, raw, table.forbidden),
                (1, Some(_)) if table.level.allows_leaf() => judged = self.leaves(place, raw, table.forbidden),
                _ => self.audit.report(Finding::Dead { place, raw }),
            }
            index += judged;
        }
    }

    /// Notes a table; `false` when it must not be read, or was already.
    fn enter(&mut self, table: TableUse) -> bool {
        let TableUse { frame, virt, .. } = table;
        let Some(span) = PhysSpan::of(frame.start(), PAGE_BYTES) else { return false };
        if self.memory.outside_ram(span).is_some() || self.memory.in_no_map(span).is_some() {
            self.audit.report(Finding::TableOutsideRam { table: frame, virt });
            return false;
        }
        let noted = self.scratch.split_at(self.scratch.len() - self.tables).1;
        if noted.iter().any(|other| other.phys == frame.start()) {
            self.audit.report(Finding::TableTwice { table: frame, virt });
            return false;
        }
        let Some(place) = self.scratch.len().checked_sub(self.tables + 1).filter(|place| *place >= self.runs) else {
            self.overflow();
            return false;
        };
        let virt = VirtSpan::of(virt, PAGE_BYTES).unwrap_or(Scratch::EMPTY.virt);
        self.scratch[place] = Scratch { virt, phys: frame.start(), seen: Seen::NOTHING };
        self.tables += 1;
        self.audit.tables += 1;
        true
    }

    fn descend(&mut self, place: Position, level: Level, raw: u64, forbidden: u64) {
        let wrong = bits::wrong_in_table(raw);
        if wrong != 0 {
            self.audit.report(Finding::WrongBits { place, raw, wrong });
        }
        // 48 bits by the mask, so the address is always in range.
        let frame = Frame::containing(PhysAddr::at(bits::address(raw, PAGE_BYTES)));
        self.visit(TableUse { frame, level, virt: place.virt, forbidden: bits::forbidden_below(raw, forbidden) });
    }

    /// Judges leaf `raw`, and as one with it those behind it that are alike. Says how many.
    fn leaves(&mut self, place: Position, raw: u64, forbidden: u64) -> usize {
        let wrong = bits::wrong_in_leaf(raw, place.level);
        if wrong != 0 {
            self.audit.report(Finding::WrongBits { place, raw, wrong });
        }
        let count = if wrong == 0 { self.alike(place, raw) } else { 1 };
        if count == 1
            && let Some((slot, holds)) = self.torn_run(place, raw)
        {
            self.audit.report(Finding::TornRun { place, raw, slot, holds });
        }
        let bytes = place.level.slot_bytes();
        // 48 bits by the mask, so the address is always in range.
        let phys = PhysAddr::at(bits::address(raw, bytes));
        let Some(virt) = VirtSpan::of(place.virt, bytes * count as u64) else { return count };
        self.audit.count_leaves(place.level, count as u64);
        self.note(Scratch { virt, phys, seen: Seen::of(raw, forbidden) });
        count
    }

    /// How many leaves from `raw` on are the same but for their addresses, which follow each other: at least itself. Leaves
    /// of contiguous runs are alike by whole runs; where there is none, each is judged by itself.
    fn alike(&self, place: Position, raw: u64) -> usize {
        let Position { table, level, index, .. } = place;
        let is_contiguous = bits::is_contiguous(raw);
        if is_contiguous && (index % bits::RUN_SLOTS != 0 || bits::first_of_run(raw, 0, level).is_none()) {
            return 1;
        }
        let count = self.same(table, index, raw, level.slot_bytes()).min(bits::leaves_from(raw, level));
        let whole = if is_contiguous { count - count % bits::RUN_SLOTS } else { count };
        whole.max(1)
    }

    /// How many slots from `from` on hold `first`, `first + step`, `first + 2 * step` and so on: one comparison each, one
    /// branch for eight.
    #[inline]
    fn same(&self, table: Frame, from: usize, first: u64, step: u64) -> usize {
        let (mut index, mut expected) = (from, first);
        while index < SLOTS {
            if index.is_multiple_of(8) {
                let (mut differ, mut next) = (0, expected);
                for raw in self.reader.eight(table, index) {
                    differ |= raw ^ next;
                    next = next.wrapping_add(step);
                }
                if differ == 0 {
                    (index, expected) = (index + 8, next);
                    continue;
                }
            }
            if self.reader.descriptor(table, index) != expected {
                break;
            }
            (index, expected) = (index + 1, expected.wrapping_add(step));
        }
        index - from
    }

    /// A slot of the contiguous run that leaf `raw` belongs to which does not go with it. The first leaf of a run answers for all of
    /// them, the others for that there is such a first.
    fn torn_run(&self, place: Position, raw: u64) -> Option<(usize, u64)> {
        if !bits::is_contiguous(raw) {
            return None;
        }
        let number = place.index % bits::RUN_SLOTS;
        let first_slot = place.index - number;
        let Some(first) = bits::first_of_run(raw, number, place.level) else { return Some((place.index, raw)) };
        let judged = if number == 0 { 0..bits::RUN_SLOTS } else { 0..1 };
        judged.map(|number| (number, self.reader.descriptor(place.table, first_slot + number))).find_map(
            |(number, holds)| {
                let expected = first.wrapping_add((number as u64) << place.level.shift());
                (holds != expected).then_some((first_slot + number, holds))
            },
        )
    }

    /// Notes leaves: as more of the last run, or as a new one.
    fn note(&mut self, leaves: Scratch) {
        if let Some(last) = self.scratch[..self.runs].last_mut() {
            let follows = last.virt.end_exclusive() == leaves.virt.start()
                && last.phys().end_exclusive() == leaves.phys
                && last.seen == leaves.seen;
            if follows {
                last.virt = VirtSpan::new(last.virt.start(), leaves.virt.end_exclusive()).unwrap_or(last.virt);
                return;
            }
        }
        if self.runs + self.tables < self.scratch.len() {
            self.scratch[self.runs] = leaves;
            self.runs += 1;
        } else {
            self.overflow();
        }
    }

    fn overflow(&mut self) {
        if !self.full {
            self.full = true;
            self.audit.report(Finding::ScratchFull { capacity: self.scratch.len() });
        }
    }
}
