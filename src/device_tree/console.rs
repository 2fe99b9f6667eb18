//! The console that the loader chose.

#![forbid(unsafe_code)]

use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};

use super::node::{bytes, check_cells, is_available, malformed, number, reg, span};
use super::structure::MAX_DEPTH;
use super::{Error, NodeName};
use crate::addr::{PhysAddr, PhysSpan};
use crate::memory_map::MemoryMap;
use crate::uart::ConsoleKind;

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

/// The console: the UART that stdout-path names, or else the first serial port, if it can be used and reached, and is
/// not in RAM.
pub(super) fn read(root: FdtNode<'_>, memory: &MemoryMap) -> Result<Option<Console>, Error> {
    let paths = [stdout_path(root), alias(root, "serial0")];
    let mut found = paths.into_iter().flatten().filter_map(|path| Path::find(root, path));
    let Some(path) = found.find(|path| is_available(path.last())) else { return Ok(None) };
    let node = path.last();
    let Some(registers) = path.registers()? else { return Ok(None) };
    let row = node.compatible().into_iter().flatten().find_map(known).filter(|_| bytes(node, "big-endian").is_none());
    let (kind, reg_shift, reg_io_width) = row.unwrap_or((ConsoleKind::Unknown, 0, 4));
    let (registers, reg_shift, reg_io_width) = if kind == ConsoleKind::Ns16550 {
        access(node, registers, reg_shift, reg_io_width)?
    } else {
        (registers, reg_shift, reg_io_width)
    };
    let used = PhysSpan::of(registers.start(), USED_BYTES).and_then(|used| used.intersection(registers));
    let registers = used.unwrap_or(registers);
    if let Some(bank) = memory.banks.overlap(registers.page_cover()) {
        return Err(Error::ConsoleInRam { node: NodeName::new(node.name()), registers, bank });
    }
    Ok(Some(Console { kind, registers, reg_shift, reg_io_width }))
}

/// What a compatible string stands for, if we have a driver for that: the kind, and of an 8250 the shift and the
/// width that hold where its node does not say them.
///
/// From the tables of Linux's drivers: amba-pl011.c and its bindings, 8250_of.c and 8250_early.c, 8250_dw.c,
/// 8250_bcm2835aux.c, 8250_omap.c, 8250_tegra.c, 8250_mtk.c, xilinx_uartps.c, imx.c, meson_uart.c,
/// qcom_geni_serial.c, msm_serial.c, fsl_lpuart.c, sh-sci.c, mvebu-uart.c.
fn known(compatible: &str) -> Option<(ConsoleKind, u32, u32)> {
    Some(match compatible {
        "arm,pl011" | "arm,sbsa-uart" => (ConsoleKind::Pl011, 0, 4),
        "ns8250" | "ns16450" | "ns16550" | "ns16550a" | "ns16750" | "ns16850" | "fsl,ns16550" | "snps,dw-apb-uart" => {
            (ConsoleKind::Ns16550, 0, 1)
        }
        "brcm,bcm2835-aux-uart" | "nvidia,tegra20-uart" | "mediatek,mt6577-uart" => (ConsoleKind::Ns16550, 2, 4),
        "ti,am654-uart" | "ti,omap4-uart" | "ti,omap3-uart" | "ti,omap2-uart" => (ConsoleKind::Ns16550, 2, 1),
        "cdns,uart-r1p8" | "cdns,uart-r1p12" | "xlnx,xuartps" => (ConsoleKind::Cadence, 0, 4),
        "fsl,imx21-uart" | "fsl,imx53-uart" | "fsl,imx6q-uart" => (ConsoleKind::Imx, 0, 4),
        "amlogic,meson-uart" | "amlogic,meson-gx-uart" | "amlogic,meson-s4-uart" | "amlogic,meson-ao-uart" => {
            (ConsoleKind::Meson, 0, 4)
        }
        "qcom,geni-uart" | "qcom,geni-debug-uart" => (ConsoleKind::Geni, 0, 4),
        "qcom,msm-uartdm" => (ConsoleKind::Uartdm, 0, 4),
        "fsl,imx7ulp-lpuart" | "fsl,imx8ulp-lpuart" | "fsl,imx8qxp-lpuart" => (ConsoleKind::Lpuart, 0, 4),
        "renesas,scif" => (ConsoleKind::Scif, 0, 4),
        "marvell,armada-3700-uart" => (ConsoleKind::Armada3700, 0, 4),
        _ => return None,
    })
}

/// No UART that we know has a register behind its first 4 KiB; some trees name the whole window of a bus.
const USED_BYTES: u64 = 4 << 10;

/// Where an 8250's registers begin, how they are spaced and how accessed.
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
