//! The walker against one that knows nothing of runs: it judges each slot by itself. Both must say the same of whatever
//! the tables hold.

use super::*;
use crate::audit::walker::Walker;
use core::cell::Cell;

/// Reads and judges slot by slot.
struct BySlot<'a> {
    world: &'a World,
    audit: Audit,
    runs: Vec<Scratch>,
    tables: Vec<Scratch>,
}

impl BySlot<'_> {
    fn visit(&mut self, frame: Frame, level: Level, virt: VirtAddr, forbidden: u64) {
        let span = PhysSpan::of(frame.start(), PAGE_BYTES).unwrap();
        if !self.world.ram.iter().any(|bank| bank.covers(span)) {
            return self.audit.report(Finding::TableOutsideRam { table: frame, virt });
        }
        if self.tables.iter().any(|table| table.phys == frame.start()) {
            return self.audit.report(Finding::TableTwice { table: frame, virt });
        }
        let noted = VirtSpan::of(virt, PAGE_BYTES).unwrap();
        self.tables.insert(0, Scratch { virt: noted, phys: frame.start(), seen: Seen::NOTHING });
        self.audit.tables += 1;
        for index in 0..SLOTS {
            let raw = self.world.descriptor(frame, index);
            let virt = virt.checked_add((index as u64) << level.shift()).unwrap();
            let place = Position { table: frame, level, index, virt };
            match (raw & bits::TYPE, level) {
                _ if raw == 0 => {}
                (3, Level::L3) | (1, Level::L1 | Level::L2) => self.leaf(place, raw, forbidden),
                (3, _) => self.descend(place, raw, forbidden),
                _ => self.audit.report(Finding::Dead { place, raw }),
            }
        }
    }

    fn descend(&mut self, place: Position, raw: u64, forbidden: u64) {
        let wrong = bits::wrong_in_table(raw);
        if wrong != 0 {
            self.audit.report(Finding::WrongBits { place, raw, wrong });
        }
        let frame = Frame::containing(PhysAddr::at(bits::address(raw, PAGE_BYTES)));
        self.visit(frame, place.level.next().unwrap(), place.virt, bits::forbidden_below(raw, forbidden));
    }

    fn leaf(&mut self, place: Position, raw: u64, forbidden: u64) {
        let wrong = bits::wrong_in_leaf(raw, place.level);
        if wrong != 0 {
            self.audit.report(Finding::WrongBits { place, raw, wrong });
        }
        if raw & 1 << 52 != 0 {
            self.contiguous(place, raw);
        }
        let bytes = place.level.slot_bytes();
        self.audit.pages += bytes / PAGE_BYTES;
        self.audit.leaves[place.level as usize] += 1;
        let virt = VirtSpan::of(place.virt, bytes).unwrap();
        let leaf = Scratch { virt, phys: PhysAddr::at(bits::address(raw, bytes)), seen: Seen::of(raw, forbidden) };
        match self.runs.last_mut() {
            Some(last)
                if last.virt.end_exclusive() == virt.start()
                    && last.phys().end_exclusive() == leaf.phys
                    && last.seen == leaf.seen =>
            {
                last.virt = VirtSpan::new(last.virt.start(), virt.end_exclusive()).unwrap();
            }
            _ => self.runs.push(leaf),
        }
    }

    /// The first slot of a run of sixteen is held against all of them, each other one against the first.
    fn contiguous(&mut self, place: Position, raw: u64) {
        let number = place.index % 16;
        let slot_bytes = place.level.slot_bytes();
        let first = raw.wrapping_sub(number as u64 * slot_bytes);
        let is_aligned = bits::address(first, slot_bytes).is_multiple_of(16 * slot_bytes);
        let judged = if number == 0 { 0..16 } else { 0..1 };
        let torn =
            judged.map(|number| (place.index - place.index % 16 + number, number as u64)).find_map(|(slot, number)| {
                let holds = self.world.descriptor(place.table, slot);
                (holds != first.wrapping_add(number * slot_bytes)).then_some((slot, holds))
            });
        let torn = if is_aligned { torn } else { Some((place.index, raw)) };
        if let Some((slot, holds)) = torn {
            self.audit.report(Finding::TornRun { place, raw, slot, holds });
        }
    }
}

fn assert_said_alike(world: &World, what: &str) -> Audit {
    let root = Frame::containing(PhysAddr::at(FIRST_TABLE));
    let mut by_slot = BySlot { world, audit: Audit::default(), runs: Vec::new(), tables: Vec::new() };
    by_slot.visit(root, Level::L0, VirtAddr::at(0), 0);
    let mut scratch = std::vec![Scratch::EMPTY; TABLES * SLOTS];
    let mut walker = Walker::new(world, Memory { ram: &world.ram, no_map: &[] }, &mut scratch);
    walker.walk(root);
    let (audit, runs, tables) = walker.into_parts();
    assert_eq!(audit, by_slot.audit, "{what}");
    assert_eq!((&*runs, tables), (&by_slot.runs[..], &by_slot.tables[..]), "{what}");
    audit
}

