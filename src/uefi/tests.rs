use super::*;
use proptest::prelude::*;

/// Loader data.
const LOADER: u32 = 2;
/// Runtime services data.
const KEPT: u32 = 6;
/// Conventional memory.
const FREE: u32 = 7;
/// Memory-mapped IO.
const IO: u32 = 11;

type Line = (u32, u64, u64, u64);

/// A map of these descriptors (type, start, pages, attributes), `stride` bytes apart.
fn bytes(lines: &[Line], stride: usize) -> Vec<u8> {
    lines.iter().flat_map(|line| descriptor(*line, stride)).collect()
}

fn descriptor((kind, start, pages, attributes): Line, stride: usize) -> Vec<u8> {
    // Padding, and what later versions may add, are nobody's to believe.
    let first = u64::from(kind) | 0xdead_beef << 32;
    let mut bytes: Vec<u8> = [first, start, 0, pages, attributes].into_iter().flat_map(u64::to_le_bytes).collect();
    bytes.resize(stride, 0xa5);
    bytes
}

fn ram(lines: &[Line]) -> Vec<(u64, u64)> {
    let bytes = bytes(lines, 48);
    let map = Map::read(&bytes, 48).unwrap();
    let mut list = SpanList::<MAX_BANKS>::new();
    map.ram().for_each(|span| list.insert(span).unwrap());
    list.iter().map(ends).collect()
}

fn ends(span: PhysSpan) -> (u64, u64) {
    (span.start().raw(), span.end_exclusive().raw())
}

fn refusal(bytes: &[u8], stride: usize) -> Error {
    let error = Map::read(bytes, stride).unwrap_err();
    assert!(!error.to_string().contains('\n'));
    error
}

#[test]
fn good_each_kind_of_memory() {
    for kind in 0..=16 {
        let lines = [(FREE, 0x10_0000, 1, WRITE_BACK), (kind, 0x4000_0000, 0x10, WRITE_BACK)];
        let is_ram = matches!(kind, 1 | 2 | 3 | 4 | 7);
        assert_eq!(ram(&lines).len(), if is_ram { 2 } else { 1 }, "type {kind}");
        let bytes = bytes(&lines, 40);
        let kept: Vec<_> = Map::read(&bytes, 40).unwrap().kept().map(|kept| kept.kind()).collect();
        let name = KINDS.get(kind as usize).copied().unwrap_or("unknown type");
        assert_eq!(kept, if is_ram { vec![] } else { vec![name] });
    }
}

#[test]
fn bad_what_an_attribute_says_of_free_memory() {
    for attributes in [0, WRITE_BACK | RUNTIME, WRITE_BACK | PERSISTENT, WRITE_BACK | SPECIFIC_PURPOSE] {
        let lines = [(FREE, 0, 1, WRITE_BACK), (FREE, 0x4000_0000, 1, attributes)];
        assert_eq!(ram(&lines), [(0, 0x1000)], "{attributes:#x}");
    }
}

#[test]
fn good_unsorted_descriptors_that_touch() {
    let lines = [(FREE, 0x3000, 1, 0xf), (LOADER, 0x1000, 2, 0xf), (FREE, u64::MAX, 0, 0xf), (FREE, 0x6000, 1, 0xf)];
    assert_eq!(ram(&lines), [(0x1000, 0x4000), (0x6000, 0x7000)]);
}

#[test]
fn bad_what_two_descriptors_disagree_on_is_kept() {
    let lines = [(FREE, 0x1000, 8, 0xf), (KEPT, 0x3000, 1, 0xf), (LOADER, 0x2000, 3, 0xf), (IO, 0x8000, 4, 0)];
    assert_eq!(ram(&lines), [(0x1000, 0x3000), (0x4000, 0x8000)]);
    let within = [(FREE, 0x3000, 1, 0xf), (KEPT, 0x1000, 8, 0xf), (FREE, 0x10_0000, 1, 0xf)];
    assert_eq!(ram(&within), [(0x10_0000, 0x10_1000)]);
}

