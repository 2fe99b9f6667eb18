//! Running a program that need not end by itself, QEMU above all: its outputs are read while it runs; time and output are limited.

use crate::exec;
use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wait_timeout::ChildExt;

/// More than any boot says; a guest in a loop that prints must not fill the disk.
const OUTPUT_LIMIT: usize = 4 << 20;

/// How long a program may take to end that was asked to.
const TO_END: Duration = Duration::from_secs(10);

/// How often time and output are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What became of a run.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// The exit status; `None` when it was killed.
    pub status: Option<i32>,
    /// Its standard output, which is the serial line of a QEMU; empty if somebody else read it.
    pub serial: String,
    /// Its standard error: what QEMU itself and semihosting wrote.
    pub messages: String,
    /// It was killed when its time was up, or when it had worked as much as it may.
    pub timed_out: bool,
    /// It was killed because it wrote more than any boot does.
    pub too_much: bool,
    /// The text that was waited for stood on the serial line.
    pub marked: bool,
    /// From start to end.
    pub took: Duration,
    /// How long its threads were on CPUs, all together; nothing where the system does not say so.
    pub worked: Duration,
    /// The most of its memory that was resident at once, in bytes; 0 where the system does not say so.
    pub peak_bytes: u64,
}

impl Finished {
    /// Serial line and messages, as one text to look through.
    pub fn everything(&self) -> String {
        format!("{}\n{}", self.serial, self.messages)
    }

    /// How it ended, in words, and after a colon the last that it said on standard error.
    pub fn ended(&self) -> String {
        let status =
            self.status.map_or_else(|| "it had to be ended".to_owned(), |status| format!("exit status {status}"));
        let said = self.messages.lines().next_back().map(|line| format!(": {line}"));
        status + &said.unwrap_or_default()
    }
}

/// When a run ends that does not end by itself.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// After this time.
    pub timeout: Duration,
    /// After so much time of its threads on CPUs, all together: who waits for a busy host does not become older by it.
    pub work: Option<Duration>,
    /// Once the serial line says this.
    pub marker: Option<String>,
    /// And that much later, for what must go on after it.
    pub linger: Duration,
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started.
pub fn run(command: &mut Command, timeout: Duration, live: bool) -> Result<Finished> {
    run_until(command, &Limits { timeout, ..Limits::default() }, live)
}

/// Runs a program to its end or to one of `limits`. With `live` its standard output is shown as it comes.
///
/// # Errors
/// It cannot be started.
pub fn run_until(command: &mut Command, limits: &Limits, live: bool) -> Result<Finished> {
    let marker = limits.marker.as_deref();
    let (finished, serial) = read(command, limits, |output, seen| keep(output, live, marker, seen))?;
    Ok(Finished { serial, ..finished })
}

/// Runs a program to its end or to one of `limits`, while `reader` reads its standard output. It is asked to end first, so that plugins can write
/// what they hold; unless it is `reader` that has seen enough.
///
/// # Errors
/// It cannot be started, or `reader` panicked.
pub fn read<R: Send>(
    command: &mut Command,
    limits: &Limits,
    reader: impl FnOnce(ChildStdout, &Seen) -> R + Send,
) -> Result<(Finished, R)> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", exec::shown(command)))?;
    let (output, errors) = (child.stdout.take().context("no output")?, child.stderr.take().context("no output")?);
    let seen = Seen::default();
    thread::scope(|scope| {
        let reader = scope.spawn(|| reader(output, &seen));
        let messages = scope.spawn(|| keep(errors, false, None, &seen));
        let mut peak_bytes = 0;
        let (status, timed_out, worked) = wait(&mut child, started + limits.timeout, limits, &seen, &mut peak_bytes)?;
        let panicked = |_| anyhow!("the reader of `{}` panicked", exec::shown(command));
        let read = reader.join().map_err(panicked)?;
        let finished = Finished {
            status,
            serial: String::new(),
            messages: messages.join().map_err(panicked)?,
            timed_out,
            too_much: seen.full.load(Ordering::Relaxed),
            marked: seen.marked.load(Ordering::Relaxed),
            took: started.elapsed(),
            worked,
            peak_bytes,
        };
        Ok((finished, read))
    })
}

/// What the readers of the two outputs have seen.
#[derive(Debug, Default)]
pub struct Seen {
    full: AtomicBool,
    marked: AtomicBool,
    enough: AtomicBool,
}

impl Seen {
    /// Ends the program: nothing that it could still say matters.
    pub fn enough(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }
}

/// Waits for the end: the exit status, whether time or work was up, and the work.
fn wait(
    child: &mut Child,
    deadline: Instant,
    limits: &Limits,
    seen: &Seen,
    peak_bytes: &mut u64,
) -> Result<(Option<i32>, bool, Duration)> {
    let (mut marked, mut worked) = (None, Duration::ZERO);
    loop {
        if let Some(status) = child.wait_timeout(LOOK)? {
            return Ok((status.code(), false, worked));
        }
        worked = time_on_cpus(child.id()).max(worked);
        *peak_bytes = peak_of(child.id()).max(*peak_bytes);
        if seen.enough.load(Ordering::Relaxed) {
            child.kill()?;
            child.wait()?;
            return Ok((None, false, worked));
        }
        let late = Instant::now() >= deadline || limits.work.is_some_and(|work| worked > work);
        if seen.marked.load(Ordering::Relaxed) {
            marked.get_or_insert_with(Instant::now);
        }
        let is_over = marked.is_some_and(|marked: Instant| marked.elapsed() >= limits.linger);
        if late || seen.full.load(Ordering::Relaxed) || is_over {
            end(child)?;
            return Ok((None, late, worked));
        }
    }
}

