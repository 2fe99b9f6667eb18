//! Claims about the audit: a small good world passes; each thing that can be wrong with it is found, and named.

use super::*;
use crate::addr::{Level, SLOTS};
use crate::descriptor::{Access, DataAccess, DeviceKind, leaf_bits};
use crate::layout;
use std::string::{String, ToString};
use std::vec::Vec;

mod by_slot;
mod world;

use world::{FIRST_TABLE, TABLES, World};

const CODE: Attributes = Attributes::Normal(Access::ReadExecute);
const CONSTANTS: Attributes = Attributes::Normal(Access::ReadOnly);
const DATA: Attributes = Attributes::Normal(Access::ReadWrite);
const CONSOLE: Attributes = Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite);
const NON_CACHEABLE: Attributes = Attributes::NonCacheable(DataAccess::ReadWrite);

fn line(audit: &Audit) -> String {
    audit.first.expect("a finding").to_string()
}

/// The one finding of a world, as a line.
fn only(world: &World) -> String {
    let audit = world.audit();
    assert_eq!(audit.mismatches, 1, "{audit:?}");
    line(&audit)
}

#[test]
fn good_world_has_no_findings() {
    let audit = World::good().audit();
    assert_eq!(audit.first, None);
    assert_eq!((audit.mismatches, audit.writable_executable), (0, 0));
    assert_eq!(audit.tables, 10);
    assert_eq!(audit.leaves, [0, 1, 511, 16 + 1 + 1]);
    assert_eq!(audit.pages, (1 << 18) + 511 * 512 + 18);
}

#[test]
fn good_neighbouring_declarations_may_share_a_run() {
    let mut world = World::good();
    let data = world.declared.iter().position(|declared| declared.name == "data").unwrap();
    let Declared { virt, output, .. } = world.declared[data];
    let middle = virt.start().checked_add(PAGE_BYTES).unwrap();
    world.declared[data].virt = VirtSpan::new(virt.start(), middle).unwrap();
    let output = output.and_then(|output| output.checked_add(PAGE_BYTES));
    let virt = VirtSpan::new(middle, virt.end_exclusive()).unwrap();
    world.declared.push(Declared { name: "more data", virt, output, attributes: DATA });
    assert_eq!(world.audit().first, None);
}

#[test]
fn good_empty_declarations_say_nothing() {
    let mut world = World::good();
    world.declared.push(Declared { name: "", virt: layout::NOWHERE, output: None, attributes: DATA });
    world.declared.push(Declared { name: "", virt: layout::NOWHERE, output: Some(PhysAddr::at(0)), attributes: DATA });
    assert_eq!(world.audit().first, None);
}

#[test]
fn bad_too_little_scratch_space() {
    let world = World::good();
    let needed = (1..64).find(|capacity| world.audit_with(*capacity).mismatches == 0).expect("64 are enough");
    assert_eq!(needed, world::RUNS + 10);
    for capacity in 0..needed {
        let audit = world.audit_with(capacity);
        assert!(audit.mismatches > 0, "{capacity}");
        assert_eq!(audit.first, Some(Finding::ScratchFull { capacity }));
    }
    assert_eq!(line(&world.audit_with(3)), "the audit has room for 3 runs and tables, and needs more");
}

#[test]
fn bad_unmapped_page() {
    let mut world = World::good();
    world.set(world::IMAGE_L3, 4, 0);
    assert_eq!(only(&world), "data: va 0x0a0000204000..0x0a0000205000 is declared, but not mapped");
    world.set(world::IMAGE_L3, 15, 0);
    assert_eq!(world.audit().mismatches, 2);
}

#[test]
fn bad_unmapped_region() {
    let mut world = World::good();
    let virt = VirtSpan::of(layout::VMAP.start(), 2 * PAGE_BYTES).unwrap();
    world.declared.push(Declared { name: "vmap", virt, output: Some(PhysAddr::at(0x5000_0000)), attributes: DATA });
    assert_eq!(only(&world), "vmap: va 0x0a0040000000..0x0a0040002000 is declared, but not mapped");
}

