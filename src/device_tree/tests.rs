//! Claims about trees: what is read from good ones, what refuses bad ones.

use dtoolkit::memreserve::MemoryReservation;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use super::*;
use crate::memory_map::{self, Claim, Limits, Module, ModuleKind};

mod console;
mod cpus;
mod memory;
mod structure;

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
    let mut machine = Platform::new();
    parse(tree, TREE_START, None, &mut machine).map(|()| machine)
}

/// The same under UEFI, whose map has these descriptors: type, start, pages. All may be mapped write-back.
fn read_under_uefi(tree: &DeviceTree, descriptors: &[[u64; 3]]) -> Result<Platform, Error> {
    let words = descriptors.iter().flat_map(|&[kind, start, pages]| [kind, start, 0, pages, 8, 0]);
    let map: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let mut machine = Platform::new();
    parse(&tree.to_dtb(), TREE_START, Some(uefi::Map::read(&map, 48).unwrap()), &mut machine).map(|()| machine)
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
    let long = Error::MalformedReg { node: NodeName::new(&"x".repeat(200)) };
    assert!(long.to_string().len() < 100);
    let root = malformed("", "#address-cells");
    assert_eq!(root.to_string(), "device tree node / has a malformed #address-cells");
}
