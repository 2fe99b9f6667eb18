//! Layouts: many are linked and booted, and among them every piece that could be misplaced must really have moved. And one image
//! from the fallback toolchain, which is a layout and a compiler of its own.

use super::runner::Case;
use super::variety::booted;
use crate::image::{self, Recipe};
use crate::machine::Machine;
use crate::{paths, setup, ui};
use anyhow::{Context as _, Result, ensure};
use breakwater_image::Elf;
use std::collections::{BTreeMap, BTreeSet};

/// Seeds among which every piece must take enough places.
const SPREAD_OVER: u64 = 300;
/// What is enough.
const PLACES: usize = 8;

/// Among 300 seeds each boot routine takes at least 8 offsets within its page, and each first table at least 8 page numbers.
pub(super) fn spread_case() -> Case {
    Case::new("layout/spread", |context, scratch| {
        let relink = image::relink(&context.ready.toolchain)?;
        let mut places = BTreeMap::new();
        for seed in 0..SPREAD_OVER {
            let linked = scratch.join("linked");
            relink.seed(seed, &linked, &["--strip-debug"])?;
            note(&Elf::read(&linked)?, &mut places)?;
        }
        ensure!(places.len() > 10, "the image has {} boot routines and first tables: too few to be all", places.len());
        let still: Vec<String> = places
            .iter()
            .filter(|(_, seen)| seen.len() < PLACES)
            .map(|(name, seen)| format!("{name} takes {} places", seen.len()))
            .collect();
        ensure!(still.is_empty(), "among {SPREAD_OVER} seeds: {}", still.join(", "));
        Ok(())
    })
}

/// Notes where each piece is: a routine by its offset within the page, a table by its page within the image. The vector table, which
/// VBAR_EL2 aligns to 2 KiB, has two offsets and no more: it counts by halves of pages within the image.
fn note(elf: &Elf, places: &mut BTreeMap<String, BTreeSet<u64>>) -> Result<()> {
    let bound = |name| elf.address_of(name).with_context(|| format!("the image has no symbol {name}"));
    let start = bound("_text_start")?;
    let tables = bound("_tables_start")?..bound("_tables_end_exclusive")?;
    // The assembler's and the linker script's own names are no pieces.
    for symbol in elf.symbols.iter().filter(|symbol| !symbol.name.starts_with(['$', '_'])) {
        let place = if symbol.typed && tables.contains(&symbol.address) {
            (symbol.address - start) >> 12
        } else if !elf.before_mmu.contains(&symbol.address) || symbol.name.is_empty() {
            continue;
        } else if symbol.name == "vectors" {
            (symbol.address - start) >> 11
        } else {
            symbol.address & 0xfff
        };
        places.entry(symbol.name.clone()).or_default().insert(place);
    }
    Ok(())
}

/// Builds and boots with the distribution's compiler, where there is one to be had; elsewhere the case says why not and passes.
pub(super) fn fallback_case() -> Case {
    Case::new("build/fallback-toolchain", |context, scratch| {
        let toolchain = match setup::fallback_toolchain() {
            Ok(toolchain) => toolchain,
            Err(error) => {
                ui::step("Note", &format!("no fallback toolchain here: {error:#}"));
                return Ok(());
            }
        };
        let recipe = Recipe { target_dir: Some(paths::out().join("fallback")), ..Recipe::default() };
        let image = image::build(&toolchain, &recipe)?;
        booted(context, &image.img, &Machine::default(), None, scratch).map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use breakwater_image::Symbol;

    #[test]
    fn good_routines_are_placed_by_offset_and_tables_by_page() {
        let symbol = |(name, address): (&str, u64)| Symbol {
            name: name.to_owned(),
            address,
            size: 4,
            absolute: false,
            typed: !name.starts_with(['_', '$']),
            label: name.starts_with(['_', '$']),
        };
        let symbols = [
            ("_text_start", 0x20_0000),
            ("entry", 0x20_1040),
            ("$x", 0x20_1040),
            ("unwatched", 0x20_2080),
            ("_tables_start", 0x20_9000),
            ("first_root", 0x20_9000),
            ("_tables_end_exclusive", 0x20_a000),
        ];
        let elf =
            Elf { symbols: symbols.into_iter().map(symbol).collect(), before_mmu: vec![0x20_1040], ..Elf::default() };
        let mut places = BTreeMap::new();
        note(&elf, &mut places).expect("the bounds are there");
        assert_eq!(places.len(), 2);
        assert!(places["entry"].contains(&0x40) && places["first_root"].contains(&9));
        assert!(note(&Elf::default(), &mut places).is_err());
    }
}