#[test]
fn bad_undeclared_mapping() {
    let mut world = World::good();
    world.map(world::FIXMAP_L3, 3, 0x5000_0000, NON_CACHEABLE);
    world.withdraw("directmap");
    let found = Seen::expected(NON_CACHEABLE);
    let virt = VirtSpan::of(VirtAddr::at(0x0a00_00a0_3000), PAGE_BYTES).unwrap();
    assert_eq!(world.audit().first, Some(Finding::Undeclared { virt, phys: PhysAddr::at(0x5000_0000), found }));
    let mut world = World::good();
    world.withdraw("console");
    assert_eq!(
        only(&world),
        "va 0x0a0000a00000..0x0a0000a01000 is mapped to pa 0x000009000000 as rw- device nGnRE (attribute bits \
         0x40000000000210), but not declared"
    );
}

#[test]
fn bad_mapping_that_reaches_beyond_its_declaration() {
    let mut world = World::good();
    let text = world.declared.iter_mut().find(|declared| declared.name == "text").unwrap();
    text.virt = VirtSpan::of(text.virt.start(), PAGE_BYTES).unwrap();
    assert!(only(&world).starts_with("va 0x0a0000201000..0x0a0000202000 is mapped to pa 0x000040201000 as r-x normal"));
}

#[test]
fn bad_mapped_guard() {
    let mut world = World::good();
    world.map(world::IMAGE_L3, 5, 0x4020_5000, DATA);
    assert_eq!(
        only(&world),
        "guard: va 0x0a0000205000..0x0a0000206000 is declared to be a hole, but mapped to pa 0x000040205000 as rw- normal \
         (attribute bits 0x4000000000031c)"
    );
}

#[test]
fn bad_output() {
    let mut world = World::good();
    world.map(world::IMAGE_L3, 4, 0x4020_5000, DATA);
    assert_eq!(
        only(&world),
        "data: va 0x0a0000204000..0x0a0000205000 is declared to map pa 0x000040204000, but maps pa 0x000040205000"
    );
    let mut world = World::good();
    world.declared.iter_mut().find(|declared| declared.name == "data").unwrap().output = Some(PhysAddr::at(1 << 48));
    assert!(line(&world.audit()).contains("is declared to map"));
}

#[test]
fn bad_attributes() {
    let mut world = World::good();
    world.map(world::IMAGE_L3, 2, 0x4020_2000, DATA);
    assert_eq!(
        only(&world),
        "rodata: va 0x0a0000202000..0x0a0000203000 is declared r-- normal (attribute bits 0x4000000000039c), but mapped rw- \
         normal (attribute bits 0x4000000000031c)"
    );
}

#[test]
fn bad_writable_and_executable() {
    let mut world = World::good();
    world.set(world::IMAGE_L3, 4, 0x4020_4000 | leaf_bits(DATA, Level::L3) & !(1 << 54));
    let audit = world.audit();
    assert_eq!(audit.writable_executable, 1);
    let lines = world.lines();
    assert!(
        lines.contains(&"va 0x0a0000204000..0x0a0000205000 (pa 0x000040204000) is writable and executable".to_string())
    );
    // A whole block counts by its pages.
    let mut world = World::good();
    world.set(world::DIRECTMAP_L2, 9, world.get(world::DIRECTMAP_L2, 9) & !(1 << 54));
    assert_eq!(world.audit().writable_executable, 512);
}

#[test]
fn bad_executable_device() {
    let mut world = World::good();
    world.set(world::FIXMAP_L3, 0, world.get(world::FIXMAP_L3, 0) & !(1 << 54) | 1 << 7);
    let lines = world.lines();
    let expected = "va 0x0a0000a00000..0x0a0000a01000 (pa 0x000009000000) is executable Device memory".to_string();
    assert!(lines.contains(&expected), "{lines:?}");
    assert_eq!(world.audit().writable_executable, 0);
}

