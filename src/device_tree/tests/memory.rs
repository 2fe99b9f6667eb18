//! Claims about memory, reserved regions and boot modules.

use std::slice::from_ref;

use super::*;

fn reserved(properties: Properties<'_>, children: Vec<DeviceTreeNode>) -> DeviceTree {
    let properties = [&cell_counts(2, 2), properties].concat();
    machine(vec![node("reserved-memory", &properties, children)])
}

fn banks(tree: &DeviceTree) -> Vec<PhysSpan> {
    read(tree).unwrap().memory.banks.iter().collect()
}

fn module(name: &str, compatible: &str, reg: &[u32]) -> DeviceTreeNode {
    node(name, &[("compatible", text(compatible)), ("reg", cells(reg))], vec![])
}

#[test]
fn good_banks_are_sorted_and_merged() {
    let tree = bare(vec![
        memory("memory@8000000000", &[0x80, 0, 0, 0x1000]),
        memory("memory@40001000", &[0, 0x4000_1000, 0, 0x1000, 0, 0x4000_0000, 0, 0x1800]),
    ]);
    assert_eq!(banks(&tree), [span(0x4000_0000, 0x2000), span(0x80_0000_0000, 0x1000)]);
}

#[test]
fn good_banks_of_one_cell() {
    let mut tree = DeviceTree::new();
    tree.root = node("", &cell_counts(1, 1), vec![memory("memory", &[0, 0x1000_0000])]);
    assert_eq!(banks(&tree), [span(0, 0x1000_0000)]);
}

#[test]
fn good_cell_counts_default_to_two_and_one() {
    let mut tree = DeviceTree::new();
    tree.root = node("", &[], vec![memory("memory", &[1, 0, 0x1000])]);
    assert_eq!(banks(&tree), [span(1 << 32, 0x1000)]);
}

#[test]
fn good_disabled_and_empty_banks_are_left_out() {
    let mut disabled = memory("memory@0", &[0, 0, 0, 0x1000]);
    disabled.add_property(DeviceTreeProperty::new_unchecked("status", "disabled"));
    let empty = memory("memory@80000000", &[0, 0x8000_0000, 0, 0]);
    assert_eq!(banks(&machine(vec![disabled, empty])), [span(0x4000_0000, 0x4000_0000)]);
}

#[test]
fn good_memory_by_its_name_where_no_type_is_given() {
    let reg = ("reg", cells(&[0, 0x9000_0000, 0, 0x1000]));
    let banks_of = |name, properties: Properties<'_>| banks(&machine(vec![node(name, properties, vec![])])).len();
    assert_eq!(banks_of("memory@90000000", from_ref(&reg)), 2);
    assert_eq!(banks_of("memory", from_ref(&reg)), 2);
    // A type that is something else, and a name that only begins like it.
    assert_eq!(banks_of("memory@90000000", &[reg.clone(), ("device_type", text("flash"))]), 1);
    assert_eq!(banks_of("memory-controller@90000000", from_ref(&reg)), 1);
    assert_eq!(banks_of("memory@90000000", &[reg, ("status", text("disabled"))]), 1);
}

#[test]
fn good_usable_memory_stands_for_all_ram() {
    let usable = ("linux,usable-memory", cells(&[0, 0x5000_0000, 0, 0x1000, 0, 0x6000_0000, 0, 0x1000]));
    let mut bank = memory("memory@40000000", &[0, 0x4000_0000, 0, 0x4000_0000]);
    bank.add_property(DeviceTreeProperty::new_unchecked(usable.0, usable.1.as_slice()));
    let other = memory("memory@80000000", &[0, 0x8000_0000, 0, 0x1000]);
    let expected = [span(0x5000_0000, 0x1000), span(0x6000_0000, 0x1000), span(0x8000_0000, 0x1000)];
    assert_eq!(banks(&bare(vec![bank.clone(), other.clone()])), expected);
    // None of it.
    bank.add_property(DeviceTreeProperty::new_unchecked("linux,usable-memory", cells(&[0, 0, 0, 0])));
    assert_eq!(banks(&bare(vec![bank, other])), [span(0x8000_0000, 0x1000)]);
}

