//! Where text goes: into the log, and to one byte sink once a console is known.
//!
//! Why it exists: boot learns of its console late, from a device tree it has mapped itself, yet has things to say
//! earlier. What is printed before is shown when a sink is installed. The log keeps the newest of all of it, at the
//! symbol `breakwater_log`, for a debugger.
//!
//! What must hold: printing never blocks the exception path. The sink is a plain function that can be called from
//! anywhere; only whole lines of ordinary code take a lock, so that CPUs do not mix their words.

#![forbid(unsafe_code)]

use crate::el2::log;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};
use spin::{Mutex, Once};

/// Sends one byte, waiting as needed.
pub type ByteSink = fn(u8);

static SINK: Once<ByteSink> = Once::new();
/// The sink until there is one.
static EARLY_SINK: Once<ByteSink> = Once::new();
static LINE: Mutex<()> = Mutex::new(());
/// How much of the log [`drain_to`] has shown.
static DRAINED: AtomicU64 = AtomicU64::new(0);

/// Installs the sink, for good, and shows what was printed before.
pub fn install(sink: ByteSink) {
    SINK.call_once(|| sink);
    drain_to(sink);
}

/// Installs the sink that an image is built with, before anything is printed and until there is another.
pub fn install_early(sink: ByteSink) {
    EARLY_SINK.call_once(|| sink);
}

/// Whether a sink is installed.
#[must_use]
pub fn is_known() -> bool {
    sink().is_some()
}

fn sink() -> Option<ByteSink> {
    SINK.get().or(EARLY_SINK.get()).copied()
}

/// Sends what the log holds to `sink`, but for what was sent so already.
pub fn drain_to(sink: ByteSink) {
    let drained = DRAINED.load(Ordering::Relaxed);
    DRAINED.store(log().show(drained, |byte| send(sink, byte)), Ordering::Relaxed);
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
        log().say(text.as_bytes());
        if let Some(sink) = sink() {
            text.bytes().for_each(|byte| send(sink, byte));
        }
        Ok(())
    }
}

fn send(sink: ByteSink, byte: u8) {
    if byte == b'\n' {
        sink(b'\r');
    }
    sink(byte);
}

/// Prints a line, as one piece.
#[macro_export]
macro_rules! line {
    ($($argument:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}
