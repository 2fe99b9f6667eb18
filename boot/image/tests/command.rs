//! The command: what it refuses, what it writes, and that a refusal writes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ABS64: u64 = 257;
const CALL26: u64 = 283;

/// Where the code of the made image lies, by link address: `entry` and `first` in init, `enable` in the identity page,
/// then what stays.
const INIT: u64 = 0x10_0000;
const IDENTITY: u64 = 0x10_0100;
const STAYS: u64 = 0x10_0200;
const CODE_BYTES: u64 = 0x700;

/// Functions and bounds: name, address, whether it is a function. The number of a symbol is its place here and one.
const SYMBOLS: [(&str, u64, bool); 10] = [
    ("entry", INIT, true),
    ("_init_start", INIT, false),
    ("_init_end_exclusive", IDENTITY, false),
    ("_idmap_start", IDENTITY, false),
    ("_idmap_end_exclusive", STAYS, false),
    ("enable", IDENTITY, true),
    ("breakwater_exception", STAYS, true),
    ("breakwater_secondary", STAYS + 0x100, true),
    ("breakwater_main", STAYS + 0x200, true),
    ("rust_begin_unwind", STAYS + 0x300, true),
];
const ENTRY: u64 = 1;
const MAIN: u64 = 9;

/// A reference of a made image: where, of which kind, to which symbol.
type Reference = (u64, u64, u64);

/// An exception leads to main, as any image has references.
const HARMLESS: Reference = (STAYS + 4, CALL26, MAIN);

/// Name, type, flags, address, bytes, link, info, size of an entry.
type Section = (&'static str, u64, u64, u64, Vec<u8>, u64, u64, u64);

/// A linked image of one segment, byte by byte as the ELF specification has it.
fn image(references: &[Reference]) -> Vec<u8> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut names = vec![0];
    let mut symbols = vec![0; 24];
    for (name, address, function) in SYMBOLS {
        // Global, of type FUNC or NOTYPE, in section 1.
        let info = 0x10 | u64::from(function) << 1;
        symbols.extend(words(&[names.len() as u64 | info << 32 | 1 << 48, address, 0x100 * u64::from(function)]));
        names.extend(name.bytes().chain([0]));
    }
    let relocations: Vec<u8> =
        references.iter().flat_map(|&(place, kind, symbol)| words(&[place, kind | symbol << 32, 0])).collect();
    let code: Vec<u8> = (0..CODE_BYTES).map(|offset| offset as u8).collect();
    let sections: [Section; 6] = [
        (".text", 1, 6, INIT, code, 0, 0, 0),
        (".rela.text", 4, 0, 0, relocations, 3, 1, 24),
        (".symtab", 2, 0, 0, symbols, 4, 1, 24),
        (".strtab", 3, 0, 0, names, 0, 0, 0),
        (".breakwater.before_mmu", 1, 0, 0, words(&[INIT, IDENTITY]), 0, 0, 0),
        (".shstrtab", 3, 0, 0, Vec::new(), 0, 0, 0),
    ];
    let mut section_names = vec![0];
    let name_offsets = sections.each_ref().map(|section| {
        let offset = section_names.len() as u64;
        section_names.extend(section.0.bytes().chain([0]));
        offset
    });
    let mut contents = Vec::new();
    let mut headers = vec![0; 64];
    let contents_at = 64 + 56;
    for ((_, kind, flags, address, bytes, link, info, entry), name) in sections.into_iter().zip(name_offsets) {
        let bytes = if kind == 3 && flags == 0 && bytes.is_empty() { section_names.clone() } else { bytes };
        let at = contents_at + contents.len() as u64;
        let header = [name | kind << 32, flags, address, at, bytes.len() as u64, link | info << 32, 8, entry];
        headers.extend(words(&header));
        contents.extend(bytes);
        contents.resize(contents.len().next_multiple_of(8), 0);
    }
    let headers_at = contents_at + contents.len() as u64;
    // An ELF of 64 bits, little endian; ET_EXEC for AArch64; entry, where program and section headers are; their sizes
    // and numbers.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(words(&[2 | 183 << 16 | 1 << 32, INIT, 64, headers_at]));
    file.extend(words(&[64 << 32 | 56 << 48, 1 | 64 << 16 | 7 << 32 | 6 << 48]));
    // One PT_LOAD.
    file.extend(words(&[1 | 5 << 32, contents_at, INIT, INIT, CODE_BYTES, CODE_BYTES, 0x1000]));
    file.extend(contents);
    file.extend(headers);
    file
}

