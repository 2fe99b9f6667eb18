//! The device tree, read once into a [`Platform`].
//!
//! Why it exists: the tree is the only thing that says what machine this is, and it comes from outside: it may be
//! absent, cut short, damaged or hostile. All that boot needs of it is read here, in one go and before anything relies
//! on it, into plain values; nothing later looks at the tree again but for the command line's bytes.
//!
//! What must hold: no input makes [`header_size`] or [`parse`] panic, loop, or read beyond the bytes they are given
//! (tests/fuzz). The structure is passed over once (`structure`), and what a node says is read when the pass comes upon
//! it. Only the console's path is followed after that, because what names it may stand behind it: from the root's child
//! on, whose place was noted.
//!
//! What it refuses: see [`Error`]; each is one line. What it only leaves out: nodes whose `status` is not okay, entries
//! of no bytes, reserved memory that is yet to be placed, a console that cannot be resolved, and CPUs beyond
//! [`layout::MAX_CPUS`].

#![forbid(unsafe_code)]

mod console;
mod cpus;
mod error;
mod memory;
mod names;
mod node;
mod structure;

pub use crate::uart::ConsoleKind;
pub use console::Console;
pub(crate) use cpus::AFFINITY_MASK;
pub use cpus::{Conduit, CpuList, CpuNode, EnableMethod};
pub use error::{Error, NodeName};
pub use structure::MAX_DEPTH;

use console::{Bus, Places, Way};
use cpus::Psci;
use memory::RootCells;
use names::Name;
use node::Node;
use structure::Walk;

use crate::addr::{ADDRESS_BITS, PhysAddr, PhysSpan};
use crate::layout;
use crate::memory_map::{MAX_BANKS, MemoryMap, SpanList};
use crate::uefi;

/// The largest tree that is accepted: what its slot in the virtual layout holds wherever in a 2 MiB block it starts.
pub const MAX_BYTES: u32 = layout::DEVICE_TREE_BYTES_MAX as u32;
/// A tree starts at a multiple of this.
pub const ALIGN: u64 = 8;
/// Bytes that [`header_size`] needs.
pub const HEADER_BYTES: usize = structure::HEADER_BYTES;

/// What the device tree says of the machine. About 24 KiB: it belongs in a static, not on a boot stack.
#[derive(Clone, Debug, Default)]
pub struct Platform {
    /// RAM and what of it is claimed.
    pub memory: MemoryMap,
    /// What the tree alone calls RAM, where UEFI's map decides what is.
    pub tree_ram: SpanList<MAX_BANKS>,
    /// The CPUs.
    pub cpus: CpuList,
    /// How PSCI is called, if it is there.
    pub psci: Option<Conduit>,
    /// The console, if there is one that can be reached.
    pub console: Option<Console>,
    command_line_offset: usize,
    command_line_bytes: usize,
}

static_assertions::const_assert!(size_of::<Platform>() < 24 << 10);

impl Platform {
    /// A machine of which nothing is known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            memory: MemoryMap::new(),
            tree_ram: SpanList::new(),
            cpus: CpuList::new(),
            psci: None,
            console: None,
            command_line_offset: 0,
            command_line_bytes: 0,
        }
    }

    /// The command line in `tree`, the bytes that this machine was parsed from; empty when it has none. Not always
    /// UTF-8.
    #[must_use]
    pub fn command_line<'a>(&self, tree: &'a [u8]) -> &'a [u8] {
        let rest = tree.get(self.command_line_offset..).unwrap_or(&[]);
        rest.get(..self.command_line_bytes).unwrap_or(&[])
    }
}

/// Whether a tree may start at `address` (as the loader passed it).
///
/// # Errors
/// [`Error::Absent`] for 0, [`Error::Misaligned`].
pub const fn check_address(address: u64) -> Result<(), Error> {
    if address == 0 {
        Err(Error::Absent)
    } else if !address.is_multiple_of(ALIGN) {
        Err(Error::Misaligned { address })
    } else {
        Ok(())
    }
}

/// The total size in bytes of the tree whose first [`HEADER_BYTES`] bytes `bytes` starts with: at least those, at most
/// [`MAX_BYTES`]. Looks at nothing else, so that a caller knows how much to map.
///
/// # Errors
/// [`Error::Truncated`], [`Error::BadMagic`], [`Error::UnsupportedVersion`], [`Error::TooSmall`], [`Error::TooLarge`].
#[inline(never)] // as parse
pub fn header_size(bytes: &[u8]) -> Result<u32, Error> {
    structure::total_size(bytes)
}

/// Whether `tree` is whole and says nothing of the machine: it has no node but `/chosen`. GRUB's `linux` makes such a
/// one where UEFI has ACPI alone, and Linux then goes by ACPI too (`dt_is_stub`). Looks at the structure alone, in one
/// pass, and takes bytes that nothing has checked.
#[must_use]
pub fn is_stub(tree: &[u8]) -> bool {
    structure::describes_machine(tree) == Some(false)
}

