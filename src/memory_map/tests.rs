//! Claims about span lists and memory maps.

use super::*;

fn span(start: u64, end_exclusive: u64) -> PhysSpan {
    PhysSpan::new(PhysAddr::at(start), PhysAddr::at(end_exclusive)).unwrap()
}

fn list<const N: usize>(spans: &[(u64, u64)]) -> SpanList<N> {
    let mut list = SpanList::new();
    spans.iter().for_each(|(start, end)| list.insert(span(*start, *end)).unwrap());
    list
}

const PLENTY: Limits = Limits { directmap_bytes: 5 << 40, phys_bits: 48 };
const IMAGE: (u64, u64) = (0x4020_0000, 0x4040_0000);

fn image() -> PhysSpan {
    span(IMAGE.0, IMAGE.1)
}

/// 1 GiB of RAM at 1 GiB.
fn map() -> MemoryMap {
    let mut map = MemoryMap::new();
    map.add_bank(span(0x4000_0000, 0x8000_0000)).unwrap();
    map
}

#[test]
fn good_insert_sorts_and_merges_what_overlaps_or_touches() {
    let spans = list::<4>(&[(50, 60), (10, 20), (30, 40)]);
    assert_eq!(spans.as_slice(), [span(10, 20), span(30, 40), span(50, 60)]);
    assert_eq!(list::<4>(&[(10, 20), (30, 40), (20, 30)]).as_slice(), [span(10, 40)]);
    assert_eq!(list::<4>(&[(10, 20), (30, 40), (50, 60), (15, 55)]).as_slice(), [span(10, 60)]);
    assert_eq!(list::<4>(&[(10, 60), (20, 30)]).as_slice(), [span(10, 60)]);
    assert_eq!(list::<4>(&[(10, 10)]).as_slice(), []);
}

#[test]
fn good_a_full_list_still_merges() {
    let mut spans = list::<2>(&[(10, 20), (30, 40)]);
    assert_eq!(spans.insert(span(5, 10)), Ok(()));
    assert_eq!(spans.insert(span(15, 35)), Ok(()));
    assert_eq!(spans.as_slice(), [span(5, 40)]);
}

#[test]
fn bad_insert_into_a_full_list_changes_nothing() {
    let mut spans = list::<2>(&[(10, 20), (30, 40)]);
    assert_eq!(spans.insert(span(22, 24)), Err(Full));
    assert_eq!(spans.as_slice(), [span(10, 20), span(30, 40)]);
}

#[test]
fn good_remove_cuts_splits_and_drops() {
    let cut = |start, end| {
        let mut spans = list::<4>(&[(10, 20), (30, 40), (50, 60)]);
        spans.remove(span(start, end)).unwrap();
        spans.iter().map(|left| (left.start().raw(), left.end_exclusive().raw())).collect::<Vec<_>>()
    };
    assert_eq!(cut(0, 10), [(10, 20), (30, 40), (50, 60)]);
    assert_eq!(cut(15, 55), [(10, 15), (55, 60)]);
    assert_eq!(cut(30, 40), [(10, 20), (50, 60)]);
    assert_eq!(cut(33, 36), [(10, 20), (30, 33), (36, 40), (50, 60)]);
    assert_eq!(cut(35, 35), [(10, 20), (30, 40), (50, 60)]);
    assert_eq!(cut(0, 100), []);
}

#[test]
fn bad_remove_that_splits_a_full_list_changes_nothing() {
    let mut spans = list::<1>(&[(10, 20)]);
    assert_eq!(spans.remove(span(12, 14)), Err(Full));
    assert_eq!(spans.as_slice(), [span(10, 20)]);
}

#[test]
fn good_questions_to_a_list() {
    let spans = list::<4>(&[(10, 20), (30, 40)]);
    assert!(spans.contains(PhysAddr::at(10)) && !spans.contains(PhysAddr::at(20)));
    assert!(spans.covers(span(12, 20)) && !spans.covers(span(12, 31)));
    assert_eq!(spans.overlap(span(19, 31)), Some(span(10, 20)));
    assert_eq!(spans.overlap(span(20, 30)), None);
    assert_eq!(spans.bytes(), 20);
    assert!(!spans.is_empty() && SpanList::<1>::default().is_empty());
}

