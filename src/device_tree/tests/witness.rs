//! The same reading by another: by the crate `dtoolkit`, which finds each node by its name, as often as it is asked
//! for. What it makes of a tree is what [`super::parse`] must make of it.
//!
//! It takes trees whose structure is good: of others the crate may panic.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

use super::super::cpus::AFFINITY_MASK;
use super::super::{console, memory};
use super::*;
use crate::addr::ADDRESS_BITS;
use crate::memory_map::{self, Full, MAX_BANKS, MemoryMap, Module, ModuleKind, SpanList};

/// Reads `tree` as [`super::parse`] does.
pub(super) fn read(tree: &[u8], firmware: Option<uefi::Map<'_>>, machine: &mut Platform) -> Result<(), Error> {
    let fdt = Fdt::new_unchecked(tree);
    read_memory(fdt, firmware, &mut machine.memory, &mut machine.tree_ram)?;
    machine.memory.device_tree = PhysSpan::of(TREE_START, u32::from_be_bytes(tree[4..8].try_into().unwrap()).into());
    read_cpus(fdt.root(), &mut machine.cpus)?;
    machine.psci = psci(fdt.root());
    machine.console = read_console(fdt.root(), &machine.memory)?;
    let chosen = fdt.root().child("chosen");
    let line = chosen.and_then(|chosen| string(chosen, "xen,xen-bootargs").or_else(|| string(chosen, "bootargs")));
    if let Some(line) = line {
        machine.command_line_offset = line.as_ptr().addr() - tree.as_ptr().addr();
        machine.command_line_bytes = line.len();
    }
    Ok(())
}

const USABLE: &str = "linux,usable-memory";
const USABLE_RANGE: &str = "linux,usable-memory-range";
const STATIC_MEMORY: [&str; 3] = ["xen,static-mem", "#xen,static-mem-address-cells", "#xen,static-mem-size-cells"];
const STATIC_HEAP: [&str; 3] = ["xen,static-heap", "#xen,static-heap-address-cells", "#xen,static-heap-size-cells"];

