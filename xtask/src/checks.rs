//! What a linked image must never hold. Both checks read the relocations that `--emit-relocs` keeps.
//!
//! * Code that runs before the MMU is on runs at another address than it is linked at: an absolute address in it is wrong, and what
//!   happens then depends on where the loader put the image.
//! * The init section is freed at the end of boot: what stays must not refer to it.

use crate::elf::{Elf, Relocation, Symbol};
use crate::linkmap::{InputSection, LinkMap};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// R_AARCH64_ABS64, ABS32, ABS16 and the MOVW_UABS and MOVW_SABS groups: the value is an address, not a distance.
const ABSOLUTE: [u32; 13] = [257, 258, 259, 263, 264, 265, 266, 267, 268, 269, 270, 271, 272];

/// The list of boot's phases stays, and calls what is freed: before it frees it. Part of the mangled names of src/boot.rs.
const PHASES: &str = "10breakwater4boot";

/// Refuses an image that either check finds something in.
///
/// # Errors
/// Lists what was found, by symbol names.
pub(crate) fn check(elf: &Elf, map: &LinkMap) -> Result<()> {
    if elf.relocations.is_empty() {
        bail!("the image keeps no relocations, so nothing can be checked: link with --emit-relocs");
    }
    let mut found: Vec<String> =
        elf.relocations.iter().filter_map(|relocation| absolute(elf, map, relocation)).collect();
    found.extend(stale(elf, map));
    if !found.is_empty() {
        bail!("the image is refused:\n  {}", found.join("\n  "));
    }
    Ok(())
}

fn absolute(elf: &Elf, map: &LinkMap, relocation: &Relocation) -> Option<String> {
    let section = map.at(relocation.place)?;
    let symbol = elf.symbols.get(relocation.symbol)?;
    let wrong = runs_before_mmu(&section.name) && ABSOLUTE.contains(&relocation.kind) && !symbol.absolute;
    wrong.then(|| {
        let from = name_at(elf, relocation.place).unwrap_or_else(|| section.name.clone());
        let to = name_of(elf, symbol, target(symbol, relocation));
        format!("{from} at {:#x} runs before the MMU is on and holds the absolute address of {to}", relocation.place)
    })
}

/// References to what is freed from all that can run after boot: what the roots lead to, by any number of references, but for the
/// list of boot's phases, which calls what is freed before it frees it.
fn stale(elf: &Elf, map: &LinkMap) -> Vec<String> {
    let mut references: BTreeMap<u64, Vec<&Relocation>> = BTreeMap::new();
    for relocation in &elf.relocations {
        if let Some(section) = map.at(relocation.place) {
            references.entry(section.start).or_default().push(relocation);
        }
    }
    let mut waiting: Vec<&InputSection> = map.sections.iter().filter(|section| is_root(&section.name)).collect();
    let mut seen: BTreeSet<u64> = waiting.iter().map(|section| section.start).collect();
    let mut found = Vec::new();
    while let Some(section) = waiting.pop() {
        for relocation in references.get(&section.start).into_iter().flatten() {
            let Some(symbol) = elf.symbols.get(relocation.symbol) else { continue };
            let to = target(symbol, relocation);
            let Some(next) = map.at(to) else { continue };
            // A bound that the linker script names is what freeing the section needs; it is no use of what lies there.
            if symbol.label && map.script_symbols.contains(&symbol.name) {
                continue;
            }
            if freed(elf, to) {
                let from = name_at(elf, relocation.place).unwrap_or_else(|| section.name.clone());
                let to = name_of(elf, symbol, to);
                found.push(format!(
                    "{from} at {:#x} runs after boot and refers to {to}, which is freed",
                    relocation.place
                ));
            } else if !next.name.contains(PHASES) && seen.insert(next.start) {
                waiting.push(next);
            }
        }
    }
    found
}

/// What the hardware or another CPU enters, and what boot calls last.
fn is_root(section: &str) -> bool {
    const BY_NAME: [&str; 4] = ["breakwater_exception", "breakwater_secondary", "breakwater_main", "rust_begin_unwind"];
    section.starts_with(".text.boot.")
        || section.starts_with(".idmap.")
        || BY_NAME.iter().any(|name| section.ends_with(name))
}

fn target(symbol: &Symbol, relocation: &Relocation) -> u64 {
    symbol.address.wrapping_add_signed(relocation.addend)
}