#[test]
fn bad_normal_memory_outside_ram() {
    let mut world = World::good();
    world.map(world::FIXMAP_L3, 1, 0x0900_1000, DATA);
    world.declare("wrong", 0x0a00_00a0_1000, 0x0900_1000, 1, DATA);
    assert_eq!(
        only(&world),
        "va 0x0a0000a01000 maps pa 0x000009001000..0x000009002000 as Normal memory, which is no RAM"
    );
    // A block whose end has no RAM behind it; two banks that touch are one.
    let mut world = World::good();
    let bank = |start, end| PhysSpan::new(PhysAddr::at(start), PhysAddr::at(end)).unwrap();
    world.ram = Vec::from([bank(0x8000_0000, 0xbfff_f000), bank(0x4000_0000, 0x8000_0000)]);
    assert_eq!(
        only(&world),
        "va 0x80007ffff000 maps pa 0x0000bffff000..0x0000c0000000 as Normal memory, which is no RAM"
    );
    world.ram.push(bank(0xbfff_f000, 0xc000_0000));
    assert_eq!(world.audit().first, None);
}

#[test]
fn bad_normal_memory_in_a_no_map_region() {
    let mut world = World::good();
    world.no_map.push(PhysSpan::of(PhysAddr::at(0x7000_1000), 0x1000).unwrap());
    assert_eq!(
        only(&world),
        "va 0x800030001000 maps pa 0x000070001000..0x000070002000 as Normal memory, which is a no-map region"
    );
    // Device memory there is nobody's business here.
    let mut world = World::good();
    world.no_map.push(PhysSpan::of(PhysAddr::at(0x0900_0000), 0x1000).unwrap());
    assert_eq!(world.audit().first, None);
}

#[test]
fn good_memory_is_judged_by_the_first_byte_that_is_wrong() {
    let span = |start, end| PhysSpan::new(PhysAddr::at(start), PhysAddr::at(end)).unwrap();
    // Banks may overlap and come in any order.
    let ram = [span(0x9000, 0xa000), span(0x5000, 0x6000), span(0x1000, 0x2000), span(0x1000, 0x3000)];
    let no_map = [span(0x5000, 0x6000), span(0x2000, 0x3000)];
    let memory = Memory { ram: &ram, no_map: &no_map };
    assert_eq!(memory.outside_ram(span(0x1000, 0x3000)), None);
    assert_eq!(memory.outside_ram(span(0x1000, 0xa000)), Some(span(0x3000, 0x5000)));
    assert_eq!(memory.outside_ram(span(0x2000, 0x4000)), Some(span(0x3000, 0x4000)));
    assert_eq!(memory.outside_ram(span(0x9000, 0xb000)), Some(span(0xa000, 0xb000)));
    assert_eq!(memory.in_no_map(span(0x1000, 0x9000)), Some(span(0x2000, 0x3000)));
    assert_eq!(memory.in_no_map(span(0x3000, 0x5000)), None);
}

#[test]
fn bad_writable_and_executable_through_aliases() {
    let mut world = World::good();
    world.map(world::FIXMAP_L3, 1, 0x4020_0000, DATA);
    world.declare("alias", 0x0a00_00a0_1000, 0x4020_0000, 1, DATA);
    assert_eq!(
        only(&world),
        "pa 0x000040200000..0x000040201000 is writable at va 0x0a0000a01000 and executable at va 0x0a0000200000"
    );
    let mut world = World::good();
    world.map(world::FIXMAP_L3, 1, 0x5000_1000, CODE);
    world.declare("alias", 0x0a00_00a0_1000, 0x5000_1000, 1, CODE);
    assert!(only(&world).contains("is writable at va 0x800010001000 and executable at va 0x0a0000a01000"));
    // The writable one may come first.
    let mut world = World::good();
    world.map(world::IDENTITY_L3, 2, 0x4020_0000, DATA);
    world.declare("alias", 0x4020_2000, 0x4020_0000, 1, DATA);
    assert!(only(&world).contains("is writable at va 0x000040202000 and executable at va 0x0a0000200000"));
}

