//! QEMU with the recorder, and a reader that follows the trace while it grows.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use breakwater_trace::{End, Reader, Record};

use super::subject::Subject;
use crate::child::{self, Finished, Limits};
use crate::qemu;
use crate::recorded::require_trace;

/// The trace may not fill the disk.
const MOST_TRACE_BYTES: u64 = 8 << 30;
/// How long to wait for more of the trace.
const LOOK: Duration = Duration::from_millis(2);
/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// What ends a run, the image itself aside; whichever comes first.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// The serial line says this.
    pub marker: Option<String>,
    /// A CPU is about to execute one of these addresses.
    pub addresses: Vec<u64>,
    /// A CPU has executed so many instructions.
    pub instructions: Option<u64>,
    /// Time is up.
    pub timeout: Duration,
}

impl Ends {
    /// True if the image need not end by itself.
    pub(crate) const fn asked(&self) -> bool {
        self.marker.is_some() || !self.addresses.is_empty() || self.instructions.is_some()
    }
}

/// What became of QEMU, and why the recording ended.
pub(crate) struct Ran {
    /// QEMU.
    pub(crate) finished: Finished,
    /// The trace's last record; nothing if it breaks off.
    pub(crate) end: Option<End>,
}

/// QEMU's command line.
pub(crate) fn command(subject: &Subject, ends: &Ends, trace: &Path) -> Command {
    let mut plugin =
        format!("{},out={},cap={MOST_TRACE_BYTES},fetches=pages", subject.tools.plugin.display(), trace.display());
    if let Some(limit) = ends.instructions {
        plugin += &format!(",limit={limit}");
    }
    for address in &ends.addresses {
        plugin += &format!(",until={address:x}");
    }
    plugin += &subject.from.arguments();
    if subject.cpus > 1 {
        plugin += ",loads=shared";
    }
    let mut command = subject.tools.qemu.command();
    command.args(&subject.arguments);
    qemu::quiet_console(&mut command, "stdio");
    command.args(["-accel", if subject.one_thread { "tcg,thread=single" } else { "tcg,thread=multi" }]);
    command.args(["-plugin", &plugin]);
    command
}

/// Runs it, and shows every record to `each` while the machine runs, with its line. The last record is not shown: what it means depends
/// on who ended the machine.
///
/// # Errors
/// QEMU cannot be run or writes no trace, the trace is malformed, or `each` fails.
pub(crate) fn run(
    subject: &Subject,
    ends: &Ends,
    (trace, live): (&Path, bool),
    mut each: impl FnMut(u64, &Record) -> Result<()>,
) -> Result<Ran> {
    match fs::remove_file(trace) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| trace.display().to_string());
        }
        _ => {}
    }
    let mut command = command(subject, ends, trace);
    let limits = Limits { timeout: ends.timeout, marker: ends.marker.clone(), ..Limits::default() };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let machine = scope.spawn(|| {
            let finished = child::run_until(&mut command, &limits, live);
            over.store(true, Ordering::Release);
            finished
        });
        let follow = Follow { path: trace, file: None, over: &over };
        let read = read(Reader::new(BufReader::with_capacity(BUFFER_BYTES, follow)), &mut each);
        let Ok(finished) = machine.join() else { bail!("the thread that runs QEMU panicked") };
        let finished = finished?;
        require_trace(trace, &finished)?;
        Ok(Ran { end: read?, finished })
    })
}

fn read(
    mut reader: Reader<impl io::BufRead>,
    each: &mut impl FnMut(u64, &Record) -> Result<()>,
) -> Result<Option<End>> {
    while let Some(record) = reader.next_record().context("the trace")? {
        if let Record::End(end) = record {
            return Ok(Some(end));
        }
        each(reader.line(), &record).with_context(|| format!("trace line {}", reader.line()))?;
    }
    Ok(None)
}

/// A file that somebody is still writing: its end is reached only when that is over.
struct Follow<'a> {
    path: &'a Path,
    file: Option<File>,
    over: &'a AtomicBool,
}

impl Read for Follow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Asked first: what was written before it was over is then found below.
            let over = self.over.load(Ordering::Acquire);
            if self.file.is_none() {
                self.file = File::open(self.path).ok();
            }
            let count = match &mut self.file {
                Some(file) => file.read(buffer)?,
                None => 0,
            };
            if count > 0 || over {
                return Ok(count);
            }
            thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn good_a_growing_file_is_read_to_its_end() {
        let path = std::env::temp_dir().join(format!("breakwater-follow-{}", std::process::id()));
        let over = AtomicBool::new(false);
        let text = thread::scope(|scope| {
            scope.spawn(|| {
                let mut file = File::create(&path).expect("a file can be made");
                for part in ["one\nha", "lf\n", "last"] {
                    thread::sleep(Duration::from_millis(10));
                    file.write_all(part.as_bytes()).expect("it can be written");
                }
                over.store(true, Ordering::Release);
            });
            let mut text = String::new();
            Follow { path: &path, file: None, over: &over }.read_to_string(&mut text).map(|_| text)
        });
        let _ = fs::remove_file(&path);
        assert_eq!(text.ok().as_deref(), Some("one\nhalf\nlast"));
    }
}
