//! Claims about the device-tree path as a whole: the fuzzer's corpus replayed on stable, trees damaged at random, and memory
//! maps compared with a count page by page.

#[path = "fuzz/exercise.rs"]
mod exercise;

use std::path::{Path, PathBuf};
use std::{env, fs};

use breakwater::addr::{PAGE_BYTES, PhysAddr, PhysSpan};
use breakwater::device_tree::{Conduit, ConsoleKind, EnableMethod, Error, Platform};
use breakwater::memory_map::{MemoryMap, Module, ModuleKind, SpanList};
use proptest::collection::vec;
use proptest::prelude::*;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/device_tree")
}

fn seed(name: &str) -> Vec<u8> {
    fs::read(directory().join(name)).unwrap()
}

fn span(start: u64, bytes: u64) -> PhysSpan {
    PhysSpan::of(PhysAddr::at(start), bytes).unwrap()
}

/// The machine that a seed describes, with its command line.
fn machine(name: &str) -> (Platform, Vec<u8>) {
    let bytes = seed(name);
    let machine = exercise::as_it_is(&bytes).unwrap();
    let line = machine.command_line(&bytes).to_vec();
    (machine, line)
}

#[test]
fn good_corpus_replays_without_a_broken_promise() {
    let files: Vec<_> = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 40, "the corpus is there");
    for file in files {
        // Shown only when a promise is broken: the file that broke it.
        println!("{}", file.display());
        let bytes = fs::read(&file).unwrap();
        let _ = exercise::as_it_is(&bytes);
        let _ = exercise::with_a_good_header(&bytes);
    }
}

#[test]
fn good_qemu_virt() {
    let (machine, line) = machine("qemu-virt.dtb");
    assert_eq!(machine.memory.banks.as_slice(), [span(0x4000_0000, 2 << 30)]);
    let cpus: Vec<_> = machine.cpus.as_slice().iter().map(|cpu| (cpu.mpidr, cpu.enable_method, cpu.enabled)).collect();
    assert_eq!(cpus, [0, 1, 2, 3].map(|mpidr| (mpidr, EnableMethod::Psci, true)));
    assert_eq!(machine.psci, Some(Conduit::Smc));
    let console = machine.console.unwrap();
    assert_eq!((console.kind, console.registers), (ConsoleKind::Pl011, span(0x900_0000, 0x1000)));
    assert_eq!(line, b"");
}

#[test]
fn good_qemu_virt_of_two_nodes_that_meet_is_one_bank() {
    let (machine, _) = machine("qemu-virt-numa.dtb");
    assert_eq!(machine.memory.banks.as_slice(), [span(0x4000_0000, 1 << 30)]);
    assert_eq!(machine.cpus.as_slice().len(), 2);
}

#[test]
fn good_qemu_versal_entered_without_firmware_has_no_psci() {
    let (machine, _) = machine("qemu-versal.dtb");
    let console = machine.console.unwrap();
    assert_eq!((console.kind, console.registers), (ConsoleKind::Pl011, span(0xff00_0000, 0x1000)));
    assert_eq!(machine.psci, None);
    assert!(machine.cpus.as_slice().iter().all(|cpu| cpu.enable_method == EnableMethod::None));
}

#[test]
fn good_board_with_spin_tables_and_a_mini_uart() {
    let (machine, line) = machine("spin-table-mini-uart.dtb");
    let console = machine.console.unwrap();
    assert_eq!((console.kind, console.registers), (ConsoleKind::Ns16550, span(0xfe21_5040, 0x40)));
    let release_address = Some(0xd8);
    assert_eq!(machine.cpus.as_slice()[0].enable_method, EnableMethod::SpinTable { release_address });
    assert_eq!(machine.psci, None);
    assert_eq!(machine.memory.reserved.as_slice(), [span(0, 0x1000)]);
    assert_eq!(line, b"exit=park maxcpus=2");
}

#[test]
fn good_modules_and_reserved_memory() {
    let (machine, line) = machine("modules-reserved.dtb");
    let kinds: Vec<_> = machine.memory.modules().map(|module| module.kind).collect();
    assert_eq!(kinds, [ModuleKind::Kernel, ModuleKind::Ramdisk, ModuleKind::Ramdisk]);
    assert_eq!(machine.memory.no_map.as_slice(), [span(0x6000_0000, 0x10_0000)]);
    assert_eq!(line, b"exit=psci livepatch=off");
}

