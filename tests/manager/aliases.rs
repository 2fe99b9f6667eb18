//! W^X by physical address. An alias is found wherever its other mapping is, and is refused only where there is one:
//! random requests for few frames at many places, held against a map from pages to frames.

use super::rig::{CODE, CONSTANTS, DATA, GIB, MIB, PAGE, Rig, phys, request, virt};
use breakwater::addr::Level;
use breakwater::audit::{Declared, Finding, Scratch, audit};
use breakwater::bbm::{Live, OpenAlias, Reach};
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

/// Text of sixteen pages, executed at [`TEXT_AT`]; the place where it may be written is [`PATCH`].
const TEXT: u64 = 0x4000_0000;
const TEXT_AT: u64 = 8 * GIB;
const PATCH: u64 = 700 * GIB;

fn with_text() -> Rig<Live> {
    let mut rig = Rig::live(Reach::Domain, 32);
    rig.map(request(TEXT_AT, 16 * PAGE, TEXT, CODE, Level::L3)).unwrap();
    rig
}

/// Pages 4 to 7 of the text may be written within 8 pages.
fn open(rig: &mut Rig<Live>) -> OpenAlias<super::world::World> {
    rig.mapper().open_alias(virt(PATCH, 8 * PAGE), phys(TEXT + 4 * PAGE, 4 * PAGE)).expect("none is open")
}

fn close(rig: &mut Rig<Live>, alias: OpenAlias<super::world::World>) {
    rig.mapper().close_alias(alias).unwrap_or_else(|(alias, error)| {
        core::mem::forget(alias);
        panic!("{error}")
    });
}

/// Writable pages from `page` of the place on, which show text from `text` on.
fn write(page: u64, count: u64, text: u64) -> breakwater::mapper::Request {
    request(PATCH + page * PAGE, count * PAGE, TEXT + text * PAGE, DATA, Level::L3)
}

fn is_aliased<T: core::fmt::Debug>(answer: Result<T, Error>) {
    assert!(matches!(answer, Err(Error::Aliased { .. })), "{answer:?}");
}

#[test]
fn good_text_is_written_by_declaration() {
    let mut rig = with_text();
    is_aliased(rig.map(write(0, 4, 4)));
    let alias = open(&mut rig);
    rig.map(write(0, 4, 4)).unwrap();
    rig.map(write(6, 2, 5)).unwrap(); // once more
    rig.protect(PATCH, PAGE, CONSTANTS).unwrap();
    rig.protect(PATCH, PAGE, DATA).unwrap();
    rig.remap(PATCH, PAGE, TEXT + 7 * PAGE, DATA).unwrap();
    rig.clear(PATCH, 8 * PAGE).unwrap();
    close(&mut rig, alias);
    is_aliased(rig.map(write(0, 4, 4)));
    let again = open(&mut rig);
    close(&mut rig, again);
}

#[test]
fn bad_beyond_what_was_declared() {
    let mut rig = with_text();
    let alias = open(&mut rig);
    for (what, page, count, text) in [
        ("a page before the frames", 0, 1, 3),
        ("a page behind them", 0, 1, 8),
        ("more frames than declared", 0, 5, 4),
        ("all of the place", 0, 8, 0),
        ("a page beyond the place", 8, 1, 4),
        ("across its end", 7, 2, 4),
        ("far away", 1 << 20, 1, 4),
    ] {
        println!("{what}");
        is_aliased(rig.map(write(page, count, text)));
    }
    // A right gained later is asked for as one gained at once.
    rig.map(request(PATCH + 7 * PAGE, 2 * PAGE, TEXT + 4 * PAGE, CONSTANTS, Level::L3)).unwrap();
    is_aliased(rig.protect(PATCH + 8 * PAGE, PAGE, DATA));
    is_aliased(rig.remap(PATCH + 8 * PAGE, PAGE, TEXT + 5 * PAGE, DATA));
    rig.protect(PATCH + 7 * PAGE, PAGE, DATA).unwrap();
    rig.clear(PATCH, 16 * PAGE).unwrap();
    close(&mut rig, alias);
}

/// What is written by declaration is executed at no further address; nor is anything else let pass.
#[test]
fn bad_executing_anew_what_is_written_by_declaration() {
    let mut rig = with_text();
    let alias = open(&mut rig);
    rig.map(write(0, 4, 4)).unwrap();
    for at in [PATCH + 4 * PAGE, TEXT_AT + 16 * MIB] {
        is_aliased(rig.map(request(at, PAGE, TEXT + 4 * PAGE, CODE, Level::L3)));
    }
    rig.clear(PATCH, 8 * PAGE).unwrap();
    close(&mut rig, alias);
    rig.map(request(PATCH, PAGE, TEXT + 4 * PAGE, CODE, Level::L3)).unwrap();
}