#[test]
fn bad_mixed_memory_through_aliases() {
    let mut world = World::good();
    world.map(world::FIXMAP_L3, 1, 0x5000_0000, NON_CACHEABLE);
    world.declare("alias", 0x0a00_00a0_1000, 0x5000_0000, 1, NON_CACHEABLE);
    assert_eq!(
        only(&world),
        "pa 0x000050000000..0x000050001000 is rw- non-cacheable (attribute bits 0x40000000000204) at va 0x0a0000a01000 and rw- \
         normal (attribute bits 0x4000000000031c) at va 0x800010000000"
    );
    let strict = Attributes::Device(DeviceKind::NGnRnE, DataAccess::ReadWrite);
    let mut world = World::good();
    world.map(world::FIXMAP_L3, 1, 0x0900_0000, strict);
    world.declare("alias", 0x0a00_00a0_1000, 0x0900_0000, 1, strict);
    assert!(only(&world).starts_with("pa 0x000009000000..0x000009001000 is rw- device nGnRE"));
}

#[test]
fn good_aliases_that_agree() {
    let mut world = World::good();
    world.map(world::FIXMAP_L3, 1, 0x5000_0000, CONSTANTS);
    world.declare("alias", 0x0a00_00a0_1000, 0x5000_0000, 1, CONSTANTS);
    assert_eq!(world.audit().first, None, "read-only beside writable");
    // Device memory is Outer Shareable whatever SH says: not as declared, but not mixed either.
    let mut world = World::good();
    world.set(world::FIXMAP_L3, 1, 0x0900_0000 | leaf_bits(CONSOLE, Level::L3) | 3 << 8);
    world.declare("alias", 0x0a00_00a0_1000, 0x0900_0000, 1, CONSOLE);
    assert!(only(&world).starts_with("alias: va 0x0a0000a01000..0x0a0000a02000 is declared rw- device nGnRE"));
}

#[test]
fn bad_tables() {
    // Outside RAM: not read.
    let mut world = World::good();
    world.set(world::ROOT, 100, 0x0900_0003);
    assert_eq!(only(&world), "table 0x000009000000 for va 0x320000000000 is not in RAM that may be mapped");
    // In a no-map region, as the directmap over it is.
    let mut world = World::good();
    world.no_map.push(PhysSpan::of(PhysAddr::at(FIRST_TABLE + 0x1000), 0x1000).unwrap());
    assert!(line(&world.audit()).starts_with("table 0x000040207000 for va 0x0a0000000000 is not in RAM"));
    // Reached twice, and a cycle.
    let mut world = World::good();
    world.set(world::ROOT, 100, world.get(world::ROOT, layout::XEN_SLOT));
    assert_eq!(only(&world), "table 0x000040207000 is reached again, for va 0x320000000000");
    let mut world = World::good();
    world.set(world::XEN_L1, 100, world.get(world::ROOT, layout::XEN_SLOT));
    assert_eq!(only(&world), "table 0x000040207000 is reached again, for va 0x0a1900000000");
}

#[test]
fn bad_cycle_of_the_whole_root_ends() {
    let mut world = World::good();
    for index in 0..SLOTS {
        world.set(world::ROOT, index, FIRST_TABLE | 3);
    }
    let audit = world.audit();
    assert_eq!(audit.tables, 1);
    assert!(audit.mismatches >= 512);
}

#[test]
fn bad_executable_table() {
    let mut world = World::good();
    world.map(world::FIXMAP_L3, 1, FIRST_TABLE, CODE);
    world.declare("alias", 0x0a00_00a0_1000, FIRST_TABLE, 1, CODE);
    assert_eq!(world.audit().mismatches, 2, "an alias of data, and a table");
    let lines = world.lines();
    assert!(lines.contains(&"table 0x000040206000 is executable at va 0x0a0000a01000".to_string()), "{lines:?}");
}

#[test]
fn bad_table_of_another_memory_type() {
    let mut world = World::good();
    world.map(world::FIXMAP_L3, 1, FIRST_TABLE, NON_CACHEABLE);
    world.declare("alias", 0x0a00_00a0_1000, FIRST_TABLE, 1, NON_CACHEABLE);
    let lines = world.lines();
    let expected = "table 0x000040206000 is mapped at va 0x0a0000a01000 as rw- non-cacheable (attribute bits 0x40000000000204), \
                    the walker uses it as normal";
    assert!(lines.contains(&expected.to_string()), "{lines:?}");
}

