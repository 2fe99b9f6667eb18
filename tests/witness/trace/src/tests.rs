//! The text form, both ways.

use crate::text::{self, HEADER, Reader, parse};
use crate::{End, Record};

/// One line of every kind, in canonical spelling.
const EVERY_KIND: &str = "word 40200000 9100014d
memory 40000000 c0000000 ram
memory 48000000 48100000 no-map
memory 0 4000000 flash
feature all bbm=2
feature all line=128
feature 3 pa-bits=52
feature 3 hcr-barriers
0 1 40000000 start 2
0 1 40000000 found sctlr_el2 30c50830
0 7 4020003c enter 40200000 4096
0 8 40200040 mrs s3_0_c0_c7_0
0 9 40200044 msr tcr_el2 80853510
0 10 40200048 store 8 402a1000 402a1000 402a2003
0 11 4020004c store 16 402a1010 402a1010 1 ffffffffffffffff
0 12 40200050 store 1 9000000 9000000 41 device
0 12 40200050 store 8 402a1018 402a1018 0 release
0 12 40200050 store 4 9000000 9000000 41 device release
0 13 40200054 load 4 402a1000 402a1000 402a2003
0 14 40200058 tlbi alle2 0
0 15 4020005c tlbi s1_4_c8_c5_3 a0000200
0 16 40200060 dc ivac 402a1000
0 17 40200064 ic iallu 0
0 18 40200068 at s1e2r a0000200000
0 19 4020006c dsb ishst
0 20 40200070 dsb synxs
0 21 40200074 dmb c0
0 22 40200078 isb
0 23 4020007c eret
0 23 4020007c eret 1
0 24 40200880 exception 96000004 4020007c 10
0 24 3f000400 exception 5e000000 40200884 0 3
0 25 40200884 smc 0 84000003 1 40200800 0
0 26 40200888 hlt f000 18 40208000 0 0
0 27 4020088c fetch 12
0 27 4020088c take 40300000 4096
0 27 4020088c give 40300000 8192
0 27 4020088c settled
count 0 38
end limit
";

#[test]
fn good_every_kind_of_record_reads_back_as_written() {
    for (index, line) in EVERY_KIND.lines().enumerate() {
        let record = parse(index as u64, line).expect(line).expect(line);
        // The one register that has a name although it was spelled generically.
        assert_eq!(record.to_string(), line.replace("s3_0_c0_c7_0", "id_aa64mmfr0_el1"));
    }
}

#[test]
fn good_comments_and_empty_lines_are_skipped() {
    let text = format!("{HEADER}\n\n# a comment\n  0 1 40000000 isb # the first\n");
    let records: Vec<_> = Reader::new(text.as_bytes()).collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), 1);
}

#[test]
fn bad_lines_are_refused_with_line_column_and_field() {
    for (line, field, column, reason) in [
        ("x 1 0 isb", 1, 1, "cpu"),
        ("0 -1 0 isb", 2, 3, "instruction"),
        ("0 1 0x40 isb", 3, 5, "pc"),
        ("0 1 40", 4, 7, "event is missing"),
        ("0 1 40 nop", 4, 8, "unknown event"),
        ("0 1 40 start 4", 5, 14, "exception level"),
        ("0 1 40 start 300", 5, 14, "out of range"),
        ("0 1 40 eret 4", 5, 13, "exception level"),
        ("0 1 40 exception 0 0 0 1", 8, 24, "exceptions to EL1"),
        ("0 1 40 exception 0 0 0 4", 8, 24, "exception level"),
        ("0 1 40 store 3 0 0 0", 5, 14, "none of"),
        ("0 1 40 store 1 0 0 100", 8, 20, "does not fit"),
        ("0 1 40 store 8 0 ffffffffffffffff 0", 8, 35, "wraps"),
        ("0 1 40 store 8 0 0 10000000000000000", 8, 20, "64 bits"),
        ("0 1 40 store 16 0 0 0", 9, 22, "missing"),
        ("0 1 40 load 8 0 0 0 release", 9, 21, "follows"),
        ("0 1 40 store 8 0 0 0 release device", 10, 30, "follows"),
        ("0 1 40 tlbi civac 0", 5, 13, "unknown operation"),
        ("0 1 40 dsb all", 5, 12, "unknown barrier"),
        ("0 1 40 smc 10000 0 0 0 0", 5, 12, "16 bits"),
        ("0 1 40 isb isb", 5, 12, "follows"),
        ("word 4 0", 2, 6, "multiple of 8"),
        ("end never", 2, 5, "unknown end"),
        ("memory 2000 2000 ram", 3, 13, "empty"),
        ("memory 1000 2000 rom", 4, 18, "unknown kind of memory"),
        ("feature all bbm=4", 3, 13, "out of range"),
        ("feature all line=48", 3, 13, "out of range"),
        ("feature 0 sve", 3, 11, "unknown feature"),
        ("feature x ets2", 2, 9, "cpu"),
        ("0 1 40 take 1000 0", 6, 18, "no frames"),
        ("0 1 40 give ffffffffffffffff 4096", 6, 30, "no frames"),
        ("count 4294967296 0", 2, 7, "out of range"),
        ("128 1 40 isb", 1, 1, "at most 128 CPUs, 0 to 127"),
        ("feature 128 ets2", 2, 9, "at most 128 CPUs"),
        ("count 128 1", 2, 7, "at most 128 CPUs"),
        ("  0\t1  40 isb \t é", 5, 17, "follows"),
        ("0 1 40 store 8  # 0 0 0", 6, 15, "virtual address is missing"),
    ] {
        let text = format!("{HEADER}\n{line}\n");
        let error = Reader::new(text.as_bytes()).next_record().expect_err(line);
        assert_eq!((error.line, error.column, error.field), (2, column, field), "{line}: {error}");
        assert!(error.to_string().starts_with(&format!("trace line 2, column {column}: ")), "{line}: {error}");
        assert!(error.to_string().contains(reason), "{line}: {error}");
    }
}