fn read_memory(
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

fn is_memory(node: FdtNode<'_>) -> bool {
    string(node, "device_type").map_or(node.name_without_address() == "memory", |kind| kind == b"memory")
}

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

fn is_identity(node: FdtNode<'_>) -> bool {
    let is_same = |child: Option<u64>, parent: Option<u64>| child.is_some() && child == parent;
    node.ranges().ok().flatten().is_some_and(|mut ranges| {
        ranges.all(|range| is_same(range.child_bus_address().ok(), range.parent_bus_address().ok()))
    })
}

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
    let kind = node.compatible().into_iter().flatten().find_map(memory::module_kind).unwrap_or(ModuleKind::Other);
    for span in cells.spans(node, "reg")? {
        map.add_module(Module { span: span?, kind })?;
    }
    Ok(())
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

fn read_cpus(root: FdtNode<'_>, cpus: &mut CpuList) -> Result<(), Error> {
    let Some(parent) = root.child("cpus") else { return Ok(()) };
    for node in children(parent)?.filter(is_cpu) {
        cpus.push(read_cpu(node)?)?;
    }
    Ok(())
}

fn is_cpu(node: &FdtNode<'_>) -> bool {
    node.name_without_address() == "cpu" || string(*node, "device_type") == Some(b"cpu")
}

fn read_cpu(node: FdtNode<'_>) -> Result<CpuNode, Error> {
    // A CPU's reg may hold one identity per thread, but Arm gives every thread a node: the first is the CPU's.
    let first = reg(node)?.next().transpose()?;
    let mpidr = first.map(|(mpidr, _)| mpidr).filter(|mpidr| mpidr & !AFFINITY_MASK == 0);
    let mpidr = mpidr.ok_or(Error::MalformedReg { node: NodeName::new(node.name()) })?;
    Ok(CpuNode { mpidr, enable_method: enable_method(node), enabled: is_available(node) })
}

fn enable_method(node: FdtNode<'_>) -> EnableMethod {
    match string(node, "enable-method") {
        Some(b"psci") => EnableMethod::Psci,
        Some(b"spin-table") => {
            EnableMethod::SpinTable { release_address: number(node, "cpu-release-addr").ok().flatten() }
        }
        Some(_) => EnableMethod::Unknown,
        None => EnableMethod::None,
    }
}

fn psci(root: FdtNode<'_>) -> Option<Conduit> {
    let firmware = root.child("firmware");
    let node = find_psci(root).or_else(|| find_psci(firmware?))?;
    match string(node, "method") {
        Some(b"smc") => Some(Conduit::Smc),
        Some(b"hvc") => Some(Conduit::Hvc),
        _ => None,
    }
}

fn find_psci(parent: FdtNode<'_>) -> Option<FdtNode<'_>> {
    let speaks_0_2 = |node: &FdtNode<'_>| node.is_compatible("arm,psci-0.2") || node.is_compatible("arm,psci-1.0");
    parent.children().find(|node| speaks_0_2(node) && is_available(*node))
}

fn read_console(root: FdtNode<'_>, memory: &MemoryMap) -> Result<Option<Console>, Error> {
    let paths = [stdout_path(root), alias(root, "serial0")];
    let mut found = paths.into_iter().flatten().filter_map(|path| Path::find(root, path));
    let Some(path) = found.find(|path| is_available(path.last())) else { return Ok(None) };
    let node = path.last();
    let Some(registers) = path.registers()? else { return Ok(None) };
    let row = node
        .compatible()
        .into_iter()
        .flatten()
        .find_map(console::known)
        .filter(|_| bytes(node, "big-endian").is_none());
    let (kind, reg_shift, reg_io_width) = row.unwrap_or((ConsoleKind::Unknown, 0, 4));
    let (registers, reg_shift, reg_io_width) = if kind == ConsoleKind::Ns16550 {
        access(node, registers, reg_shift, reg_io_width)?
    } else {
        (registers, reg_shift, reg_io_width)
    };
    let used = PhysSpan::of(registers.start(), 4 << 10).and_then(|used| used.intersection(registers));
    let registers = used.unwrap_or(registers);
    if let Some(bank) = memory.banks.overlap(registers.page_cover()) {
        return Err(Error::ConsoleInRam { node: NodeName::new(node.name()), registers, bank });
    }
    Ok(Some(Console { kind, registers, reg_shift, reg_io_width }))
}

fn access(
    node: FdtNode<'_>,
    registers: PhysSpan,
    otherwise_shift: u32,
    otherwise_width: u32,
) -> Result<(PhysSpan, u32, u32), Error> {
    let offset = number(node, "reg-offset")?.unwrap_or(0);
    let start = PhysAddr::new(registers.start().raw().saturating_add(offset));
    let registers = start.and_then(|start| PhysSpan::new(start, registers.end_exclusive()));
    let registers = registers.filter(|registers| !registers.is_empty()).ok_or(malformed(node, "reg-offset"))?;
    let shift = number(node, "reg-shift")?.unwrap_or(otherwise_shift.into());
    let width = number(node, "reg-io-width")?.unwrap_or(otherwise_width.into());
    match (shift, width) {
        (0..=3, 1 | 2 | 4) => Ok((registers, shift as u32, width as u32)),
        (0..=3, _) => Err(malformed(node, "reg-io-width")),
        _ => Err(malformed(node, "reg-shift")),
    }
}

fn stdout_path(root: FdtNode<'_>) -> Option<&str> {
    let chosen = root.child("chosen")?;
    let property = chosen.property("stdout-path").or_else(|| chosen.property("linux,stdout-path"))?;
    let path = property.value_as::<&str>().ok()?.split(':').next()?;
    if path.starts_with('/') { Some(path) } else { alias(root, path) }
}

fn alias<'a>(root: FdtNode<'a>, name: &str) -> Option<&'a str> {
    root.child("aliases")?.property(name)?.value_as().ok()
}

struct Path<'a> {
    nodes: [FdtNode<'a>; MAX_DEPTH],
    last: usize,
}

impl<'a> Path<'a> {
    fn find(root: FdtNode<'a>, path: &str) -> Option<Self> {
        let mut found = Self { nodes: [root; MAX_DEPTH], last: 0 };
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let child = found.last().child(name)?;
            found.last += 1;
            *found.nodes.get_mut(found.last)? = child;
        }
        (found.last > 0).then_some(found)
    }

    fn last(&self) -> FdtNode<'a> {
        // `find` keeps the place within the array.
        self.nodes.get(self.last).copied().unwrap_or(self.nodes[0])
    }

    fn registers(&self) -> Result<Option<PhysSpan>, Error> {
        let ancestors = self.nodes.get(..self.last).unwrap_or(&[]);
        for ancestor in ancestors {
            check_cells(*ancestor)?;
        }
        let Some((mut address, bytes)) = reg(self.last())?.next().transpose()? else { return Ok(None) };
        for bus in ancestors.iter().skip(1).rev() {
            match translate(*bus, address, bytes)? {
                Some(translated) => address = translated,
                None => return Ok(None),
            }
        }
        let registers = span(self.last().name(), address, bytes)?;
        Ok(Some(registers).filter(|registers| !registers.is_empty()))
    }
}

fn translate(bus: FdtNode<'_>, address: u64, bytes_wanted: u64) -> Result<Option<u64>, Error> {
    match bytes(bus, "ranges") {
        None => return Ok(None),
        Some([]) => return Ok(Some(address)),
        Some(_) => {}
    }
    let malformed = Error::MalformedProperty { node: NodeName::new(bus.name()), property: "ranges" };
    for range in bus.ranges().map_err(|_| malformed)?.into_iter().flatten() {
        // PCI addresses have three cells: not something that a UART of ours sits behind.
        let (Ok(child), Ok(parent), Ok(length)) =
            (range.child_bus_address::<u64>(), range.parent_bus_address::<u64>(), range.length::<u64>())
        else {
            continue;
        };
        let offset = address.checked_sub(child);
        let inside = offset.filter(|offset| length.checked_sub(*offset).is_some_and(|left| bytes_wanted <= left));
        if let Some(offset) = inside {
            return parent.checked_add(offset).ok_or(malformed).map(Some);
        }
    }
    Ok(None)
}

