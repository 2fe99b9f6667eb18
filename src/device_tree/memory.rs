//! RAM and everything that claims some of it.

#![forbid(unsafe_code)]

use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;

use super::node::{Cells, bytes, children, is_available, malformed, number, reg_spans, span, string};
use super::{Error, NodeName};
use crate::memory_map::{self, Full, MAX_BANKS, MemoryMap, Module, ModuleKind, SpanList};
use crate::uefi;

const USABLE: &str = "linux,usable-memory";
const USABLE_RANGE: &str = "linux,usable-memory-range";
/// Memory that is promised to somebody, and the properties that counted its cells until Xen 4.16.
const STATIC_MEMORY: [&str; 3] = ["xen,static-mem", "#xen,static-mem-address-cells", "#xen,static-mem-size-cells"];
const STATIC_HEAP: [&str; 3] = ["xen,static-heap", "#xen,static-heap-address-cells", "#xen,static-heap-size-cells"];

/// Adds all that the tree says of memory to `map`. Where the firmware says itself what is RAM, that counts, and what
/// the tree calls RAM is in `tree_ram` only.
pub(super) fn read(
    fdt: Fdt<'_>,
    firmware: Option<uefi::Map<'_>>,
    map: &mut MemoryMap,
    tree_ram: &mut SpanList<MAX_BANKS>,
) -> Result<(), Error> {
    read_banks(fdt.root(), map)?;
    if let Some(firmware) = firmware {
        *tree_ram = core::mem::take(&mut map.banks);
        firmware.ram().try_for_each(|span| map.add_bank(span))?;
    }
    keep_usable(fdt.root(), map)?;
    if map.banks.is_empty() {
        return Err(memory_map::Error::NoRam.into());
    }
    for entry in fdt.memory_reservations().filter(|entry| entry.size() != 0) {
        map.add_reserved(span("memreserve", entry.address(), entry.size())?)?;
    }
    if let Some(reserved) = fdt.root().child("reserved-memory") {
        read_reserved(reserved, map)?;
    }
    if let Some(chosen) = fdt.root().child("chosen") {
        read_modules(fdt.root(), chosen, map)?;
        read_initrd(chosen, map)?;
    }
    Ok(())
}

/// Banks are the root's children that are memory: deeper ones would be on a bus, and Linux ignores them too. Of RAM
/// that another kernel keeps (a crash kernel's tree), `linux,usable-memory` stands for `reg`.
fn read_banks(root: FdtNode<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    let cells = Cells::of(root, Cells::DEFAULT)?;
    for node in children(root)?.filter(|node| is_memory(*node) && is_available(*node)) {
        if node.property(USABLE).is_some() {
            for bank in cells.spans(node, USABLE)? {
                map.add_bank(bank?)?;
            }
        } else {
            require_reg(node)?;
            for bank in reg_spans(node)? {
                map.add_bank(bank?)?;
            }
        }
    }
    Ok(())
}

/// `linux,usable-memory-range` of /chosen bounds all RAM: the rest is none of ours, and is not mapped either.
fn keep_usable(root: FdtNode<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    if let Some(chosen) = root.child("chosen").filter(|chosen| chosen.property(USABLE_RANGE).is_some()) {
        let mut usable = SpanList::<MAX_BANKS>::new();
        for span in Cells::of(root, Cells::DEFAULT)?.spans(chosen, USABLE_RANGE)? {
            usable.insert(span?).map_err(|Full| malformed(chosen, USABLE_RANGE))?;
        }
        map.keep_banks(&usable)?;
    }
    Ok(())
}

/// By its `device_type`; without one, by its name, which the specification reserves for this.
fn is_memory(node: FdtNode<'_>) -> bool {
    string(node, "device_type").map_or(node.name_without_address() == "memory", |kind| kind == b"memory")
}

