//! RAM and everything that claims some of it.

#![forbid(unsafe_code)]

use super::Error;
use super::names::Name;
use super::node::{Cells, Node, entries, span};
use super::structure::Walk;
use crate::memory_map::{self, Full, MAX_BANKS, MemoryMap, Module, ModuleKind, SpanList};
use crate::uefi;

/// Memory that is promised to somebody, and the properties that counted its cells until Xen 4.16.
const STATIC_MEMORY: [Name; 3] = [Name::StaticMem, Name::StaticMemAddressCells, Name::StaticMemSizeCells];
const STATIC_HEAP: [Name; 3] = [Name::StaticHeap, Name::StaticHeapAddressCells, Name::StaticHeapSizeCells];

/// How the root's children count their cells.
#[derive(Clone, Copy)]
pub(super) struct RootCells {
    /// In `reg`.
    pub(super) reg: Cells,
    /// Elsewhere.
    pub(super) other: Cells,
}

impl RootCells {
    /// Where the root does not say it.
    pub(super) const DEFAULT: Self = Self { reg: Cells::DEFAULT, other: Cells::DEFAULT };

    /// As `root` says.
    pub(super) fn of(root: &Node<'_>) -> Result<Self, Error> {
        let other = Cells::of(root, Cells::DEFAULT)?;
        Ok(Self { reg: Cells::of_reg(root)?, other })
    }
}

/// Adds the banks of `node`, a child of the root, to `map`. Deeper memory would be on a bus, and Linux ignores it too.
/// Of RAM that another kernel keeps (a crash kernel's tree), `linux,usable-memory` stands for `reg`.
pub(super) fn read_bank(node: &Node<'_>, cells: RootCells, map: &mut MemoryMap) -> Result<(), Error> {
    if !is_memory(node) || !node.is_available() {
        return Ok(());
    }
    if node.has(Name::UsableMemory) {
        for bank in cells.other.spans(node, Name::UsableMemory)? {
            map.add_bank(bank?)?;
        }
    } else {
        require_reg(node)?;
        for bank in node.reg_spans(cells.reg)? {
            map.add_bank(bank?)?;
        }
    }
    Ok(())
}

/// By its `device_type`; without one, by its name, which the specification reserves for this.
fn is_memory(node: &Node<'_>) -> bool {
    node.string(Name::DeviceType).map_or_else(|| node.is_called("memory"), |kind| kind == b"memory")
}

/// Settles what is RAM, once all banks are in `map`. Where the firmware says itself what is RAM, that counts, and what
/// the tree calls RAM is in `tree_ram` only. `linux,usable-memory-range` of /chosen bounds all RAM: the rest is none of
/// ours, and is not mapped either.
pub(super) fn settle_banks(
    firmware: Option<uefi::Map<'_>>,
    cells: Cells,
    chosen: Option<&Node<'_>>,
    map: &mut MemoryMap,
    tree_ram: &mut SpanList<MAX_BANKS>,
) -> Result<(), Error> {
    if let Some(firmware) = firmware {
        *tree_ram = core::mem::take(&mut map.banks);
        firmware.ram().try_for_each(|span| map.add_bank(span))?;
    }
    if let Some(chosen) = chosen.filter(|chosen| chosen.has(Name::UsableMemoryRange)) {
        let mut usable = SpanList::<MAX_BANKS>::new();
        for span in cells.spans(chosen, Name::UsableMemoryRange)? {
            usable.insert(span?).map_err(|Full| chosen.malformed(Name::UsableMemoryRange))?;
        }
        map.keep_banks(&usable)?;
    }
    if map.banks.is_empty() { Err(memory_map::Error::NoRam.into()) } else { Ok(()) }
}

/// Reads an entry of the memory reservation block.
pub(super) fn reserve(address: u64, bytes: u64, map: &mut MemoryMap) -> Result<(), Error> {
    if bytes == 0 {
        return Ok(());
    }
    Ok(map.add_reserved(span(b"memreserve", address, bytes)?)?)
}

/// Reads /reserved-memory, which `walk` is in. A child without `reg` asks for memory to be chosen by the operating
/// system: nothing is reserved yet.
pub(super) fn read_reserved<'a>(
    parent: &Node<'a>,
    of_root: Cells,
    walk: &mut Walk<'a>,
    map: &mut MemoryMap,
) -> Result<(), Error> {
    if parent.bytes(Name::Ranges).is_some_and(|ranges| !ranges.is_empty()) && !is_identity(parent, of_root) {
        return Err(parent.malformed(Name::Ranges));
    }
    let cells = Cells::of_reg(parent)?;
    let (depth, mut node) = (walk.depth(), Node::new());
    while node.read_next(depth, walk) {
        if !node.is_available() {
            continue;
        }
        for span in node.reg_spans(cells)? {
            if node.has(Name::NoMap) { map.add_no_map(span?)? } else { map.add_reserved(span?)? }
        }
    }
    Ok(())
}

