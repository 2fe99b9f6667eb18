//! Layouts: many are linked and booted, and among them every piece that could be misplaced must really have moved. And one image
//! from the fallback toolchain, which is a layout and a compiler of its own.

use super::Context;
use super::runner::Case;
use super::variety::booted;
use crate::image::{self, Earlycon, Recipe};
use crate::linkmap::LinkMap;
use crate::machine::Machine;
use crate::{paths, setup, ui};
use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Seeds among which every piece must take enough places.
const SPREAD_OVER: u64 = 300;
/// What is enough.
const PLACES: usize = 8;

/// One case a seed: link, check, flatten, boot.
///
/// # Errors
/// The link cannot be repeated.
pub(super) fn cases(context: &Context, seeds: u64) -> Result<Vec<Case>> {
    let relink = Arc::new(image::relink(&context.ready.toolchain, Earlycon::Semihosting)?);
    let case = |seed| {
        let relink = Arc::clone(&relink);
        Case::new(format!("layout/seed-{seed}"), move |context, scratch| {
            let image = image::link_seed(&relink, seed, scratch, "breakwater")?;
            booted(context, &image.img, &Machine::default(), None, scratch).map(drop)
        })
    };
    Ok((0..seeds).map(case).collect())
}

/// Among 300 seeds each boot routine takes at least 8 offsets within its page, and each first table at least 8 page numbers.
pub(super) fn spread_case() -> Case {
    Case::new("layout/spread", |context, scratch| {
        let relink = image::relink(&context.ready.toolchain, Earlycon::Semihosting)?;
        let mut places = BTreeMap::new();
        for seed in 0..SPREAD_OVER {
            let linked = scratch.join("linked");
            relink.seed(seed, &linked, &["--strip-debug"])?;
            note(&LinkMap::read(&linked.with_extension("map"))?, &mut places);
        }
        ensure!(places.len() > 10, "the map names {} boot routines and first tables: too few to be all", places.len());
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
fn note(map: &LinkMap, places: &mut BTreeMap<String, BTreeSet<u64>>) {
    let start = map.sections.first().map_or(0, |section| section.start);
    for section in &map.sections {
        let place = if section.name.starts_with(".tables.") {
            (section.start - start) >> 12
        } else if section.name == ".text.boot.vectors" {
            (section.start - start) >> 11
        } else if section.name.starts_with(".idmap.text.") || section.name.contains(".text.boot.") {
            section.start & 0xfff
        } else {
            continue;
        };
        places.entry(section.name.clone()).or_default().insert(place);
    }
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
    use crate::linkmap::InputSection;

    #[test]
    fn good_routines_are_placed_by_offset_and_tables_by_page() {
        let section = |start, name: &str| InputSection { start, end_exclusive: start + 4, name: name.to_owned() };
        let sections = vec![
            section(0x20_0000, ".head.text"),
            section(0x20_1040, ".init.text.boot.entry"),
            section(0x20_2080, ".text.unwatched"),
            section(0x20_9000, ".tables.root"),
        ];
        let mut places = BTreeMap::new();
        note(&LinkMap { sections, script_symbols: BTreeSet::new() }, &mut places);
        assert_eq!(places.len(), 2);
        assert!(places[".init.text.boot.entry"].contains(&0x40) && places[".tables.root"].contains(&9));
    }
}
