//! ACPI, where firmware gives no device tree: which CPUs there are, how PSCI is called, and the console.
//!
//! Why it exists: servers start with UEFI and ACPI alone. What boot needs of ACPI stands in three static tables (MADT,
//! FADT, SPCR) that RSDP and XSDT lead to; what is RAM, UEFI's map says. No AML is read.
//!
//! In two steps, for tables lie in memory that the firmware keeps, which is never mapped: while UEFI still maps it,
//! [`gather`] copies those tables into a bundle, looking only at where the next one is; later [`parse`] reads the
//! bundle and believes nothing of it. A bundle begins as a device tree does, with a magic number and its size, both big
//! endian, so that whoever hands it on need not know which it is. Then come RSDP, XSDT and the tables, each behind its
//! size.
//!
//! What must hold: no bytes make either step panic, loop or read beyond them (tests/fuzz).
//!
//! What it refuses: see [`Error`]. What it leaves out: other tables, a second one with the same name, entries of MADT
//! that are no CPU, and CPUs beyond [`crate::layout::MAX_CPUS`].
//!
//! The crate `acpi` is no way: it follows pointers that tables hold (`unsafe`, on the caller's word that they are
//! good), takes the length of MADT for at least its head, and its iterator over MADT stands still at an entry of
//! length 0.
//!
//! Sources: ACPI 6.5, 5.2.5 to 5.2.12; SPCR and DBG2 of Microsoft, revisions of 2021 and later.

#![forbid(unsafe_code)]

use crate::addr::{ADDRESS_BITS, PhysAddr, PhysSpan};
use crate::device_tree::{self, Conduit, Console, ConsoleKind, CpuNode, EnableMethod, Platform};
use crate::memory_map;
use crate::uefi;
use core::fmt;

/// The largest bundle: a MADT of 512 CPUs has 42 KiB.
pub const ROOM: usize = 128 << 10;
/// A bundle's first four bytes, and how many of it come before the first table.
const MAGIC: [u8; 4] = *b"ACPI";
const BUNDLE_HEAD: usize = 8;
/// Bytes before a table of a bundle, which say how many the table has.
const SIZE_BYTES: usize = 8;
/// RSDP from revision 2 on, and what every other table begins with.
const RSDP_BYTES: usize = 36;
const HEAD_BYTES: usize = 36;
const RSDP: [u8; 4] = *b"RSD ";
const XSDT: [u8; 4] = *b"XSDT";
const MADT: [u8; 4] = *b"APIC";
const FADT: [u8; 4] = *b"FACP";
const SPCR: [u8; 4] = *b"SPCR";
const WANTED: [[u8; 4]; 3] = [MADT, FADT, SPCR];

/// Why ACPI's tables are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The bundle is none, or its tables are not whole.
    Bundle,
    /// UEFI gave no memory map, without which nothing is known of RAM.
    NoMap,
    /// A table that boot needs is not there.
    Missing {
        /// Its name.
        table: [u8; 4],
    },
    /// A table says that it has more bytes than there are, or too few for what it must hold.
    Length {
        /// Its name.
        table: [u8; 4],
    },
    /// The bytes of a table do not add up to 0.
    Checksum {
        /// Its name.
        table: [u8; 4],
    },
    /// RSDP is older than ACPI 2, or has no signature.
    Revision,
    /// An entry of MADT ends before its own head or behind the table, or is too short for a CPU.
    Entry {
        /// Where it starts.
        offset: usize,
    },
    /// MADT names a CPU by bits that are no affinity.
    Affinity {
        /// The number.
        mpidr: u64,
    },
    /// MADT names a CPU twice.
    DuplicateCpu {
        /// Its affinity.
        mpidr: u64,
    },
    /// SPCR's registers are not in memory, or in RAM.
    Console {
        /// Where they are.
        address: u64,
    },
    /// What UEFI calls RAM cannot be used.
    Memory(memory_map::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ACPI: ")?;
        match self {
            Self::Bundle => f.write_str("the tables are not whole"),
            Self::NoMap => f.write_str("there is no memory map of UEFI"),
            Self::Missing { table } => write!(f, "there is no {}", Name(table)),
            Self::Length { table } => write!(f, "{} has a wrong length", Name(table)),
            Self::Checksum { table } => write!(f, "{} has a wrong checksum", Name(table)),
            Self::Revision => f.write_str("RSDP is older than ACPI 2.0"),
            Self::Entry { offset } => write!(f, "MADT has a malformed entry at {offset:#x}"),
            Self::Affinity { mpidr } => write!(f, "MADT names a CPU by {mpidr:#x}, which is no affinity"),
            Self::DuplicateCpu { mpidr } => write!(f, "MADT has two CPUs with affinity {mpidr:#x}"),
            Self::Console { address } => write!(f, "SPCR names a console at {address:#x}, where there is none"),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

/// A signature as its specification calls the table.
struct Name<'a>(&'a [u8; 4]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self.0 {
            RSDP => "RSDP",
            XSDT => "XSDT",
            MADT => "MADT",
            FADT => "FADT",
            _ => "SPCR",
        })
    }
}

