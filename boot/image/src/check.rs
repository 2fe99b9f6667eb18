//! The checks. Both read the relocations that `--emit-relocs` keeps, and follow them from piece to piece: a piece is a
//! function, an object, or what lies between two places of constants that something refers to.

use crate::{Elf, Error, Relocation, Symbol};
use rustc_demangle::demangle;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// R_AARCH64_ABS64, ABS32, ABS16 and the MOVW_UABS and MOVW_SABS groups: the value is an address, not a distance.
const ABSOLUTE: [u32; 13] = [257, 258, 259, 263, 264, 265, 266, 267, 268, 269, 270, 271, 272];

/// Boot's phases stay, and call what is freed: before they free it. Part of their mangled names, old mangling and new.
const PHASES: &str = "15breakwater_boot6phases";

/// What assembly and boot call last. Assembly itself is found by its marks.
const ROOTS: [&str; 4] = ["breakwater_exception", "breakwater_secondary", "breakwater_main", "rust_begin_unwind"];

impl Elf {
    /// Refuses an image that either check finds something in.
    ///
    /// # Errors
    /// [`Error::Refused`], and [`Error::Uncheckable`] if the file does not say enough.
    pub fn check(&self) -> Result<(), Error> {
        let pieces = Pieces::of(self)?;
        let mut found = pieces.absolute();
        found.extend(pieces.stale()?);
        if found.is_empty() { Ok(()) } else { Err(Error::Refused(found.into_iter().collect())) }
    }
}

/// The image in pieces.
struct Pieces<'a> {
    elf: &'a Elf,
    /// Where each piece starts; it ends where the next one starts.
    starts: BTreeSet<u64>,
    /// Where the routines start that run before the MMU is on.
    before_mmu: BTreeSet<u64>,
    /// What boot frees at its end.
    init: Range<u64>,
    /// The page that the MMU is switched on and off in.
    identity: Range<u64>,
}

impl<'a> Pieces<'a> {
    fn of(elf: &'a Elf) -> Result<Self, Error> {
        let missing = |what: &str| Error::Uncheckable(what.to_owned());
        if elf.relocations.is_empty() {
            return Err(missing("it keeps no relocations: link with --emit-relocs"));
        }
        let bound = |name: &str| {
            let missing = || {
                missing(&format!("there is no symbol {name}: link with Breakwater's linker script, and do not strip"))
            };
            elf.address_of(name).ok_or_else(missing)
        };
        let init = bound("_init_start")?..bound("_init_end_exclusive")?;
        let identity = bound("_idmap_start")?..bound("_idmap_end_exclusive")?;
        if elf.before_mmu.is_empty() {
            return Err(missing("nothing says what runs before the MMU is on: link with the package breakwater-boot"));
        }
        let before_mmu: BTreeSet<u64> = elf.before_mmu.iter().copied().collect();

        let mut typed: BTreeMap<u64, &Symbol> = BTreeMap::new();
        for symbol in elf.symbols.iter().filter(|symbol| symbol.typed && !symbol.absolute) {
            let widest = typed.entry(symbol.address).or_insert(symbol);
            if widest.size < symbol.size {
                *widest = symbol;
            }
        }
        let is_section = |symbol: &&Symbol| !symbol.absolute && !symbol.typed && !symbol.label;
        let sections = elf.symbols.iter().filter(is_section).map(|symbol| symbol.address);
        let mut starts: BTreeSet<u64> =
            typed.keys().copied().chain(before_mmu.iter().copied()).chain(sections).collect();
        for relocation in &elf.relocations {
            let to = target(&elf.symbols[relocation.symbol], relocation);
            let within = typed.range(..=to).next_back().is_some_and(|(_, symbol)| symbol.contains(to));
            if !within && !elf.code.iter().any(|code| code.contains(&to)) {
                starts.insert(to);
            }
        }
        Ok(Self { elf, starts, before_mmu, init, identity })
    }

    /// Where the piece starts that an address lies in.
    fn at(&self, address: u64) -> Option<u64> {
        self.starts.range(..=address).next_back().copied()
    }

    /// Absolute addresses in what runs before the MMU is on: init and the identity page whole, which are the image's
    /// own, and every routine that is marked so.
    fn absolute(&self) -> BTreeSet<String> {
        let early = |place| {
            let marked = || self.at(place).is_some_and(|piece| self.before_mmu.contains(&piece));
            self.init.contains(&place) || self.identity.contains(&place) || marked()
        };
        let mut found = BTreeSet::new();
        for relocation in self.elf.relocations.iter().filter(|relocation| ABSOLUTE.contains(&relocation.kind)) {
            let symbol = &self.elf.symbols[relocation.symbol];
            if !symbol.absolute && early(relocation.place) {
                let (from, to) = (self.name(relocation.place), self.name(target(symbol, relocation)));
                found.insert(format!("{from} runs before the MMU is on and holds the absolute address of {to}"));
            }
        }
        found
    }

