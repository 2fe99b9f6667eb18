//! Claims about trees: what is read from good ones, what refuses bad ones.

use dtoolkit::memreserve::MemoryReservation;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::memory_map::{self, Claim, Limits, Module, ModuleKind};

mod console;
mod cpus;
mod memory;
mod structure;
mod witness;

const TREE_START: PhysAddr = PhysAddr::at(0x4800_0000);

type Properties<'a> = &'a [(&'a str, Vec<u8>)];

fn cells(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

fn node(name: &str, properties: Properties<'_>, children: Vec<DeviceTreeNode>) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(name);
    for (name, value) in properties {
        node.add_property(DeviceTreeProperty::new_unchecked(*name, value.as_slice()));
    }
    for child in children {
        node.add_child(child);
    }
    node
}

fn cell_counts(address: u32, size: u32) -> Vec<(&'static str, Vec<u8>)> {
    vec![("#address-cells", cells(&[address])), ("#size-cells", cells(&[size]))]
}

fn memory(name: &str, reg: &[u32]) -> DeviceTreeNode {
    node(name, &[("device_type", text("memory")), ("reg", cells(reg))], vec![])
}

/// A root with two cells each, 1 GiB of RAM at 1 GiB, and `children`.
fn machine(children: Vec<DeviceTreeNode>) -> DeviceTree {
    let mut all = vec![memory("memory@40000000", &[0, 0x4000_0000, 0, 0x4000_0000])];
    all.extend(children);
    bare(all)
}

/// A root with two cells each, and `children`.
fn bare(children: Vec<DeviceTreeNode>) -> DeviceTree {
    let mut tree = DeviceTree::new();
    tree.root = node("", &cell_counts(2, 2), children);
    tree
}

fn read(tree: &DeviceTree) -> Result<Platform, Error> {
    read_bytes(&tree.to_dtb())
}

fn read_bytes(tree: &[u8]) -> Result<Platform, Error> {
    read_with(tree, None)
}

/// What is read of `tree`, which is what the witness reads of it.
fn read_with(tree: &[u8], firmware: Option<uefi::Map<'_>>) -> Result<Platform, Error> {
    let mut machine = Platform::new();
    let read = parse(tree, TREE_START, firmware, &mut machine).map(|()| machine);
    if super::structure::open(tree, |_, _| {}).and_then(|(_, mut walk)| walk.finish()).is_ok() {
        let mut machine = Platform::new();
        let by_witness = witness::read(tree, firmware, &mut machine).map(|()| machine);
        assert_eq!(format!("{read:?}"), format!("{by_witness:?}"));
    }
    read
}

/// The same under UEFI, whose map has these descriptors: type, start, pages. All may be mapped write-back.
fn read_under_uefi(tree: &DeviceTree, descriptors: &[[u64; 3]]) -> Result<Platform, Error> {
    let words = descriptors.iter().flat_map(|&[kind, start, pages]| [kind, start, 0, pages, 8, 0]);
    let map: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    read_with(&tree.to_dtb(), Some(uefi::Map::read(&map, 48).unwrap()))
}

fn refusal(tree: &DeviceTree) -> Error {
    read(tree).map(|_| ()).unwrap_err()
}

fn span(start: u64, bytes: u64) -> PhysSpan {
    PhysSpan::of(PhysAddr::at(start), bytes).unwrap()
}

fn malformed(node: &str, property: &'static str) -> Error {
    Error::MalformedProperty { node: NodeName::new(node), property }
}

fn malformed_reg(node: &str) -> Error {
    Error::MalformedReg { node: NodeName::new(node) }
}

fn chosen(properties: Properties<'_>, children: Vec<DeviceTreeNode>) -> DeviceTree {
    machine(vec![node("chosen", properties, children)])
}

#[test]
fn good_command_line_is_bootargs() {
    let tree = chosen(&[("bootargs", text("exit=psci a b"))], vec![]).to_dtb();
    assert_eq!(read_bytes(&tree).unwrap().command_line(&tree), b"exit=psci a b");
}

#[test]
fn good_xens_bootargs_go_first() {
    let both = [("bootargs", text("console=hvc0")), ("xen,xen-bootargs", text("exit=park"))];
    let tree = chosen(&both, vec![]).to_dtb();
    assert_eq!(read_bytes(&tree).unwrap().command_line(&tree), b"exit=park");
}

#[test]
fn good_command_line_need_not_be_utf8_nor_end() {
    let tree = chosen(&[("bootargs", vec![0xff, b'x'])], vec![]).to_dtb();
    assert_eq!(read_bytes(&tree).unwrap().command_line(&tree), b"\xffx");
}

#[test]
fn good_no_command_line_is_an_empty_one() {
    for tree in [machine(vec![]), chosen(&[("bootargs", vec![])], vec![])] {
        let tree = tree.to_dtb();
        assert_eq!(read_bytes(&tree).unwrap().command_line(&tree), b"");
    }
}

#[test]
fn good_tree_may_have_bytes_after_it() {
    let mut tree = machine(vec![]).to_dtb();
    let bytes = tree.len();
    tree.extend([0xaa; 64]);
    let machine = read_bytes(&tree).unwrap();
    assert_eq!(machine.memory.device_tree, Some(span(TREE_START.raw(), bytes as u64)));
}

#[test]
fn good_address_is_a_multiple_of_eight() {
    assert_eq!(check_address(0x4800_0008), Ok(()));
}

#[test]
fn bad_address_zero_or_misaligned() {
    assert_eq!(check_address(0), Err(Error::Absent));
    assert_eq!(check_address(0x4800_0004), Err(Error::Misaligned { address: 0x4800_0004 }));
}

#[test]
fn bad_tree_runs_beyond_48_bits() {
    let start = PhysAddr::at(1 << 48);
    let error = parse(&machine(vec![]).to_dtb(), start, None, &mut Platform::new()).unwrap_err();
    assert_eq!(error, Error::BadAddress { start });
}

#[test]
fn bad_tree_over_the_image_is_refused_by_name() {
    let machine = read(&machine(vec![])).unwrap();
    let image = span(TREE_START.raw() & !0xfff, 0x1000);
    let error = machine.memory.check(image, Limits { directmap_bytes: 5 << 40, phys_bits: 44 }).unwrap_err();
    let tree = machine.memory.device_tree.unwrap();
    assert_eq!(error, memory_map::Error::OverlapsImage { claim: Claim::DeviceTree, span: tree, image });
}

#[test]
fn good_messages_are_one_printable_line() {
    let hostile = Error::MalformedReg { node: NodeName::new("a\n\u{1b}[2J\u{e9}") };
    assert_eq!(hostile.to_string(), "device tree node a??[2J?? has a malformed reg");
    assert!(format!("{hostile:?}").contains("a??[2J??"));
    let long = Error::MalformedReg { node: NodeName::new("x".repeat(200)) };
    assert!(long.to_string().len() < 100);
    let root = malformed("", "#address-cells");
    assert_eq!(root.to_string(), "device tree node / has a malformed #address-cells");
}

#[test]
fn good_of_nodes_and_properties_with_one_name_the_first_counts() {
    let module = |at: u32| {
        node("module@1", &[("compatible", text("multiboot,module")), ("reg", cells(&[0, at, 0, 0x1000]))], vec![])
    };
    // The model keeps one of two with one name, so the second gets its name afterwards.
    let lines = [("bootargs", text("first")), ("bootargz", text("second"))];
    let chosen = |name, at| node(name, &lines, vec![module(at)]);
    let mut tree = machine(vec![chosen("chosen", 0x5000_0000), chosen("chosez", 0x6000_0000)]).to_dtb();
    for (from, to) in [(b"bootargz\0", b"bootargs\0"), (b"\0\0\x01chosez", b"\0\0\x01chosen")] {
        let at = tree.windows(from.len()).position(|window| window == from).unwrap();
        tree[at..][..to.len()].copy_from_slice(to);
    }
    let machine = read_bytes(&tree).unwrap();
    assert_eq!(machine.command_line(&tree), b"first");
    assert_eq!(machine.memory.modules().map(|module| module.span).collect::<Vec<_>>(), [span(0x5000_0000, 0x1000)]);
}

#[test]
fn good_a_node_may_be_several_things() {
    let cpu = node("cpu@1", &[("reg", cells(&[1]))], vec![]);
    let also_memory = [("device_type", text("memory")), ("reg", cells(&[0, 0x4000_0000, 0, 0x4000_0000]))];
    let also_psci = [("compatible", text("arm,psci-1.0")), ("method", text("smc"))];
    let all = [&also_memory[..], &also_psci, &cell_counts(1, 0)].concat();
    let machine = read(&bare(vec![node("cpus", &all, vec![cpu])])).unwrap();
    assert_eq!(machine.memory.banks.as_slice(), [span(0x4000_0000, 0x4000_0000)]);
    assert_eq!((machine.psci, machine.cpus.as_slice().len()), (Some(Conduit::Smc), 1));
}

#[test]
fn bad_of_several_faults_the_same_is_named_wherever_they_stand() {
    let bank = memory("memory@1", &[0]);
    let reserved = node("reserved-memory", &cell_counts(2, 2), vec![node("x", &[("reg", cells(&[0]))], vec![])]);
    let module = node("module", &[("compatible", text("multiboot,module"))], vec![]);
    let chosen = node("chosen", &[("linux,initrd-end", cells(&[1]))], vec![module]);
    let cpus = node("cpus", &[], vec![node("cpu", &[], vec![])]);
    let mut faults = vec![(bank, "memory@1"), (reserved, "x"), (chosen, "module"), (cpus, "cpu")];
    while let Some((_, name)) = faults.first() {
        let nodes = || faults.iter().map(|(node, _)| node.clone());
        assert_eq!(refusal(&machine(nodes().collect())), malformed_reg(name));
        assert_eq!(refusal(&machine(nodes().rev().collect())), malformed_reg(name));
        faults.remove(0);
    }
}

#[test]
fn good_names_are_told_apart_however_many_there_are() {
    let names: Vec<String> = (0..300).map(|i| format!("vendor,property-{i}")).collect();
    for start in 0..70 {
        // Whatever of them has been seen where a name that counts belongs.
        let others = names[..start + 200].iter().map(|name| (name.as_str(), vec![]));
        let bank = [("device_type", text("memory")), ("reg", cells(&[0, 0x4000_0000, 0, 0x1000]))];
        let properties: Vec<_> = others.clone().chain(bank).chain(others).collect();
        assert!(read(&bare(vec![node("vendor", &properties, vec![]), node("more", &properties[..1], vec![])])).is_ok());
    }
}

/// A tree whose padding would be refused if it were tokens, names or reservations: it costs nothing to read.
#[test]
fn good_padding_is_not_looked_at() {
    let tree = machine(vec![node("chosen", &[("bootargs", text("exit=park"))], vec![])]).to_dtb();
    let word = |at: usize| u32::from_be_bytes(tree[at..at + 4].try_into().unwrap()) as usize;
    let (structure, strings) = (&tree[word(8)..][..word(36)], &tree[word(12)..][..word(32)]);
    let padding = vec![0xff; 256 << 10];
    let parts = [&tree[..word(8)], structure, &padding, strings, &padding];
    let mut padded = parts.concat();
    let strings_start = tree[..word(8)].len() + structure.len() + padding.len();
    let (total, structure_bytes, strings_bytes) =
        (padded.len(), structure.len() + padding.len(), strings.len() + padding.len());
    for (at, value) in [(4, total), (12, strings_start), (32, strings_bytes), (36, structure_bytes)] {
        padded[at..at + 4].copy_from_slice(&(value as u32).to_be_bytes());
    }
    let read = |tree: &[u8]| read_bytes(tree).unwrap();
    assert_eq!(read(&padded).command_line(&padded), b"exit=park");
    assert_eq!(read(&padded).memory.banks.as_slice(), read(&tree).memory.banks.as_slice());
}

/// Trees of the fuzzer's corpus that have all kinds of nodes.
const SEEDS: [&[u8]; 3] = [
    include_bytes!("../../tests/fuzz/corpus/device_tree/qemu-virt.dtb"),
    include_bytes!("../../tests/fuzz/corpus/device_tree/spin-table-mini-uart.dtb"),
    include_bytes!("../../tests/fuzz/corpus/device_tree/modules-reserved.dtb"),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Of a damaged tree the witness makes the same ([`read_with`] compares). Damage that keeps the structure good: in
    /// names and values.
    #[test]
    fn good_damaged_trees_are_read_as_the_witness_reads_them(
        seed in prop::sample::select(SEEDS.to_vec()),
        patches in vec((any::<prop::sample::Index>(), prop_oneof![0_u8..10, b' '..=b'~', any::<u8>()]), 1..6),
    ) {
        let mut tree = seed.to_vec();
        for (index, byte) in patches {
            let at = HEADER_BYTES + index.index(tree.len() - HEADER_BYTES);
            tree[at] = byte;
        }
        let _ = read_bytes(&tree);
    }
}
