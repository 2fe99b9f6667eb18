//! Claims about ACPI as a whole: the fuzzer's corpus replayed on stable, QEMU's own tables, and these damaged at
//! random.

#[path = "fuzz/exercise_acpi.rs"]
mod exercise;

use std::fs;
use std::path::{Path, PathBuf};

use breakwater::device_tree::{Conduit, ConsoleKind, EnableMethod, Platform};
use proptest::collection::vec;
use proptest::prelude::*;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/acpi")
}

fn seed(name: &str) -> Vec<u8> {
    fs::read(directory().join(name)).unwrap()
}

#[test]
fn good_corpus_replays_without_a_broken_promise() {
    for file in fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()) {
        // Shown only when a promise is broken: the file that broke it.
        println!("{}", file.display());
        let bytes = fs::read(&file).unwrap();
        let _ = exercise::as_bundle(&bytes);
        let _ = exercise::with_good_sums(&bytes);
        let _ = exercise::as_memory(&bytes);
        exercise::as_memory_map(&bytes);
    }
}

/// QEMU 10.0.2, `virt` with four CPUs and GICv3, as AAVMF hands its tables on.
fn is_qemu_virt(machine: &Platform) {
    let cpus: Vec<_> = machine.cpus.as_slice().iter().map(|cpu| (cpu.mpidr, cpu.enable_method, cpu.enabled)).collect();
    assert_eq!(cpus, [0, 1, 2, 3].map(|mpidr| (mpidr, EnableMethod::Psci, true)));
    assert_eq!(machine.psci, Some(Conduit::Smc));
    let console = machine.console.unwrap();
    assert_eq!((console.kind, console.registers.start().raw()), (ConsoleKind::Pl011, 0x900_0000));
}

#[test]
fn good_qemu_virt() {
    is_qemu_virt(&exercise::as_bundle(&seed("qemu-virt.bundle")).unwrap());
    // The same tables in memory, from the RSDP on.
    is_qemu_virt(&exercise::as_memory(&seed("qemu-virt.memory")).unwrap().unwrap());
}

#[test]
fn bad_every_single_byte_of_qemus_tables() {
    let whole = seed("qemu-virt.bundle");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x41;
        // What is between tables belongs to none.
        if let Ok(machine) = exercise::as_bundle(&damaged) {
            is_qemu_virt(&machine);
        }
    }
}

#[test]
fn bad_qemus_tables_where_the_list_of_them_leads_elsewhere() {
    const LIST: usize = 0x40 + 36; // in memory, behind the RSDP
    let whole = seed("qemu-virt.memory");
    for address in [0, 0xfff, 0x1000 + whole.len() as u64, u64::MAX] {
        let mut memory = whole.clone();
        memory[LIST..LIST + 8].copy_from_slice(&address.to_le_bytes());
        assert!(exercise::as_memory(&memory).is_none(), "{address:#x}");
    }
    // To the RSDP, which is no table that anybody wants.
    let mut memory = whole;
    memory[LIST..LIST + 8].copy_from_slice(&0x1000_u64.to_le_bytes());
    assert!(exercise::as_memory(&memory).is_some_and(|read| read.is_err()));
}

proptest! {
    #[test]
    fn good_damaged_tables(damage in vec((0_usize..976, any::<u8>()), 1..8), bytes in vec(any::<u8>(), 0..200)) {
        for (name, read) in [("qemu-virt.bundle", true), ("qemu-virt.memory", false)] {
            let mut tables = seed(name);
            for (at, byte) in &damage {
                if let Some(place) = tables.get_mut(*at) {
                    *place = *byte;
                }
            }
            let _ = if read { Some(exercise::with_good_sums(&tables)) } else { exercise::as_memory(&tables) };
        }
        exercise::as_memory_map(&bytes);
    }
}