#[test]
fn bad_files_that_are_no_trace_are_refused() {
    for bytes in [&b""[..], b"\n", b"breakwater-trace 2\n", b"\x7fELF\xff\xfe\n", &[b'a'; 4096]] {
        assert!(Reader::new(bytes).next_record().is_err());
    }
    let place = |bytes: &[u8]| Reader::new(bytes).next_record().map_err(|error| (error.line, error.column));
    assert_eq!(place(&[HEADER.as_bytes(), b"\n0 1 \xff\xff\n"].concat()), Err((2, 5)));
    assert_eq!(place(&[HEADER.as_bytes(), b"\n#", &[b'a'; 4096]].concat()), Err((2, 512)));
}

/// Every line of `text` as the packed form has it.
fn packed(text: &str) -> Vec<u8> {
    let (mut bytes, mut line) = (format!("{}\n", text::PACKED_HEADER).into_bytes(), String::new());
    for record in Reader::new(text.as_bytes()) {
        text::pack(&record.expect("well-formed"), &mut bytes, &mut line);
    }
    bytes
}

/// One of each kind that is packed, and some that are not.
const PACKED: &str = "breakwater-trace 1\nmemory 40000000 80000000 ram\nword 40000000 ffffffffffffffff\n\
    0 1 40000000 start 2\n0 1 40000000 found sctlr_el2 30cd183d\n127 18446744073709551615 ffffffffffffffff isb\n\
    0 2 40000004 store 1 ffffffffffffffff 40000000 ff\n0 3 40000008 store 16 0 40000000 1 ffffffffffffffff\n\
    0 3 40000008 store 8 9000000 9000000 41 device\n0 4 4000000c load 4 0 40000000 ffffffff\n\
    0 5 40000010 fetch 4294967295\n0 6 40000014 dsb ish\n0 6 40000014 dsb ishnxs\n0 7 40000018 dmb c4\n\
    0 8 4000001c msr ttbr0_el2 40000000\n0 8 4000001c dc civac ffffffffffffffff\n0 8 4000001c tlbi vae2isnxs 1\n\
    0 8 4000001c ic iallu 0\n0 8 4000001c at s1e2r 40000000\n0 8 4000001c dc s1_3_c7_c10_3 8\n\
    0 9 40000020 enter 40000000 0\ncount 0 9\nend exit\n";

#[test]
fn good_a_packed_trace_says_what_its_text_says_line_by_line() {
    let bytes = packed(PACKED);
    // Records that lie in the buffer as a whole, and records that do not.
    for buffered in [7, 60, 1 << 16] {
        let mut text = Reader::new(PACKED.as_bytes());
        let mut packed = Reader::new(std::io::BufReader::with_capacity(buffered, bytes.as_slice()));
        while let Some(record) = text.next_record().expect("well-formed") {
            assert_eq!(packed.next_record(), Ok(Some(record)));
            assert_eq!(packed.line(), text.line());
        }
        assert_eq!(packed.next_record(), Ok(None));
    }
}

#[test]
fn good_a_comment_is_a_line_of_a_packed_trace_too() {
    let mut bytes = format!("{}\n", text::PACKED_HEADER).into_bytes();
    text::pack_line("# nothing", &mut bytes);
    text::pack(&Record::End(End::Exit), &mut bytes, &mut String::new());
    let mut reader = Reader::new(bytes.as_slice());
    assert_eq!((reader.next_record(), reader.line()), (Ok(Some(Record::End(End::Exit))), 3));
}

#[test]
fn bad_a_packed_trace_that_breaks_off_anywhere_has_no_end() {
    let bytes = packed(PACKED);
    for length in PACKED_HEADER_BYTES..bytes.len() {
        let last = Reader::new(&bytes[..length]).last();
        assert!(!matches!(last, Some(Ok(Record::End(_)) | Err(_))), "{length} bytes: {last:?}");
    }
}

/// The header and its newline.
const PACKED_HEADER_BYTES: usize = text::PACKED_HEADER.len() + 1;

#[test]
fn bad_bytes_that_are_no_packed_record_are_refused_with_their_line() {
    let place = [0; 17];
    let refused = |record: &[u8], reason: &str| {
        let bytes = [&packed("breakwater-trace 1\nend exit\n"), record, &[0; 40]].concat();
        let error = Reader::new(bytes.as_slice()).find_map(Result::err).expect(reason);
        assert_eq!(error.line, 3, "{error}");
        assert!(error.reason.contains(reason), "{error}");
    };
    refused(&[&[9], &place[..]].concat(), "of kind 9");
    refused(&[&[1], &place[..], &[3]].concat(), "3 bytes");
    refused(&[&[4, 128], &place[1..]].concat(), "at most 128 CPUs");
    refused(&[&[7], &place[..], &[0xff, 0xff]].concat(), "is no TLBI, DC, IC or AT");
    refused(b"\0\x03\0nop", "no decimal number");
    refused(b"\0\x01\0\xff", "no text");
}
