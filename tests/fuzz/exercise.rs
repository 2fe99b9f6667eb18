//! Takes bytes through everything that boot does with a device tree, and holds the result to what the modules promise. Shared by the
//! fuzz target (nightly) and the replay of its corpus (stable, tests/device_tree.rs).

use breakwater::addr::{PhysAddr, PhysSpan};
use breakwater::command_line;
use breakwater::device_tree::{self, Error, HEADER_BYTES, MAX_BYTES, Platform};
use breakwater::layout::MAX_CPUS;
use breakwater::memory_map::{Limits, MemoryMap};

/// Where the tree is said to be.
const TREE_START: PhysAddr = PhysAddr::at(0x4000_0000);

/// Reads `bytes` as they are.
///
/// # Errors
/// Why they are refused, after the message has been looked at.
pub(crate) fn as_it_is(bytes: &[u8]) -> Result<Platform, Error> {
    let is_stub = device_tree::is_stub(bytes);
    let size = device_tree::header_size(bytes).inspect_err(one_printable_line)?;
    assert!((HEADER_BYTES as u32..=MAX_BYTES).contains(&size));
    let mut machine = Platform::new();
    device_tree::parse(bytes, TREE_START, None, &mut machine).inspect_err(one_printable_line)?;
    assert!(size as usize <= bytes.len());
    assert!(!is_stub, "a machine was read of it");
    cpus(&machine);
    memory(&machine.memory);
    command_line(machine.command_line(bytes));
    Ok(machine)
}

/// Reads `bytes` with the header's magic, version and total size made good, so that chance gets past them.
///
/// # Errors
/// As for [`as_it_is`].
pub(crate) fn with_a_good_header(bytes: &[u8]) -> Result<Platform, Error> {
    let mut tree = bytes.to_vec();
    if tree.len() >= HEADER_BYTES {
        let total = tree.len() as u32;
        for (offset, word) in [(0, 0xd00d_feed), (4, total), (20, 17), (24, 16)] {
            tree[offset..offset + 4].copy_from_slice(&u32::to_be_bytes(word));
        }
    }
    as_it_is(&tree)
}

fn one_printable_line(error: &Error) {
    let line = error.to_string();
    assert!(line.len() < 200 && line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
}

fn cpus(machine: &Platform) {
    let cpus = machine.cpus.as_slice();
    assert!(cpus.len() == MAX_CPUS || machine.cpus.dropped() == 0);
    for (index, cpu) in cpus.iter().enumerate() {
        assert_eq!(cpu.mpidr & !0xff_00ff_ffff, 0);
        assert!(cpus[..index].iter().all(|other| other.mpidr != cpu.mpidr));
    }
}

fn memory(map: &MemoryMap) {
    for list in [map.banks.as_slice(), map.no_map.as_slice(), map.reserved.as_slice()] {
        assert!(list.iter().all(|span| !span.is_empty()));
        assert!(list.windows(2).all(|pair| pair[0].end_exclusive() < pair[1].start()));
    }
    let mappable: Vec<_> = map.mappable().collect();
    whole_pages_in_order(&mappable);
    assert!(mappable.iter().all(|span| map.banks.covers(*span) && map.no_map.overlap(*span).is_none()));
    let image = PhysSpan::of(PhysAddr::at(0x4020_0000), 0x20_0000).unwrap();
    let taken = [image];
    let free: Vec<_> = map.free(&taken).collect();
    whole_pages_in_order(&free);
    let claims = || map.modules().map(|module| module.span).chain(map.device_tree).chain(taken);
    for span in free {
        assert!(mappable.iter().any(|whole| whole.covers(span)));
        assert!(map.reserved.overlap(span).is_none());
        assert!(claims().all(|claim| claim.intersection(span).is_none()));
    }
    match map.check(image, Limits { directmap_bytes: 5 << 40, phys_bits: 44 }) {
        Ok(base) => {
            assert!(mappable.iter().any(|whole| whole.covers(image)));
            assert!(mappable.iter().all(|span| span.end_exclusive().raw() - base.start().raw() <= 5 << 40));
        }
        Err(error) => one_printable_line(&error.into()),
    }
}

fn whole_pages_in_order(spans: &[PhysSpan]) {
    assert!(spans.iter().all(|span| !span.is_empty() && span.page_cover() == *span));
    assert!(spans.windows(2).all(|pair| pair[0].end_exclusive() < pair[1].start()));
}

fn command_line(line: &[u8]) {
    let mut unknown_bytes = 0;
    match command_line::parse(line, |word| unknown_bytes += word.len()) {
        Ok(_) => assert!(unknown_bytes <= line.len()),
        Err(error) => assert!(error.to_string().bytes().all(|byte| matches!(byte, b' '..=b'~'))),
    }
}