/// A directory of one test's own.
fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("the target directory can be written");
    dir
}

fn run(words: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_breakwater-image"))
        .args(words)
        .current_dir(dir)
        .output()
        .expect("the command starts")
}

/// Runs the command on a file with these contents; it must refuse, say `expected` and write nothing.
fn refused(name: &str, contents: &[u8], expected: &str) {
    let dir = scratch(name);
    fs::write(dir.join("linked"), contents).expect("written");
    for words in [&["linked"][..], &["linked", "-o", "flat"], &["linked", "--check-only"]] {
        let output = run(words, &dir);
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("breakwater-image: linked: ") && said.contains(expected), "{said}");
        assert!(output.stdout.is_empty());
    }
    let left: Vec<_> = fs::read_dir(&dir).expect("there").map(|entry| entry.expect("there").file_name()).collect();
    assert_eq!(left, ["linked"], "a refusal writes nothing");
}

#[test]
fn bad_a_file_that_is_no_image() {
    refused("no-elf", b"#!/bin/sh\n", "no linked AArch64 image");
    refused("empty", b"", "no linked AArch64 image");
    let mut other = image(&[HARMLESS]);
    other[18] = 62;
    refused("x86", &other, "another machine");
    let mut object = image(&[HARMLESS]);
    object[16] = 1;
    refused("object", &object, "no fixed link address");
}

#[test]
fn bad_an_image_that_is_cut_short() {
    let whole = image(&[HARMLESS]);
    for keep in [20, 64, 100, 0x400, whole.len() - 64, whole.len() - 1] {
        refused("cut", &whole[..keep], "no linked AArch64 image");
    }
}

#[test]
fn bad_an_image_without_relocations() {
    refused("no-relocations", &image(&[]), "--emit-relocs");
}

#[test]
fn bad_a_relocation_against_no_symbol() {
    refused("no-symbol", &image(&[(STAYS, CALL26, 99)]), "not there");
}

#[test]
fn bad_what_the_checks_find_is_named() {
    refused("absolute", &image(&[HARMLESS, (IDENTITY + 8, ABS64, MAIN)]), "enable (at 0x100108) runs before the MMU");
    refused(
        "stale",
        &image(&[HARMLESS, (STAYS + 0x204, CALL26, ENTRY)]),
        "breakwater_main (at 0x100404) runs after boot",
    );
}

#[test]
fn good_an_image_is_checked_and_flattened() {
    let dir = scratch("good");
    fs::write(dir.join("hypervisor"), image(&[HARMLESS])).expect("written");
    let output = run(&["hypervisor", "--check-only"], &dir);
    assert!(output.status.success() && !dir.join("hypervisor.img").exists(), "{output:?}");
    for words in [&["hypervisor"][..], &["hypervisor", "--output", "flat"]] {
        let output = run(words, &dir);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    let flat: Vec<u8> = (0..CODE_BYTES).map(|offset| offset as u8).collect();
    assert_eq!(fs::read(dir.join("hypervisor.img")).expect("beside the ELF file"), flat);
    assert_eq!(fs::read(dir.join("flat")).expect("where -o says"), flat);
    assert_eq!(fs::read_dir(&dir).expect("there").count(), 3, "no temporary file is left");
}

#[test]
fn bad_the_image_would_replace_what_it_is_made_of() {
    let dir = scratch("itself");
    let linked = image(&[HARMLESS]);
    fs::write(dir.join("linked.img"), &linked).expect("written");
    for words in [&["linked.img"][..], &["linked.img", "-o", "./linked.img"]] {
        let output = run(words, &dir);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("the ELF file itself"));
    }
    assert_eq!(fs::read(dir.join("linked.img")).expect("still there"), linked);
}

#[test]
fn bad_a_file_that_cannot_be_read_or_written_is_named() {
    let dir = scratch("files");
    let output = run(&["nowhere"], &dir);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("breakwater-image: nowhere: "));
    fs::write(dir.join("linked"), image(&[HARMLESS])).expect("written");
    let output = run(&["linked", "-o", "missing/flat"], &dir);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("breakwater-image: missing/flat: "));
}

#[test]
fn good_help_and_version() {
    let dir = scratch("help");
    for (words, expected) in [(["--help"], "Usage: breakwater-image"), (["--version"], env!("CARGO_PKG_VERSION"))] {
        let output = run(&words, &dir);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(expected), "{output:?}");
    }
    assert_eq!(run(&["--no-such-option"], &dir).status.code(), Some(2));
}
