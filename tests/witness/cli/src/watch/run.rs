//! QEMU with the recorder, and a reader of what it records, by a named pipe.
//!
//! Nothing is kept on disk unless it is asked for: a recording of firmware has gigabytes. What must hold: a machine
//! that is faster than its judge waits for it, and one that ends or never begins leaves no reader waiting.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use breakwater_trace::{End, Reader, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use super::subject::Subject;
use crate::child::{self, Finished, Limits};
use crate::qemu;

/// More than any boot records, and what may come to lie on the disk.
const MOST_TRACE_BYTES: u64 = 8 << 30;
/// How long to wait for more before asking whether there will be any.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// Bytes read at a time, and the most that wait in the pipe.
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
    /// With that the boot is over, and not only the recording: what a boot owes at its end is asked.
    pub concludes: bool,
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

/// The pipe by which the recording of a run comes.
fn pipe(subject: &Subject) -> PathBuf {
    subject.tools.scratch.join("recording")
}

/// QEMU's command line.
pub(crate) fn command(subject: &Subject, ends: &Ends) -> Command {
    let (plugin, pipe) = (subject.tools.plugin.display(), pipe(subject));
    let mut plugin = format!("{plugin},out={},form=packed,cap={MOST_TRACE_BYTES},fetches=pages", pipe.display());
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
/// on who ended the machine. The whole recording, packed, is written to `copy` besides.
///
/// # Errors
/// QEMU cannot be run or records nothing, the recording is malformed or cannot be written, or `each` fails.
pub(crate) fn run(
    subject: &Subject,
    ends: &Ends,
    (copy, live): (Option<&Path>, bool),
    mut each: impl FnMut(u64, &Record) -> Result<()>,
) -> Result<Ran> {
    let name = |path: &Path| path.display().to_string();
    let pipe = pipe(subject);
    match fs::remove_file(&pipe) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(|| name(&pipe)),
        _ => {}
    }
    let copy = copy.map(|file| File::create(file).with_context(|| name(file))).transpose()?;
    let mut command = command(subject, ends);
    let limits = Limits { timeout: ends.timeout, marker: ends.marker.clone(), ..Limits::default() };
    let over = AtomicBool::new(false);
    let mut recording = Recording::new(&pipe, copy, &over).with_context(|| name(&pipe))?;
    let ran = thread::scope(|scope| {
        let machine = scope.spawn(|| {
            let finished = child::run_until(&mut command, &limits, live);
            over.store(true, Ordering::Release);
            finished
        });
        let read = read(Reader::new(BufReader::with_capacity(BUFFER_BYTES, &mut recording)), &mut each);
        // A machine that still writes is told that nobody reads.
        let has_begun = recording.has_begun;
        drop(recording);
        let Ok(finished) = machine.join() else { bail!("the thread that runs QEMU panicked") };
        let finished = finished?;
        let ended = finished.ended();
        ensure!(has_begun, "QEMU recorded nothing: plugins need QEMU 9.2 or later, built with them ({ended})");
        Ok(Ran { end: read?, finished })
    });
    let _ = fs::remove_file(&pipe);
    ran
}

fn read(
    mut reader: Reader<impl io::BufRead>,
    each: &mut impl FnMut(u64, &Record) -> Result<()>,
) -> Result<Option<End>> {
    while let Some(record) = reader.next_record().context("the recording")? {
        if let Record::End(end) = record {
            return Ok(Some(end));
        }
        each(reader.line(), &record).with_context(|| format!("trace line {}", reader.line()))?;
    }
    Ok(None)
}

/// A named pipe that somebody will write to: its end is reached when it has none any more who could.
struct Recording<'a> {
    pipe: File,
    copy: Option<File>,
    over: &'a AtomicBool,
    has_begun: bool,
}

impl<'a> Recording<'a> {
    fn new(path: &Path, copy: Option<File>, over: &'a AtomicBool) -> io::Result<Self> {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // To open it for reading alone would wait for a writer, which may never come.
        let pipe = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
        // A smaller pipe will do: the two then wait for each other more often.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, BUFFER_BYTES);
        Ok(Self { pipe, copy, over, has_begun: false })
    }
}

impl Read for Recording<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Asked first: what was written before it was over is then found below.
            let over = self.over.load(Ordering::Acquire);
            let count = match self.pipe.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                count => count?,
            };
            if let Some(copy) = &mut self.copy {
                copy.write_all(&buffer[..count])?;
            }
            if count > 0 || over {
                self.has_begun |= count > 0;
                return Ok(count);
            }
            if self.has_begun {
                poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&LOOK))?;
            } else {
                // Before it has a writer nothing can be waited for.
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a pipe that `write` writes to, and what is copied.
    fn recorded(write: impl FnOnce(&Path) + Send) -> (String, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, copy) = (dir.path().join("pipe"), dir.path().join("copy"));
        let over = AtomicBool::new(false);
        let mut text = String::new();
        let mut recording =
            Recording::new(&path, Some(File::create(&copy).expect("a file")), &over).expect("a pipe can be made");
        thread::scope(|scope| {
            scope.spawn(|| {
                write(&path);
                over.store(true, Ordering::Release);
            });
            recording.read_to_string(&mut text).expect("it is text");
        });
        (text, fs::read_to_string(copy).expect("it is there"))
    }

    #[test]
    fn good_a_recording_is_read_to_its_end_and_copied() {
        let (read, copied) = recorded(|path| {
            let mut file = File::create(path).expect("it can be opened");
            for part in ["one\nha", "lf\n", "last"] {
                thread::sleep(Duration::from_millis(10));
                file.write_all(part.as_bytes()).expect("it can be written");
            }
        });
        assert_eq!((read.as_str(), copied.as_str()), ("one\nhalf\nlast", "one\nhalf\nlast"));
    }

    #[test]
    fn good_a_writer_that_never_comes_leaves_nobody_waiting() {
        assert_eq!(recorded(|_| ()).0, "");
    }

    #[test]
    fn good_a_writer_that_is_faster_waits() {
        let much = "breakwater\n".repeat(1 << 20);
        let (read, _) = recorded(|path| fs::write(path, &much).expect("it is read meanwhile"));
        assert!(read == much);
    }
}