/// Code and data that boot/ brings along, the header, and src/el2/efi.rs, which runs in the firmware's own mappings.
fn runs_before_mmu(section: &str) -> bool {
    section == ".head.text"
        || section.starts_with(".idmap.")
        || section.contains(".boot.")
        || section.contains("el23efi")
}

/// Whether `address` lies in what boot frees at its end, by the linker script's own bounds.
fn freed(elf: &Elf, address: u64) -> bool {
    let bounds = (elf.address_of("_init_start"), elf.address_of("_init_end_exclusive"));
    matches!(bounds, (Some(start), Some(end_exclusive)) if (start..end_exclusive).contains(&address))
}

fn name_at(elf: &Elf, address: u64) -> Option<String> {
    elf.containing(address).map(|symbol| symbol.name.clone())
}

fn name_of(elf: &Elf, symbol: &Symbol, target: u64) -> String {
    name_at(elf, target)
        .unwrap_or_else(|| if symbol.name.is_empty() { format!("{target:#x}") } else { symbol.name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABS64: u32 = 257;
    const CALL26: u32 = 283;

    fn symbol(name: &str, address: u64) -> Symbol {
        Symbol { name: name.to_owned(), address, size: 0x10, absolute: false, typed: true, label: false }
    }

    fn section(start: u64, name: &str) -> InputSection {
        InputSection { start, end_exclusive: start + 0x100, name: name.to_owned() }
    }

    /// `entry` in pre-MMU init code, `stays` in the text, `seed` a number, `_init_start` a bound.
    fn image(place: u64, kind: u32, symbol_index: usize) -> (Elf, LinkMap) {
        let mut seed = symbol("bytes", 0x40);
        seed.absolute = true;
        let bound = |name, address| Symbol { typed: false, label: true, ..symbol(name, address) };
        let bounds = [bound("_init_start", 0x1000), bound("_init_end_exclusive", 0x1100)];
        let symbols = [symbol("entry", 0x1000), symbol("stays", 0x2000), seed].into_iter().chain(bounds).collect();
        let called = Relocation { place: 0x3004, kind: CALL26, symbol: 1, addend: 0 };
        let relocations = vec![Relocation { place, kind, symbol: symbol_index, addend: 0 }, called];
        let sections = vec![
            section(0x1000, ".init.text.boot.entry"),
            section(0x2000, ".text.stays"),
            section(0x3000, ".text.breakwater_exception"),
        ];
        let map = LinkMap { sections, script_symbols: ["_init_start".to_owned()].into() };
        (Elf { symbols, relocations, ..Elf::default() }, map)
    }

    fn refusal(place: u64, kind: u32, symbol_index: usize) -> Option<String> {
        let (elf, map) = image(place, kind, symbol_index);
        check(&elf, &map).err().map(|error| error.to_string())
    }

    #[test]
    fn bad_absolute_address_before_the_mmu() {
        let said = refusal(0x1004, ABS64, 1).expect("an address that the loader decides");
        assert!(said.contains("entry at 0x1004") && said.contains("stays"), "{said}");
    }

    #[test]
    fn good_numbers_and_distances_before_the_mmu() {
        assert_eq!(refusal(0x1004, ABS64, 2), None);
        assert_eq!(refusal(0x1004, CALL26, 1), None);
    }

    #[test]
    fn bad_text_that_stays_calls_text_that_is_freed() {
        let said = refusal(0x2004, CALL26, 0).expect("a call into freed text");
        assert!(said.contains("stays at 0x2004") && said.contains("refers to entry"), "{said}");
    }

    #[test]
    fn good_the_phases_of_boot_call_what_they_free() {
        let (elf, mut map) = image(0x2004, CALL26, 0);
        map.sections[1].name = ".text._ZN10breakwater4boot4boot17h0E".to_owned();
        assert!(check(&elf, &map).is_ok());
        map.sections[1].name = ".text.something_else".to_owned();
        assert!(check(&elf, &map).is_err());
    }

    #[test]
    fn good_what_nothing_leads_to_may_refer_to_what_is_freed() {
        let (mut elf, map) = image(0x2004, CALL26, 0);
        elf.relocations.pop();
        assert!(check(&elf, &map).is_ok());
    }

    #[test]
    fn good_text_that_stays_knows_the_bounds_of_what_is_freed() {
        assert_eq!(refusal(0x2004, CALL26, 3), None);
        assert_eq!(refusal(0x2004, ABS64, 1), None);
    }

    #[test]
    fn bad_an_image_without_relocations_is_not_called_clean() {
        assert!(check(&Elf::default(), &LinkMap::default()).is_err());
    }
}
