//! Claims about the bytes: headers, blocks, tokens, names.

use super::*;

/// A tree by hand: header, one terminating reservation, `structure`, `strings`.
fn raw(structure: &[u8], strings: &[u8]) -> Vec<u8> {
    let structure_start = 56;
    let strings_start = structure_start + structure.len();
    let total = strings_start + strings.len();
    let header = [0xd00d_feed, total, structure_start, strings_start, 40, 17, 16, 0, strings.len(), structure.len()];
    let header = header.map(|word| word as u32);
    [cells(&header), vec![0; 16], structure.to_vec(), strings.to_vec()].concat()
}

fn patched(offset: usize, word: u32) -> Vec<u8> {
    let mut tree = machine(vec![]).to_dtb();
    tree[offset..offset + 4].copy_from_slice(&word.to_be_bytes());
    tree
}

fn refusal(tree: &[u8]) -> Error {
    read_bytes(tree).map(|_| ()).unwrap_err()
}

const NO_RAM: Error = Error::Memory(memory_map::Error::NoRam);

#[test]
fn good_header_gives_the_total_size() {
    let tree = machine(vec![]).to_dtb();
    assert_eq!(header_size(&tree[..HEADER_BYTES]), Ok(tree.len() as u32));
    assert_eq!(header_size(&patched(4, MAX_BYTES)), Ok(MAX_BYTES));
    assert_eq!(header_size(&patched(4, HEADER_BYTES as u32)), Ok(HEADER_BYTES as u32));
}

#[test]
fn good_later_versions_that_can_be_read_as_17() {
    for (offset, version) in [(20, 18), (24, 17), (24, 1)] {
        assert!(read_bytes(&patched(offset, version)).is_ok(), "{offset} {version}");
    }
}

#[test]
fn bad_header_cut_short() {
    let error = Error::Truncated { bytes: 39, wanted: 40 };
    assert_eq!(header_size(&machine(vec![]).to_dtb()[..39]), Err(error));
    assert_eq!(refusal(&[]), Error::Truncated { bytes: 0, wanted: 40 });
}

#[test]
fn bad_magic() {
    assert_eq!(header_size(&patched(0, 0x5441_0001)), Err(Error::BadMagic { magic: 0x5441_0001 }));
}

#[test]
fn bad_version() {
    let old = Error::UnsupportedVersion { version: 16, last_compatible: 16 };
    assert_eq!(header_size(&patched(20, 16)), Err(old));
    let new = Error::UnsupportedVersion { version: 17, last_compatible: 18 };
    assert_eq!(header_size(&patched(24, 18)), Err(new));
}

#[test]
fn bad_total_size() {
    assert_eq!(header_size(&patched(4, 39)), Err(Error::TooSmall { bytes: 39 }));
    assert_eq!(header_size(&patched(4, MAX_BYTES + 1)), Err(Error::TooLarge { bytes: MAX_BYTES + 1 }));
}

#[test]
fn bad_tree_cut_short_anywhere() {
    let tree = machine(vec![]).to_dtb();
    for bytes in 0..tree.len() {
        assert!(matches!(refusal(&tree[..bytes]), Error::Truncated { .. }), "{bytes}");
    }
}

#[test]
fn bad_tree_cut_short_and_filled_with_zeros() {
    let whole = machine(vec![node("chosen", &[("bootargs", text("exit=park"))], vec![])]).to_dtb();
    let strings_start = u32::from_be_bytes(whole[12..16].try_into().unwrap()) as usize;
    for bytes in 0..strings_start {
        let mut tree = whole.clone();
        tree[bytes..].fill(0);
        assert!(read_bytes(&tree).is_err(), "{bytes}");
    }
}

#[test]
fn bad_blocks_outside_the_tree() {
    for (offset, word) in [(8, u32::MAX), (8, 0), (8, 57), (36, u32::MAX), (12, u32::MAX), (32, u32::MAX), (12, 8)] {
        assert!(matches!(refusal(&patched(offset, word)), Error::BadBlock { .. }), "{offset} {word:#x}");
    }
    for word in [0, 36, 44, u32::MAX] {
        let error = Error::BadBlock { block: "memory reservation", offset: word, bytes: 0 };
        assert_eq!(refusal(&patched(16, word)), error);
    }
}

