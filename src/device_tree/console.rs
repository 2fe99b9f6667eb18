//! The console that the loader chose.

#![forbid(unsafe_code)]

use super::names::Name;
use super::node::{Cells, Node, entries, is_called, span, text};
use super::structure::{MAX_DEPTH, Walk};
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

/// What of a tree leads to its console.
pub(super) struct Way<'a, 'n> {
    /// The walk through it.
    pub(super) walk: &'n mut Walk<'a>,
    /// The root.
    pub(super) root: Bus<'a>,
    /// Where the root's children are.
    pub(super) places: &'n Places,
    /// /chosen.
    pub(super) chosen: Option<&'n Node<'a>>,
    /// Where /aliases is.
    pub(super) aliases: Option<usize>,
}

/// The console: the UART that stdout-path names, or else the first serial port, if it can be used and reached, and is
/// not in RAM.
pub(super) fn read(mut way: Way<'_, '_>, memory: &MemoryMap) -> Result<Option<Console>, Error> {
    let mut found = Path::NONE;
    found.buses[0] = way.root;
    let mut paths = [way.stdout_path(), way.alias("serial0")].into_iter().flatten();
    if !paths.any(|path| found.follow(path, &mut way).is_some() && found.node.is_available()) {
        return Ok(None);
    }
    let node = &found.node;
    let Some(registers) = found.registers()? else { return Ok(None) };
    let row = node.compatible().find_map(known).filter(|_| !node.has(Name::BigEndian));
    let (kind, reg_shift, reg_io_width) = row.unwrap_or((ConsoleKind::Unknown, 0, 4));
    let (registers, reg_shift, reg_io_width) = if kind == ConsoleKind::Ns16550 {
        access(node, registers, reg_shift, reg_io_width)?
    } else {
        (registers, reg_shift, reg_io_width)
    };
    let used = PhysSpan::of(registers.start(), USED_BYTES).and_then(|used| used.intersection(registers));
    let registers = used.unwrap_or(registers);
    if let Some(bank) = memory.banks.overlap(registers.page_cover()) {
        return Err(Error::ConsoleInRam { node: NodeName::new(node.name), registers, bank });
    }
    Ok(Some(Console { kind, registers, reg_shift, reg_io_width }))
}

/// What a compatible string stands for, if we have a driver for that: the kind, and of an 8250 the shift and the
/// width that hold where its node does not say them.
///
/// From the tables of Linux's drivers: amba-pl011.c and its bindings, 8250_of.c and 8250_early.c, 8250_dw.c,
/// 8250_bcm2835aux.c, 8250_omap.c, 8250_tegra.c, 8250_mtk.c, xilinx_uartps.c, imx.c, meson_uart.c,
/// qcom_geni_serial.c, msm_serial.c, fsl_lpuart.c, sh-sci.c, mvebu-uart.c.
pub(super) fn known(compatible: &str) -> Option<(ConsoleKind, u32, u32)> {
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
    node: &Node<'_>,
    registers: PhysSpan,
    otherwise_shift: u32,
    otherwise_width: u32,
) -> Result<(PhysSpan, u32, u32), Error> {
    let offset = node.number(Name::RegOffset)?.unwrap_or(0);
    let start = PhysAddr::new(registers.start().raw().saturating_add(offset));
    let registers = start.and_then(|start| PhysSpan::new(start, registers.end_exclusive()));
    let registers = registers.filter(|registers| !registers.is_empty()).ok_or(node.malformed(Name::RegOffset))?;
    let shift = node.number(Name::RegShift)?.unwrap_or(otherwise_shift.into());
    let width = node.number(Name::RegIoWidth)?.unwrap_or(otherwise_width.into());
    match (shift, width) {
        (0..=3, 1 | 2 | 4) => Ok((registers, shift as u32, width as u32)),
        (0..=3, _) => Err(node.malformed(Name::RegIoWidth)),
        _ => Err(node.malformed(Name::RegShift)),
    }
}

/// Where the root's children are, or the first of them where there are many: who looks for one need not pass over the
/// tree again.
pub(super) struct Places {
    noted: [u32; 128],
    len: usize,
}

impl Places {
    /// None.
    pub(super) const NONE: Self = Self { noted: [0; 128], len: 0 };

    /// Notes the next one, unless there are too many.
    pub(super) fn note(&mut self, place: usize) {
        if let Some(slot) = self.noted.get_mut(self.len) {
            *slot = place as u32;
            self.len += 1;
        }
    }

    /// Lets `walk` come upon the child called `name` next; where that is none of those that are noted, upon the last of
    /// them.
    fn go_to(&self, name: &str, walk: &mut Walk<'_>) -> Option<()> {
        let noted = self.noted.get(..self.len).unwrap_or(&[]);
        let place = noted.iter().find(|place| walk.is_called(**place as usize, name)).or(noted.last())?;
        walk.go_back(*place as usize);
        Some(())
    }
}