#[test]
fn good_usable_range_bounds_all_ram() {
    let ranges = cells(&[0, 0x3000_0000, 0, 0x1100_0000, 0, 0x7000_0000, 0, 0x4000_0000]);
    let tree = chosen(&[("linux,usable-memory-range", ranges)], vec![]);
    assert_eq!(banks(&tree), [span(0x4000_0000, 0x100_0000), span(0x7000_0000, 0x1000_0000)]);
    let elsewhere = chosen(&[("linux,usable-memory-range", cells(&[1, 0, 0, 0x1000]))], vec![]);
    assert_eq!(refusal(&elsewhere), Error::Memory(memory_map::Error::NoRam));
}

#[test]
fn bad_usable_memory_with_half_an_entry() {
    let mut bank = memory("memory@40000000", &[0, 0x4000_0000, 0, 0x4000_0000]);
    bank.add_property(DeviceTreeProperty::new_unchecked("linux,usable-memory", cells(&[0, 1, 2])));
    assert_eq!(refusal(&bare(vec![bank])), malformed("memory@40000000", "linux,usable-memory"));
    let tree = chosen(&[("linux,usable-memory-range", cells(&[0, 1, 2]))], vec![]);
    assert_eq!(refusal(&tree), malformed("chosen", "linux,usable-memory-range"));
}

#[test]
fn bad_no_memory_node() {
    assert_eq!(refusal(&bare(vec![])), Error::Memory(memory_map::Error::NoRam));
    let empty = bare(vec![memory("memory@0", &[0, 0, 0, 0])]);
    assert_eq!(refusal(&empty), Error::Memory(memory_map::Error::NoRam));
}

#[test]
fn good_under_uefi_its_map_decides() {
    let [free, runtime] = [7, 6];
    let map = [[runtime, 0x5000_0000, 0x10], [free, 0x4000_0000, 0x1_0000], [free, 0x9000_0000, 0x10]];
    let banks = [span(0x4000_0000, 0x1000_0000), span(0x9000_0000, 0x1_0000)];
    let told = read_under_uefi(&machine(vec![]), &map).unwrap();
    assert_eq!((told.memory.banks.as_slice(), told.tree_ram.as_slice().len()), (&banks[..], 1));
    let untold = read_under_uefi(&bare(vec![]), &map).unwrap();
    assert_eq!((untold.memory.banks.as_slice(), untold.tree_ram.as_slice()), (&banks[..], &[][..]));
    assert!(read(&machine(vec![])).unwrap().tree_ram.is_empty());
    // What bounds all RAM bounds UEFI's, too.
    let range = chosen(&[("linux,usable-memory-range", cells(&[0, 0x4000_0000, 0, 0x1000]))], vec![]);
    let bounded = read_under_uefi(&range, &map).unwrap();
    assert_eq!(bounded.memory.banks.as_slice(), [span(0x4000_0000, 0x1000)]);
}

#[test]
fn bad_more_ram_from_uefi_than_the_list_holds() {
    let map: Vec<[u64; 3]> = (0..=memory_map::MAX_BANKS as u64).rev().map(|i| [7, i << 20, 1]).collect();
    let error = read_under_uefi(&machine(vec![]), &map).unwrap_err();
    assert_eq!(error.to_string(), "there are more than 64 memory banks");
    // One large piece joins them all, wherever it stands in the map.
    assert!(read_under_uefi(&machine(vec![]), &[&map[..], &[[7, 0, 0x1_0000]]].concat()).is_ok());
}

#[test]
fn bad_bank_with_half_an_entry() {
    let tree = bare(vec![memory("memory@0", &[0, 0, 0])]);
    assert_eq!(refusal(&tree), malformed_reg("memory@0"));
}

#[test]
fn bad_bank_without_reg() {
    let tree = bare(vec![node("memory", &[("device_type", text("memory"))], vec![])]);
    assert_eq!(refusal(&tree), malformed_reg("memory"));
}

#[test]
fn bad_bank_of_three_cells() {
    let mut tree = DeviceTree::new();
    tree.root = node("", &cell_counts(3, 1), vec![memory("memory", &[0, 0, 0, 0x1000])]);
    assert_eq!(refusal(&tree), malformed_reg("memory"));
}

#[test]
fn bad_cell_count_that_is_no_number() {
    let mut tree = machine(vec![]);
    tree.root.add_property(DeviceTreeProperty::new_unchecked("#size-cells", "two"));
    // "two" and its NUL are four bytes: a number, if an absurd one.
    assert_eq!(refusal(&tree), malformed_reg("memory@40000000"));
    tree.root.add_property(DeviceTreeProperty::new_unchecked("#size-cells", "2"));
    assert_eq!(refusal(&tree), malformed("", "#size-cells"));
}