#[test]
fn good_a_block_may_start_right_after_the_header() {
    let mut tree = raw(&cells(&[1, 0, 2, 9]), b"");
    tree[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_be_bytes());
    assert_eq!(refusal(&tree), NO_RAM);
}

#[test]
fn bad_reservations_that_do_not_end() {
    let error = Error::Unterminated { what: "memory reservation block", offset: 0xffff_fff8 };
    assert_eq!(refusal(&patched(16, 0xffff_fff8)), error);
    let mut tree = raw(&cells(&[1, 0, 2, 9]), b"");
    tree[40..].fill(1);
    assert_eq!(refusal(&tree), Error::Unterminated { what: "memory reservation block", offset: 40 });
}

#[test]
fn good_smallest_tree_is_only_without_ram() {
    assert_eq!(refusal(&raw(&cells(&[1, 0, 2, 9]), b"")), NO_RAM);
    // No-operation tokens may stand anywhere but before the root.
    assert_eq!(refusal(&raw(&cells(&[1, 0, 4, 2, 4, 9]), b"")), NO_RAM);
}

#[test]
fn bad_tokens() {
    let property = [3, 0, 0];
    let cases: &[(&[u32], u32, usize)] = &[
        (&[4, 1, 0, 2, 9], 4, 0),
        (&[2, 9], 2, 0),
        (&[9], 9, 0),
        (&[1, 0, 9], 9, 8),
        (&[1, 0, 2, 2, 9], 2, 12),
        (&[1, 0, 2, 1, 0, 2, 9], 1, 12),
        (&[1, 0, 5, 2, 9], 5, 8),
        (&[1, 0, 1, 0x6100_0000, 2, property[0], property[1], property[2], 2, 9], 3, 20),
        (&[3, 0, 0], 3, 0),
    ];
    for (tokens, token, offset) in cases {
        let error = Error::BadToken { token: *token, offset: 56 + offset };
        assert_eq!(refusal(&raw(&cells(tokens), b"reg\0")), error, "{tokens:x?}");
    }
}

#[test]
fn bad_structure_that_does_not_end() {
    let error = Error::Unterminated { what: "structure block", offset: 56 };
    for tokens in [[1, 0].as_slice(), &[1, 0, 2], &[1, 0, 3], &[]] {
        assert_eq!(refusal(&raw(&cells(tokens), b"reg\0")), error, "{tokens:x?}");
    }
}

#[test]
fn bad_property_that_does_not_end() {
    let error = Error::Unterminated { what: "property", offset: 64 };
    for bytes in [13, u32::MAX] {
        assert_eq!(refusal(&raw(&cells(&[1, 0, 3, bytes, 0, 0, 2, 9]), b"reg\0")), error);
    }
}

#[test]
fn bad_property_names() {
    let named = |offset: u32, strings: &[u8]| refusal(&raw(&cells(&[1, 0, 3, 0, offset, 2, 9]), strings));
    assert_eq!(named(0, b"reg\0"), NO_RAM);
    let base = 56 + 28;
    assert_eq!(named(0, b"\0"), Error::BadName { offset: base });
    assert_eq!(named(3, b"reg\0"), Error::BadName { offset: base + 3 });
    assert_eq!(named(0, b"r\xc3\xa9g\0"), Error::BadName { offset: base });
    assert_eq!(named(0, b"reg"), Error::Unterminated { what: "property name", offset: base });
    assert_eq!(named(5, b"reg\0"), Error::Unterminated { what: "property name", offset: base + 5 });
    assert_eq!(named(0, &[b'x'; 400]), Error::BadName { offset: base });
}

#[test]
fn good_names_longer_than_the_specification_allows() {
    // Labels under __symbols__ are property names of any length.
    let long = "a_label_of_more_than_thirty_one_characters";
    let symbols = node("__symbols__", &[(long, text("/memory@40000000"))], vec![]);
    assert!(read(&machine(vec![symbols])).is_ok());
    assert!(dtoolkit::fdt::Fdt::new(&machine(vec![node(long, &[], vec![])]).to_dtb()).is_err());
    assert!(read(&machine(vec![node(long, &[], vec![])])).is_ok());
}

