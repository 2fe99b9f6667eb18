//! Our library for Xen, before it is linked: whether it has all that Xen calls, and is modest with Xen's stacks.
//!
//! Why it exists: a function that Xen's C files declare and the library lacks shows only in Xen's link. And Xen's stacks
//! have 32 KiB and no guard: a library that needed more wrote zeros over what lay below the boot CPU's, which was a
//! table of CPUs, and Xen booted on with one of four. No finding and no audit tells of that.

use anyhow::{Result, ensure};
use object::read::archive::ArchiveFile;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};
use std::collections::BTreeSet;

/// Most bytes of stack that one function takes: half of a stack of Xen's, for what it calls takes some as well.
const MOST_STACK: u64 = 16 << 10;
/// What c/breakwater.c is told of the library.
pub(crate) const HEADER: &str = include_str!("../../c/breakwater.h");

/// The functions of the library that Xen calls.
fn functions() -> impl Iterator<Item = &'static str> {
    // What follows the last comment is of breakwater.c.
    let declared = HEADER.rsplit_once("/*").map_or(HEADER, |(before, _)| before);
    declared.lines().filter_map(|line| {
        let (before, _) = line.split_once('(')?;
        let name = before.rsplit(' ').next()?;
        name.starts_with("bw_").then_some(name)
    })
}

/// Checks the archive `bytes`.
///
/// # Errors
/// It is none, lacks a function, or has one that takes too much stack.
pub fn check(bytes: &[u8]) -> Result<()> {
    let mut defined = BTreeSet::new();
    for member in ArchiveFile::parse(bytes)?.members() {
        let Ok(file) = object::File::parse(member?.data(bytes)?) else { continue };
        let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
        for function in functions {
            let name = function.name()?;
            let section = function.section_index().map(|index| file.section_by_index(index)).transpose()?;
            let code = section.map(|section| section.data_range(function.address(), function.size())).transpose()?;
            let stack = stack_of(code.flatten().unwrap_or_default());
            ensure!(stack <= MOST_STACK, "{name} takes {stack} bytes of stack, more than {MOST_STACK}");
            defined.insert(name.to_owned());
        }
    }
    for name in functions() {
        ensure!(defined.contains(name), "our library for Xen has no {name}");
    }
    Ok(())
}

/// What a function's code takes from its stack pointer: SUB (immediate), 64 bits, from SP to SP.
fn stack_of(code: &[u8]) -> u64 {
    let words = code.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    let of_word = |word: u32| {
        let is_taken = word & 0xff80_03ff == 0xd100_03ff;
        let pages = if word >> 22 & 1 == 1 { 12 } else { 0 };
        if is_taken { u64::from(word >> 10 & 0xfff) << pages } else { 0 }
    };
    words.map(of_word).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_xen_calls_what_the_library_has() {
        let functions: Vec<_> = functions().collect();
        assert!(functions.contains(&"bw_setup") && functions.contains(&"bw_audit"));
        assert!(!functions.contains(&"bw_boot_is_over"), "that is breakwater.c's");
    }

    #[test]
    fn good_stack_is_what_is_taken_from_its_pointer() {
        // sub sp, sp, #0x3, lsl #12; sub sp, sp, #0x7b0; sub x0, x1, #1; ret
        let code = [0xd140_0fff_u32, 0xd11e_c3ff, 0xd100_0420, 0xd65f_03c0];
        let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(stack_of(&bytes), 0x37b0);
        assert_eq!(stack_of(&bytes[8..]), 0);
    }

    #[test]
    fn bad_what_is_no_archive_or_has_nothing() {
        assert!(check(b"no archive").is_err());
        let nothing = check(b"!<arch>\n").unwrap_err().to_string();
        assert!(nothing.contains("has no bw_setup"), "{nothing}");
    }
}