#[test]
fn good_mappable_is_whole_pages_that_no_map_does_not_touch() {
    let mut map = MemoryMap::new();
    map.add_bank(span(0x800, 0x1_0800)).unwrap();
    map.add_bank(span(0x2_0800, 0x2_1000)).unwrap();
    map.add_no_map(span(0x3fff, 0x4001)).unwrap();
    map.add_no_map(span(0x5000, 0x5001)).unwrap();
    let mappable: Vec<_> = map.mappable().collect();
    assert_eq!(mappable, [span(0x1000, 0x3000), span(0x6000, 0x1_0000)]);
}

#[test]
fn good_banks_that_meet_within_a_page_give_that_page() {
    let mut map = MemoryMap::new();
    map.add_bank(span(0x0, 0x1800)).unwrap();
    map.add_bank(span(0x1800, 0x3000)).unwrap();
    assert_eq!(map.mappable().collect::<Vec<_>>(), [span(0, 0x3000)]);
}

#[test]
fn good_free_leaves_out_every_claim() {
    let mut map = map();
    map.add_no_map(span(0x4100_0000, 0x4100_1000)).unwrap();
    map.add_reserved(span(0x4000_0001, 0x4000_0002)).unwrap();
    map.add_module(Module { span: span(0x4200_0800, 0x4200_1800), kind: ModuleKind::Kernel }).unwrap();
    map.device_tree = Some(span(0x4300_0000, 0x4300_1000));
    let free: Vec<_> = map.free(&[image()]).collect();
    let expected = [
        span(0x4000_1000, IMAGE.0),
        span(IMAGE.1, 0x4100_0000),
        span(0x4100_1000, 0x4200_0000),
        span(0x4200_2000, 0x4300_0000),
        span(0x4300_1000, 0x8000_0000),
    ];
    assert_eq!(free, expected);
    assert_eq!(map.mappable().collect::<Vec<_>>(), [span(0x4000_0000, 0x4100_0000), span(0x4100_1000, 0x8000_0000)]);
}

#[test]
fn good_an_empty_claim_takes_no_page() {
    let map = map();
    assert_eq!(map.free(&[span(0x5000_0800, 0x5000_0800)]).count(), 1);
}

#[test]
fn good_directmap_starts_at_a_gibibyte() {
    let mut map = map();
    assert_eq!(map.check(image(), PLENTY).unwrap().start(), PhysAddr::at(0x4000_0000));
    map.add_bank(span(0x3fff_f000, 0x4000_0000)).unwrap();
    assert_eq!(map.check(image(), PLENTY).unwrap().start(), PhysAddr::at(0));
}

#[test]
fn good_directmap_starts_at_sixteen_gibibytes_where_that_makes_runs() {
    let base = |bank, directmap_bytes| {
        let mut map = map();
        map.add_bank(bank).unwrap();
        map.check(image(), Limits { directmap_bytes, phys_bits: 48 }).unwrap().start().raw()
    };
    let (gib, end) = (1 << 30, 32 << 30);
    assert_eq!(base(span(16 * gib, end), 32 * gib), 0, "16 to 32 GiB are a run");
    assert_eq!(base(span(16 * gib, end), 32 * gib - 1), gib, "but then they would not fit");
    assert_eq!(base(span(16 * gib + 1, end), 32 * gib), gib, "no run");
    assert_eq!(base(span(15 * gib, end - 1), 32 * gib), gib, "no run either");
}

#[test]
fn good_image_may_touch_its_neighbours() {
    let mut map = map();
    map.add_reserved(span(0x4010_0000, IMAGE.0)).unwrap();
    map.add_no_map(span(IMAGE.1, IMAGE.1 + 1)).unwrap();
    assert!(map.check(image(), PLENTY).is_ok());
    assert!(map.check(span(0x4040_1000, 0x8000_0000), PLENTY).is_ok());
}

#[test]
fn good_image_may_straddle_banks_that_meet() {
    let mut map = map();
    map.add_bank(span(0x8000_0000, 0x9000_0000)).unwrap();
    assert!(map.check(span(0x7fff_f000, 0x8000_1000), PLENTY).is_ok());
}

#[test]
fn bad_no_ram() {
    assert_eq!(MemoryMap::new().check(image(), PLENTY), Err(Error::NoRam));
}