/// Reads `tree`, which stands at the physical address `tree_start`, into `machine`, which must be new. `firmware` is
/// UEFI's memory map where there is one: it decides what is RAM, and the tree need not name any.
///
/// # Errors
/// Every variant of [`Error`] but those of [`check_address`]. `machine` then holds nothing to rely on.
#[inline(never)] // linker.ld keeps this module with init, which boot frees
pub fn parse(
    tree: &[u8],
    tree_start: PhysAddr,
    firmware: Option<uefi::Map<'_>>,
    machine: &mut Platform,
) -> Result<(), Error> {
    let mut reservations = Ok(());
    let (tree, mut walk) = structure::open(tree, |address, bytes| {
        if reservations.is_ok() {
            reservations = memory::reserve(address, bytes, &mut machine.memory);
        }
    })?;
    let mut seen = Seen::NOTHING;
    let read = seen.read(&mut walk, machine);
    walk.finish()?;
    let tree_span = PhysSpan::of(tree_start, tree.len() as u64)
        .filter(|span| span.fits(ADDRESS_BITS))
        .ok_or(Error::BadAddress { start: tree_start })?;
    read?;
    let chosen = seen.chosen.as_ref();
    memory::settle_banks(firmware, seen.cells.other, chosen, &mut machine.memory, &mut machine.tree_ram)?;
    // Of several things that are wrong the first in this order is named, wherever they stand.
    reservations?;
    seen.reserved.unwrap_or(Ok(()))?;
    seen.modules?;
    chosen.map_or(Ok(()), |chosen| memory::read_initrd(chosen, &mut machine.memory))?;
    machine.memory.device_tree = Some(tree_span);
    seen.cpus.unwrap_or(Ok(()))?;
    machine.psci = seen.psci.or(seen.firmware.flatten()).flatten();
    let way = Way { walk: &mut walk, root: seen.root, places: &seen.places, chosen, aliases: seen.aliases };
    machine.console = console::read(way, &machine.memory)?;
    // The hypervisor's own command line: as in Xen, `xen,xen-bootargs` goes before `bootargs`.
    let line = chosen.and_then(|chosen| chosen.string(Name::XenBootargs).or_else(|| chosen.string(Name::Bootargs)));
    if let Some(line) = line {
        machine.command_line_offset = line.as_ptr().addr().saturating_sub(tree.as_ptr().addr());
        machine.command_line_bytes = line.len();
    }
    Ok(())
}

/// What the pass over the tree has seen, other than what it has put into the machine. Of children of the root with one
/// name the first counts.
struct Seen<'a> {
    cells: RootCells,
    root: Bus<'a>,
    places: Places,
    chosen: Option<Node<'a>>,
    /// Where it is.
    aliases: Option<usize>,
    /// Of the first child of the root that is about it.
    psci: Psci,
    /// Of the first child of /firmware.
    firmware: Option<Psci>,
    reserved: Option<Result<(), Error>>,
    modules: Result<(), Error>,
    cpus: Option<Result<(), Error>>,
}

impl<'a> Seen<'a> {
    const NOTHING: Self = Self {
        cells: RootCells::DEFAULT,
        root: Bus::NONE,
        places: Places::NONE,
        chosen: None,
        aliases: None,
        psci: None,
        firmware: None,
        reserved: None,
        modules: Ok(()),
        cpus: None,
    };

    /// Passes over the tree as far as nothing is wrong with its structure, its cell counts and its banks.
    fn read(&mut self, walk: &mut Walk<'a>, machine: &mut Platform) -> Result<(), Error> {
        let (mut node, memory) = (Node::new(), &mut machine.memory);
        node.read_next(0, walk);
        self.cells = RootCells::of(&node)?;
        self.root = Bus::of(&node);
        while node.read_next(1, walk) {
            self.places.note(walk.place());
            memory::read_bank(&node, self.cells, memory)?;
            self.psci = self.psci.or_else(|| cpus::psci(&node));
            if node.is_called("aliases") {
                self.aliases.get_or_insert(walk.place());
            } else if node.is_called("cpus") {
                self.cpus.get_or_insert_with(|| cpus::read(&node, walk, &mut machine.cpus));
            } else if node.is_called("firmware") {
                self.firmware.get_or_insert_with(|| cpus::psci_in(walk));
            } else if node.is_called("reserved-memory") {
                self.reserved.get_or_insert_with(|| memory::read_reserved(&node, self.cells.reg, walk, memory));
            } else if node.is_called("chosen") && self.chosen.is_none() {
                self.chosen = Some(node.clone());
                self.modules = memory::read_modules(&node, self.cells.other, walk, memory);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