impl<'a> Way<'a, '_> {
    /// The path of stdout-path, its alias looked up and its options (after a colon) cut off.
    fn stdout_path(&mut self) -> Option<&'a str> {
        let chosen = self.chosen?;
        let name = if chosen.has(Name::StdoutPath) { Name::StdoutPath } else { Name::LinuxStdoutPath };
        let path = chosen.text(name)?.split(':').next()?;
        if path.starts_with('/') { Some(path) } else { self.alias(path) }
    }

    /// The path that `name` is short for.
    fn alias(&mut self, name: &str) -> Option<&'a str> {
        self.walk.go_back(self.aliases?);
        self.walk.next_child(1)?;
        while let Some(property) = self.walk.next_property() {
            if self.walk.text(&property) == name.as_bytes() {
                return text(property.value);
            }
        }
        None
    }
}

/// What of a node matters to its children's addresses.
#[derive(Clone, Copy)]
pub(super) struct Bus<'a> {
    name: &'a [u8],
    cells: Cells,
    odd_count: Option<Name>,
    ranges: Option<&'a [u8]>,
}

impl<'a> Bus<'a> {
    /// Of a node that says nothing.
    pub(super) const NONE: Self = Self { name: &[], cells: Cells::DEFAULT, odd_count: None, ranges: None };

    /// Of `node`.
    pub(super) fn of(node: &Node<'a>) -> Self {
        let (cells, odd_count) = (Cells::of_reg_or_default(node), Cells::odd_count(node));
        Self { name: node.name, cells, odd_count, ranges: node.bytes(Name::Ranges) }
    }

    /// `address` of its children in the address space of its parent, `above`: by the entry of `ranges` that holds all
    /// bytes.
    fn translate(&self, above: Cells, address: u64, bytes_wanted: u64) -> Result<Option<u64>, Error> {
        match self.ranges {
            None => return Ok(None),
            Some([]) => return Ok(Some(address)),
            Some(_) => {}
        }
        let malformed = Name::Ranges.malformed(self.name);
        let cells = [self.cells.address, above.address, self.cells.size];
        for range in entries(self.ranges, cells).ok_or(malformed)? {
            // PCI addresses have three cells: not something that a UART of ours sits behind.
            let [Some(child), Some(parent), Some(length)] = range else { continue };
            let offset = address.checked_sub(child);
            let inside = offset.filter(|offset| length.checked_sub(*offset).is_some_and(|left| bytes_wanted <= left));
            if let Some(offset) = inside {
                return parent.checked_add(offset).ok_or(malformed).map(Some);
            }
        }
        Ok(None)
    }
}

/// A node and all its ancestors: what translating its address needs.
struct Path<'a> {
    node: Node<'a>,
    /// The ancestors, the root first: as many as `depth` says.
    buses: [Bus<'a>; MAX_DEPTH],
    depth: usize,
}

impl<'a> Path<'a> {
    /// That leads nowhere.
    const NONE: Self = Self { node: Node::new(), buses: [Bus::NONE; MAX_DEPTH], depth: 0 };

    /// Goes along `path` from the root; `None` when there is no such node, or it is the root.
    fn follow(&mut self, path: &str, way: &mut Way<'a, '_>) -> Option<()> {
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        way.places.go_to(names.peek()?, way.walk)?;
        self.depth = 0;
        for name in names {
            if self.depth > 0 {
                *self.buses.get_mut(self.depth)? = Bus::of(&self.node);
            }
            self.depth += 1;
            let child = core::iter::from_fn(|| way.walk.next_child(self.depth))
                .find(|child| is_called(child, name.as_bytes()))?;
            self.node.read(child, way.walk);
        }
        Some(())
    }

    /// The node's first `reg` entry in the root's address space; `None` when it has none or a bus on the way does not
    /// translate it.
    fn registers(&self) -> Result<Option<PhysSpan>, Error> {
        let buses = self.buses.get(..self.depth).unwrap_or(&[]);
        if let Some((bus, name)) = buses.iter().find_map(|bus| Some((bus, bus.odd_count?))) {
            return Err(name.malformed(bus.name));
        }
        let Some(parent) = buses.last() else { return Ok(None) };
        let Some((mut address, bytes)) = self.node.reg(parent.cells)?.next().transpose()? else { return Ok(None) };
        for pair in buses.windows(2).rev() {
            match pair[1].translate(pair[0].cells, address, bytes)? {
                Some(translated) => address = translated,
                None => return Ok(None),
            }
        }
        let registers = span(self.node.name, address, bytes)?;
        Ok(Some(registers).filter(|registers| !registers.is_empty()))
    }
}
