//! The trace as it is written: records, a buffer of them at a time, and what is known of instructions.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};

use breakwater_trace::text::{PACKED_HEADER, pack, pack_line};
use breakwater_trace::{Atomic, Decoded, HEADER, Record, Step, decode, releases};

use crate::blocks::Blocks;
use crate::ffi;
use crate::options::{Options, Runs};
use crate::repeats::Repeats;

/// Bytes that are written at a time.
const BUFFER: usize = 1 << 20;

/// What is known of an instruction, or of the straight run that begins with it, since its translation.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    pub(crate) pc: u64,
    pub(crate) decoded: Option<Decoded>,
    pub(crate) atomic: Option<Atomic>,
    /// Its store is a release.
    pub(crate) releases: bool,
    pub(crate) run: u32,
}

/// The trace file and what is needed to fill it.
pub(crate) struct Log {
    out: File,
    packed: bool,
    /// What is still to be written to it.
    bytes: Vec<u8>,
    /// A record as text; kept for its memory.
    text: String,
    pub(crate) written: u64,
    pub(crate) ended: bool,
    pub(crate) sites: Vec<Site>,
    known: HashMap<(u64, u32, u32), u32>,
    /// VBAR_EL2 per CPU, as written.
    pub(crate) vectors: Vec<u64>,
    /// VBAR_EL3, if it was.
    pub(crate) vectors_of_el3: Vec<Option<u64>>,
    pub(crate) repeats: Repeats,
    pub(crate) blocks: Blocks,
    /// What is to be written now; kept for its memory.
    pub(crate) due: Vec<Step>,
}

impl Log {
    /// The trace in `file`, with its first line.
    pub(crate) fn new(file: File, options: &Options, cpus: usize) -> Self {
        let mut bytes = Vec::with_capacity(BUFFER + (1 << 10));
        bytes.extend_from_slice(if options.packed { PACKED_HEADER } else { HEADER }.as_bytes());
        bytes.push(b'\n');
        Self {
            out: file,
            packed: options.packed,
            bytes,
            text: String::new(),
            written: 0,
            ended: false,
            sites: Vec::new(),
            known: HashMap::new(),
            vectors: vec![0; cpus],
            vectors_of_el3: vec![None; cpus],
            blocks: Blocks::new(cpus),
            repeats: Repeats::new(cpus, options.fetches == Runs::Always),
            due: Vec::new(),
        }
    }

    /// Writes what is still to be written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.bytes);
        self.bytes.clear();
        written
    }

    /// Writes a record. A failing disk, or a reader that has gone, shows as a trace without its end, which readers
    /// refuse.
    pub(crate) fn record(&mut self, record: &Record) {
        if self.ended {
            return;
        }
        let before = self.bytes.len();
        if self.packed {
            pack(record, &mut self.bytes, &mut self.text);
        } else {
            // Writing to memory never fails.
            let _ = writeln!(self.bytes, "{record}");
        }
        self.made(before);
    }

    /// Says of an access that nobody can place what a reader of the trace finds, since the event cannot be written.
    /// Never seen.
    #[cold]
    pub(crate) fn unplaced(&mut self, cpu: u32, pc: u64) {
        if self.ended {
            return;
        }
        let before = self.bytes.len();
        let text = format!("# CPU {cpu}: access at {pc:x} without a physical address");
        if self.packed {
            pack_line(&text, &mut self.bytes);
        } else {
            let _ = writeln!(self.bytes, "{text}");
        }
        self.made(before);
    }

    /// Writes what has been made once there is enough of it; before the last record there were `before` bytes.
    fn made(&mut self, before: usize) {
        self.written += (self.bytes.len() - before) as u64;
        if self.bytes.len() < BUFFER {
            return;
        }
        if self.flush().is_err() {
            self.ended = true;
            ffi::stop_machine();
        }
    }

    /// The number of the site with this address and encoding; translating it again adds none.
    pub(crate) fn site(&mut self, pc: u64, word: u32, run: u32) -> u32 {
        let next = self.sites.len() as u32;
        let number = *self.known.entry((pc, word, run)).or_insert(next);
        if number == next {
            let (decoded, atomic, releases) = (decode(word), Atomic::of(word), releases(word));
            self.sites.push(Site { pc, decoded, atomic, releases, run });
        }
        number
    }
}
