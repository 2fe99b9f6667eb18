//! Frametable and slots on the host machine: what is mapped, what is left out, what is refused.

use super::booted::{Booted, Setup};
use super::raw;
use super::rig::{GIB, MIB, PAGE, phys};
use breakwater::addr::PhysSpan;
use breakwater::layout::{self, FRAMETABLE};
use breakwater::regions::frametable::{self, CHUNK_BYTES};
use breakwater::regions::{Failure, slots, stacks};

/// Two banks with a hole of chunks between them.
fn two_banks() -> Setup {
    let banks = [phys(GIB, GIB), phys(33 * GIB + PAGE, CHUNK_BYTES)];
    Setup::new(&banks, GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB))
}

fn with_memory(setup: &Setup) -> Booted {
    let mut booted = Booted::switched(setup).unwrap();
    booted.map_fixed().unwrap();
    booted.map_memory().unwrap();
    booted
}

#[test]
fn good_frametable_of_what_is_ram_and_no_more() {
    let booted = with_memory(&two_banks());
    let extents = raw::extents(booted.world(), booted.root());
    let mapped: Vec<(u64, u64)> = extents
        .range(FRAMETABLE.start().raw()..FRAMETABLE.end_exclusive().raw())
        .map(|(&virt, extent)| ((virt - FRAMETABLE.start().raw()) / (2 * MIB), extent.bytes / (2 * MIB)))
        .collect();
    let per_gib = GIB / CHUNK_BYTES;
    assert_eq!(mapped.iter().map(|(_, blocks)| blocks).sum::<u64>(), per_gib + 2, "the odd bank touches two chunks");
    assert_eq!(mapped.first().unwrap().0, 0);
    let (last, blocks) = *mapped.last().unwrap();
    assert_eq!(last + blocks, 32 * per_gib + 2);
}

#[test]
fn good_frametable_of_two_far_banks_exactly() {
    // Chunks 0 and 1 for the first bank, and, 3 TiB further on, the two that the second one touches.
    let far = 3 << 40;
    let banks = [phys(GIB, GIB), phys(GIB + far + CHUNK_BYTES - PAGE, 2 * PAGE)];
    let booted = with_memory(&Setup::new(&banks, GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB)));
    let span = FRAMETABLE.start().raw()..FRAMETABLE.end_exclusive().raw();
    let leaves = raw::leaves(booted.world(), booted.root()).into_iter().filter(|leaf| span.contains(&leaf.virt));
    let chunks: Vec<u64> = leaves.map(|leaf| (leaf.virt - span.start) / (2 * MIB)).collect();
    let first_far = far / CHUNK_BYTES;
    assert_eq!(chunks, [0, 1, first_far, first_far + 1]);
    let tables = raw::tables(booted.world(), booted.root());
    let declared = booted.regions.iter().filter(|region| region.name == "frametable");
    assert_eq!(declared.map(|region| region.virt.bytes()).sum::<u64>(), 4 * 2 * MIB);
    // The hole of 3 TiB costs no frame: all that is taken are tables and these four blocks.
    assert_eq!(booted.bringup.frames().taken(), tables.len() as u64 + 4 * 512);
    assert_eq!(booted.bringup.frames().taken_singly(), tables.len() as u64, "what the audit has room for");
    assert_eq!(booted.audit().mismatches, 0);
}

#[test]
fn good_frametable_of_much_ram_in_contiguous_runs() {
    // 8 GiB are described by 32 MiB: a run of sixteen blocks, in a piece of RAM that is aligned to it.
    let booted = with_memory(&Setup::new(&[phys(GIB, 8 * GIB)], GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB)));
    let span = FRAMETABLE.start().raw()..FRAMETABLE.end_exclusive().raw();
    let leaves = raw::leaves(booted.world(), booted.root());
    let contiguous = leaves.iter().filter(|leaf| span.contains(&leaf.virt) && leaf.descriptor >> 52 & 1 == 1);
    assert_eq!(contiguous.count(), 16);
    assert_eq!(booted.audit().mismatches, 0);
}

#[test]
fn good_frametable_of_banks_that_share_a_chunk() {
    let banks = [
        phys(GIB, 64 * MIB),
        phys(GIB + 128 * MIB, 64 * MIB),
        phys(GIB + CHUNK_BYTES - MIB, 2 * MIB),
        phys(GIB + CHUNK_BYTES + 8 * MIB, MIB),
    ];
    let booted = with_memory(&Setup::new(&banks, GIB + 2 * MIB, phys(GIB + 16 * MIB, MIB)));
    let blocks = booted.regions.iter().filter(|region| region.name == "frametable");
    assert_eq!(blocks.map(|region| region.virt.bytes()).sum::<u64>(), 2 * 2 * MIB, "two chunks, once each");
    assert_eq!(booted.audit().mismatches, 0);
}

