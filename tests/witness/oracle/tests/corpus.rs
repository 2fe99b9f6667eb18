//! The fuzzer's corpus of traces, replayed on stable: the reader and both engines take whatever a trace says.

#[path = "../../../fuzz/exercise_trace.rs"]
mod exercise;

use std::fs;
use std::path::{Path, PathBuf};

use breakwater_oracle::adversary::Adversary;
use breakwater_oracle::obligations::{Obligations, Rule};
use breakwater_trace::{HEADER, Reader};
use proptest::prelude::*;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/trace")
}

fn seed(name: &str) -> Vec<u8> {
    fs::read(directory().join(name)).unwrap()
}

#[test]
fn good_corpus_replays_without_a_broken_promise() {
    let files: Vec<_> = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "the corpus is there");
    for file in files {
        // Shown only when a promise is broken: the file that broke it.
        println!("{}", file.display());
        let bytes = fs::read(&file).unwrap();
        let _ = exercise::as_it_is(&bytes);
        let _ = exercise::with_a_header(&bytes);
        exercise::as_choices(&bytes);
    }
}

#[test]
fn good_whole_traces_are_read_to_their_ends() {
    for name in ["two-cpus.trace", "from-reset.trace"] {
        assert!(exercise::as_it_is(&seed(name)).unwrap() > 20, "{name}");
    }
    for name in ["every-kind", "edges", "own-parent"] {
        assert!(exercise::with_a_header(&seed(name)).unwrap() > 10, "{name}");
    }
}

/// Cases that were judged wrongly once: the rules of which each breaks one at least, or none. F1: an invalidation that
/// one PE owes, while another root says the same. F7: a store without its DSB, over which another PE stores with one.
/// F5: a broadcast TLBI without its DSB, with a local one that has it, and alone. F14: a table in use that a PE writes
/// with its MMU off. `la-c0`: walks with SCTLR_EL2.C = 0, and lines that are invalidated before C = 1. `link`: a table
/// that a DMB alone orders before its link.
const CASES: [(&str, &[Rule]); 10] = [
    ("case-f1-min.trace", &[Rule::OutputChange, Rule::StaleLeaf]),
    ("case-f1b-min.trace", &[Rule::StaleLeaf]),
    ("case-f5-min.trace", &[Rule::UnfinishedTlbi]),
    ("case-f5-without-local.trace", &[Rule::UnfinishedTlbi]),
    ("case-f14a.trace", &[Rule::LineBefore, Rule::LineAfter]),
    ("case-f14d.trace", &[Rule::LineBefore, Rule::LineAfter]),
    ("case-f7-superseded-store.trace", &[]),
    ("case-la-c0-only.trace", &[]),
    ("case-la-c0-then-ivac-then-c.trace", &[]),
    ("case-link-after-dmb.trace", &[]),
];

#[test]
fn good_cases_that_were_judged_wrongly_once_are_judged_by_both() {
    for (name, rules) in CASES {
        let bytes = seed(name);
        let mut reader = Reader::new(&bytes[..]);
        let (mut obligations, mut adversary) = (Obligations::new(), Adversary::new());
        while let Some(record) = reader.next_record().expect(name) {
            obligations.step(reader.line(), &record);
            adversary.step(reader.line(), &record);
        }
        let found: Vec<Rule> = obligations.violations().iter().map(|violation| violation.rule).collect();
        assert_eq!(found.is_empty(), rules.is_empty(), "{name}: {found:?}");
        assert!(found.iter().all(|rule| rules.contains(rule)), "{name}: {found:?}");
        assert_eq!(adversary.harms().is_empty(), rules.is_empty(), "{name}: {:?}", adversary.harms());
    }
}

#[test]
fn bad_traces_are_refused_with_their_place() {
    let place = |bytes: &[u8]| exercise::as_it_is(bytes).map_err(|error| (error.line, error.column));
    assert_eq!(place(&seed("no-text.trace")), Err((3, 5)));
    assert_eq!(place(&[HEADER.as_bytes(), b"\n", &seed("long-line")[..]].concat()), Err((2, 512)));
    assert_eq!(place(b""), Err((1, 1)));
    assert_eq!(place(&seed("cut-off.trace")), Err((22, 30)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn good_any_events_are_judged_without_a_panic(choices in proptest::collection::vec(any::<u8>(), 0..60)) {
        exercise::as_choices(&choices);
    }

    #[test]
    fn good_a_damaged_trace_is_read_or_refused(at in 0_usize..2000, byte in any::<u8>()) {
        let mut bytes = seed("two-cpus.trace");
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = exercise::as_it_is(&bytes);
    }
}