#[test]
fn good_what_is_kept_is_whole_where_it_touches() {
    let lines = [(KEPT, 0x1000, 1, 0), (KEPT, 0x2000, 1, 8), (IO, 0x3000, 1, 0), (FREE, 0x4000, 1, 8), (IO, 0, 1, 0)];
    let bytes = bytes(&lines, 64);
    let map = Map::read(&bytes, 64).unwrap();
    let kept: Vec<_> = map.kept().map(|kept| (kept.kind(), ends(kept.span))).collect();
    let (kept_name, io) = (KINDS[KEPT as usize], KINDS[IO as usize]);
    assert_eq!(kept, [(kept_name, (0x1000, 0x3000)), (io, (0x3000, 0x4000)), (io, (0, 0x1000))]);
}

#[test]
fn bad_descriptors_of_a_size_that_none_has() {
    let good = bytes(&[(FREE, 0, 1, 8)], 40);
    for stride in [0, 8, 39, 41, 44, usize::MAX] {
        assert_eq!(refusal(&good, stride), Error::DescriptorSize { bytes: stride });
    }
    assert_eq!(refusal(&good, 48), Error::CutShort { bytes: 40, descriptor_bytes: 48 });
}

#[test]
fn bad_memory_that_wraps_around_or_starts_inside_a_page() {
    let most = u64::MAX;
    for (start, pages) in [(0x800, 1), (1 << 52, 1), (0x1000, most), (most & !0xfff, 1), (0, most >> 11)] {
        let bytes = bytes(&[(FREE, 0, 1, 8), (FREE, start, pages, 8)], 40);
        assert_eq!(refusal(&bytes, 40), Error::Span { index: 1, start, pages });
    }
    assert_eq!(ram(&[(FREE, 0xf_ffff_ffff_f000, 1, 8)]), [(0xf_ffff_ffff_f000, 1 << 52)]);
}

#[test]
fn bad_a_map_without_ram() {
    assert_eq!(refusal(&[], 48), Error::NoRam);
    assert_eq!(refusal(&bytes(&[(KEPT, 0x1000, 1, 8), (FREE, 0x1000, 1, 8), (FREE, 0, 0, 8)], 48), 48), Error::NoRam);
}

#[test]
fn good_where_tree_and_firmware_differ() {
    let lines = [(FREE, 0x1_0000, 4, 8), (KEPT, 0x1_4000, 2, 8), (FREE, 0x9_0000, 1, 8), (IO, 0x20_0000, 1, 0)];
    let bytes = bytes(&lines, 48);
    let map = Map::read(&bytes, 48).unwrap();
    let (mut tree, mut banks) = (SpanList::new(), SpanList::new());
    tree.insert(PhysSpan::of(PhysAddr::at(0x1_0000), 0x1_0000).unwrap()).unwrap();
    map.ram().for_each(|span| banks.insert(span).unwrap());
    let compared = Compared { map, tree: Some(&tree) };
    let kept: Vec<_> = compared.kept().map(|(kept, in_tree)| (kept.span.start().raw(), in_tree)).collect();
    assert_eq!(kept, [(0x1_4000, true), (0x20_0000, false)]);
    assert_eq!(compared.tree_alone().map(ends).collect::<Vec<_>>(), [(0x1_6000, 0x2_0000)]);
    assert_eq!(compared.uefi_alone(&banks).map(ends).collect::<Vec<_>>(), [(0x9_0000, 0x9_1000)]);
}

#[test]
fn good_without_a_tree_nothing_differs() {
    let bytes = bytes(&[(FREE, 0x1_0000, 4, 8), (KEPT, 0x1_4000, 2, 8)], 48);
    let map = Map::read(&bytes, 48).unwrap();
    let mut banks = SpanList::new();
    map.ram().for_each(|span| banks.insert(span).unwrap());
    let compared = Compared { map, tree: None };
    assert!(compared.kept().all(|(_, in_tree)| !in_tree));
    assert_eq!((compared.tree_alone().count(), compared.uefi_alone(&banks).count()), (0, 0));
}