/// The number of `N` bytes at `offset`, little endian; 0 where there are none.
fn number<const N: usize>(bytes: &[u8], offset: usize) -> u64 {
    let chunk = bytes.get(offset..).and_then(<[u8]>::first_chunk::<N>);
    chunk.map_or(0, |chunk| chunk.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// Copies the tables that `rsdp` leads to into `room`, and returns how many bytes of it are the bundle. `copy` fills a
/// slice from an address; it says no where there is no memory. Runs before the image's own tables, so it has no way to
/// panic.
///
/// `None` when it leads nowhere, or to more than there is room for.
#[inline(always)] // into the code of the way in, which boot frees
pub fn gather(rsdp: u64, room: &mut [u8], copy: impl Fn(u64, &mut [u8]) -> bool) -> Option<usize> {
    let mut end = BUNDLE_HEAD;
    let root = add(rsdp, RSDP_BYTES, room, &mut end, &copy)?;
    let list = add_table(number::<8>(room, root + 24), room, &mut end, &copy)?;
    let listed = number::<4>(room, list + 4) as usize;
    let mut taken = [false; WANTED.len()];
    let mut offset = HEAD_BYTES;
    while offset + 8 <= listed {
        let address = number::<8>(room, list + offset);
        let mut signature = [0; 4];
        if !copy(address, &mut signature) {
            return None;
        }
        let wanted = WANTED.iter().zip(&mut taken).find(|(name, taken)| **name == signature && !**taken);
        if let Some((_, taken)) = wanted {
            *taken = true;
            add_table(address, room, &mut end, &copy)?;
        }
        offset += 8;
    }
    room.get_mut(..4)?.copy_from_slice(&MAGIC);
    let size = u32::try_from(end).ok()?;
    room.get_mut(4..BUNDLE_HEAD)?.copy_from_slice(&size.to_be_bytes());
    Some(end)
}

/// Adds the table at `address`, which says itself how many bytes it has. Returns where it is in the room.
#[inline(always)]
fn add_table(address: u64, room: &mut [u8], end: &mut usize, copy: &impl Fn(u64, &mut [u8]) -> bool) -> Option<usize> {
    let mut head = [0; 8];
    copy(address, &mut head).then_some(())?;
    add(address, number::<4>(&head, 4) as usize, room, end, copy)
}

#[inline(always)]
fn add(
    address: u64,
    bytes: usize,
    room: &mut [u8],
    end: &mut usize,
    copy: &impl Fn(u64, &mut [u8]) -> bool,
) -> Option<usize> {
    let start = *end + SIZE_BYTES;
    let past = start.checked_add(bytes)?;
    copy(address, room.get_mut(start..past)?).then_some(())?;
    for (to, byte) in room.get_mut(*end..start)?.iter_mut().zip((bytes as u64).to_le_bytes()) {
        *to = byte;
    }
    *end = past.checked_next_multiple_of(SIZE_BYTES)?;
    (*end <= room.len()).then_some(start)
}

/// How many bytes the bundle has that begins with `head`; `None` when it is none.
#[must_use]
pub fn bundle_size(head: &[u8]) -> Option<u32> {
    let size = head.strip_prefix(&MAGIC)?.first_chunk().map(|size| u32::from_be_bytes(*size))?;
    (BUNDLE_HEAD..=ROOM).contains(&(size as usize)).then_some(size)
}

/// Reads `bundle`, which lies at the physical address `start`, into `machine`, which must be new. RAM is what
/// `firmware` says.
///
/// # Errors
/// Every variant of [`Error`]. `machine` then holds nothing to rely on.
#[inline(never)] // linker.ld keeps this module with init, which boot frees
pub fn parse(
    bundle: &[u8],
    start: PhysAddr,
    firmware: Option<uefi::Map<'_>>,
    machine: &mut Platform,
) -> Result<(), Error> {
    let tables = Tables::check(bundle)?;
    let firmware = firmware.ok_or(Error::NoMap)?;
    firmware.ram().try_for_each(|span| machine.memory.add_bank(span)).map_err(Error::Memory)?;
    let own = PhysSpan::of(start, bundle.len() as u64).filter(|span| span.fits(ADDRESS_BITS));
    machine.memory.device_tree = Some(own.ok_or(Error::Bundle)?);
    machine.psci = psci(tables.require(FADT)?);
    cpus(tables.require(MADT)?, machine)?;
    if let Some(table) = tables.find(SPCR) {
        machine.console = console(table)?;
    }
    match machine.console {
        Some(console) if machine.memory.banks.overlap(console.registers).is_some() => {
            Err(Error::Console { address: console.registers.start().raw() })
        }
        _ => Ok(()),
    }
}

/// The tables of a bundle, of which each is as long as it says, and adds up.
struct Tables<'a> {
    rest: &'a [u8],
}

impl<'a> Tables<'a> {
    fn check(bundle: &'a [u8]) -> Result<Self, Error> {
        let size = bundle_size(bundle).ok_or(Error::Bundle)?;
        let rest = bundle.get(BUNDLE_HEAD..size as usize).ok_or(Error::Bundle)?;
        let tables = Self { rest };
        let (root, _) = next(rest).ok_or(Error::Bundle)?;
        if !root.starts_with(b"RSD PTR ") || number::<1>(root, 15) < 2 {
            return Err(Error::Revision);
        }
        if number::<4>(root, 20) as usize != RSDP_BYTES || root.len() != RSDP_BYTES {
            return Err(Error::Length { table: RSDP });
        }
        if sum(root.get(..20).unwrap_or(root)) != 0 || sum(root) != 0 {
            return Err(Error::Checksum { table: RSDP });
        }
        let mut left = rest;
        while !left.is_empty() {
            left = next(left).ok_or(Error::Bundle)?.1;
        }
        tables.require(XSDT)?;
        for (name, table) in tables.all() {
            if table.len() < HEAD_BYTES || number::<4>(table, 4) as usize != table.len() {
                return Err(Error::Length { table: name });
            }
            if sum(table) != 0 {
                return Err(Error::Checksum { table: name });
            }
        }
        Ok(tables)
    }

    /// All but the RSDP, with their names.
    fn all(&self) -> impl Iterator<Item = ([u8; 4], &'a [u8])> + use<'a> {
        let mut rest = next(self.rest).map_or(&[][..], |(_, rest)| rest);
        core::iter::from_fn(move || {
            let (table, after) = next(rest)?;
            rest = after;
            Some((table.first_chunk().copied().unwrap_or(XSDT), table))
        })
    }

    fn find(&self, name: [u8; 4]) -> Option<&'a [u8]> {
        self.all().find(|(found, _)| *found == name).map(|(_, table)| table)
    }

    fn require(&self, name: [u8; 4]) -> Result<&'a [u8], Error> {
        self.find(name).ok_or(Error::Missing { table: name })
    }
}