#[test]
fn bad_closing_what_is_still_mapped() {
    let mut rig = with_text();
    let mut alias = open(&mut rig);
    for attributes in [DATA, CONSTANTS] {
        rig.map(request(PATCH + 2 * PAGE, PAGE, TEXT + 5 * PAGE, attributes, Level::L3)).unwrap();
        let now = rig.world().now();
        let (still_open, error) = rig.mapper().close_alias(alias).expect_err("it is mapped");
        let Error::AliasOpen { mapped: Some((slot, descriptor)), frames, .. } = error else { panic!("{error}") };
        assert_eq!((slot.virt().raw(), frames), (PATCH + 2 * PAGE, still_open.frames()));
        assert_eq!(rig.world().word(slot.address().raw()), descriptor);
        assert_eq!(rig.world().now(), now, "a refusal does nothing");
        alias = still_open;
        rig.map(write(0, 1, 4)).unwrap(); // and it is open as before
        rig.clear(PATCH, 8 * PAGE).unwrap();
    }
    // Other frames in the place, and the same frames elsewhere, are nobody's business here.
    rig.map(write(3, 1, 64)).unwrap();
    rig.map(request(PATCH + 8 * PAGE, PAGE, TEXT + 5 * PAGE, CONSTANTS, Level::L3)).unwrap();
    close(&mut rig, alias);
}

/// A block that reaches into the place shows the frames of its other part elsewhere.
#[test]
fn good_closing_beside_a_block() {
    let mut rig = Rig::live(Reach::ThisPe, 32);
    rig.map(request(PATCH, 2 * MIB, TEXT, CONSTANTS, Level::L2)).unwrap();
    let (half, page) = (virt(PATCH + MIB, MIB), phys(TEXT + MIB - PAGE, PAGE));
    let alias = rig.mapper().open_alias(half, page).unwrap();
    close(&mut rig, alias);
    let alias = rig.mapper().open_alias(half, phys(TEXT + MIB, PAGE)).unwrap();
    let (alias, error) = rig.mapper().close_alias(alias).unwrap_err();
    assert!(error.to_string().contains("is not over"), "{error}");
    rig.unmap(PATCH, 2 * MIB).unwrap();
    close(&mut rig, alias);
}

#[test]
fn bad_two_at_once_and_none() {
    let mut rig = with_text();
    let alias = open(&mut rig);
    let (place, frames) = (virt(PATCH + GIB, PAGE), phys(TEXT, PAGE));
    let error = rig.mapper().open_alias(place, frames).unwrap_err();
    assert_eq!(error, Error::AliasOpen { virt: alias.virt(), frames: alias.frames(), mapped: None });
    close(&mut rig, alias);
    for (place, frames) in [
        (virt(PATCH, 0), frames),
        (virt(PATCH + 8, PAGE), frames),
        (place, phys(TEXT, 0)),
        (place, phys(TEXT, 8)),
        (place, phys(TEXT + 8, PAGE)),
        (virt((1 << 48) - PAGE, 2 * PAGE), frames),
    ] {
        rig.mapper().open_alias(place, frames).map(core::mem::forget).expect_err("no pages");
    }
    let alias = open(&mut rig);
    close(&mut rig, alias);
}

#[test]
#[should_panic(expected = "a declared alias that is not closed")]
fn bad_a_declaration_that_is_forgotten() {
    let mut rig = with_text();
    drop(open(&mut rig));
}

/// The audit is softened by nothing.
#[test]
fn bad_the_audit_sees_what_is_written_by_declaration() {
    let mut rig = with_text();
    let text = Declared {
        name: "text",
        virt: virt(TEXT_AT, 16 * PAGE),
        output: Some(phys(TEXT, 0).start()),
        attributes: CODE,
    };
    let patch = Declared {
        name: "patch",
        virt: virt(PATCH, PAGE),
        output: Some(phys(TEXT + 4 * PAGE, 0).start()),
        attributes: DATA,
    };
    let found = |rig: &Rig<Live>, declared: &[Declared]| {
        let mut scratch = vec![Scratch::EMPTY; 64];
        audit(rig.tables.root(), rig.world(), declared, &[phys(0, 1 << 40)], &[], &mut scratch)
    };
    let alias = open(&mut rig);
    assert_eq!(found(&rig, &[text]).mismatches, 0);
    rig.map(write(0, 1, 4)).unwrap();
    let audit = found(&rig, &[text, patch]);
    assert!(matches!(audit.first, Some(Finding::WritableExecutableAlias { .. })), "{:?}", audit.first);
    rig.clear(PATCH, 8 * PAGE).unwrap();
    close(&mut rig, alias);
    assert_eq!(found(&rig, &[text]).mismatches, 0);
}