#[test]
fn bad_hierarchical_bits() {
    let mut world = World::good();
    world.set(world::XEN_L1, 0, world.get(world::XEN_L1, 0) | 1 << 60);
    let lines = world.lines();
    assert_eq!(
        lines[0],
        "level 1 slot 0 of table 0x000040207000 (va 0x0a0000000000) is 0x1000000040208003: bits 0x1000000000000000 are not as \
         this image writes them"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("text: va 0x0a0000200000..0x0a0000202000 is declared r-x normal"))
    );
}

#[test]
fn good_hierarchical_bits_take_part_in_rights() {
    // A leaf that is writable and executable by itself is neither under APTable and XNTable; the bits remain findings.
    let mut world = World::good();
    world.set(world::IMAGE_L3, 4, 0x4020_4000 | leaf_bits(DATA, Level::L3) & !(1 << 54));
    world.set(world::XEN_L1, 0, world.get(world::XEN_L1, 0) | 1 << 62);
    assert_eq!(world.audit().writable_executable, 0);
    world.set(world::XEN_L1, 0, world.get(world::XEN_L1, 0) & !(1 << 62) | 1 << 61);
    assert_eq!(world.audit().writable_executable, 1, "APTable[0] is RES0 at EL2");
    world.set(world::XEN_L1, 0, world.get(world::XEN_L1, 0) & !(1 << 61) | 1 << 60);
    assert_eq!(world.audit().writable_executable, 0);
}

#[test]
fn bad_bits_that_are_never_written() {
    for bit in [5, 11, 51, 53, 55, 58, 59, 62, 63] {
        let mut world = World::good();
        world.set(world::IMAGE_L3, 4, world.get(world::IMAGE_L3, 4) | 1 << bit);
        assert!(only(&world).ends_with(&std::format!("bits {:#x} are not as this image writes them", 1u64 << bit)));
    }
    let mut world = World::good();
    world.set(world::DIRECTMAP_L2, 7, world.get(world::DIRECTMAP_L2, 7) | 1 << 16);
    assert!(only(&world).ends_with("bits 0x10000 are not as this image writes them"), "nT");
    let mut world = World::good();
    world.set(world::IMAGE_L3, 0, world.get(world::IMAGE_L3, 0) | 1 << 50);
    let guarded = only(&world);
    assert!(guarded.starts_with("text: va 0x0a0000200000..0x0a0000201000 is declared r-x normal"), "GP: {guarded}");
    let mut world = World::good();
    world.set(world::IMAGE_L3, 4, world.get(world::IMAGE_L3, 4) & !(1 << 10));
    assert!(only(&world).ends_with("bits 0x400 are not as this image writes them"), "AF");
}

#[test]
fn bad_descriptors_that_translate_nothing() {
    let mut world = World::good();
    world.set(world::FIXMAP_L3, 7, world.get(world::FIXMAP_L3, 0) & !1);
    assert_eq!(
        only(&world),
        "level 3 slot 7 of table 0x00004020a000 (va 0x0a0000a07000) is 0x0040000009000652: translates nothing, yet is not 0"
    );
    // Reserved encodings: a block at level 0, "block" at level 3.
    let mut world = World::good();
    world.set(world::ROOT, 400, 0x8000_0000 | leaf_bits(DATA, Level::L2));
    assert!(only(&world).starts_with("level 0 slot 400"));
    let mut world = World::good();
    world.set(world::IMAGE_L3, 40, 0x4020_4000 | leaf_bits(DATA, Level::L2));
    assert!(only(&world).starts_with("level 3 slot 40"));
}

// Contiguous runs: what is one, and what only says so.

/// Marks `count` slots from `first` on as contiguous.
fn mark(world: &mut World, table: usize, first: usize, count: usize) {
    for index in first..first + count {
        world.set(table, index, world.get(table, index) | 1 << 52);
    }
}

#[test]
fn good_contiguous_run() {
    let mut world = World::good();
    mark(&mut world, world::DIRECTMAP_L2, 32, 32);
    let audit = world.audit();
    assert_eq!(audit.first, None);
    assert_eq!(audit.leaves, World::good().audit().leaves, "each leaf of a run is one");
}

