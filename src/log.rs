//! What an image says, kept in memory: for a console that is found later, and for a debugger where there is none.
//!
//! Why it exists: boot says things before it knows its console, and on some machines finds none. A debugger that can
//! read memory finds all of it at the symbol `breakwater_log`, or in a dump by [`MAGIC`].
//!
//! What must hold: any CPU may say something at any time, without a lock, even in the exception path. So what two CPUs
//! say at once may mix, as on a line; and a dump that is taken meanwhile may show the oldest bytes in place of the
//! newest.
//!
//! What a reader refuses: a log that does not lie whole in the dump, or contradicts itself. Nothing in a dump is
//! trusted.

#![forbid(unsafe_code)]

use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a log begins with.
pub const MAGIC: [u8; 16] = *b"breakwater log 1";
/// Bytes before the text.
pub const HEADER_BYTES: usize = 64;
/// Bytes of text that an image keeps, the newest: the report of some 90 CPUs.
pub const TEXT_BYTES: usize = 64 << 10;
/// More than any image keeps.
const TEXT_BYTES_MAX: u64 = 1 << 30;

/// What was said, newest bytes last; older ones are lost first. All numbers are little-endian in memory.
#[derive(Debug)]
#[repr(C)]
pub struct Log {
    magic: [u8; 16],
    /// Bytes of `text`.
    capacity: u64,
    /// Bytes said, ever. The next one goes to this place, modulo `capacity`.
    said: AtomicU64,
    reserved: [u64; 4],
    text: [AtomicU8; TEXT_BYTES],
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl Log {
    /// One that nothing was said to.
    #[must_use]
    pub const fn new() -> Self {
        let text = [const { AtomicU8::new(0) }; TEXT_BYTES];
        Self { magic: MAGIC, capacity: TEXT_BYTES as u64, said: AtomicU64::new(0), reserved: [0; 4], text }
    }

    /// Keeps `text`.
    pub fn say(&self, text: &[u8]) {
        let from = self.said.fetch_add(text.len() as u64, Ordering::Relaxed) as usize;
        for (place, &byte) in (from..).zip(text) {
            self.text[place % TEXT_BYTES].store(byte, Ordering::Relaxed);
        }
    }

    /// Gives each byte that is kept to `sink`, oldest first, but for the first `shown` that were ever said. Returns how
    /// many were said, which is what to begin with the next time.
    pub fn show(&self, shown: u64, sink: impl Fn(u8)) -> u64 {
        let said = self.said.load(Ordering::Relaxed);
        for place in shown.max(said.saturating_sub(TEXT_BYTES as u64))..said {
            sink(self.text[place as usize % TEXT_BYTES].load(Ordering::Relaxed));
        }
        said
    }
}

/// A log in a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept<'d> {
    /// Where it begins in the dump.
    pub offset: usize,
    /// How many of its oldest bytes are lost.
    pub lost: u64,
    older: &'d [u8],
    newer: &'d [u8],
}

impl<'d> Kept<'d> {
    /// The bytes, oldest first.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + 'd {
        self.older.iter().chain(self.newer).copied()
    }

    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.older.is_empty() && self.newer.is_empty()
    }
}

/// What begins as a log and is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Torn {
    /// The dump ends first.
    CutOff {
        /// Where it begins.
        offset: usize,
        /// Bytes that are missing.
        missing: u64,
    },
    /// It has a size that no log has.
    Size {
        /// Where it begins.
        offset: usize,
        /// The size, in bytes of text.
        bytes: u64,
    },
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff { offset, missing } => {
                write!(f, "the log at offset {offset:#x} is torn: the dump ends {missing} bytes before it")
            }
            Self::Size { offset, bytes } => {
                write!(f, "what begins as a log at offset {offset:#x} is none: it claims {bytes} bytes of text")
            }
        }
    }
}

impl core::error::Error for Torn {}

/// The logs in `dump`, wherever they begin: what stands around a piece of memory in a file may have any length.
pub fn find(dump: &[u8]) -> impl Iterator<Item = Result<Kept<'_>, Torn>> {
    let windows = dump.windows(MAGIC.len()).enumerate();
    windows.filter(|(_, bytes)| bytes[0] == MAGIC[0] && *bytes == MAGIC).map(|(offset, _)| read(dump, offset))
}

