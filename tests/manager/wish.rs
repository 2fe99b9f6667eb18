//! Random requests, in units that make collisions likely, and what must be true of each answer.

use super::raw;
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, Done, GIB, MIB, PAGE, Rig, request};
use breakwater::addr::Level;
use breakwater::bbm::{Live, State};
use breakwater::descriptor::{Attributes, DataAccess};
use breakwater::mapper::Error;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// The middle of the span that requests fall into: a level 0 boundary, so that all boundaries are near.
pub(crate) const CENTRE: u64 = 512 * GIB;

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Map { at: Place, output: u64, attributes: Attributes, largest: Level },
    Populate { at: Place, deepest: Level },
    Unmap(Place),
    Protect(Place, Attributes),
    Remap { at: Place, output: u64, attributes: Attributes },
}

/// Whole pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

impl Wish {
    /// The place that it is about.
    pub(crate) fn place(&self) -> Place {
        match *self {
            Self::Map { at, .. } | Self::Populate { at, .. } | Self::Remap { at, .. } => at,
            Self::Unmap(at) | Self::Protect(at, _) => at,
        }
    }

    /// The same request as many bytes further on; what it maps to stays.
    pub(crate) fn moved(mut self, by: u64) -> Self {
        match &mut self {
            Self::Map { at, .. } | Self::Populate { at, .. } | Self::Remap { at, .. } => at.start += by,
            Self::Unmap(at) | Self::Protect(at, _) => at.start += by,
        }
        self
    }
}

pub(crate) fn attributes() -> impl Strategy<Value = Attributes> {
    prop::sample::select(vec![DATA, CONSTANTS, CODE, DEVICE, Attributes::NonCacheable(DataAccess::ReadOnly)])
}

/// Pages near the centre; whole blocks; both with pages at their ends.
pub(crate) fn place() -> impl Strategy<Value = Place> {
    let pages = (0..48_u64, 1..40_u64)
        .prop_map(|(from, count)| Place { start: CENTRE + from * PAGE - 24 * PAGE, bytes: count * PAGE });
    let blocks = (0..6_u64, 1..4_u64)
        .prop_map(|(from, count)| Place { start: CENTRE + from * 2 * MIB - 6 * MIB, bytes: count * 2 * MIB });
    let giants = (0..4_u64, 1..3_u64)
        .prop_map(|(from, count)| Place { start: CENTRE + from * GIB - 2 * GIB, bytes: count * GIB });
    let ragged = (blocks.clone(), 0..3_u64, 0..3_u64).prop_map(|(block, before, after)| Place {
        start: block.start - before * PAGE,
        bytes: block.bytes + (before + after) * PAGE,
    });
    prop_oneof![6 => pages, 3 => blocks, 1 => giants, 2 => ragged]
}

/// What a place may map to: aligned alike for blocks, for pages only, or not quite; so far apart that no two places ever share a frame, which
/// with different memory types would be an error of whoever asks (mismatched attributes).
fn output(at: Place, shift: u64) -> u64 {
    const TIB: u64 = 1 << 40;
    at.start + [0, 16 * TIB + 2 * MIB, 32 * TIB + PAGE, 48 * TIB + 5 * GIB][(shift % 4) as usize]
}

/// A request.
pub(crate) fn wish() -> impl Strategy<Value = Wish> {
    let level = prop::sample::select(vec![Level::L1, Level::L2, Level::L3]);
    let map = (place(), any::<u64>(), attributes(), level.clone()).prop_map(|(at, shift, attributes, largest)| {
        // Pages alone stay few.
        let largest = if at.bytes > 8 * MIB { Level::L1 } else { largest };
        let output = if at.bytes > 8 * MIB { at.start } else { output(at, shift) };
        Wish::Map { at, output, attributes, largest }
    });
    let remap = (place(), any::<u64>(), attributes()).prop_map(|(at, shift, attributes)| Wish::Remap {
        at,
        output: output(at, shift),
        attributes,
    });
    let populate = (place(), level).prop_map(|(at, deepest)| {
        let deepest = if at.bytes > 8 * MIB { Level::L1 } else { deepest };
        Wish::Populate { at, deepest }
    });
    prop_oneof![
        4 => map,
        1 => populate,
        2 => place().prop_map(Wish::Unmap),
        2 => (place(), attributes()).prop_map(|(at, attributes)| Wish::Protect(at, attributes)),
        2 => remap,
    ]
}

/// Makes a request that fills; one that is refused is refused for a reason.
pub(crate) fn filled<S: State>(rig: &mut Rig<S>, wish: Wish) -> Result<(), TestCaseError> {
    match wish {
        Wish::Map { at, output, attributes, largest } => {
            let was_free = rig.reference.is_free(at.start, at.bytes);
            let answer = rig.map(request(at.start, at.bytes, output, attributes, largest));
            let is_groundless = answer.is_err() && was_free && largest == Level::L3 && has_frames(answer);
            prop_assert!(!is_groundless, "{:?}", answer);
            let is_occupied = matches!(answer, Err(Error::Occupied { .. }));
            prop_assert!(was_free || is_occupied, "{:?}", answer);
        }
        Wish::Populate { at, deepest } => {
            let answer = rig.populate(at.start, at.bytes, deepest);
            let was_free = rig.reference.is_free(at.start, at.bytes);
            prop_assert!(answer.is_ok() || !was_free || !has_frames(answer));
        }
        _ => {}
    }
    Ok(())
}

fn has_frames(answer: Result<Done, Error>) -> bool {
    !matches!(answer, Err(Error::OutOfFrames { .. }))
}

/// Whether a change was refused for the right reason, or granted where it could be.
fn changed(rig: &Rig<Live>, at: Place, was_mapped: bool, answer: Result<Done, Error>) -> Result<(), TestCaseError> {
    match answer {
        Ok(_) => prop_assert!(was_mapped),
        Err(Error::NotMapped { virt }) => {
            prop_assert!(!was_mapped && rig.reference.translate(virt.raw()).is_none());
        }
        Err(Error::WouldSplit { part, .. }) => {
            let leaf = raw::leaf(rig.world(), rig.root(), part.start().raw()).unwrap();
            prop_assert!(leaf.level < 3 && part.start().raw() >= at.start);
        }
        Err(Error::OutputMisaligned { .. }) => {}
        Err(other) => prop_assert!(false, "{}", other),
    }
    Ok(())
}

/// Makes a request on live tables; whatever the answer is, it has a reason.
pub(crate) fn asked(rig: &mut Rig<Live>, wish: Wish) -> Result<(), TestCaseError> {
    let at = wish.place();
    let was_mapped = |rig: &Rig<Live>| rig.reference.is_mapped(at.start, at.bytes);
    match wish {
        Wish::Map { .. } | Wish::Populate { .. } => filled(rig, wish),
        Wish::Unmap(_) => {
            let was_mapped = was_mapped(rig);
            let answer = rig.unmap(at.start, at.bytes);
            changed(rig, at, was_mapped, answer)
        }
        Wish::Protect(_, attributes) => {
            let was_mapped = was_mapped(rig);
            let answer = rig.protect(at.start, at.bytes, attributes);
            changed(rig, at, was_mapped, answer)
        }
        Wish::Remap { output, attributes, .. } => {
            let was_mapped = was_mapped(rig);
            let answer = rig.remap(at.start, at.bytes, output, attributes);
            changed(rig, at, was_mapped, answer)
        }
    }
}
