//! Where text goes: one byte sink once the console is known, a ring buffer before.
//!
//! Why it exists: boot learns of its console late, from a device tree it has mapped itself, yet has things to say earlier. What is printed
//! before is kept and shown when a sink is installed.
//!
//! What must hold: printing never blocks the exception path. The sink is a plain function that can be called from anywhere; only whole
//! lines of ordinary code take a lock, so that CPUs do not mix their words.

#![forbid(unsafe_code)]

mod ring;

use core::fmt::{self, Write};
use spin::{Mutex, Once};

/// Sends one byte, waiting as needed.
pub type ByteSink = fn(u8);

static SINK: Once<ByteSink> = Once::new();
static RING: ring::Ring = ring::Ring::new();
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