#[test]
fn good_what_can_be_read_across_descriptors() {
    let lines = [(KEPT, 0x3000, 1, 8), (FREE, 0x1000, 2, 8), (IO, 0x4000, 1, 0), (9, 0x8000, 1, 8), (77, 0x9000, 1, 8)];
    let bytes = bytes(&lines, 48);
    let map = Map::read(&bytes, 48).unwrap();
    let can_be_read = |start, bytes| map.can_be_read(PhysSpan::of(PhysAddr::at(start), bytes).unwrap());
    assert!(can_be_read(0x1004, 0x2ffc) && can_be_read(0x8ff0, 0x10) && can_be_read(0, 0));
    assert!(!can_be_read(0xff0, 0x20) && !can_be_read(0x3ff0, 0x11) && !can_be_read(0x8ff0, 0x11));
}

#[test]
fn good_load_options_up_to_their_end() {
    let units = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let text = |bytes: &[u8]| load_options(bytes).collect::<Vec<u8>>();
    assert_eq!(text(&units("exit=psci maxcpus=2")), b"exit=psci maxcpus=2");
    assert_eq!(text(&units("exit=psci\0exit=park")), b"exit=psci");
    assert_eq!(text(&[]), b"");
}

#[test]
fn bad_load_options_that_are_no_text() {
    let units: Vec<u8> = [0x65_u16, 0xe9, 0xd800, 0x6565].into_iter().flat_map(u16::to_le_bytes).collect();
    assert_eq!(load_options(&units).collect::<Vec<u8>>(), b"e???");
    assert_eq!(load_options(b"e\0x").collect::<Vec<u8>>(), b"e");
    assert_eq!(load_options(b"exit=psci").collect::<Vec<u8>>(), b"????");
}

proptest! {
    /// Page by page: RAM is what some descriptor of RAM names and no other does.
    #[test]
    fn good_ram_page_by_page(
        lines in prop::collection::vec((0_u32..17, 0_u64..40, 0_u64..12, any::<bool>()), 1..12)
    ) {
        let attributes = |is_plain| if is_plain { WRITE_BACK } else { 0 };
        let lines: Vec<Line> =
            lines.into_iter().map(|(kind, page, pages, plain)| (kind, page << 12, pages, attributes(plain))).collect();
        let bytes = bytes(&lines, 48);
        let names = |line: &&Line, page: u64| (line.1 >> 12..(line.1 >> 12) + line.2).contains(&page);
        let is_ram = |line: &Line| matches!(line.0, 1..=4 | 7) && line.3 == WRITE_BACK;
        let wanted: Vec<u64> = (0..64)
            .filter(|&page| lines.iter().any(|line| names(&line, page)))
            .filter(|&page| lines.iter().filter(|line| names(line, page)).all(is_ram))
            .collect();
        match Map::read(&bytes, 48) {
            Ok(map) => {
                let spans: Vec<_> = map.ram().collect();
                assert!(spans.windows(2).all(|two| two[0].end_exclusive() <= two[1].start()));
                let pages = spans.iter().flat_map(|span| (span.start().raw()..span.end_exclusive().raw()).step_by(4096));
                assert_eq!(pages.map(|at| at >> 12).collect::<Vec<_>>(), wanted);
            }
            Err(error) => assert_eq!((error, wanted), (Error::NoRam, vec![])),
        }
    }

    /// Whatever the bytes are, they are a map or refused.
    #[test]
    fn good_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400), stride in 0_usize..100) {
        match Map::read(&bytes, stride) {
            Ok(map) => assert!(map.kept().count() + map.ram().count() > 0),
            Err(error) => assert!(error.to_string().len() < 120),
        }
        assert!(load_options(&bytes).count() <= bytes.len() / 2);
    }
}