#[test]
fn bad_node_names() {
    let named = |word: u32| refusal(&raw(&cells(&[1, 0, 1, word, 2, 2, 9]), b""));
    assert_eq!(named(0x6100_0000), NO_RAM);
    assert_eq!(named(0), Error::BadName { offset: 68 });
    assert_eq!(named(0x0a00_0000), Error::BadName { offset: 68 });
    assert_eq!(named(0xff00_0000), Error::BadName { offset: 68 });
    let endless = raw(&[cells(&[1, 0, 1]), vec![b'x'; 40]].concat(), b"");
    assert_eq!(refusal(&endless), Error::Unterminated { what: "node name", offset: 68 });
    let long = raw(&[cells(&[1, 0, 1]), vec![b'x'; 4000]].concat(), b"");
    assert_eq!(refusal(&long), Error::BadName { offset: 68 });
}

#[test]
fn good_deepest_tree_and_bad_one_level_more() {
    let nested = |depth: usize| {
        let levels =
            (1..depth).fold(None, |inner: Option<DeviceTreeNode>, _| Some(node("n", &[], inner.into_iter().collect())));
        machine(levels.into_iter().collect()).to_dtb()
    };
    assert!(read_bytes(&nested(MAX_DEPTH)).is_ok());
    assert!(matches!(refusal(&nested(MAX_DEPTH + 1)), Error::TooDeep { limit: MAX_DEPTH, .. }));
}

#[test]
fn bad_flood_of_nested_nodes_is_refused_at_once() {
    let flood = [1, 0x6100_0000].repeat((MAX_BYTES as usize - 1000) / 8);
    let error = Error::TooDeep { offset: 56 + 8 * MAX_DEPTH, limit: MAX_DEPTH };
    assert_eq!(refusal(&raw(&cells(&[&[1, 0], flood.as_slice()].concat()), b"")), error);
}

#[test]
fn good_a_tree_of_chosen_alone_leaves_the_machine_to_acpi() {
    let chosen =
        || node("chosen", &[("bootargs", text("x")), ("odd", vec![1; 5])], vec![node("module@0", &[], vec![])]);
    for children in [vec![], vec![chosen()], vec![node("chosen", &[], vec![])]] {
        assert!(is_stub(&bare(children).to_dtb()));
    }
    let padded = raw(&cells(&[4, 1, 0, 4, 2, 9]), b"");
    assert!(is_stub(&padded), "NOPs say nothing");
}

#[test]
fn bad_a_tree_with_anything_else_is_no_stub_and_neither_is_what_is_no_tree() {
    for name in ["cpus", "memory@0", "chosen@0", "chose", "soc"] {
        let chosen = node("chosen", &[], vec![]);
        assert!(!is_stub(&bare(vec![chosen, node(name, &[], vec![])]).to_dtb()), "{name}");
    }
    let whole = bare(vec![node("chosen", &[("bootargs", text("x"))], vec![])]).to_dtb();
    // What is cut off before its end, or leads on and on, is none.
    let structure_ends = 8 + whole.windows(8).rposition(|window| window == [0, 0, 0, 2, 0, 0, 0, 9]).expect("it ends");
    assert!(!is_stub(&whole[..structure_ends - 1]) && is_stub(&whole[..structure_ends]));
    for words in [&[1, 0, 3, u32::MAX, 0][..], &[1, 0, 2, 2, 9], &[1, 0, 7], &[1, 0, 9], &[9], &[]] {
        assert!(!is_stub(&raw(&cells(words), b"")), "{words:?}");
    }
    assert!(!is_stub(&[]) && !is_stub(&[0xff; 64]));
}

#[test]
fn bad_bytes_in_names_are_found_wherever_they_stand() {
    let named = |name: &[u8]| {
        let strings = [name, b"\0"].concat();
        refusal(&raw(&cells(&[1, 0, 3, 0, 0, 2, 9]), &strings))
    };
    for bytes in 1..40 {
        for byte in 1..=u8::MAX {
            let mut name = vec![b'x'; bytes];
            name[bytes - 1] = byte;
            let printable = matches!(byte, b' '..=b'~');
            assert_eq!(named(&name), if printable { NO_RAM } else { Error::BadName { offset: 84 } }, "{name:x?}");
        }
    }
    assert_eq!(named(&[b'x'; 255]), NO_RAM);
    assert_eq!(named(&[b'x'; 256]), Error::BadName { offset: 84 });
}