#[test]
fn bad_contiguous_run_with_a_leaf_of_another_kind() {
    let torn = |change: &dyn Fn(u64) -> u64, at: usize| {
        let mut world = World::good();
        mark(&mut world, world::DIRECTMAP_L2, 16, 16);
        world.set(world::DIRECTMAP_L2, at, change(world.get(world::DIRECTMAP_L2, at)));
        world.lines().into_iter().find(|line| line.contains("of a contiguous run"))
    };
    for at in 16..32 {
        assert!(torn(&|raw| raw, at).is_none());
        let gone = torn(&|_| 0, at).expect("one is missing");
        assert!(gone.ends_with(&std::format!("its slot {at} holds 0x0000000000000000")), "{gone}");
        assert!(torn(&|raw| raw & !(1 << 52), at).is_some(), "one is not marked");
        assert!(torn(&|raw| raw ^ 1 << 7, at).is_some(), "one has other rights");
        assert!(torn(&|raw| raw + (32 << 21), at).is_some(), "one maps elsewhere");
    }
}

#[test]
fn bad_contiguous_run_that_is_not_aligned() {
    // Sixteen blocks side by side whose first output address is a multiple of 2 MiB alone.
    let mut world = World::good();
    for index in 16..32 {
        world.set(world::DIRECTMAP_L2, index, world.get(world::DIRECTMAP_L2, index) + (1 << 21));
    }
    mark(&mut world, world::DIRECTMAP_L2, 16, 16);
    assert!(world.lines().iter().any(|line| line.contains("level 2 slot 16") && line.contains("its slot 16 holds")));
    let mut world = World::good();
    mark(&mut world, world::IMAGE_L3, 1, 16);
    assert!(world.audit().mismatches > 0, "sixteen side by side, yet no run");
}

// No bit of any descriptor is exempt, neither of those in use nor of those that are 0; but for one: bit 55 of a table, which the manager may
// set and hardware ignores.

/// The bit of a table descriptor that may be either.
const KEPT: u32 = 55;

fn flips(slots: impl Fn(u64, usize) -> bool, bits: impl Iterator<Item = u32> + Clone) {
    let mut world = World::good();
    for table in 0..TABLES {
        for index in 0..SLOTS {
            let good = world.get(table, index);
            if !slots(good, index) {
                continue;
            }
            let is_table = good & 3 == 3 && ![world::IMAGE_L3, world::FIXMAP_L3, world::IDENTITY_L3].contains(&table);
            for bit in bits.clone().filter(|&bit| !(is_table && bit == KEPT)) {
                world.set(table, index, good ^ 1 << bit);
                assert_ne!(world.audit().mismatches, 0, "table {table} slot {index} bit {bit} of {good:#x}");
            }
            world.set(table, index, good);
        }
    }
    assert_eq!(world.audit().mismatches, 0);
}

#[test]
fn bad_every_bit_of_every_descriptor_counts() {
    // Of the directmap's 511 blocks, the first few, of which some are of a contiguous run, and the last.
    flips(|raw, index| raw != 0 && (raw & 3 == 3 || !(24..=508).contains(&index)), 0..64);
}

#[test]
fn good_tables_may_be_marked_as_kept() {
    let mut world = World::good();
    for (table, index) in [(world::ROOT, layout::XEN_SLOT), (world::XEN_L1, 0), (world::XEN_L2, 5)] {
        world.set(table, index, world.get(table, index) | 1 << KEPT);
    }
    assert_eq!(world.audit().first, None);
}

#[test]
fn bad_every_bit_of_an_unused_slot_counts() {
    flips(|raw, index| raw == 0 && [0, 1, 2, 5, 255, 511].contains(&index), 0..64);
}

#[test]
fn bad_a_descriptor_in_any_unused_slot_counts() {
    flips(|raw, _| raw == 0, [0].into_iter());
}

#[test]
fn bad_no_declaration_is_dispensable() {
    let world = World::good();
    for number in 0..world.declared.len() {
        let mut world = World::good();
        let Declared { name, output, .. } = world.declared.remove(number);
        assert_eq!(world.audit().mismatches == 0, output.is_none(), "{name}");
    }
}