#[test]
fn bad_bank_beyond_48_bits() {
    let tree = bare(vec![memory("memory@1", &[0xffff, 0xffff_f000, 0, 0x2000])]);
    let error = Error::BeyondAddressBits { node: NodeName::new("memory@1"), address: 0xffff_ffff_f000, bytes: 0x2000 };
    assert_eq!(refusal(&tree), error);
    let wraps = bare(vec![memory("memory@1", &[0, 0x1000, u32::MAX, u32::MAX])]);
    assert!(matches!(refusal(&wraps), Error::BeyondAddressBits { .. }));
}

#[test]
fn bad_more_banks_than_the_list_holds() {
    let reg: Vec<u32> = (0..=memory_map::MAX_BANKS as u32).flat_map(|i| [0, i << 20, 0, 0x1000]).collect();
    let error = refusal(&bare(vec![memory("memory", &reg)]));
    assert_eq!(error.to_string(), "there are more than 64 memory banks");
    assert!(read(&bare(vec![memory("memory", &reg[4..])])).is_ok());
}

#[test]
fn good_memreserve_is_reserved() {
    let mut tree = machine(vec![]);
    tree.memory_reservations = vec![MemoryReservation::new(0x4000_0000, 0x800), MemoryReservation::new(0x1000, 0)];
    let map = read(&tree).unwrap().memory;
    assert_eq!(map.reserved.as_slice(), [span(0x4000_0000, 0x800)]);
    assert!(map.no_map.is_empty());
}

#[test]
fn bad_memreserve_beyond_48_bits() {
    let mut tree = machine(vec![]);
    tree.memory_reservations = vec![MemoryReservation::new(u64::MAX, 1)];
    let error = Error::BeyondAddressBits { node: NodeName::new("memreserve"), address: u64::MAX, bytes: 1 };
    assert_eq!(refusal(&tree), error);
}

#[test]
fn good_reserved_memory_by_no_map() {
    let keep = node("keep@50000000", &[("reg", cells(&[0, 0x5000_0000, 0, 0x1000]))], vec![]);
    let hide = [("reg", cells(&[0, 0x6000_0000, 0, 0x10, 0, 0x6100_0000, 0, 0x10])), ("no-map", vec![])];
    let dynamic = node("cma", &[("size", cells(&[0, 0x100_0000]))], vec![]);
    let off = [("reg", cells(&[0, 0x7000_0000, 0, 0x1000])), ("status", text("disabled"))];
    let children = vec![keep, node("hide@60000000", &hide, vec![]), dynamic, node("off@70000000", &off, vec![])];
    let map = read(&reserved(&[("ranges", vec![])], children)).unwrap().memory;
    assert_eq!(map.reserved.as_slice(), [span(0x5000_0000, 0x1000)]);
    assert_eq!(map.no_map.as_slice(), [span(0x6000_0000, 0x10), span(0x6100_0000, 0x10)]);
}

#[test]
fn bad_reserved_memory_behind_a_translation() {
    let tree = reserved(&[("ranges", cells(&[0, 0, 0, 0x1000, 0, 0x1000]))], vec![]);
    assert_eq!(refusal(&tree), malformed("reserved-memory", "ranges"));
}

#[test]
fn good_reserved_memory_behind_ranges_that_change_nothing() {
    let region = node("fw@50000000", &[("reg", cells(&[0, 0x5000_0000, 0, 0x1000])), ("no-map", vec![])], vec![]);
    for ranges in [cells(&[0, 0, 0, 0, 0x100, 0]), cells(&[0, 0, 0, 0, 0, 1 << 30, 1, 0, 1, 0, 1, 0])] {
        let map = read(&reserved(&[("ranges", ranges)], vec![region.clone()])).unwrap().memory;
        assert_eq!(map.no_map.as_slice(), [span(0x5000_0000, 0x1000)]);
    }
}

#[test]
fn bad_reserved_memory_of_which_one_range_moves() {
    let ranges = cells(&[0, 0, 0, 0, 0, 0x1000, 1, 0, 2, 0, 0, 0x1000]);
    assert_eq!(refusal(&reserved(&[("ranges", ranges)], vec![])), malformed("reserved-memory", "ranges"));
}