/// Whether `ranges` gives every address of the children as it is: memory has no other addresses than the root's.
fn is_identity(node: &Node<'_>, of_root: Cells) -> bool {
    let cells = Cells::of_reg_or_default(node);
    let ranges = entries(node.bytes(Name::Ranges), [cells.address, of_root.address, cells.size]);
    ranges.is_some_and(|mut ranges| ranges.all(|[child, parent, _]| child.is_some() && child == parent))
}

/// Reads the boot modules in /chosen, which `walk` is in. They are its children, or those of a domain's node there; a
/// domain, and the heap, may be given memory of their own. What counts the cells may stand in any node above (QEMU's
/// guest-loader leaves it out of /chosen): so it does for Xen, whose bindings these are.
pub(super) fn read_modules<'a>(
    chosen: &Node<'a>,
    of_root: Cells,
    walk: &mut Walk<'a>,
    map: &mut MemoryMap,
) -> Result<(), Error> {
    let of_chosen = Cells::of(chosen, of_root)?;
    read_static(chosen, STATIC_HEAP, of_root, map)?;
    let (depth, mut node, mut module) = (walk.depth(), Node::new(), Node::new());
    while node.read_next(depth, walk) {
        if node.is_compatible(&["xen,domain"]) {
            let of_domain = Cells::of(&node, of_chosen)?;
            read_static(&node, STATIC_MEMORY, of_chosen, map)?;
            while module.read_next(depth + 1, walk) {
                read_module(&module, of_domain, map)?;
            }
        } else {
            read_module(&node, of_chosen, map)?;
        }
    }
    Ok(())
}

/// Keeps out of the supply what `node` promises by [`STATIC_MEMORY`] or [`STATIC_HEAP`].
fn read_static(
    node: &Node<'_>,
    [name, address, size]: [Name; 3],
    cells: Cells,
    map: &mut MemoryMap,
) -> Result<(), Error> {
    if !node.has(name) {
        return Ok(());
    }
    let cells = cells.counted_by(node, address, size)?;
    for span in cells.spans(node, name)? {
        map.add_reserved(span?)?;
    }
    Ok(())
}

fn read_module(node: &Node<'_>, cells: Cells, map: &mut MemoryMap) -> Result<(), Error> {
    if !node.is_compatible(&["multiboot,module", "xen,multiboot-module"]) {
        return Ok(());
    }
    require_reg(node)?;
    let kind = node.compatible().find_map(module_kind).unwrap_or(ModuleKind::Other);
    for span in cells.spans(node, Name::Reg)? {
        map.add_module(Module { span: span?, kind })?;
    }
    Ok(())
}

/// What a compatible string says that a module is.
pub(super) fn module_kind(compatible: &str) -> Option<ModuleKind> {
    match compatible {
        "multiboot,kernel" | "xen,linux-zimage" => Some(ModuleKind::Kernel),
        "multiboot,ramdisk" | "xen,linux-initrd" => Some(ModuleKind::Ramdisk),
        "xen,xsm-policy" => Some(ModuleKind::Xsm),
        "multiboot,device-tree" => Some(ModuleKind::DeviceTree),
        _ => None,
    }
}

/// Adds the initial RAM disk that /chosen names.
pub(super) fn read_initrd(chosen: &Node<'_>, map: &mut MemoryMap) -> Result<(), Error> {
    match (chosen.number(Name::InitrdStart)?, chosen.number(Name::InitrdEnd)?) {
        (None, None) => Ok(()),
        (Some(start), Some(end_exclusive)) => {
            let bytes = end_exclusive.checked_sub(start).ok_or(chosen.malformed(Name::InitrdEnd))?;
            let span = span(b"chosen", start, bytes)?;
            if span.is_empty() {
                return Ok(());
            }
            Ok(map.add_module(Module { span, kind: ModuleKind::Ramdisk })?)
        }
        _ => Err(chosen.malformed(Name::InitrdEnd)),
    }
}

fn require_reg(node: &Node<'_>) -> Result<(), Error> {
    if node.has(Name::Reg) { Ok(()) } else { Err(node.malformed(Name::Reg)) }
}