    /// References to what is freed from all that can run after boot: what the roots lead to, by any number of
    /// references, but for boot's phases, which call what is freed before they free it.
    fn stale(&self) -> Result<BTreeSet<String>, Error> {
        let mut references: BTreeMap<u64, Vec<&Relocation>> = BTreeMap::new();
        for relocation in &self.elf.relocations {
            if let Some(piece) = self.at(relocation.place) {
                references.entry(piece).or_default().push(relocation);
            }
        }
        let mut waiting = self.roots()?;
        let mut seen: BTreeSet<u64> = waiting.iter().copied().collect();
        let mut found = BTreeSet::new();
        while let Some(piece) = waiting.pop() {
            for relocation in references.get(&piece).into_iter().flatten() {
                let symbol = &self.elf.symbols[relocation.symbol];
                let to = target(symbol, relocation);
                if symbol.absolute || self.is_bound(symbol, to) {
                    continue;
                }
                if self.init.contains(&to) {
                    let (from, to) = (self.name(relocation.place), self.name(to));
                    found.insert(format!("{from} runs after boot and refers to {to}, which is freed"));
                } else if let Some(next) = self.at(to).filter(|next| !self.is_phase(*next) && seen.insert(*next)) {
                    waiting.push(next);
                }
            }
        }
        Ok(found)
    }

    /// What the hardware or another CPU enters, and what boot calls last.
    fn roots(&self) -> Result<Vec<u64>, Error> {
        let mut roots: Vec<u64> = self.before_mmu.iter().copied().filter(|start| !self.init.contains(start)).collect();
        for name in ROOTS {
            // The compiler puts a mangled path before the last of them.
            let Some(root) = self.elf.symbols.iter().find(|symbol| symbol.typed && symbol.name.ends_with(name)) else {
                return Err(Error::Uncheckable(format!("there is no function {name}, where what stays begins")));
            };
            roots.push(root.address);
        }
        Ok(roots)
    }

    /// The first byte, as the linker script names it: who frees the section has to know it, and that is no use of what
    /// lies there.
    fn is_bound(&self, symbol: &Symbol, to: u64) -> bool {
        symbol.label && to == self.init.start
    }

    fn is_phase(&self, piece: u64) -> bool {
        self.elf.symbols.iter().any(|symbol| symbol.typed && symbol.address == piece && symbol.name.contains(PHASES))
    }

    /// What an address is called: the function or object it lies in, else what the piece it lies in starts with, else
    /// where it is.
    fn name(&self, address: u64) -> String {
        let labelled = || {
            let piece = self.at(address)?;
            let named = |symbol: &&Symbol| symbol.address == piece && symbol.label && !symbol.name.starts_with('$');
            self.elf.symbols.iter().filter(named).find(|symbol| !symbol.name.is_empty())
        };
        match self.elf.containing(address).or_else(labelled) {
            Some(symbol) => format!("{:#} (at {address:#x})", demangle(&symbol.name)),
            None => format!("what lies at {address:#x}"),
        }
    }
}

