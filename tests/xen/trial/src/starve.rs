//! What a request leaves behind for which there are too few frames, at each point of it: stock Xen and ours, asked by
//! the same C file on the target.
//!
//! Why it exists: Xen's editor takes frames as it goes, and stops where there are no more, with what it has mapped by
//! then. The core plans, and a request that is refused has changed nothing.

use crate::Ground;
use crate::boot::Case;
use crate::build::{Bench, FLAVOURS, Recipe, Variant};
use crate::edit::{Edit, add_file, insert_after, insert_before};
use anyhow::{Context, Result, ensure};
use breakwater_witness::child::{self, Limits};
use std::time::Duration;

/// One try: what a request did that could have so many frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Try {
    /// Frames that were left for tables.
    pub frames: u64,
    /// What Xen's caller got.
    pub rc: i64,
    /// Pages that were mapped when it returned.
    pub mapped: u64,
    /// Pages that it was to map.
    pub pages: u64,
}

const FILE: &str = "xen/arch/arm/starve.c";

/// -ENOMEM, as Xen numbers it.
const NO_MEMORY: i64 = -12;

fn edits(variant: Variant) -> Vec<Edit> {
    let declared = "extern bool starved(void);\n";
    let (file, function, give_up) = match variant {
        Variant::Stock => {
            ("xen/arch/arm/mm.c", "create_xen_table", "    if ( starved() )\n        return -ENOMEM;\n\n")
        }
        Variant::Ours => ("xen/arch/arm/breakwater.c", "bw_xen_frame", "    if ( starved() )\n        return 0;\n\n"),
    };
    vec![
        add_file(FILE, include_str!("../../c/starve.c")),
        insert_after("xen/arch/arm/Makefile", &["obj-y", "+=", "mm.o"], "obj-y += starve.o\n"),
        insert_after(file, &["#include", "asm", "setup.h"], declared),
        insert_before(file, &["if", "system_state"], give_up).in_function(function),
    ]
}

/// Builds the variant with the question in it, and asks.
///
/// # Errors
/// It does not build or boot, or says something else.
pub fn tries(variant: Variant, bench: &Bench, ground: &Ground<'_>, timeout: Duration) -> Result<Vec<Try>> {
    let recipe = Recipe { tag: Some("starved"), more: edits(variant), ..Recipe::of(variant, FLAVOURS[0]) };
    let built = bench.build(&recipe, ground.library_of(variant, FLAVOURS[0])?.as_deref())?;
    let case = Case::default();
    let mut command = case.command(&ground.tools.qemu, &built.image, ground.supply, &ground.tools.scratch)?;
    let finished = child::run_until(&mut command, &Limits { timeout, ..Limits::default() }, false)?;
    case.judge(&finished)?;
    let tries: Vec<Try> = finished.serial.lines().filter_map(parse).collect();
    ensure!(!tries.is_empty(), "{}: nothing was asked", built.name);
    Ok(tries)
}

fn parse(line: &str) -> Option<Try> {
    let words = line.split_once("starved: ")?.1;
    let numbers: Vec<i64> = words
        .split(|letter: char| !(letter.is_ascii_digit() || letter == '-'))
        .filter_map(|word| word.parse().ok())
        .collect();
    let [frames, rc, mapped, pages] = numbers[..] else { return None };
    let count = |number: i64| u64::try_from(number).ok();
    Some(Try { frames: count(frames)?, rc, mapped: count(mapped)?, pages: count(pages)? })
}

/// Refuses tries of which one left something behind, or did not say -ENOMEM; the last one, with frames enough, maps
/// all.
///
/// # Errors
/// The first such try.
pub fn require_all_or_nothing(tries: &[Try]) -> Result<()> {
    let (last, short) = tries.split_last().context("there were no tries")?;
    for one in short {
        ensure!(one.mapped == 0 && one.rc == NO_MEMORY, "out of frames, it left something behind: {one:?}");
    }
    ensure!(last.rc == 0 && last.mapped == last.pages, "with frames enough, it mapped not all: {last:?}");
    Ok(())
}

/// The most pages that a try left behind, of those that failed.
#[must_use]
pub fn most_left(tries: &[Try]) -> u64 {
    tries.iter().filter(|one| one.rc != 0).map(|one| one.mapped).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Try = Try { frames: 3, rc: NO_MEMORY, mapped: 0, pages: 512 };
    const ALL: Try = Try { frames: 4, rc: 0, mapped: 512, pages: 512 };

    #[test]
    fn good_a_line_of_xens_console() {
        let line = "(XEN) starved: 3 frames, rc -12, 0 of 512 pages mapped\r";
        assert_eq!(parse(line), Some(NONE));
        assert_eq!(parse("(XEN) starved: 3 frames"), None);
    }

    #[test]
    fn good_all_or_nothing() {
        assert!(require_all_or_nothing(&[NONE, ALL]).is_ok());
        assert_eq!(most_left(&[NONE, ALL]), 0);
    }

    #[test]
    fn bad_something_is_left_or_nothing_works() {
        let some = Try { mapped: 7, ..NONE };
        assert!(require_all_or_nothing(&[some, ALL]).is_err());
        assert_eq!(most_left(&[some, ALL]), 7);
        assert!(require_all_or_nothing(&[Try { rc: -22, ..NONE }, ALL]).is_err());
        assert!(require_all_or_nothing(&[NONE]).is_err());
        assert!(require_all_or_nothing(&[]).is_err());
    }
}
