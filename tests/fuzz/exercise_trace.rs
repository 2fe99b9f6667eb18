//! Takes bytes through the reader of traces and both engines of the oracle, and holds them to what they promise: a place for every error,
//! and no panic whatever the trace says. Shared by the fuzz target (nightly) and the replay of its corpus (stable, in tests/witness/oracle).

use breakwater_oracle::adversary::Adversary;
use breakwater_oracle::obligations::Obligations;
use breakwater_trace::text::parse;
use breakwater_trace::{HEADER, Malformed, Reader, Record};

/// Records that are judged; what comes after them tells nothing new and takes time.
const MOST_RECORDS: usize = 2000;

/// Lines for [`as_choices`]: two PEs on the tables of the format's documented example, in every state of repair.
const LINES: &str = include_str!("choices.trace");

/// Reads `bytes` as a trace, as they are.
///
/// # Errors
/// Why they are refused, after the message has been looked at.
pub(crate) fn as_it_is(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut engines = Engines::new();
    let mut reader = Reader::new(bytes);
    while let Some(record) = reader.next_record().inspect_err(one_printable_line)? {
        let spelled = record.to_string();
        let again = parse(1, &spelled).ok().flatten();
        assert_eq!(again.as_ref(), Some(&record), "{spelled:?} is read as it was written");
        engines.step(reader.line(), &record);
    }
    Ok(engines.records)
}

/// Reads `bytes` as the lines after the header, so that chance gets past it.
///
/// # Errors
/// As for [`as_it_is`].
pub(crate) fn with_a_header(bytes: &[u8]) -> Result<usize, Malformed> {
    as_it_is(&[HEADER.as_bytes(), b"\n", bytes].concat())
}

/// Takes each byte as the choice of a line out of a table, so that chance gets past the reader.
pub(crate) fn as_choices(bytes: &[u8]) {
    let mut engines = Engines::new();
    let (always, chosen): (Vec<&str>, Vec<&str>) = LINES.lines().partition(|line| line.starts_with('!'));
    let records = |lines: &[&str]| -> Vec<Record> {
        let read = |line: &&str| parse(1, line.trim_start_matches('!')).expect("the table is well-formed");
        lines.iter().filter_map(read).collect()
    };
    let (always, chosen) = (records(&always), records(&chosen));
    let choices = bytes.iter().filter_map(|byte| chosen.get(usize::from(*byte) % chosen.len()));
    for (index, record) in always.iter().chain(choices).enumerate() {
        engines.step(index as u64 + 1, record);
    }
}

/// Both judges of one trace.
struct Engines {
    obligations: Obligations,
    adversary: Adversary,
    records: usize,
}

impl Engines {
    fn new() -> Self {
        Self { obligations: Obligations::new(), adversary: Adversary::new(), records: 0 }
    }

    fn step(&mut self, line: u64, record: &Record) {
        self.records += 1;
        if self.records > MOST_RECORDS {
            return;
        }
        let known = self.obligations.violations().len();
        self.obligations.step(line, record);
        self.adversary.step(line, record);
        for violation in self.obligations.violations().iter().skip(known) {
            assert!(!violation.rule.name().is_empty() && violation.line <= line, "{violation:?}");
        }
    }
}

fn one_printable_line(error: &Malformed) {
    let line = error.to_string();
    assert!(error.line >= 1 && error.column >= 1, "{line:?}");
    assert!(line.len() < 4096 && !line.chars().any(char::is_control), "{line:?}");
}
