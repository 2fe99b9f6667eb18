//! Requests over large spans look at each table a few times, not once for each table beside it: loads are counted.

use super::rig::{CODE, DATA, GIB, MIB, PAGE, request, virt};
use breakwater::addr::{Frame, Level, PhysAddr, PhysSpan};
use breakwater::bbm::{Detached, Live, Permit, Protocol, Tables};
use breakwater::errata::Errata;
use breakwater::frames::{FrameSupply, OwnedRam};
use breakwater::geometry::{Granule4K, Slot};
use breakwater::machine::{Machine, Maintenance, Simulated, Tlbi};
use breakwater::mapper::{Error, Mapper};
use std::cell::Cell;
use std::collections::HashMap;

/// Memory that counts how often it is read, and that somebody else may write meanwhile.
pub(crate) struct Words {
    memory: HashMap<u64, u64>,
    loads: Cell<u64>,
    /// What somebody else does to it while the manager invalidates.
    meanwhile: fn(&mut HashMap<u64, u64>),
}

impl Words {
    /// Memory to which somebody else does this while the manager invalidates.
    pub(crate) fn written_by(meanwhile: fn(&mut HashMap<u64, u64>)) -> Self {
        Self { memory: HashMap::new(), loads: Cell::new(0), meanwhile }
    }
}

impl Machine for Words {
    type Geometry = Granule4K;

    fn load(&self, slot: Slot) -> u64 {
        self.loads.set(self.loads.get() + 1);
        self.memory.get(&slot.address().raw()).copied().unwrap_or(0)
    }
    fn store(&mut self, _: &Permit, slot: Slot, descriptor: u64) {
        self.memory.insert(slot.address().raw(), descriptor);
    }
    fn zero_frame(&mut self, _: &Permit, frame: Frame) {
        let start = frame.start().raw();
        self.memory.retain(|address, _| address & !0xfff != start);
    }
    fn switch_root(&mut self, _: &Permit, _: Frame) -> Maintenance {
        Maintenance::default()
    }
    fn dsb_ishst(&mut self) {}
    fn dsb_ish(&mut self) {}
    fn dsb_nsh(&mut self) {}
    fn isb(&mut self) {}
    fn tlbi(&mut self, _: &Permit, _: Tlbi) {
        (self.meanwhile)(&mut self.memory);
    }
}

impl Simulated for Words {}

/// Tables in force, and how often they were read.
struct Bench {
    protocol: Protocol<Words>,
    frames: FrameSupply<Words>,
    tables: Tables<Words, Live>,
}

const AT: u64 = 1 << 40;

impl Bench {
    /// `gib` tables of 512 blocks side by side under one table.
    fn with_blocks(gib: u64) -> Self {
        let mut protocol = Protocol::simulated(Words::written_by(|_| {}), Errata::empty());
        let mut frames = FrameSupply::new(OwnedRam::simulated(PhysSpan::of(PhysAddr::at(2 * MIB), 2 * MIB).unwrap()));
        let root = protocol.new_root(frames.take().unwrap());
        let (tables, _old) = protocol.switch_root(root, Detached::none());
        let mut bench = Self { protocol, frames, tables };
        bench.mapper().map(request(AT, gib * GIB, GIB + 2 * MIB, DATA, Level::L2)).unwrap();
        bench
    }

    fn mapper(&mut self) -> Mapper<'_, Words, Live> {
        Mapper::new(&mut self.protocol, &mut self.frames, &mut self.tables)
    }

    fn loads_of(&mut self, does: impl FnOnce(&mut Mapper<'_, Words, Live>)) -> u64 {
        self.protocol.machine().loads.set(0);
        does(&mut self.mapper());
        self.protocol.machine().loads.get()
    }
}

/// Twice the tables take twice the loads, and no table is looked through more than `passes` times.
fn is_linear(passes: u64, loads: impl Fn(u64) -> u64) {
    let (few, many) = (loads(16), loads(64));
    assert!(many <= 5 * few, "{few} loads for 16 tables, {many} for 64");
    assert!(many <= passes * 66 * 512, "{many} loads for 64 tables of 512 slots");
}