fn target(symbol: &Symbol, relocation: &Relocation) -> u64 {
    symbol.address.wrapping_add_signed(relocation.addend)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABS64: u32 = 257;
    const CALL26: u32 = 283;

    // Indices into the symbols of `image`.
    const ENTRY: usize = 0;
    const STAYS: usize = 1;
    const NUMBER: usize = 2;
    const INIT_START: usize = 3;
    const RODATA: usize = 4;

    fn symbol(name: &str, address: u64) -> Symbol {
        Symbol { name: name.to_owned(), address, size: 0x10, absolute: false, typed: true, label: false }
    }

    fn reference(place: u64, kind: u32, symbol: usize, addend: i64) -> Relocation {
        Relocation { place, kind, symbol, addend }
    }

    /// `entry` in init, `enable` in the identity page, `refuse` (marked), `stays` and the roots in the text, constants
    /// at 0x4000, a number, and the linker script's bounds. An exception leads to `stays`.
    fn image(references: &[Relocation]) -> Elf {
        let bound = |name, address| Symbol { typed: false, label: true, ..symbol(name, address) };
        let number = Symbol { absolute: true, ..symbol("bytes", 0x40) };
        let rodata = Symbol { typed: false, ..symbol("", 0x4000) };
        let mut symbols = vec![symbol("entry", 0x1000), symbol("stays", 0x2000), number];
        symbols.extend([bound("_init_start", 0x1000), rodata, bound("_init_end_exclusive", 0x1100)]);
        symbols.extend([bound("_idmap_start", 0x1800), bound("_idmap_end_exclusive", 0x1900)]);
        symbols.extend([symbol("enable", 0x1800), symbol("refuse", 0x2100), symbol("after", 0x2200)]);
        symbols.extend((0x3000..).step_by(0x100).zip(ROOTS).map(|(address, name)| symbol(name, address)));
        let mut relocations = vec![reference(0x3004, CALL26, STAYS, 0)];
        relocations.extend_from_slice(references);
        let code = std::iter::once(0x1000..0x3f00).collect();
        Elf { symbols, relocations, code, before_mmu: vec![0x1000, 0x1800, 0x2100], ..Elf::default() }
    }

    fn refusal(references: &[Relocation]) -> Option<String> {
        image(references).check().err().map(|error| error.to_string())
    }

    #[test]
    fn bad_absolute_address_before_the_mmu() {
        // In init, in the identity page, in a marked routine, and in what lies behind its end, as its literals do.
        for place in [0x1004, 0x1804, 0x2104, 0x2118] {
            let said = refusal(&[reference(place, ABS64, STAYS, 0)]).expect("an address that the loader decides");
            assert!(said.contains("before the MMU") && said.contains("stays (at 0x2000)"), "{said}");
        }
    }

    #[test]
    fn good_numbers_and_distances_before_the_mmu() {
        assert_eq!(refusal(&[reference(0x1004, ABS64, NUMBER, 0)]), None);
        assert_eq!(refusal(&[reference(0x1004, CALL26, STAYS, 0)]), None);
    }

    #[test]
    fn good_absolute_addresses_in_what_runs_at_the_link_address() {
        assert_eq!(refusal(&[reference(0x2204, ABS64, STAYS, 0), reference(0x4000, ABS64, STAYS, 0)]), None);
    }

    #[test]
    fn bad_text_that_stays_calls_text_that_is_freed() {
        let said = refusal(&[reference(0x2004, CALL26, ENTRY, 0)]).expect("a call into freed text");
        assert!(said.contains("stays (at 0x2004)") && said.contains("refers to entry"), "{said}");
    }

    #[test]
    fn bad_a_constant_without_a_symbol_leads_to_text_that_is_freed() {
        let pointer = reference(0x4028, ABS64, ENTRY, 0);
        let said =
            refusal(&[reference(0x2004, CALL26, RODATA, 0x20), pointer.clone()]).expect("a pointer to freed text");
        assert!(said.contains("what lies at 0x4028"), "{said}");
        // The constant before it is another.
        let other = [reference(0x2004, CALL26, RODATA, 0x10), reference(0x2204, CALL26, RODATA, 0x20), pointer];
        assert_eq!(refusal(&other), None);
    }

    #[test]
    fn bad_an_object_is_one_piece_wherever_it_is_referred_to() {
        let references = [
            reference(0x2004, CALL26, RODATA, 0),
            reference(0x2204, CALL26, RODATA, 8),
            reference(0x4008, ABS64, ENTRY, 0),
        ];
        assert_eq!(refusal(&references), None);
        let mut elf = image(&references);
        elf.symbols.push(symbol("table", 0x4000));
        assert!(elf.check().expect_err("the table is reached").to_string().contains("table (at 0x4008)"));
    }

    #[test]
    fn good_the_phases_of_boot_call_what_they_free() {
        let mut elf = image(&[reference(0x2004, CALL26, ENTRY, 0)]);
        for name in [format!("_ZN{PHASES}4boot17h0E"), format!("_RNvNtCs1234_{PHASES}4boot")] {
            elf.symbols[STAYS].name = name;
            assert!(elf.check().is_ok());
        }
        elf.symbols[STAYS].name = "something_else".to_owned();
        assert!(elf.check().is_err());
    }

    #[test]
    fn good_what_nothing_leads_to_may_refer_to_what_is_freed() {
        let mut elf = image(&[reference(0x2004, CALL26, ENTRY, 0)]);
        elf.relocations.remove(0);
        assert!(elf.check().is_ok());
    }

    #[test]
    fn good_text_that_stays_knows_the_bounds_of_what_is_freed() {
        assert_eq!(refusal(&[reference(0x2004, CALL26, INIT_START, 0)]), None);
        assert!(refusal(&[reference(0x2004, CALL26, INIT_START, 4)]).is_some());
    }

    #[test]
    fn bad_what_cannot_be_checked_is_not_called_clean() {
        let whole = || image(&[]);
        assert!(whole().check().is_ok());
        let without = |name: &str| {
            let mut elf = whole();
            elf.symbols.iter_mut().filter(|symbol| symbol.name == name).for_each(|symbol| symbol.name.clear());
            elf
        };
        let cases = [
            (Elf::default(), "--emit-relocs"),
            (Elf { before_mmu: Vec::new(), ..whole() }, "breakwater-boot"),
            (without("_init_start"), "_init_start"),
            (without("_idmap_end_exclusive"), "_idmap_end_exclusive"),
            (without("breakwater_main"), "breakwater_main"),
        ];
        for (elf, expected) in cases {
            let said = elf.check().expect_err(expected).to_string();
            assert!(said.contains("cannot be checked") && said.contains(expected), "{said}");
        }
    }
}