#[test]
fn bad_image_outside_every_bank() {
    for image in [span(0x1000, 0x2000), span(0x3fff_f000, 0x4000_1000), span(0x7fff_f000, 0x8000_1000)] {
        assert_eq!(map().check(image, PLENTY), Err(Error::ImageOutsideRam { image }));
    }
}

#[test]
fn bad_claims_on_the_image_are_refused_by_name() {
    let last_byte = span(IMAGE.1 - 1, IMAGE.1 + 0x1000);
    let refusal = |claim: Claim| {
        let mut map = map();
        match claim {
            Claim::NoMap => map.add_no_map(last_byte).unwrap(),
            Claim::Reserved => map.add_reserved(last_byte).unwrap(),
            Claim::Module(kind) => map.add_module(Module { span: last_byte, kind }).unwrap(),
            Claim::DeviceTree => map.device_tree = Some(last_byte),
        }
        map.check(image(), PLENTY)
    };
    for (claim, text) in [
        (Claim::NoMap, "no-map region"),
        (Claim::Reserved, "reserved region"),
        (Claim::Module(ModuleKind::Kernel), "boot module (kernel)"),
        (Claim::Module(ModuleKind::Ramdisk), "boot module (ramdisk)"),
        (Claim::Module(ModuleKind::Xsm), "boot module (XSM policy)"),
        (Claim::Module(ModuleKind::DeviceTree), "boot module (device tree)"),
        (Claim::Module(ModuleKind::Other), "boot module (other)"),
        (Claim::DeviceTree, "device tree"),
    ] {
        let error = refusal(claim).unwrap_err();
        assert_eq!(error, Error::OverlapsImage { claim, span: last_byte, image: image() });
        let line = "at 0x0000403fffff..0x000040401000 overlaps the image at 0x000040200000..0x000040400000";
        assert_eq!(error.to_string(), format!("{text} {line}"));
    }
}

#[test]
fn bad_claim_on_the_rest_of_the_images_last_page() {
    let mut map = map();
    map.add_no_map(span(0x4020_0900, 0x4020_0a00)).unwrap();
    assert!(matches!(map.check(span(0x4020_0000, 0x4020_0800), PLENTY), Err(Error::OverlapsImage { .. })));
}

#[test]
fn good_tree_in_ram_that_may_be_mapped() {
    let mut map = map();
    map.device_tree = Some(span(0x7fff_f008, 0x8000_0000));
    map.add_reserved(span(0x7fff_0000, 0x8000_0000)).unwrap();
    assert!(map.check(image(), PLENTY).is_ok());
}

#[test]
fn bad_tree_outside_ram_or_in_no_map() {
    for tree in [span(0x1000, 0x2000), span(0x7fff_f000, 0x8000_0001)] {
        let mut map = map();
        map.device_tree = Some(tree);
        assert_eq!(map.check(image(), PLENTY), Err(Error::TreeOutsideRam { tree }));
    }
    let (mut map, tree) = (map(), span(0x5000_0000, 0x5000_1800));
    map.device_tree = Some(tree);
    map.add_no_map(span(0x5000_1800, 0x5000_1900)).unwrap();
    assert_eq!(map.check(image(), PLENTY), Err(Error::TreeOutsideRam { tree }));
}

#[test]
fn good_ram_up_to_the_limits_and_bad_ram_beyond() {
    let mut map = map();
    let (base, end) = (0x4000_0000, 0x4000_0000 + (1 << 30) + 0x1000);
    map.add_bank(span(0x8000_0000, end)).unwrap();
    let with = |directmap_bytes, phys_bits| map.check(image(), Limits { directmap_bytes, phys_bits });
    assert!(with(end - base, 32).is_ok());
    let bank = span(base, end);
    let base = PhysAddr::at(base);
    let directmap_bytes = end - base.raw() - 1;
    assert_eq!(with(directmap_bytes, 32), Err(Error::BeyondDirectmap { bank, base, directmap_bytes }));
    assert_eq!(with(u64::MAX, 31), Err(Error::BeyondPhysicalSize { bank, phys_bits: 31 }));
    // Up to the physical size itself, and no shift of 64 or more.
    assert!(map.check(image(), Limits { directmap_bytes: u64::MAX, phys_bits: 52 }).is_ok());
    let full = Limits { directmap_bytes: u64::MAX, phys_bits: 31 };
    assert!(self::map().check(image(), full).is_ok());
}