#[test]
fn bad_reserved_memory_with_half_an_entry() {
    let tree = reserved(&[], vec![node("x@1", &[("reg", cells(&[0, 1, 2]))], vec![])]);
    assert_eq!(refusal(&tree), malformed_reg("x@1"));
}

#[test]
fn bad_more_reserved_regions_than_the_list_holds() {
    let reg: Vec<u32> = (0..=memory_map::MAX_RESERVED as u32).flat_map(|i| [0, i << 20, 0, 0x1000]).collect();
    let no_map = |properties: Properties<'_>| reserved(&[], vec![node("x", properties, vec![])]);
    let kept = [("reg", cells(&reg))];
    assert_eq!(refusal(&no_map(&kept)).to_string(), "there are more than 128 reserved regions");
    let hidden = [("reg", cells(&reg)), ("no-map", vec![])];
    assert_eq!(refusal(&no_map(&hidden)).to_string(), "there are more than 128 no-map regions");
}

#[test]
fn good_boot_modules_by_kind() {
    let nested = node(
        "domU1",
        &[&cell_counts(1, 1)[..], &[("compatible", text("xen,domain"))]].concat(),
        vec![module("module@3000", "multiboot,device-tree\0multiboot,module", &[0x4300_0000, 0x1000])],
    );
    let modules = vec![
        module("module@1000", "multiboot,kernel\0multiboot,module", &[0x4100_0000, 0x1000]),
        module("module@2000", "xen,linux-initrd\0xen,multiboot-module", &[0x4200_0000, 0x1000]),
        nested,
        module("module@4000", "xen,xsm-policy\0multiboot,module", &[0x4400_0000, 0x1000]),
        module("module@5000", "multiboot,module", &[0x4500_0000, 0x1001]),
        module("something@6000", "vendor,else", &[0x4600_0000, 0x1000]),
    ];
    let found: Vec<_> = read(&chosen(&cell_counts(1, 1), modules)).unwrap().memory.modules().collect();
    let expected = [
        (ModuleKind::Kernel, 0x4100_0000, 0x1000),
        (ModuleKind::Ramdisk, 0x4200_0000, 0x1000),
        (ModuleKind::DeviceTree, 0x4300_0000, 0x1000),
        (ModuleKind::Xsm, 0x4400_0000, 0x1000),
        (ModuleKind::Other, 0x4500_0000, 0x1001),
    ];
    assert_eq!(found, expected.map(|(kind, start, bytes)| Module { span: span(start, bytes), kind }));
}

#[test]
fn bad_boot_module_without_reg() {
    let lost = node("module@1", &[("compatible", text("multiboot,module"))], vec![]);
    assert_eq!(refusal(&chosen(&cell_counts(1, 1), vec![lost])), malformed_reg("module@1"));
}

#[test]
fn bad_more_boot_modules_than_the_list_holds() {
    let one = |i: u32| module(&format!("module@{i}"), "multiboot,module", &[0x4100_0000 + (i << 16), 0x1000]);
    let tree = |count| chosen(&cell_counts(1, 1), (0..count).map(one).collect());
    assert!(read(&tree(memory_map::MAX_MODULES as u32)).is_ok());
    let error = refusal(&tree(memory_map::MAX_MODULES as u32 + 1));
    assert_eq!(error.to_string(), "there are more than 64 boot modules");
}

#[test]
fn good_initrd_of_one_or_two_cells() {
    for (start, end) in [([0, 0x4800_0000].as_slice(), [0, 0x4900_0000].as_slice()), (&[0x4800_0000], &[0x4900_0000])] {
        let tree = chosen(&[("linux,initrd-start", cells(start)), ("linux,initrd-end", cells(end))], vec![]);
        let modules: Vec<_> = read(&tree).unwrap().memory.modules().collect();
        assert_eq!(modules, [Module { span: span(0x4800_0000, 0x100_0000), kind: ModuleKind::Ramdisk }]);
    }
}

#[test]
fn good_empty_initrd_is_none() {
    let tree = chosen(&[("linux,initrd-start", cells(&[0x1000])), ("linux,initrd-end", cells(&[0x1000]))], vec![]);
    assert_eq!(read(&tree).unwrap().memory.modules().count(), 0);
}