/// The first table of `bytes`, and what comes behind it.
fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let size = usize::try_from(number::<SIZE_BYTES>(bytes, 0)).ok()?;
    let table = bytes.get(SIZE_BYTES..)?.get(..size)?;
    let past = size.checked_next_multiple_of(SIZE_BYTES)?.checked_add(SIZE_BYTES)?;
    Some((table, bytes.get(past..).unwrap_or(&[])))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, &byte| sum.wrapping_add(byte))
}

/// How PSCI is called, by FADT's Arm boot architecture flags.
fn psci(table: &[u8]) -> Option<Conduit> {
    const ARM_BOOT_FLAGS: usize = 129;
    const PSCI_COMPLIANT: u64 = 1 << 0;
    const PSCI_USE_HVC: u64 = 1 << 1;
    let flags = number::<2>(table, ARM_BOOT_FLAGS);
    match (flags & PSCI_COMPLIANT != 0, flags & PSCI_USE_HVC != 0) {
        (false, _) => None,
        (true, true) => Some(Conduit::Hvc),
        (true, false) => Some(Conduit::Smc),
    }
}

/// Adds the CPUs that MADT names: its entries for GIC CPU interfaces.
fn cpus(table: &[u8], machine: &mut Platform) -> Result<(), Error> {
    const FIRST: usize = 44;
    const GIC_CPU: u64 = 0xb;
    let mut offset = FIRST;
    while let Some(rest) = table.get(offset..).filter(|rest| !rest.is_empty()) {
        let bytes = number::<1>(rest, 1) as usize;
        let entry = rest.get(..bytes).filter(|entry| entry.len() >= 2).ok_or(Error::Entry { offset })?;
        if number::<1>(entry, 0) == GIC_CPU {
            let cpu = cpu(entry, offset, machine.psci)?;
            machine.cpus.push(cpu).map_err(|_| Error::DuplicateCpu { mpidr: cpu.mpidr })?;
        }
        offset += bytes;
    }
    Ok(())
}