/// A child without `reg` asks for memory to be chosen by the operating system: nothing is reserved yet.
fn read_reserved(reserved: FdtNode<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    if bytes(reserved, "ranges").is_some_and(|ranges| !ranges.is_empty()) && !is_identity(reserved) {
        return Err(malformed(reserved, "ranges"));
    }
    for node in children(reserved)?.filter(|node| is_available(*node)) {
        let no_map = node.property("no-map").is_some();
        for span in reg_spans(node)? {
            if no_map { map.add_no_map(span?)? } else { map.add_reserved(span?)? }
        }
    }
    Ok(())
}

/// Whether `ranges` gives every address of the children as it is: memory has no other addresses than the root's.
fn is_identity(node: FdtNode<'_>) -> bool {
    let is_same = |child: Option<u64>, parent: Option<u64>| child.is_some() && child == parent;
    node.ranges().ok().flatten().is_some_and(|mut ranges| {
        ranges.all(|range| is_same(range.child_bus_address().ok(), range.parent_bus_address().ok()))
    })
}

/// Boot modules are children of /chosen, or of a domain's node there; a domain, and the heap, may be given memory of
/// their own. What counts the cells may stand in any node above (QEMU's guest-loader leaves it out of /chosen): so it
/// does for Xen, whose bindings these are.
fn read_modules(root: FdtNode<'_>, chosen: FdtNode<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    let of_root = Cells::of(root, Cells::DEFAULT)?;
    let of_chosen = Cells::of(chosen, of_root)?;
    read_static(chosen, STATIC_HEAP, of_root, map)?;
    for node in chosen.children() {
        if node.is_compatible("xen,domain") {
            let of_domain = Cells::of(node, of_chosen)?;
            read_static(node, STATIC_MEMORY, of_chosen, map)?;
            for module in node.children() {
                read_module(module, of_domain, map)?;
            }
        } else {
            read_module(node, of_chosen, map)?;
        }
    }
    Ok(())
}

/// Keeps out of the supply what `node` promises by [`STATIC_MEMORY`] or [`STATIC_HEAP`].
fn read_static(
    node: FdtNode<'_>,
    [name, address, size]: [&'static str; 3],
    cells: Cells,
    map: &mut MemoryMap,
) -> Result<(), Error> {
    if node.property(name).is_none() {
        return Ok(());
    }
    let cells = cells.counted_by(node, address, size)?;
    for span in cells.spans(node, name)? {
        map.add_reserved(span?)?;
    }
    Ok(())
}

fn read_module(node: FdtNode<'_>, cells: Cells, map: &mut MemoryMap) -> Result<(), Error> {
    if !node.is_compatible("multiboot,module") && !node.is_compatible("xen,multiboot-module") {
        return Ok(());
    }
    require_reg(node)?;
    let kind = node.compatible().into_iter().flatten().find_map(module_kind).unwrap_or(ModuleKind::Other);
    for span in cells.spans(node, "reg")? {
        map.add_module(Module { span: span?, kind })?;
    }
    Ok(())
}

fn module_kind(compatible: &str) -> Option<ModuleKind> {
    match compatible {
        "multiboot,kernel" | "xen,linux-zimage" => Some(ModuleKind::Kernel),
        "multiboot,ramdisk" | "xen,linux-initrd" => Some(ModuleKind::Ramdisk),
        "xen,xsm-policy" => Some(ModuleKind::Xsm),
        "multiboot,device-tree" => Some(ModuleKind::DeviceTree),
        _ => None,
    }
}

fn read_initrd(chosen: FdtNode<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    let end = "linux,initrd-end";
    match (number(chosen, "linux,initrd-start")?, number(chosen, end)?) {
        (None, None) => Ok(()),
        (Some(start), Some(end_exclusive)) => {
            let bytes = end_exclusive.checked_sub(start).ok_or(malformed(chosen, end))?;
            let span = span("chosen", start, bytes)?;
            if span.is_empty() {
                return Ok(());
            }
            Ok(map.add_module(Module { span, kind: ModuleKind::Ramdisk })?)
        }
        _ => Err(malformed(chosen, end)),
    }
}

fn require_reg(node: FdtNode<'_>) -> Result<(), Error> {
    match node.property("reg") {
        Some(_) => Ok(()),
        None => Err(Error::MalformedReg { node: NodeName::new(node.name()) }),
    }
}
