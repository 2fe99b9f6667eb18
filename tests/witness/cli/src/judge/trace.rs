//! A trace, record by record, in its proper order: declarations, events, end.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use breakwater_trace::{Event, Malformed, Reader, Record};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// A trace that is being read.
pub(super) struct Trace<R> {
    reader: Reader<R>,
    has_begun: bool,
    has_ended: bool,
}

/// The file, or standard input for `-`.
///
/// # Errors
/// It cannot be opened.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, String> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin())));
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))
}

impl<R: BufRead> Trace<R> {
    /// Before its first record.
    pub(super) const fn new(input: R) -> Self {
        Self { reader: Reader::new(input), has_begun: false, has_ended: false }
    }

    /// The next record and its line; nothing after its `end`.
    ///
    /// # Errors
    /// Where it is malformed or out of order, or that it breaks off.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Record)>, String> {
        let next = self.reader.next_record().map_err(|error| error.to_string())?;
        let line = self.reader.line();
        let Some(record) = next else {
            return if self.has_ended {
                Ok(None)
            } else {
                Err(refusal(line, "the trace breaks off: it has no end record"))
            };
        };
        if self.has_ended {
            return Err(refusal(line, "nothing follows the end record"));
        }
        match &record {
            Record::Word { .. } | Record::Memory { .. } | Record::Feature { .. } if self.has_begun => {
                return Err(refusal(line, "declarations stand before the first event"));
            }
            // What is entered is declared like what is there from the beginning.
            Record::Step(step) => self.has_begun = !matches!(step.event, Event::Enter { .. }),
            Record::End(_) => self.has_ended = true,
            _ => {}
        }
        Ok(Some((line, record)))
    }
}

/// A line that is well-formed and has no business where it stands.
fn refusal(line: u64, reason: &str) -> String {
    Malformed { line, column: 1, field: 0, reason: reason.to_owned() }.to_string()
}