#[test]
fn good_an_unmap_that_ends_in_a_hole_is_refused_in_linear_time() {
    is_linear(6, |gib| {
        let mut bench = Bench::with_blocks(gib);
        bench.loads_of(|mapper| assert!(mapper.unmap(virt(AT, (gib + 1) * GIB)).is_err()))
    });
}

#[test]
fn good_an_unmap_that_ends_in_a_table_that_stays_is_linear() {
    is_linear(12, |gib| {
        let mut bench = Bench::with_blocks(gib);
        bench.mapper().populate(virt(AT + gib * GIB, GIB), Level::L2).unwrap();
        bench.mapper().map(request(AT + gib * GIB, GIB, GIB + 2 * MIB, DATA, Level::L2)).unwrap();
        bench.loads_of(|mapper| {
            let freed = mapper.unmap(virt(AT, (gib + 1) * GIB)).unwrap().cost.freed;
            assert_eq!(freed, gib, "all but the one that was asked for, and what leads to it");
        })
    });
}

#[test]
fn good_an_unmap_of_all_there_is_is_linear() {
    is_linear(6, |gib| {
        let mut bench = Bench::with_blocks(gib);
        bench.loads_of(|mapper| assert_eq!(mapper.unmap(virt(AT, gib * GIB)).unwrap().cost.freed, gib + 1))
    });
}

#[test]
fn good_a_clear_of_every_second_table_is_linear() {
    is_linear(6, |gib| {
        let mut bench = Bench::with_blocks(gib);
        for table in (0..gib).step_by(2) {
            bench.mapper().unmap(virt(AT + table * GIB, GIB)).unwrap();
        }
        bench.loads_of(|mapper| assert_eq!(mapper.clear(virt(0, 1 << 48)).unwrap().cost.freed, gib / 2 + 1))
    });
}

/// A request that meets frames that were noted as code looks where they were, and not at all that is mapped.
#[test]
fn good_a_look_for_an_alias_reads_what_is_near_the_other_mapping() {
    const CODE_AT: u64 = 1 << 46;
    let loads = |gib| {
        let mut bench = Bench::with_blocks(gib);
        let code = |page: u64| request(CODE_AT + page * PAGE, PAGE, MIB + page * PAGE, CODE, Level::L3);
        bench.mapper().map(code(0)).unwrap();
        bench.mapper().map(code(2)).unwrap();
        bench.mapper().map(request(AT / 2, PAGE, 1 << 36, DATA, Level::L3)).unwrap();
        // Between the two is a frame that nobody executes; the second is an alias, from an address far away.
        let writable = |page: u64| request(AT / 2 + PAGE, PAGE, MIB + page * PAGE, DATA, Level::L3);
        let refused = bench.loads_of(|mapper| {
            let refused = mapper.map(writable(2)).unwrap_err();
            assert!(
                matches!(refused, Error::Aliased { slot, .. } if slot.virt().raw() == CODE_AT + 2 * PAGE),
                "{refused}"
            );
        });
        let granted = bench.loads_of(|mapper| assert_eq!(mapper.map(writable(1)).unwrap().stores, 1));
        (refused, granted)
    };
    let (few, many) = (loads(2), loads(64));
    assert_eq!(few, many, "what else is mapped is not read");
    assert!(many.0 < 32 && many.1 < 64, "{many:?}");
}

#[test]
fn good_a_merge_that_one_block_prevents_is_linear() {
    is_linear(12, |gib| {
        let mut bench = Bench::with_blocks(gib);
        // Off a 1 GiB boundary against the virtual address: no table becomes a block.
        bench.loads_of(|mapper| assert_eq!(mapper.merge(virt(AT, gib * GIB), Level::L1, false).unwrap().stores, 0))
    });
}
