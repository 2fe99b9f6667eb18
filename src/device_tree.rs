//! The device tree, read once into a [`Platform`].
//!
//! Why it exists: the tree is the only thing that says what machine this is, and it comes from outside: it may be absent, cut
//! short, damaged or hostile. All that boot needs of it is read here, in one go and before anything relies on it, into plain values;
//! nothing later looks at the tree again but for the command line's bytes.
//!
//! What must hold: no input makes [`header_size`] or [`parse`] panic, loop, or read beyond the bytes they are given
//! (tests/fuzz). Reading itself is done by the crate `dtoolkit`, after `structure` has checked what that crate relies on.
//!
//! What it refuses: see [`Error`]; each is one line. What it only leaves out: nodes whose `status` is not okay, entries of no
//! bytes, reserved memory that is yet to be placed, a console that cannot be resolved, and CPUs beyond [`layout::MAX_CPUS`].

#![forbid(unsafe_code)]

mod console;
mod cpus;
mod error;
mod memory;
mod node;
mod structure;

use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};

pub use crate::uart::ConsoleKind;
pub use console::Console;
pub(crate) use cpus::AFFINITY_MASK;
pub use cpus::{Conduit, CpuList, CpuNode, EnableMethod};
pub use error::{Error, NodeName};
pub use structure::MAX_DEPTH;

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

/// What the device tree says of the machine. About 14 KiB: it belongs in a static, not on a boot stack.
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

    /// The command line in `tree`, the bytes that this machine was parsed from; empty when it has none. Not always UTF-8.
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
    let tree = structure::check(tree)?;
    let tree_span = PhysSpan::of(tree_start, tree.len() as u64)
        .filter(|span| span.fits(ADDRESS_BITS))
        .ok_or(Error::BadAddress { start: tree_start })?;
    let fdt = Fdt::new_unchecked(tree);
    memory::read(fdt, firmware, &mut machine.memory, &mut machine.tree_ram)?;
    machine.memory.device_tree = Some(tree_span);
    cpus::read(fdt.root(), &mut machine.cpus)?;
    machine.psci = cpus::psci(fdt.root());
    machine.console = console::read(fdt.root(), &machine.memory)?;
    if let Some(line) = fdt.root().child("chosen").and_then(command_line) {
        machine.command_line_offset = line.as_ptr().addr().saturating_sub(tree.as_ptr().addr());
        machine.command_line_bytes = line.len();
    }
    Ok(())
}

/// The hypervisor's own command line: as in Xen, `xen,xen-bootargs` goes before `bootargs`.
fn command_line(chosen: FdtNode<'_>) -> Option<&[u8]> {
    node::string(chosen, "xen,xen-bootargs").or_else(|| node::string(chosen, "bootargs"))
}

#[cfg(test)]
mod tests;
