//! RAM and everything that claims some of it.

#![forbid(unsafe_code)]

use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;

use super::node::{bytes, children, is_available, malformed, number, reg_spans, span, string};
use super::{Error, NodeName};
use crate::memory_map::{self, MemoryMap, Module, ModuleKind};

/// Adds all that the tree says of memory to `map`.
pub(super) fn read(fdt: Fdt<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    read_banks(fdt.root(), map)?;
    for entry in fdt.memory_reservations().filter(|entry| entry.size() != 0) {
        map.add_reserved(span("memreserve", entry.address(), entry.size())?)?;
    }
    if let Some(reserved) = fdt.root().child("reserved-memory") {
        read_reserved(reserved, map)?;
    }
    if let Some(chosen) = fdt.root().child("chosen") {
        read_modules(chosen, map)?;
        read_initrd(chosen, map)?;
    }
    Ok(())
}

/// Banks are the root's children with `device_type = "memory"`: deeper ones would be on a bus, and Linux ignores them too.
fn read_banks(root: FdtNode<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    let is_bank = |node: &FdtNode<'_>| string(*node, "device_type") == Some(b"memory") && is_available(*node);
    for node in children(root)?.filter(is_bank) {
        require_reg(node)?;
        for bank in reg_spans(node)? {
            map.add_bank(bank?)?;
        }
    }
    if map.banks.is_empty() { Err(memory_map::Error::NoRam.into()) } else { Ok(()) }
}

/// A child without `reg` asks for memory to be chosen by the operating system: nothing is reserved yet.
fn read_reserved(reserved: FdtNode<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    if bytes(reserved, "ranges").is_some_and(|ranges| !ranges.is_empty()) {
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

/// Boot modules are children of /chosen, or of a domain's node there.
fn read_modules(chosen: FdtNode<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    for node in children(chosen)? {
        if node.is_compatible("xen,domain") {
            for module in children(node)? {
                read_module(module, map)?;
            }
        } else {
            read_module(node, map)?;
        }
    }
    Ok(())
}

fn read_module(node: FdtNode<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    if !node.is_compatible("multiboot,module") && !node.is_compatible("xen,multiboot-module") {
        return Ok(());
    }
    require_reg(node)?;
    let kind = node.compatible().into_iter().flatten().find_map(module_kind).unwrap_or(ModuleKind::Other);
    for span in reg_spans(node)? {
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
