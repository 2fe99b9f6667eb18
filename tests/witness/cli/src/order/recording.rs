//! What is kept of a boot that is watched, to weigh its verdict afterwards.
//!
//! Until a second CPU is heard of or called there is one order, and nothing is kept. From then on all is, within
//! bounds: 4 million records, 400 MB. Beyond them nothing is weighed, and every violation counts as certain.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};
use breakwater_oracle::obligations::{Obligations, Violation};
use breakwater_trace::{End, Reader, Record};

use super::observed::Observed;
use super::weigh::{self, Effort, Weighed};
use super::{Edge, observed};

/// Records kept, some 90 bytes each.
const MOST: usize = 4_000_000;

/// Records with their lines.
pub type Lines = Vec<(u64, Record)>;

/// A boot as it is watched.
pub(crate) struct Recording {
    observed: Observed,
    /// The oracle when the second CPU came.
    oracle: Option<Obligations>,
    records: Lines,
    /// There was more than is kept.
    overflowed: bool,
}

impl Recording {
    /// Before the first record.
    pub(crate) fn new() -> Self {
        Self { observed: Observed::default(), oracle: None, records: Vec::new(), overflowed: false }
    }

    /// The next record and its line. `oracle` gives the oracle that has judged all records before this one.
    pub(crate) fn record(&mut self, line: u64, record: &Record, oracle: impl FnOnce() -> Obligations) {
        if self.overflowed {
            return;
        }
        if !self.observed.becomes_several(record) {
            return;
        }
        if self.oracle.is_none() {
            let oracle = oracle();
            self.observed.begin(oracle.clone());
            self.oracle = Some(oracle);
            // All at once: to grow by doubling would take twice as much. Memory that nobody touches costs nothing.
            if self.records.try_reserve_exact(MOST).is_err() {
                self.overflowed = true;
                return;
            }
        }
        self.observed.record(line, record);
        if self.records.len() == MOST {
            (self.overflowed, self.records) = (true, Vec::new());
            return;
        }
        self.records.push((line, record.clone()));
    }

    /// Weighs the `violations` of the whole boot, which ended so.
    pub(crate) fn weigh(mut self, end: Option<End>, violations: &[Violation], effort: Effort) -> Weighed {
        let certain = vec![true; violations.len()];
        if self.overflowed {
            return Weighed { certain, unexamined: violations.len(), ..Weighed::default() };
        }
        let Some(oracle) = self.oracle else { return Weighed { certain, ..Weighed::default() } };
        self.records.extend(end.map(|end| (0, Record::End(end))));
        weigh::weigh_from(oracle, &self.records, &self.observed.finish(), violations, effort)
    }
}

/// The records of the trace in the file `raw`, with their lines, and what they show of their order after what is `declared`.
///
/// # Errors
/// The file cannot be read or is malformed.
pub fn read(raw: &Path, declared: &[Record]) -> Result<(Lines, Vec<Edge>)> {
    let name = || raw.display().to_string();
    let file = File::open(raw).with_context(name)?;
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file));
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().with_context(name)? {
        records.push((reader.line(), record));
    }
    let declared = declared.iter().map(|record| (0, record));
    let edges = observed(declared.chain(records.iter().map(|(line, record)| (*line, record))));
    Ok((records, edges))
}
