//! Random requests on random layouts, against the independent map; and random machines, booted and audited.

use super::booted::{Booted, IMAGE_PAGES, Setup};
use super::raw;
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, Done, GIB, MIB, PAGE, Rig, phys, request};
use breakwater::addr::{Level, PhysSpan};
use breakwater::bbm::{Live, Offline, Reach, State};
use breakwater::descriptor::{Attributes, DataAccess};
use breakwater::errata::Errata;
use breakwater::mapper::Error;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// The middle of the span that requests fall into: a level 0 boundary, so that all boundaries are near.
const CENTRE: u64 = 512 * GIB;

/// A request in units that make collisions likely.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Map { at: Place, output: u64, attributes: Attributes, largest: Level },
    Populate { at: Place, deepest: Level },
    Unmap(Place),
    Protect(Place, Attributes),
    Remap { at: Place, output: u64, attributes: Attributes },
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    bytes: u64,
}

fn attributes() -> impl Strategy<Value = Attributes> {
    prop::sample::select(vec![DATA, CONSTANTS, CODE, DEVICE, Attributes::NonCacheable(DataAccess::ReadOnly)])
}

/// Pages near the centre; whole blocks; both with pages at their ends.
fn place() -> impl Strategy<Value = Place> {
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

fn output(at: Place, shift: u64) -> u64 {
    // Aligned alike for blocks, for pages only, or not quite.
    at.start - [0, 2 * MIB, PAGE, 5 * GIB][(shift % 4) as usize]
}

fn wish() -> impl Strategy<Value = Wish> {
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

/// A fill that is refused is refused for a reason.
fn filled<S: State>(rig: &mut Rig<S>, wish: Wish) -> Result<(), TestCaseError> {
    match wish {
        Wish::Map { at, output, attributes, largest } => {
            let was_free = rig.reference.is_free(at.start, at.bytes);
            let answer = rig.map(request(at.start, at.bytes, output, attributes, largest));
            prop_assert_eq!(
                answer.is_err() && was_free && largest == Level::L3 && has_frames(answer),
                false,
                "{:?}",
                answer
            );
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

fn asked(rig: &mut Rig<Live>, wish: Wish) -> Result<(), TestCaseError> {
    match wish {
        Wish::Map { .. } | Wish::Populate { .. } => filled(rig, wish),
        Wish::Unmap(at) => {
            let was_mapped = rig.reference.is_mapped(at.start, at.bytes);
            let answer = rig.unmap(at.start, at.bytes);
            changed(rig, at, was_mapped, answer)
        }
        Wish::Protect(at, attributes) => {
            let was_mapped = rig.reference.is_mapped(at.start, at.bytes);
            let answer = rig.protect(at.start, at.bytes, attributes);
            changed(rig, at, was_mapped, answer)
        }
        Wish::Remap { at, output, attributes } => {
            let was_mapped = rig.reference.is_mapped(at.start, at.bytes);
            let answer = rig.remap(at.start, at.bytes, output, attributes);
            changed(rig, at, was_mapped, answer)
        }
    }
}

fn errata() -> impl Strategy<Value = Errata> {
    (0..64_u8).prop_map(Errata::from_bits_truncate)
}

/// A machine with up to four banks, holes in them, and an image somewhere in the first.
fn setup() -> impl Strategy<Value = Setup> {
    let bank = (0..40_u64, 0..3 * 512_u64, 1..512_u64 * 512, 0..PAGE);
    let hole = (any::<prop::sample::Index>(), 0..64 * MIB, 1..8 * MIB, any::<bool>());
    (0..1024_u64, 300..2048_u64, vec(bank, 0..3), vec(hole, 0..5), errata()).prop_map(
        |(at, slack, banks, holes, errata)| {
            let first = phys(GIB, (at + IMAGE_PAGES + slack) * PAGE + 64 * MIB);
            let others = banks
                .iter()
                .map(|&(slot, offset, pages, odd)| phys((4 + slot) * GIB + offset * PAGE + odd, pages * PAGE));
            let all: Vec<PhysSpan> = [first].into_iter().chain(others).collect();
            let image = GIB + at * PAGE;
            let tree = phys(image + (IMAGE_PAGES + 1) * PAGE + 24, 0x1_0000);
            let mut setup = Setup::new(&all, image, tree);
            setup.errata = errata;
            for (index, offset, bytes, is_no_map) in holes {
                let bank = all[index.index(all.len())];
                // Above the image and the tree, which must keep their memory to themselves.
                let start = if bank == first { tree.end_exclusive().raw() + PAGE } else { bank.start().raw() };
                let hole = phys(start + offset, bytes);
                let added = if is_no_map { setup.memory.add_no_map(hole) } else { setup.memory.add_reserved(hole) };
                added.unwrap();
            }
            setup
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn good_random_requests_on_live_tables(shared: bool, errata in errata(), wishes in vec(wish(), 1..16)) {
        let reach = if shared { Reach::Domain } else { Reach::ThisPe };
        let mut rig = Rig::live_with(reach, errata, 24);
        for wish in wishes {
            asked(&mut rig, wish)?;
        }
    }

    #[test]
    fn good_random_tables_offline_then_in_force(errata in errata(), before in vec(wish(), 1..8), after in vec(wish(), 1..8)) {
        let mut offline: Rig<Offline> = Rig::offline_with(errata, 24);
        for wish in before {
            filled(&mut offline, wish)?;
        }
        let mut live = offline.switch();
        for wish in after {
            asked(&mut live, wish)?;
        }
    }

    #[test]
    fn good_query_agrees_with_what_was_asked(wishes in vec(wish(), 1..10), places in vec(place(), 8)) {
        let mut rig = Rig::live(Reach::ThisPe, 24);
        for wish in wishes {
            asked(&mut rig, wish)?;
        }
        for place in places {
            let found = rig.query(place.start + 8).map(|(level, output, _)| {
                output + (place.start + 8) % level.slot_bytes()
            });
            prop_assert_eq!(found, rig.reference.translate(place.start + 8).map(|(output, _)| output));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn good_random_machines_boot_to_a_clean_audit(setup in setup()) {
        let booted = Booted::boot(&setup).unwrap();
        let audit = booted.audit();
        prop_assert_eq!((audit.mismatches, audit.writable_executable), (0, 0), "{:?}", audit.first);
        let offset = breakwater::layout::DIRECTMAP.start().raw() - booted.base.raw();
        let mapped: u64 = raw::leaves(booted.world(), booted.root())
            .iter()
            .filter(|leaf| leaf.virt >= offset + booted.base.raw())
            .map(|leaf| super::bits::slot_bytes(leaf.level))
            .sum();
        let expected: u64 = booted.expected_directmap(20).iter().map(|span| span.bytes()).sum();
        prop_assert_eq!(mapped, expected);
    }
}