/// A CPU by its GIC CPU interface (GICC) structure. One that is only capable of being online is not there yet.
fn cpu(entry: &[u8], offset: usize, psci: Option<Conduit>) -> Result<CpuNode, Error> {
    /// Bytes up to MPIDR's end.
    const LEAST: usize = 76;
    const ENABLED: u64 = 1 << 0;
    if entry.len() < LEAST {
        return Err(Error::Entry { offset });
    }
    let (flags, parking_version, mpidr) = (number::<4>(entry, 12), number::<4>(entry, 16), number::<8>(entry, 68));
    if mpidr & !device_tree::AFFINITY_MASK != 0 {
        return Err(Error::Affinity { mpidr });
    }
    let enable_method = match (psci, parking_version) {
        (Some(_), _) => EnableMethod::Psci,
        (None, 0) => EnableMethod::None,
        (None, _) => EnableMethod::ParkingProtocol,
    };
    Ok(CpuNode { mpidr, enable_method, enabled: flags & ENABLED != 0 })
}

/// The console that SPCR names: `None` when it names none, or none in memory.
fn console(table: &[u8]) -> Result<Option<Console>, Error> {
    const ADDRESS: usize = 44;
    const SYSTEM_MEMORY: u64 = 0;
    /// Registers that a driver may use.
    const USED_BYTES: u64 = 4 << 10;
    if table.len() < ADDRESS + 8 {
        return Err(Error::Length { table: SPCR });
    }
    let address = number::<8>(table, ADDRESS);
    if number::<1>(table, 40) != SYSTEM_MEMORY || address == 0 {
        return Ok(None);
    }
    let registers = PhysAddr::new(address).and_then(|start| PhysSpan::of(start, USED_BYTES));
    let registers = registers.filter(|span| span.fits(ADDRESS_BITS)).ok_or(Error::Console { address })?;
    // Of an 8250, registers are as far apart as one access is wide (Linux, drivers/acpi/spcr.c): bytes where it says
    // nothing.
    let (shift, width) = match number::<1>(table, 43) {
        2 => (1, 2),
        3 => (2, 4),
        _ => (0, 1),
    };
    let (kind, reg_shift, reg_io_width) = match number::<1>(table, 36) {
        0x00 | 0x01 | 0x12 => (ConsoleKind::Ns16550, shift, width),
        0x03 | 0x0d | 0x0e => (ConsoleKind::Pl011, 0, 4),
        _ => (ConsoleKind::Unknown, 0, 4),
    };
    Ok(Some(Console { kind, registers, reg_shift, reg_io_width }))
}

#[cfg(test)]
mod tests;