/// How long the threads of a process have been on CPUs, all together.
fn time_on_cpus(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The program's name stands in parentheses, and may hold anything; utime and stime are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(1000 * ticks / rustix::param::clock_ticks_per_second().max(1))
}

/// The most memory of a process that was resident so far, in bytes.
fn peak_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

/// Asks a program to end, and ends it when it does not.
fn end(child: &mut Child) -> Result<()> {
    if let Some(process) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended by itself meanwhile.
        let _ = kill_process(process, Signal::TERM);
    }
    if child.wait_timeout(TO_END)?.is_none() {
        child.kill().context("cannot end it")?;
        child.wait()?;
    }
    Ok(())
}

/// Reads `pipe` to its end, or as far as it may; what is read is text.
fn keep(mut pipe: impl Read, live: bool, marker: Option<&str>, seen: &Seen) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = pipe.read(&mut chunk) {
        if live {
            let mut out = std::io::stdout().lock();
            // Whoever closed our output still gets the verdict.
            let _ = out.write_all(&chunk[..count]).and_then(|()| out.flush());
        }
        if kept.len() + count > OUTPUT_LIMIT {
            seen.full.store(true, Ordering::Relaxed);
            break;
        }
        kept.extend_from_slice(&chunk[..count]);
        if marker.is_some_and(|marker| ends_with(&kept, marker.as_bytes(), count)) {
            seen.marked.store(true, Ordering::Relaxed);
        }
    }
    String::from_utf8_lossy(&kept).replace('\r', "")
}

/// True if `text` holds `marker` with its end among the last `fresh` bytes.
fn ends_with(text: &[u8], marker: &[u8], fresh: usize) -> bool {
    let from = text.len().saturating_sub(fresh + marker.len());
    !marker.is_empty() && text[from..].windows(marker.len()).any(|window| window == marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Finished {
        run(Command::new("sh").args(["-c", script]), limit, false).expect("sh starts")
    }

    #[test]
    fn good_status_and_both_outputs_are_kept() {
        let finished = shell("echo on the line; echo beside >&2; exit 7", Duration::from_secs(10));
        assert_eq!(finished.status, Some(7));
        assert_eq!((finished.serial.as_str(), finished.messages.as_str()), ("on the line\n", "beside\n"));
    }

    #[test]
    fn good_the_most_memory_is_told() {
        let peak = shell("sleep 0.2", Duration::from_secs(10)).peak_bytes;
        assert!((100 << 10..1 << 30).contains(&peak), "{peak} bytes for a shell");
    }

    #[test]
    fn bad_a_hang_ends_at_the_limit() {
        let finished = shell("exec sleep 60", Duration::from_millis(100));
        assert!(finished.timed_out && finished.status.is_none());
    }

    #[test]
    fn good_a_marker_ends_a_run_that_can_still_say_goodbye() {
        let marker = Some("all CPUs up".to_owned());
        let limits = Limits { timeout: Duration::from_secs(30), marker, ..Limits::default() };
        let script = "trap 'echo goodbye >&2; exit 0' TERM; printf 'all C'; sleep 0.1; echo 'PUs up'; while :; do sleep 0.05; done";
        let finished = run_until(Command::new("sh").args(["-c", script]), &limits, false).expect("sh starts");
        assert!(finished.marked && !finished.timed_out);
        assert_eq!(finished.messages, "goodbye\n");
    }

    #[test]
    fn good_what_goes_on_after_its_marker_is_told_from_what_ends() {
        let told = |script: &str, linger| {
            let limits = Limits {
                timeout: Duration::from_secs(60),
                marker: Some("said".to_owned()),
                linger,
                ..Limits::default()
            };
            run_until(Command::new("sh").args(["-c", script]), &limits, false).expect("sh starts")
        };
        let on = told("echo said; exec sleep 60", Duration::from_millis(50));
        assert!(on.marked && on.status.is_none() && !on.timed_out);
        let ends = told("echo said; exit 3", Duration::from_secs(50));
        assert!(ends.marked && ends.status == Some(3));
    }

    #[test]
    fn bad_endless_output_is_cut_off() {
        let finished = shell("exec yes", Duration::from_secs(30));
        assert!(finished.too_much && !finished.timed_out && finished.serial.len() <= OUTPUT_LIMIT);
    }

    #[test]
    fn good_a_reader_that_has_seen_enough_ends_the_run() {
        let limits = Limits { timeout: Duration::from_secs(60), ..Limits::default() };
        let read = read(
            Command::new("sh").args(["-c", "trap '' TERM; echo said; exec sleep 60"]),
            &limits,
            |mut output, seen| {
                let mut said = [0; 4];
                output.read_exact(&mut said).map(|()| seen.enough()).map(|()| said)
            },
        );
        let (finished, said) = read.expect("sh starts");
        assert_eq!(said.expect("it says so"), *b"said");
        assert!(finished.status.is_none() && !finished.timed_out && finished.took < TO_END);
    }

    /// Whether a script is ended for its work, of which it may do a tenth of a second, or by the clock.
    fn hangs(script: &str, timeout: Duration) -> bool {
        let limits = Limits { timeout, work: Some(Duration::from_millis(100)), ..Limits::default() };
        run_until(Command::new("sh").args(["-c", script]), &limits, false).expect("sh starts").timed_out
    }

    #[test]
    fn bad_who_works_for_ever_hangs() {
        assert!(hangs("while :; do :; done", Duration::from_secs(3600)));
    }

    #[test]
    fn good_who_waits_for_the_host_does_not_hang() {
        assert!(!hangs("exec sleep 0.5", Duration::from_secs(3600)));
    }

    #[test]
    fn bad_who_waits_for_ever_hangs_by_the_clock() {
        assert!(hangs("exec sleep 3600", Duration::ZERO));
    }
}
