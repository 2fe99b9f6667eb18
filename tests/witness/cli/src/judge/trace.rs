//! A whole trace in memory, in its proper order: declarations, events, end.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use breakwater_trace::{Event, Feature, Malformed, Reader, Record, Step};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// A trace that is complete.
pub(crate) struct Trace {
    /// With the line that each stands on.
    records: Vec<(u64, Record)>,
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

impl Trace {
    /// Reads it, up to its `end`, with `features` of all PEs in front.
    ///
    /// # Errors
    /// Where it is malformed or out of order, or that it breaks off.
    pub(crate) fn read(input: impl BufRead, features: &[Feature]) -> Result<Self, String> {
        let mut records: Vec<(u64, Record)> =
            features.iter().map(|feature| (0, Record::Feature { cpu: None, feature: *feature })).collect();
        let mut reader = Reader::new(input);
        let (mut begun, mut ended) = (false, false);
        while let Some(record) = reader.next_record().map_err(|error| error.to_string())? {
            let line = reader.line();
            let refused = |reason| Err(refusal(line, reason));
            if ended {
                return refused("nothing follows the end record");
            }
            match record {
                Record::Word { .. } | Record::Memory { .. } | Record::Feature { .. } if begun => {
                    return refused("declarations stand before the first event");
                }
                // What is entered is declared like what is there from the beginning.
                Record::Step(step) => begun = !matches!(step.event, Event::Enter { .. }),
                Record::End(_) => ended = true,
                _ => {}
            }
            records.push((line, record));
        }
        if !ended {
            return Err(refusal(reader.line(), "the trace breaks off: it has no end record"));
        }
        Ok(Self { records })
    }

    /// Records, the declarations included.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Events.
    pub(crate) fn events(&self) -> usize {
        self.records.iter().filter(|(_, record)| matches!(record, Record::Step(_))).count()
    }

    /// The line on which what is judged is entered; 0 if all is judged.
    pub(crate) fn entered(&self) -> u64 {
        let enters = |record: &Record| matches!(record, Record::Step(Step { event: Event::Enter { .. }, .. }));
        self.records().filter(|(_, record)| enters(record)).last().map_or(0, |(line, _)| line)
    }

    /// Events that a core translates an address for.
    pub(crate) fn accesses(&self) -> usize {
        let is_access = |event: &Event| matches!(event, Event::Fetch { .. } | Event::Load(_) | Event::Store(_));
        self.records.iter().filter(|(_, record)| matches!(record, Record::Step(step) if is_access(&step.event))).count()
    }

    /// All records, with their lines.
    pub(crate) fn records(&self) -> impl Iterator<Item = (u64, &Record)> {
        self.records.iter().map(|(line, record)| (*line, record))
    }
}

/// A line that is well-formed and has no business where it stands.
fn refusal(line: u64, reason: &str) -> String {
    Malformed { line, column: 1, field: 0, reason: reason.to_owned() }.to_string()
}
