//! A whole file, line by line.

use core::fmt;
use std::io::BufRead;

use super::packed::{self, PACKED_HEADER, Unpackable};
use super::{HEADER, parse};
use crate::event::Record;

/// A longer line is no trace but some other file.
const LONGEST_LINE: u64 = 512;

/// Why a trace could not be read, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Line, counted from 1.
    pub line: u64,
    /// The byte of that line where the trouble begins, counted from 1; just past the line's last field if something is missing there.
    pub column: usize,
    /// Field of that line, counted from 1; 0 when no single field is meant.
    pub field: usize,
    /// What was wrong.
    pub reason: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, reason, .. } = self;
        write!(f, "trace line {line}, column {column}: {reason}")
    }
}

impl std::error::Error for Malformed {}

/// Reads a trace record by record.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    line: u64,
    buffer: Vec<u8>,
    is_packed: bool,
}

impl<R: BufRead> Reader<R> {
    /// A reader of the trace in `input`.
    pub const fn new(input: R) -> Self {
        Self { input, line: 0, buffer: Vec::new(), is_packed: false }
    }

    /// Number of the line read last, counted from 1.
    pub const fn line(&self) -> u64 {
        self.line
    }

    fn refuse<T>(&self, column: usize, reason: impl Into<String>) -> Result<T, Malformed> {
        Err(Malformed { line: self.line, column, field: 0, reason: reason.into() })
    }

    /// The next line; nothing at the end of the input.
    fn next_line(&mut self) -> Result<Option<&str>, Malformed> {
        self.line += 1;
        self.buffer.clear();
        let mut limited = std::io::Read::take(&mut self.input, LONGEST_LINE);
        match limited.read_until(b'\n', &mut self.buffer) {
            Err(error) => return self.refuse(self.buffer.len() + 1, error.to_string()),
            Ok(0) => return Ok(None),
            Ok(_) if self.buffer.last() != Some(&b'\n') && self.buffer.len() as u64 == LONGEST_LINE => {
                return self.refuse(self.buffer.len(), format!("a line has at most {} bytes", LONGEST_LINE - 1));
            }
            Ok(_) => {}
        }
        match core::str::from_utf8(&self.buffer) {
            Ok(text) => Ok(Some(text.trim_ascii_end())),
            Err(error) => self.refuse(error.valid_up_to() + 1, "this is no text"),
        }
    }

    /// The next packed record, or the comment in its place; nothing at the end of the input.
    #[inline]
    fn next_packed(&mut self) -> Result<Option<Option<Record>>, Malformed> {
        self.line += 1;
        let unpacked = match self.input.fill_buf() {
            Ok([]) => return Ok(None),
            Err(error) => return self.refuse(1, error.to_string()),
            // Nearly every record: it lies in the buffer as a whole.
            Ok(buffer) if buffer.len() >= packed::MOST_BYTES && buffer[0] != packed::TEXT => {
                let mut rest = &buffer[1..];
                let unpacked = packed::unpack(buffer[0], &mut rest, self.line);
                let bytes = buffer.len() - rest.len();
                self.input.consume(bytes);
                unpacked
            }
            Ok(&[kind, ..]) => {
                self.input.consume(1);
                packed::unpack(kind, &mut self.input, self.line)
            }
        };
        match unpacked {
            Ok(record) => Ok(Some(record)),
            // Whoever writes it may be stopped anywhere: so may a text be, within a line.
            Err(Unpackable::Input(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(Unpackable::Input(error)) => self.refuse(1, error.to_string()),
            Err(Unpackable::Reason(reason)) => self.refuse(1, reason),
        }
    }

    /// The next record; nothing at the end of the input.
    ///
    /// # Errors
    /// The line that is no record, or that could not be read, or a first line other than [`HEADER`].
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<Record>, Malformed> {
        if self.line == 0 {
            match self.next_line()? {
                Some(HEADER) => {}
                Some(PACKED_HEADER) => self.is_packed = true,
                _ => return self.refuse(1, format!("the first line of a trace is {HEADER:?}")),
            }
        }
        while self.is_packed {
            let Some(record) = self.next_packed()? else { return Ok(None) };
            if let Some(record) = record {
                return Ok(Some(record));
            }
        }
        loop {
            let line = self.line + 1;
            let Some(text) = self.next_line()? else { return Ok(None) };
            if let Some(record) = parse(line, text)? {
                return Ok(Some(record));
            }
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Record, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}