/// Numbers that look random, the same in each run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % bound as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Writes slots that go on as the first one does, or flips a bit.
    fn change(&mut self, world: &mut World) {
        let table = self.below(TABLES);
        let level = match table {
            world::ROOT => Level::L0,
            world::XEN_L1 | world::DIRECTMAP_L1 | world::IDENTITY_L1 => Level::L1,
            world::XEN_L2 | world::DIRECTMAP_L2 | world::IDENTITY_L2 => Level::L2,
            _ => Level::L3,
        };
        let anywhere = self.below(SLOTS);
        let first = self.one_of(&[0, 1, 8, 15, 16, 17, 32, 250, 480, 496, anywhere]);
        let count = self.one_of(&[1, 1, 2, 7, 8, 9, 15, 16, 17, 33, 64, 512]).min(SLOTS - first);
        if self.below(3) == 0 {
            return world.set(table, first, world.get(table, first) ^ 1 << self.below(64));
        }
        let step = level.slot_bytes();
        // From a multiple of a contiguous run on, beside one, and up to where addresses end.
        let output =
            self.one_of(&[0x4000_0000, 0x4000_0000 + step, (1 << 48) - 16 * step, (1 << 48) - 3 * step, 1 << 13]);
        let attributes = leaf_bits(self.one_of(&[DATA, CODE, CONSOLE]), level);
        let marks = self.one_of(&[0, 0, 1 << 52, 1 << 52, 1 << 55]);
        let raw = self.one_of(&[output | attributes | marks, 0, output | 2]);
        for number in 0..count {
            let raw = if raw == 0 { 0 } else { raw.wrapping_add(number as u64 * step) };
            world.set(table, first + number, raw);
        }
    }
}

#[test]
fn good_whatever_the_tables_hold_is_judged_as_slot_by_slot() {
    assert_said_alike(&World::good(), "the good world");
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for number in 0..3000 {
        let mut world = World::good();
        for _ in 0..=numbers.below(6) {
            numbers.change(&mut world);
        }
        assert_said_alike(&world, &std::format!("world {number}"));
    }
}

#[test]
fn bad_one_slot_amid_alike_ones_is_found_where_it_is() {
    for index in 33..SLOTS {
        // AF is missing; a bit below the block's alignment; nothing of a leaf is left; the next one's contiguous bit.
        for (flip, found) in
            [(1 << 10, true), (1 << 13, true), (1, true), (1 << 52, true), (1 << 25, false), (1 << 7, false)]
        {
            let mut world = World::good();
            let raw = world.get(world::DIRECTMAP_L2, index) ^ flip;
            world.set(world::DIRECTMAP_L2, index, raw);
            let first = assert_said_alike(&world, "one slot").first;
            let place = match first {
                Some(
                    Finding::WrongBits { place, .. } | Finding::Dead { place, .. } | Finding::TornRun { place, .. },
                ) => place,
                // What only the declarations tell.
                _ => {
                    assert!(!found && world.audit().mismatches > 0, "{index}: {first:?}");
                    continue;
                }
            };
            assert_eq!((place.level, place.index), (Level::L2, index), "{flip:#x}");
        }
    }
}

#[test]
fn bad_alike_leaves_end_where_addresses_do() {
    let mut world = World::good();
    let last = 0x0000_ffff_ffff_f000 | leaf_bits(DATA, Level::L3);
    for (index, raw) in [(100, last - PAGE_BYTES), (101, last), (102, last + PAGE_BYTES)] {
        world.set(world::FIXMAP_L3, index, raw);
    }
    let audit = assert_said_alike(&world, "the next one's address has carried into bit 48");
    assert!(
        matches!(audit.first, Some(Finding::WrongBits { place, wrong, .. }) if place.index == 102 && wrong == 1 << 48)
    );
}

/// Counts what is read of a world.
struct Counting<'a> {
    world: &'a World,
    slots: Cell<usize>,
    reads: Cell<usize>,
}

impl ReadTable for Counting<'_> {
    fn descriptor(&self, table: Frame, index: usize) -> u64 {
        self.slots.set(self.slots.get() + 1);
        self.reads.set(self.reads.get() + 1);
        self.world.descriptor(table, index)
    }

    fn eight(&self, table: Frame, first: usize) -> [u64; 8] {
        assert!(first.is_multiple_of(8) && first < SLOTS, "{first}");
        self.slots.set(self.slots.get() + 8);
        self.reads.set(self.reads.get() + 1);
        core::array::from_fn(|number| self.world.descriptor(table, first + number))
    }
}

#[test]
fn good_alike_slots_are_read_once_and_by_eights() {
    let mut world = World::good();
    for index in 0..SLOTS {
        world.map(world::IDENTITY_L3, index, 0x5000_0000 + index as u64 * PAGE_BYTES, DATA);
    }
    let counting = Counting { world: &world, slots: Cell::new(0), reads: Cell::new(0) };
    let mut scratch = [Scratch::EMPTY; 64];
    let memory = Memory { ram: &world.ram, no_map: &[] };
    Walker::new(&counting, memory, &mut scratch).walk(Frame::containing(PhysAddr::at(FIRST_TABLE)));
    // Where something begins or ends, eight slots are read once more, one by one.
    let boundaries = 2 * (world::RUNS + TABLES);
    assert!(counting.slots.get() <= TABLES * SLOTS + 16 * boundaries, "{} slots", counting.slots.get());
    assert!(counting.reads.get() <= TABLES * SLOTS / 8 + 10 * boundaries, "{} reads", counting.reads.get());
}