#[test]
fn bad_too_many_of_anything() {
    let mut map = MemoryMap::new();
    let nth = |i: usize| span(i as u64 * 0x2000, i as u64 * 0x2000 + 0x1000);
    let refused = |add: &mut dyn FnMut(PhysSpan) -> Result<(), Error>, capacity, what| {
        (0..capacity).for_each(|i| add(nth(i)).unwrap());
        assert_eq!(add(nth(capacity)), Err(Error::TooMany { what, capacity }));
    };
    refused(&mut |span| map.add_bank(span), MAX_BANKS, "memory banks");
    refused(&mut |span| map.add_reserved(span), MAX_RESERVED, "reserved regions");
    refused(&mut |span| map.add_no_map(span), MAX_RESERVED, "no-map regions");
    let kind = ModuleKind::Other;
    refused(&mut |span| map.add_module(Module { span, kind }), MAX_MODULES, "boot modules");
}

fn kernel_at(start: u64, end_exclusive: u64) -> Module {
    Module { span: span(start, end_exclusive), kind: ModuleKind::Kernel }
}

#[test]
fn good_modules_side_by_side_and_in_memory_that_is_reserved() {
    let mut map = map();
    map.device_tree = Some(span(0x4800_0000, 0x4800_1234));
    // Neighbours may share a page, but no byte.
    for (start, end) in [(0x4800_1234, 0x4800_2001), (0x4800_2001, 0x4900_0000), (0x7fff_f000, 0x8000_0000)] {
        map.add_module(kernel_at(start, end)).unwrap();
    }
    map.add_reserved(span(0x4800_0000, 0x4a00_0000)).unwrap();
    map.add_no_map(span(0x4900_0000, 0x4900_1000)).unwrap();
    assert!(map.check(image(), PLENTY).is_ok());
    // Two banks that meet are one stretch of RAM.
    map.add_bank(span(0x8000_0000, 0x9000_0000)).unwrap();
    map.add_module(kernel_at(0x8000_0000, 0x8800_0000)).unwrap();
    assert!(map.check(image(), PLENTY).is_ok());
}

#[test]
fn bad_modules_over_something_else_are_refused_with_both_names() {
    let refused = |claim: &dyn Fn(&mut MemoryMap)| {
        let mut map = map();
        claim(&mut map);
        map.add_module(kernel_at(0x5000_0000, 0x5100_0000)).unwrap();
        map.check(image(), PLENTY).unwrap_err().to_string()
    };
    let kernel = "boot module (kernel) at 0x000050000000..0x000051000000";
    let ramdisk = Module { span: span(0x50ff_ffff, 0x5200_0000), kind: ModuleKind::Ramdisk };
    assert_eq!(
        refused(&|map| map.add_module(ramdisk).unwrap()),
        format!("{kernel} overlaps boot module (ramdisk) at {}", ramdisk.span)
    );
    let tree = span(0x4fff_f000, 0x5000_0001);
    assert_eq!(refused(&|map| map.device_tree = Some(tree)), format!("{kernel} overlaps device tree at {tree}"));
    // A page that it shares with what must not be mapped cannot be mapped.
    let hidden = span(0x4fff_0000, 0x5000_0000);
    let mut map = map();
    map.add_no_map(hidden).unwrap();
    map.add_module(kernel_at(0x5000_0000, 0x5100_0000)).unwrap();
    assert!(map.check(image(), PLENTY).is_ok());
    for (start, end) in [(0x5000_0000, 0x5000_0001), (0x50ff_f000, 0x5200_0000), (0x4fff_0000, 0x5800_0000)] {
        let hidden = span(start, end);
        assert_eq!(
            refused(&|map| map.add_no_map(hidden).unwrap()),
            format!("{kernel} overlaps no-map region at {hidden}")
        );
    }
}

#[test]
fn bad_module_that_is_not_wholly_in_ram() {
    for (start, end) in [(0x9000_0000, 0x9000_1000), (0x7fff_f000, 0x8000_0001), (0x3fff_ffff, 0x4000_1000)] {
        let mut map = map();
        let module = kernel_at(start, end);
        map.add_module(module).unwrap();
        let error = map.check(image(), PLENTY).unwrap_err();
        assert_eq!(error, Error::ModuleOutsideRam { module });
        assert_eq!(error.to_string(), format!("boot module (kernel) at {} is not wholly in RAM", module.span));
    }
}