fn read(dump: &[u8], offset: usize) -> Result<Kept<'_>, Torn> {
    let log = &dump[offset..];
    let Some((header, text)) = log.split_at_checked(HEADER_BYTES) else {
        return Err(Torn::CutOff { offset, missing: (HEADER_BYTES - log.len()) as u64 });
    };
    let number = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| header[at + byte]));
    let (capacity, said) = (number(16), number(24));
    if capacity == 0 || capacity > TEXT_BYTES_MAX {
        return Err(Torn::Size { offset, bytes: capacity });
    }
    // As far as it was written: the rest of a log that never ran full may lie beyond the dump.
    let used = said.min(capacity);
    let Some(text) = text.get(..used as usize) else {
        return Err(Torn::CutOff { offset, missing: used - text.len() as u64 });
    };
    let (newer, older) = text.split_at(if said > capacity { (said % capacity) as usize } else { 0 });
    Ok(Kept { offset, lost: said - used, older, newer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;

    fn shown(log: &Log, from: u64) -> (u64, Vec<u8>) {
        let out = RefCell::new(Vec::new());
        let said = log.show(from, |byte| out.borrow_mut().push(byte));
        (said, out.into_inner())
    }

    /// The memory of a log, as the layout has it, whose first `text.len()` bytes of text are those.
    fn memory(capacity: u64, said: u64, text: &[u8]) -> Vec<u8> {
        [&MAGIC[..], &capacity.to_le_bytes(), &said.to_le_bytes(), &[0; 32], text].concat()
    }

    type Text = (usize, u64, Vec<u8>);

    fn texts(dump: &[u8]) -> Vec<Result<Text, Torn>> {
        find(dump).map(|kept| kept.map(|kept| (kept.offset, kept.lost, kept.bytes().collect()))).collect()
    }

    #[test]
    fn good_what_was_said_is_shown_once() {
        let log = Log::new();
        log.say(b"early");
        let (said, text) = shown(&log, 0);
        assert_eq!((said, text.as_slice()), (5, &b"early"[..]));
        log.say(b", late");
        assert_eq!(shown(&log, said), (11, b", late".to_vec()));
        assert_eq!(shown(&log, 0).1, b"early, late");
    }

    #[test]
    fn good_the_oldest_is_lost_first() {
        let log = Log::new();
        (0..TEXT_BYTES + 1).for_each(|index| log.say(&[index as u8]));
        let (_, text) = shown(&log, 0);
        assert_eq!((text.len(), text[0], text[TEXT_BYTES - 1]), (TEXT_BYTES, 1, 0));
    }

    #[test]
    fn good_the_layout_is_what_a_reader_expects() {
        assert_eq!(core::mem::offset_of!(Log, capacity), 16);
        assert_eq!(core::mem::offset_of!(Log, said), 24);
        assert_eq!(core::mem::offset_of!(Log, text), HEADER_BYTES);
        assert_eq!(size_of::<Log>(), HEADER_BYTES + TEXT_BYTES);
    }

    #[test]
    fn good_a_log_is_found_in_a_dump() {
        let dump = [vec![0xff; 21], memory(64, 5, b"early and garbage"), vec![0; 100]].concat();
        assert_eq!(texts(&dump), [Ok((21, 0, b"early".to_vec()))]);
    }

    #[test]
    fn good_a_full_log_says_what_is_lost() {
        let dump = memory(8, 11, b"ijkdefgh");
        assert_eq!(texts(&dump), [Ok((0, 3, b"defghijk".to_vec()))]);
        assert_eq!(texts(&memory(8, 8, b"abcdefgh")), [Ok((0, 0, b"abcdefgh".to_vec()))]);
        assert_eq!(texts(&memory(8, 16, b"abcdefgh")), [Ok((0, 8, b"abcdefgh".to_vec()))]);
    }

    #[test]
    fn good_two_logs_are_both_found() {
        let dump = [memory(8, 0, &[]), memory(8, 2, b"no"), vec![0; 6]].concat();
        assert_eq!(texts(&dump), [Ok((0, 0, vec![])), Ok((64, 0, b"no".to_vec()))]);
        assert!(find(&dump).next().unwrap().unwrap().is_empty());
    }

    #[test]
    fn bad_a_torn_log_says_so() {
        let whole = memory(8, 8, b"abcdefgh");
        for bytes in 16..whole.len() {
            let missing = (if bytes < HEADER_BYTES { HEADER_BYTES } else { whole.len() } - bytes) as u64;
            assert_eq!(texts(&whole[..bytes]), [Err(Torn::CutOff { offset: 0, missing })], "{bytes}");
        }
    }

    #[test]
    fn bad_no_log_at_all() {
        assert_eq!(texts(&[]), []);
        assert_eq!(texts(&MAGIC[..15]), []);
        assert_eq!(texts(&memory(8, 2, b"no")[1..]), []);
    }

    #[test]
    fn bad_garbage_is_never_believed() {
        for capacity in [0, TEXT_BYTES_MAX + 1, u64::MAX] {
            assert_eq!(texts(&memory(capacity, 9, b"x")), [Err(Torn::Size { offset: 0, bytes: capacity })]);
        }
        let far = TEXT_BYTES_MAX - 1;
        assert_eq!(texts(&memory(TEXT_BYTES_MAX, u64::MAX, b"x")).len(), 1);
        assert_eq!(texts(&memory(far, u64::MAX, b"x")), [Err(Torn::CutOff { offset: 0, missing: far - 1 })]);
    }
}