fn malformed(node: FdtNode<'_>, property: &'static str) -> Error {
    let node = NodeName::new(node.name());
    if property == "reg" { Error::MalformedReg { node } } else { Error::MalformedProperty { node, property } }
}

fn bytes<'a>(node: FdtNode<'a>, name: &str) -> Option<&'a [u8]> {
    node.property(name)?.value_as().ok()
}

fn string<'a>(node: FdtNode<'a>, name: &str) -> Option<&'a [u8]> {
    bytes(node, name).map(until_nul)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
}

fn number(node: FdtNode<'_>, name: &'static str) -> Result<Option<u64>, Error> {
    let Some(bytes) = bytes(node, name) else { return Ok(None) };
    if let Ok(word) = <[u8; 4]>::try_from(bytes) {
        return Ok(Some(u32::from_be_bytes(word).into()));
    }
    match <[u8; 8]>::try_from(bytes) {
        Ok(words) => Ok(Some(u64::from_be_bytes(words))),
        Err(_) => Err(malformed(node, name)),
    }
}

fn is_available(node: FdtNode<'_>) -> bool {
    string(node, "status").is_none_or(|status| matches!(status, b"okay" | b"ok"))
}

fn check_cells(node: FdtNode<'_>) -> Result<(), Error> {
    node.address_cells().map_err(|_| malformed(node, "#address-cells"))?;
    node.size_cells().map_err(|_| malformed(node, "#size-cells"))?;
    Ok(())
}

fn children<'a>(node: FdtNode<'a>) -> Result<impl Iterator<Item = FdtNode<'a>>, Error> {
    check_cells(node)?;
    Ok(node.children())
}

fn reg<'a>(node: FdtNode<'a>) -> Result<impl Iterator<Item = Result<(u64, u64), Error>> + 'a, Error> {
    let error = Error::MalformedReg { node: NodeName::new(node.name()) };
    let entries = node.reg().map_err(|_| error)?.into_iter().flatten();
    Ok(entries.map(move |entry| match (entry.address(), entry.size()) {
        (Ok(address), Ok(bytes)) => Ok((address, bytes)),
        _ => Err(error),
    }))
}

#[derive(Clone, Copy)]
struct Cells {
    address: usize,
    size: usize,
}

impl Cells {
    const DEFAULT: Self = Self { address: 2, size: 1 };

    fn of(node: FdtNode<'_>, above: Self) -> Result<Self, Error> {
        above.counted_by(node, "#address-cells", "#size-cells")
    }

    fn counted_by(self, node: FdtNode<'_>, address: &'static str, size: &'static str) -> Result<Self, Error> {
        let count = |name, otherwise| number(node, name).map(|said| said.map_or(otherwise, |count| count as usize));
        Ok(Self { address: count(address, self.address)?, size: count(size, self.size)? })
    }

    fn spans<'a>(
        self,
        node: FdtNode<'a>,
        name: &'static str,
    ) -> Result<impl Iterator<Item = Result<PhysSpan, Error>> + 'a, Error> {
        let value = bytes(node, name).unwrap_or(&[]);
        let (1..=2, 1..=2) = (self.address, self.size) else { return Err(malformed(node, name)) };
        let entry_bytes = 4 * (self.address + self.size);
        if !value.len().is_multiple_of(entry_bytes) {
            return Err(malformed(node, name));
        }
        let entries = value.chunks_exact(entry_bytes).map(move |entry| entry.split_at(4 * self.address));
        let entries = entries.map(|(address, size)| (big_endian(address), big_endian(size)));
        Ok(entries.filter(|(_, bytes)| *bytes != 0).map(move |(address, bytes)| span(node.name(), address, bytes)))
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn reg_spans<'a>(node: FdtNode<'a>) -> Result<impl Iterator<Item = Result<PhysSpan, Error>> + 'a, Error> {
    let entries = reg(node)?.filter(|entry| !matches!(entry, Ok((_, 0))));
    Ok(entries.map(move |entry| entry.and_then(|(address, bytes)| span(node.name(), address, bytes))))
}

fn span(name: &str, address: u64, bytes: u64) -> Result<PhysSpan, Error> {
    let span =
        PhysAddr::new(address).and_then(|start| PhysSpan::of(start, bytes)).filter(|span| span.fits(ADDRESS_BITS));
    span.ok_or(Error::BeyondAddressBits { node: NodeName::new(name), address, bytes })
}
