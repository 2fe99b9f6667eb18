//! Takes bytes through everything that boot does with ACPI's tables and with UEFI's memory map. Shared by the fuzz
//! target (nightly) and the replay of its corpus (stable, tests/acpi.rs).

use breakwater::acpi::{self, Error, ROOM};
use breakwater::addr::PhysAddr;
use breakwater::device_tree::Platform;
use breakwater::layout::MAX_CPUS;
use breakwater::uefi;

/// Where memory begins, and with it its RSDP.
const MEMORY_AT: u64 = 0x1000;
const BUNDLE_AT: PhysAddr = PhysAddr::at(0x4800_0000);
/// Bytes of a bundle before its first table, of what says a table's size, and of a table's head.
const BUNDLE_HEAD: usize = 8;
const SIZE_BYTES: usize = 8;
const TABLE_HEAD: usize = 36;

/// Reads `bytes` as a bundle.
///
/// # Errors
/// Why it is refused, after the message has been looked at.
pub(crate) fn as_bundle(bytes: &[u8]) -> Result<Platform, Error> {
    let map: Vec<u8> = [7_u64, 0x4000_0000, 0, 0x4_0000, 8].into_iter().flat_map(u64::to_le_bytes).collect();
    let map = uefi::Map::read(&map, 40).expect("a piece of RAM");
    let mut machine = Platform::new();
    acpi::parse(bytes, BUNDLE_AT, Some(map), &mut machine).inspect_err(one_printable_line)?;
    let cpus = machine.cpus.as_slice();
    assert!(cpus.len() == MAX_CPUS || machine.cpus.dropped() == 0);
    for (index, cpu) in cpus.iter().enumerate() {
        assert_eq!(cpu.mpidr & !0xff_00ff_ffff, 0);
        assert!(cpus[..index].iter().all(|other| other.mpidr != cpu.mpidr));
    }
    let in_ram = |console: breakwater::device_tree::Console| machine.memory.banks.overlap(console.registers);
    assert_eq!(machine.console.and_then(in_ram), None);
    Ok(machine)
}

/// Reads `bytes` as a bundle whose size and checksums are made good, so that chance gets past them.
///
/// # Errors
/// As for [`as_bundle`].
pub(crate) fn with_good_sums(bytes: &[u8]) -> Result<Platform, Error> {
    let mut bundle = bytes.to_vec();
    let size = bundle.len() as u32;
    if let Some(head) = bundle.first_chunk_mut::<BUNDLE_HEAD>() {
        *head = (u64::from(u32::from_be_bytes(*b"ACPI")) << 32 | u64::from(size)).to_be_bytes();
    }
    let mut at = BUNDLE_HEAD;
    while let Some(bytes) = bundle.get(at..).and_then(<[u8]>::first_chunk).map(|size| u64::from_le_bytes(*size)) {
        let Some(table) = bundle.get_mut(at + SIZE_BYTES..).and_then(|rest| rest.get_mut(..bytes as usize)) else {
            break;
        };
        if table.starts_with(b"RSD PTR ") && table.len() >= TABLE_HEAD {
            make_good(&mut table[..20], 8);
            make_good(table, 32);
        } else if table.len() >= TABLE_HEAD {
            let length = table.len() as u32;
            table[4..8].copy_from_slice(&length.to_le_bytes());
            make_good(table, 9);
        }
        at += SIZE_BYTES + (bytes as usize).next_multiple_of(SIZE_BYTES);
    }
    as_bundle(&bundle)
}

fn make_good(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0, |sum: u8, &byte| sum.wrapping_add(byte)).wrapping_neg();
}

/// Takes `bytes` for the memory that an RSDP begins; whatever its tables lead to is gathered, and read.
pub(crate) fn as_memory(bytes: &[u8]) -> Option<Result<Platform, Error>> {
    let mut room = vec![0; ROOM];
    let copy = |address: u64, to: &mut [u8]| {
        let offset = address.checked_sub(MEMORY_AT).and_then(|offset| usize::try_from(offset).ok());
        let from = offset.and_then(|offset| bytes.get(offset..)?.get(..to.len()));
        from.map(|from| to.copy_from_slice(from)).is_some()
    };
    let gathered = acpi::gather(MEMORY_AT, &mut room, copy)?;
    assert_eq!(acpi::bundle_size(&room), Some(gathered as u32));
    let bundle = &room[..gathered];
    let _ = with_good_sums(bundle);
    Some(as_bundle(bundle))
}

/// Takes `bytes` for UEFI's memory map, with descriptors of each size that is in use.
pub(crate) fn as_memory_map(bytes: &[u8]) {
    for descriptor_bytes in [40, 48, 64] {
        let whole = bytes.len() / descriptor_bytes * descriptor_bytes;
        let Ok(map) = uefi::Map::read(&bytes[..whole], descriptor_bytes) else { continue };
        let ram: Vec<_> = map.ram().collect();
        assert!(!ram.is_empty() && ram.iter().all(|span| !span.is_empty() && span.page_cover() == *span));
        assert!(ram.windows(2).all(|two| two[0].end_exclusive() <= two[1].start()));
        for kept in map.kept() {
            assert!(ram.iter().all(|span| span.intersection(kept.span).is_none()));
        }
    }
    assert!(uefi::load_options(bytes).all(|byte| byte.is_ascii() && byte != 0));
}

fn one_printable_line(error: &Error) {
    let line = error.to_string();
    assert!(line.len() < 200 && line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
}
