//! The console that the loader chose.

#![forbid(unsafe_code)]

use dtoolkit::fdt::FdtNode;
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

use super::node::{bytes, check_cells, is_available, malformed, number, reg, span};
use super::structure::MAX_DEPTH;
use super::{Error, NodeName};
use crate::addr::PhysSpan;

/// What programs the console's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleKind {
    /// Arm's PL011 and the SBSA subset of it.
    Pl011,
    /// The 8250 family, the BCM2835 mini UART included.
    Ns16550,
    /// Cadence's, on Zynq.
    Cadence,
    /// NXP's, on i.MX.
    Imx,
    /// One that we have no driver for.
    Unknown,
}

/// The UART that stdout-path names; without one, the first serial port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Console {
    /// What programs it.
    pub kind: ConsoleKind,
    /// Its registers, as the CPU addresses them: of a larger window, what a driver may use.
    pub registers: PhysSpan,
    /// log2 of the distance between registers, in bytes (8250 only; else 0).
    pub reg_shift: u32,
    /// Bytes of one access: 1, 2 or 4 (8250 only; else 4).
    pub reg_io_width: u32,
}

/// The console: the UART that stdout-path names, or else the first serial port, if it can be used and reached.
pub(super) fn read(root: FdtNode<'_>) -> Result<Option<Console>, Error> {
    let paths = [stdout_path(root), alias(root, "serial0")];
    let mut found = paths.into_iter().flatten().filter_map(|path| Path::find(root, path));
    let Some(path) = found.find(|path| is_available(path.last())) else { return Ok(None) };
    let node = path.last();
    let Some(registers) = path.registers()? else { return Ok(None) };
    let kind = node.compatible().into_iter().flatten().map(kind_of).find(|kind| *kind != ConsoleKind::Unknown);
    let kind = kind.unwrap_or(ConsoleKind::Unknown);
    let (reg_shift, reg_io_width) = if kind == ConsoleKind::Ns16550 { access(node)? } else { (0, 4) };
    let used = PhysSpan::of(registers.start(), USED_BYTES).and_then(|used| used.intersection(registers));
    let registers = used.unwrap_or(registers);
    Ok(Some(Console { kind, registers, reg_shift, reg_io_width }))
}

fn kind_of(compatible: &str) -> ConsoleKind {
    match compatible {
        "arm,pl011" | "arm,sbsa-uart" => ConsoleKind::Pl011,
        "ns16550" | "ns16550a" | "ns8250" | "snps,dw-apb-uart" | MINI_UART => ConsoleKind::Ns16550,
        "cdns,uart-r1p8" | "cdns,uart-r1p12" | "xlnx,xuartps" => ConsoleKind::Cadence,
        "fsl,imx21-uart" | "fsl,imx6q-uart" => ConsoleKind::Imx,
        _ => ConsoleKind::Unknown,
    }
}

/// No UART that we know has a register behind its first 4 KiB; some trees name the whole window of a bus.
const USED_BYTES: u64 = 4 << 10;

const MINI_UART: &str = "brcm,bcm2835-aux-uart";

/// How an 8250's registers are spaced and accessed. The mini UART's are words, and its node does not say so.
fn access(node: FdtNode<'_>) -> Result<(u32, u32), Error> {
    let (default_shift, default_width) = if node.is_compatible(MINI_UART) { (2, 4) } else { (0, 1) };
    let shift = number(node, "reg-shift")?.unwrap_or(default_shift);
    let width = number(node, "reg-io-width")?.unwrap_or(default_width);
    match (shift, width) {
        (0..=3, 1 | 2 | 4) => Ok((shift as u32, width as u32)),
        (0..=3, _) => Err(malformed(node, "reg-io-width")),
        _ => Err(malformed(node, "reg-shift")),
    }
}

/// The path of stdout-path, its alias looked up and its options (after a colon) cut off.
fn stdout_path(root: FdtNode<'_>) -> Option<&str> {
    let chosen = root.child("chosen")?;
    let property = chosen.property("stdout-path").or_else(|| chosen.property("linux,stdout-path"))?;
    let path = property.value_as::<&str>().ok()?.split(':').next()?;
    if path.starts_with('/') { Some(path) } else { alias(root, path) }
}

/// The path that `name` is short for.
fn alias<'a>(root: FdtNode<'a>, name: &str) -> Option<&'a str> {
    root.child("aliases")?.property(name)?.value_as().ok()
}

/// A node and all its ancestors: what translating its address needs.
struct Path<'a> {
    nodes: [FdtNode<'a>; MAX_DEPTH],
    /// The place of the node itself; the root's is 0.
    last: usize,
}

impl<'a> Path<'a> {
    /// The nodes along `path`; `None` when there is no such node, or it is the root.
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

    /// The node's first `reg` entry in the root's address space; `None` when it has none or a bus on the way does not translate it.
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

/// `address` of `bus`'s children in the address space of its parent: by the entry of `ranges` that holds all bytes.
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