/// Reads a seed with some bytes changed: whole, cut short, and with a good header.
fn damaged(name: &str, patches: &[(prop::sample::Index, u8)], kept: prop::sample::Index) -> Result<Platform, Error> {
    let mut bytes = seed(name);
    for (index, byte) in patches {
        let at = index.index(bytes.len());
        bytes[at] = *byte;
    }
    let _ = exercise::as_it_is(&bytes);
    let _ = exercise::as_it_is(&bytes[..kept.index(bytes.len())]);
    exercise::with_a_good_header(&bytes)
}

/// Pages of the small machine that the properties below look at one by one.
const PAGES: u64 = 24;

fn small_spans(most: usize) -> impl Strategy<Value = Vec<PhysSpan>> {
    let edge = 0..=PAGES * PAGE_BYTES;
    let edges = (edge.clone(), edge).prop_map(|(a, b)| span(a.min(b), a.abs_diff(b)));
    // Whole pages now and then: two edges at random never meet.
    vec(prop_oneof![edges.clone(), edges.prop_map(PhysSpan::page_cover)], 0..=most)
}

fn touches(spans: &[PhysSpan], page: PhysSpan) -> bool {
    spans.iter().any(|span| span.intersection(page).is_some())
}

fn wholly_in(spans: &[PhysSpan], page: PhysSpan) -> bool {
    let within = |byte| spans.iter().any(|span| span.contains(PhysAddr::at(byte)));
    (page.start().raw()..page.end_exclusive().raw()).all(within)
}

fn pages() -> impl Iterator<Item = PhysSpan> {
    (0..PAGES).map(|page| span(page * PAGE_BYTES, PAGE_BYTES))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn good_damaged_trees_break_no_promise(
        name in prop::sample::select(vec!["qemu-virt.dtb", "spin-table-mini-uart.dtb", "modules-reserved.dtb"]),
        patches in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        kept in any::<prop::sample::Index>(),
    ) {
        let _ = damaged(name, &patches, kept);
    }

    #[test]
    fn good_maps_agree_with_a_count_page_by_page(
        banks in small_spans(4), no_map in small_spans(3), reserved in small_spans(3), module in small_spans(1),
        taken in small_spans(2),
    ) {
        let mut map = MemoryMap::new();
        banks.iter().try_for_each(|span| map.add_bank(*span)).unwrap();
        no_map.iter().try_for_each(|span| map.add_no_map(*span)).unwrap();
        reserved.iter().try_for_each(|span| map.add_reserved(*span)).unwrap();
        module.iter().try_for_each(|span| map.add_module(Module { span: *span, kind: ModuleKind::Other })).unwrap();
        let mappable: Vec<_> = map.mappable().collect();
        let free: Vec<_> = map.free(&taken).collect();
        let claims = [reserved, module, taken.clone()].concat();
        for page in pages() {
            let may_be_mapped = wholly_in(&banks, page) && !touches(&no_map, page);
            prop_assert_eq!(touches(&mappable, page), may_be_mapped, "{}", page);
            prop_assert_eq!(touches(&free, page), may_be_mapped && !touches(&claims, page), "{}", page);
        }
    }

    #[test]
    fn good_span_lists_agree_with_a_set_of_bytes(steps in vec((any::<bool>(), 0_u64..64, 0_u64..20), 0..40)) {
        let mut list = SpanList::<33>::new();
        let mut bytes = [false; 96];
        for (insert, start, length) in steps {
            let step = span(start, length);
            if insert { list.insert(step).unwrap() } else { list.remove(step).unwrap() }
            bytes[start as usize..(start + length) as usize].fill(insert);
            for (at, is_in) in bytes.iter().enumerate() {
                prop_assert_eq!(list.contains(PhysAddr::at(at as u64)), *is_in);
            }
            let spans = list.as_slice();
            prop_assert!(spans.windows(2).all(|pair| pair[0].end_exclusive() < pair[1].start()));
        }
    }
}