#[test]
fn good_frametable_blocks_are_zeroed_and_out_of_the_supply() {
    let booted = with_memory(&two_banks());
    let blocks: Vec<PhysSpan> = raw::leaves(booted.world(), booted.root())
        .iter()
        .filter(|leaf| FRAMETABLE.start().raw() <= leaf.virt && leaf.virt < FRAMETABLE.end_exclusive().raw())
        .inspect(|leaf| assert_eq!(leaf.level, 2, "by blocks"))
        .map(|leaf| phys(leaf.descriptor & super::bits::OUTPUT, 2 * MIB))
        .collect();
    for block in blocks {
        for page in (block.start().raw()..block.end_exclusive().raw()).step_by(PAGE as usize) {
            assert_eq!(booted.world().table(page), Some(&[0; 512][..]), "{page:#x} is zeroed");
        }
        assert!(booted.bringup.frames().ram().all(|free| free.intersection(block).is_none()));
    }
}

#[test]
fn bad_frametable_without_ram_for_it() {
    let setup = two_banks();
    let mut booted = Booted::switched(&setup).unwrap();
    booted.map_fixed().unwrap();
    let base = booted.base;
    let no_ram = frametable::map(&mut booted.space(), &setup.memory, base);
    assert_eq!(no_ram, Err(Failure::NoRam { name: "frametable", bytes: 2 * MIB }));
    assert_eq!(
        stacks::map(&mut booted.space(), 1, stacks::STACK_BYTES).unwrap_err(),
        Failure::NoRam { name: "CPU stack", bytes: 32 << 10 }
    );
    booted.settled("refusals");
}

#[test]
fn good_frametable_block_by_block_where_ram_is_scattered() {
    let mut setup = Setup::new(&[phys(GIB, 4 * GIB)], GIB + 2 * MIB, phys(GIB + 16 * MIB, MIB));
    // No free piece is as large as the table, which is 16 MiB.
    for piece in 1..100 {
        setup.memory.add_reserved(phys(GIB + 20 * MIB + piece * 10 * MIB, 2 * MIB)).unwrap();
    }
    setup.memory.add_reserved(phys(GIB + 1000 * MIB, 3 * GIB + 24 * MIB)).unwrap();
    let booted = with_memory(&setup);
    let declared: Vec<_> = booted.regions.iter().filter(|region| region.name == "frametable").collect();
    assert_eq!(declared.iter().map(|region| region.virt.bytes()).sum::<u64>(), 16 * MIB);
    assert!(declared.len() > 1, "in several pieces");
    let audit = booted.audit();
    assert_eq!(audit.mismatches, 0, "{:?}", audit.first);
}

#[test]
fn good_vmap_and_livepatch_slot_have_their_tables() {
    let mut booted = with_memory(&two_banks());
    let before = booted.bringup.protocol().counts();
    slots::populate_vmap(&mut booted.space(), 1, true).unwrap();
    assert_eq!(booted.bringup.protocol().counts(), before, "a second time there is nothing to make");
    let beyond = slots::populate_vmap(&mut booted.space(), layout::MAX_CPUS + 1, true);
    assert_eq!(beyond, Ok(()), "for more CPUs than there can be, the whole window: all of it is there");
    assert_eq!(booted.bringup.protocol().counts(), before);
    let leaves = raw::leaves(booted.world(), booted.root());
    let empty = [layout::VMAP, layout::LIVEPATCH];
    assert!(leaves.iter().all(|leaf| {
        !empty.iter().any(|area| area.start().raw() <= leaf.virt && leaf.virt < area.end_exclusive().raw())
    }));
}

#[test]
fn bad_console_with_more_registers_than_its_place() {
    let mut booted = Booted::switched(&two_banks()).unwrap();
    let refused = slots::map_console(&mut booted.space(), phys(0x900_0008, layout::FIXMAP_CONSOLE.bytes()));
    assert_eq!(refused, Err(Failure::TooMany { name: "console" }));
    booted.settled("refusal");
}

#[test]
fn bad_directmap_of_what_it_cannot_hold() {
    let booted = Booted::switched(&two_banks()).unwrap();
    let directmap = booted.directmap;
    assert_eq!(directmap.virt(phys(GIB - PAGE, PAGE)), None, "below its base");
    let end = GIB + layout::DIRECTMAP.bytes();
    assert_eq!(directmap.virt(phys(end, PAGE)), None, "past its end");
    assert!(directmap.virt(phys(end - PAGE, PAGE)).is_some());
}
