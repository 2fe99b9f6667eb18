//! Xen's functions in another order, by a seed: what was right by luck is wrong in some layout.
//!
//! Why it exists: whether Xen 4.11 booted depended on where its code lay. So each function gets a section of its own,
//! and the linker script a list of them, shuffled.

use crate::Ground;
use crate::build::{Bench, Built, FLAVOURS, Recipe, Variant};
use crate::edit::{Edit, append, insert_before};
use anyhow::{Result, ensure};
use object::{Object as _, ObjectSection as _};
use std::fs;
use std::path::Path;

const TAG: &str = "shuffled";

/// Functions in sections of their own, in the order of `names`.
fn edits(names: &[String]) -> Vec<Edit> {
    let list: String = names.iter().map(|name| format!("       *({name})\n")).collect();
    vec![
        append("xen/arch/arm/arch.mk", "CFLAGS += -ffunction-sections\n"),
        insert_before("xen/arch/arm/xen.lds.S", &["*(.text)"], list),
    ]
}

fn recipe(variant: Variant, names: &[String]) -> Recipe {
    Recipe { tag: Some(TAG), more: edits(names), ..Recipe::of(variant, FLAVOURS[0]) }
}

/// The sections of functions in what is linked.
fn sections(prelinked: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(prelinked)?;
    let file = object::File::parse(&*bytes)?;
    let named = |section: object::Section<'_, '_>| section.name().ok().map(str::to_owned);
    // What runs before the runtime tables has its place.
    let moves = |name: &String| name.starts_with(".text.") && name != ".text.header";
    let mut names: Vec<String> = file.sections().filter_map(named).filter(moves).collect();
    names.sort_unstable();
    names.dedup();
    ensure!(names.len() > 1000, "{} functions have sections of their own", names.len());
    Ok(names)
}

/// A layout of the variant for each seed from 1 on, one after the other: they share a directory.
///
/// # Errors
/// Xen does not build; what `each` says.
pub fn each(
    variant: Variant,
    seeds: u64,
    bench: &Bench,
    ground: &Ground<'_>,
    mut each: impl FnMut(u64, &Built) -> Result<()>,
) -> Result<()> {
    let library = ground.library_of(variant, FLAVOURS[0])?;
    let plain = bench.build(&recipe(variant, &[]), library.as_deref())?;
    let names = sections(&plain.elf.with_file_name("prelink.o"))?;
    for seed in 1..=seeds {
        let mut names = names.clone();
        shuffle(&mut names, seed);
        each(seed, &bench.build(&recipe(variant, &names), library.as_deref())?)?;
    }
    Ok(())
}

/// The same order for a seed on every host.
fn shuffle(names: &mut [String], seed: u64) {
    fastrand::Rng::with_seed(seed).shuffle(names);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_a_seed_is_an_order_of_all() {
        let sorted: Vec<String> = (0..100).map(|index| format!("{index:03}")).collect();
        let of = |seed| {
            let mut names = sorted.clone();
            shuffle(&mut names, seed);
            names
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_ne!(of(1), sorted);
        let mut again = of(1);
        again.sort_unstable();
        assert_eq!(again, sorted);
    }
}