#[test]
fn bad_initrd_that_runs_backwards_or_has_one_end() {
    let start = ("linux,initrd-start", cells(&[0x2000]));
    let backwards = chosen(&[start.clone(), ("linux,initrd-end", cells(&[0x1000]))], vec![]);
    assert_eq!(refusal(&backwards), malformed("chosen", "linux,initrd-end"));
    assert_eq!(refusal(&chosen(&[start], vec![])), malformed("chosen", "linux,initrd-end"));
    let odd = [("linux,initrd-start", vec![1, 2, 3])];
    assert_eq!(refusal(&chosen(&odd, vec![])), malformed("chosen", "linux,initrd-start"));
}

/// QEMU's guest-loader puts no cell counts into /chosen.
#[test]
fn good_cell_counts_of_modules_stand_in_any_node_above() {
    let own = module("module@1", "multiboot,module", &[0, 0x4100_0000, 0, 0x1000]);
    let of_domain = |properties: Properties<'_>, reg: &[u32]| {
        let properties = [&[("compatible", text("xen,domain"))], properties].concat();
        node("domU1", &properties, vec![module("module@2", "multiboot,module", reg)])
    };
    let starts = |tree: &DeviceTree| -> Vec<u64> {
        read(tree).unwrap().memory.modules().map(|module| module.span.start().raw()).collect()
    };
    let inherits = of_domain(&[], &[0, 0x4200_0000, 0, 0x1000]);
    assert_eq!(starts(&chosen(&[], vec![own.clone(), inherits])), [0x4100_0000, 0x4200_0000]);
    let says = of_domain(&cell_counts(1, 1), &[0x4200_0000, 0x1000]);
    assert_eq!(starts(&chosen(&[], vec![own, says])), [0x4100_0000, 0x4200_0000]);
    let of_chosen = of_domain(&[], &[0x4200_0000, 0x1000]);
    assert_eq!(starts(&chosen(&cell_counts(1, 1), vec![of_chosen])), [0x4200_0000]);
}

#[test]
fn bad_module_whose_reg_does_not_fit_the_counts() {
    let lost = module("module@1", "multiboot,module", &[0, 0x4100_0000, 0x1000]);
    assert_eq!(refusal(&chosen(&[], vec![lost.clone()])), malformed_reg("module@1"));
    assert_eq!(refusal(&chosen(&cell_counts(0, 1), vec![lost])), malformed_reg("module@1"));
}

#[test]
fn good_static_memory_and_heap_are_reserved() {
    let domain = |name, properties: Properties<'_>| {
        node(name, &[&[("compatible", text("xen,domain"))], properties].concat(), vec![])
    };
    let two = cells(&[0, 0x5000_0000, 0, 0x1000, 0, 0x5800_0000, 0, 0x1000]);
    let domains = vec![
        domain("domU1", &[("xen,static-mem", two)]),
        // Counted as until Xen 4.16.
        domain(
            "domU2",
            &[
                ("#xen,static-mem-address-cells", cells(&[1])),
                ("#xen,static-mem-size-cells", cells(&[1])),
                ("xen,static-mem", cells(&[0x6000_0000, 0x1000])),
            ],
        ),
    ];
    let heap = ("xen,static-heap", cells(&[0, 0x7000_0000, 0, 0x1000]));
    let map = read(&chosen(&[heap], domains)).unwrap().memory;
    let expected = [0x5000_0000, 0x5800_0000, 0x6000_0000, 0x7000_0000].map(|start| span(start, 0x1000));
    assert_eq!(map.reserved.as_slice(), expected);
    // Beside a domain it says nothing, nor in one that is none.
    let other = node("other", &[("xen,static-mem", cells(&[0, 0x5000_0000, 0, 0x1000]))], vec![]);
    assert!(read(&chosen(&[], vec![other])).unwrap().memory.reserved.is_empty());
}

#[test]
fn bad_static_memory_with_half_an_entry() {
    let properties = [("compatible", text("xen,domain")), ("xen,static-mem", cells(&[0, 1, 2]))];
    assert_eq!(refusal(&chosen(&[], vec![node("domU1", &properties, vec![])])), malformed("domU1", "xen,static-mem"));
    let heap = chosen(&[("xen,static-heap", vec![1])], vec![]);
    assert_eq!(refusal(&heap), malformed("chosen", "xen,static-heap"));
}
