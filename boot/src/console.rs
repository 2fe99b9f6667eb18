//! Where text goes: one byte sink once the console is known, a ring buffer before.
//!
//! Why it exists: boot learns of its console late, from a device tree it has mapped itself, yet has things to say
//! earlier. What is printed before is kept and shown when a sink is installed.
//!
//! What must hold: printing never blocks the exception path. The sink is a plain function that can be called from
//! anywhere; only whole lines of ordinary code take a lock, so that CPUs do not mix their words.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use spin::{Mutex, Once};

/// Sends one byte, waiting as needed.
pub type ByteSink = fn(u8);

static SINK: Once<ByteSink> = Once::new();
static RING: Ring = Ring::new();
static LINE: Mutex<()> = Mutex::new(());

/// Installs the sink, for good, and shows what was printed before.
pub fn install(sink: ByteSink) {
    SINK.call_once(|| sink);
    drain_to(sink);
}

/// Whether a sink is installed.
#[must_use]
pub fn is_known() -> bool {
    SINK.get().is_some()
}

/// Sends what the ring buffer holds to `sink`, and empties it.
pub fn drain_to(sink: ByteSink) {
    RING.drain(sink);
}

/// Prints as one piece. For ordinary code: waits for other CPUs to finish theirs.
pub fn print(text: fmt::Arguments<'_>) {
    let _line = LINE.lock();
    print_unlocked(text);
}

/// Prints without a lock: for the exception path.
pub fn print_unlocked(text: fmt::Arguments<'_>) {
    // Sinks do not fail.
    let _ = Out.write_fmt(text);
}

struct Out;

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match SINK.get() {
            Some(sink) => text.bytes().for_each(|byte| {
                if byte == b'\n' {
                    sink(b'\r');
                }
                sink(byte);
            }),
            None => text.bytes().for_each(|byte| RING.push(byte)),
        }
        Ok(())
    }
}

/// Prints a line, as one piece.
#[macro_export]
macro_rules! line {
    ($($argument:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}

/// Bytes kept; older ones are lost first.
const CAPACITY: usize = 2048;

/// The last few kilobytes of what was said before anyone could listen: a ring of bytes that any CPU may push to without
/// a lock.
#[derive(Debug)]
struct Ring {
    bytes: [AtomicU8; CAPACITY],
    pushed: AtomicUsize,
    drained: AtomicUsize,
}

impl Ring {
    const fn new() -> Self {
        Self {
            bytes: [const { AtomicU8::new(0) }; CAPACITY],
            pushed: AtomicUsize::new(0),
            drained: AtomicUsize::new(0),
        }
    }

    fn push(&self, byte: u8) {
        let place = self.pushed.fetch_add(1, Ordering::Relaxed);
        self.bytes[place % CAPACITY].store(byte, Ordering::Relaxed);
    }

    /// Gives each byte kept to `sink`, oldest first, once.
    fn drain(&self, sink: impl Fn(u8)) {
        let pushed = self.pushed.load(Ordering::Relaxed);
        let from = self.drained.swap(pushed, Ordering::Relaxed).max(pushed.saturating_sub(CAPACITY));
        for place in from..pushed {
            sink(self.bytes[place % CAPACITY].load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;

    fn drained(ring: &Ring) -> Vec<u8> {
        let out = RefCell::new(Vec::new());
        ring.drain(|byte| out.borrow_mut().push(byte));
        out.into_inner()
    }

    #[test]
    fn good_what_was_pushed_comes_out_once() {
        let ring = Ring::new();
        b"early".iter().for_each(|&byte| ring.push(byte));
        assert_eq!(drained(&ring), b"early");
        assert_eq!(drained(&ring), b"");
    }

    #[test]
    fn good_the_oldest_is_lost_first() {
        let ring = Ring::new();
        (0..CAPACITY + 3).for_each(|count| ring.push(count as u8));
        let out = drained(&ring);
        assert_eq!((out.len(), out[0]), (CAPACITY, 3));
    }
}
