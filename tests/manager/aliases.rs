//! An alias is found wherever its other mapping is, and is refused only where there is one: random requests for few
//! frames at many places, held against a map from pages to frames.

use super::rig::{CODE, CONSTANTS, DATA, GIB, PAGE, Rig, request};
use breakwater::addr::Level;
use breakwater::bbm::{Live, Reach};
use breakwater::descriptor::Attributes;
use breakwater::mapper::Error;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Frames that are asked for, side by side from [`OUT`] on.
const FRAMES: u64 = 12;
const OUT: u64 = 0x8000_0000;
/// Pages of each place.
const PAGES: u64 = 6;
/// Far apart, with nothing in common but the root; two of them side by side, and two within one table.
const PLACES: [u64; 7] =
    [0, 512 * GIB - PAGES * PAGE, 512 * GIB, 512 * GIB + 64 * PAGE, 3 * 512 * GIB, 200 * 512 * GIB, 511 * 512 * GIB];

#[derive(Clone, Copy, Debug)]
enum Wish {
    Map(Attributes),
    Protect(Attributes),
    Remap(Attributes),
    Unmap,
}

/// A wish, the place, its first page and how many, the first frame.
type Asked = (Wish, usize, u64, u64, u64);

fn asked() -> impl Strategy<Value = Asked> {
    let attributes = prop::sample::select(vec![DATA, CODE, CONSTANTS]);
    let wish = prop_oneof![
        6 => attributes.clone().prop_map(Wish::Map),
        3 => attributes.clone().prop_map(Wish::Protect),
        2 => attributes.prop_map(Wish::Remap),
        3 => Just(Wish::Unmap),
    ];
    (wish, 0..PLACES.len(), 0..PAGES, 1..4_u64, 0..FRAMES - 3)
        .prop_map(|(wish, place, page, count, frame)| (wish, place, page, count.min(PAGES - page), frame))
}

/// What is mapped: by page, the frame and as what.
#[derive(Default)]
struct Pages(BTreeMap<u64, (u64, Attributes)>);

impl Pages {
    /// Whether one of `pages`, as (page, frame), would be an alias as `attributes`: of a page outside of the request;
    /// or, where it changes in place, of any other, for that one may change later.
    fn has_alias(&self, pages: &[(u64, u64)], attributes: Attributes) -> bool {
        let opposite = match attributes {
            DATA => CODE,
            CODE => DATA,
            _ => return false,
        };
        let is_asked = |page: &u64| pages.iter().any(|(asked, _)| asked == page);
        pages.iter().any(|(page, frame)| {
            let in_place = self.0.get(page).is_some_and(|mapped| mapped.0 == *frame && mapped.1 != attributes);
            let counts = |other: &u64| if in_place { other != page } else { !is_asked(other) };
            self.0.iter().any(|(other, mapped)| counts(other) && *mapped == (*frame, opposite))
        })
    }
}

fn play(rig: &mut Rig<Live>, pages: &mut Pages, (wish, place, page, count, frame): Asked) -> Result<(), TestCaseError> {
    let (start, bytes) = (PLACES[place] + page * PAGE, count * PAGE);
    let output = OUT + frame * PAGE;
    let each = || (0..count).map(|index| (start + index * PAGE, output + index * PAGE));
    let mapped: Vec<u64> = each().map(|(page, _)| page).filter(|page| pages.0.contains_key(page)).collect();
    let shown: Vec<(u64, u64)> = mapped.iter().map(|page| (*page, pages.0[page].0)).collect();
    let (is_free, is_mapped) = (mapped.is_empty(), mapped.len() as u64 == count);
    let (answer, wanted, attributes) = match wish {
        Wish::Map(as_what) if is_free => {
            (rig.map(request(start, bytes, output, as_what, Level::L3)), each().collect(), as_what)
        }
        Wish::Remap(as_what) if is_mapped => (rig.remap(start, bytes, output, as_what), each().collect(), as_what),
        Wish::Protect(as_what) if is_mapped => (rig.protect(start, bytes, as_what), shown, as_what),
        Wish::Unmap if is_mapped => {
            prop_assert!(rig.unmap(start, bytes).is_ok());
            pages.0.retain(|page, _| !mapped.contains(page));
            return Ok(());
        }
        _ => return Ok(()),
    };
    match answer {
        Ok(_) => {
            prop_assert!(!pages.has_alias(&wanted, attributes), "an alias is missed");
            pages.0.extend(wanted.iter().map(|&(page, frame)| (page, (frame, attributes))));
        }
        Err(Error::Aliased { slot, frames, .. }) => {
            prop_assert!(pages.has_alias(&wanted, attributes), "{slot} is no alias");
            let (frame, others) = pages.0[&slot.virt().raw()];
            prop_assert!(frame == frames.start().raw() && others != attributes && others != CONSTANTS);
        }
        Err(error) => prop_assert!(false, "{error}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn good_an_alias_is_found_wherever_it_is_and_nowhere_else(wishes in vec(asked(), 1..60)) {
        let (mut rig, mut pages) = (Rig::live(Reach::ThisPe, 64), Pages::default());
        for wish in wishes {
            play(&mut rig, &mut pages, wish)?;
        }
    }
}
