//! Running QEMU: the serial line is kept and, when asked, shown as it comes; time and output are limited.

use crate::exec;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wait_timeout::ChildExt;

/// More than any boot says; a guest in a loop that prints must not fill the disk.
const OUTPUT_LIMIT: usize = 4 << 20;

/// How long a QEMU may take to end that was asked to.
const TO_END: Duration = Duration::from_secs(10);

/// How often time and output are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What became of a run.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit status; `None` when it was killed.
    pub status: Option<i32>,
    /// The serial line.
    pub serial: String,
    /// What QEMU itself and semihosting wrote.
    pub messages: String,
    /// It was killed when its time was up.
    pub timed_out: bool,
    /// It was killed because it wrote more than any boot does.
    pub too_much: bool,
    /// The text that was waited for stood on the serial line.
    pub marked: bool,
    /// From start to end.
    pub took: Duration,
}

impl Finished {
    /// Serial line and messages, as one text to look through.
    pub fn everything(&self) -> String {
        format!("{}\n{}", self.serial, self.messages)
    }
}

/// What is common to all runs: no display, serial line on standard output, semihosting for the exit status.
pub fn quiet_console(command: &mut Command) -> &mut Command {
    command.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot"]);
    command.args(["-semihosting-config", "enable=on,target=native"])
}

/// When a run ends that does not end by itself.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// After this time.
    pub timeout: Duration,
    /// Once the serial line says this.
    pub marker: Option<String>,
    /// And that much later, for what must go on after it.
    pub linger: Duration,
}

/// Runs a QEMU to its end.
///
/// # Errors
/// It cannot be started.
pub fn run(command: &mut Command, timeout: Duration, live: bool) -> Result<Finished> {
    run_until(command, &Limits { timeout, ..Limits::default() }, live)
}

/// Runs a QEMU to its end or to one of `limits`. It is asked to end first, so that plugins can write what they hold.
///
/// # Errors
/// It cannot be started.
pub fn run_until(command: &mut Command, limits: &Limits, live: bool) -> Result<Finished> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", exec::shown(command)))?;
    let flags = Arc::new(Flags::default());
    let serial = collect(child.stdout.take(), live, limits.marker.clone(), &flags);
    let messages = collect(child.stderr.take(), false, None, &flags);
    let (status, timed_out) = wait(&mut child, started + limits.timeout, limits.linger, &flags)?;
    Ok(Finished {
        status,
        serial: serial.finish(),
        messages: messages.finish(),
        timed_out,
        too_much: flags.full.load(Ordering::Relaxed),
        marked: flags.marked.load(Ordering::Relaxed),
        took: started.elapsed(),
    })
}

/// What the readers of the two outputs have seen.
#[derive(Default)]
struct Flags {
    full: AtomicBool,
    marked: AtomicBool,
}

fn wait(child: &mut Child, deadline: Instant, linger: Duration, flags: &Flags) -> Result<(Option<i32>, bool)> {
    let mut marked = None;
    loop {
        if let Some(status) = child.wait_timeout(LOOK)? {
            return Ok((status.code(), false));
        }
        let late = Instant::now() >= deadline;
        if flags.marked.load(Ordering::Relaxed) {
            marked.get_or_insert_with(Instant::now);
        }
        let is_over = marked.is_some_and(|marked: Instant| marked.elapsed() >= linger);
        if late || flags.full.load(Ordering::Relaxed) || is_over {
            end(child)?;
            return Ok((None, late));
        }
    }
}

/// Asks QEMU to end, and ends it when it does not.
fn end(child: &mut Child) -> Result<()> {
    if let Some(process) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended by itself meanwhile.
        let _ = kill_process(process, Signal::TERM);
    }
    if child.wait_timeout(TO_END)?.is_none() {
        child.kill().context("cannot end QEMU")?;
        child.wait()?;
    }
    Ok(())
}

struct Collector {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collector {
    fn finish(self) -> String {
        if let Some(reader) = self.reader {
            // A reader that panicked leaves what it had.
            let _ = reader.join();
        }
        let text = self.text.lock().map(|text| text.clone()).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\r', "")
    }
}

fn collect(
    pipe: Option<impl Read + Send + 'static>,
    live: bool,
    marker: Option<String>,
    flags: &Arc<Flags>,
) -> Collector {
    let text = Arc::new(Mutex::new(Vec::new()));
    let (kept, flags) = (Arc::clone(&text), Arc::clone(flags));
    let reader = pipe.map(|mut pipe| {
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                if live {
                    let mut out = std::io::stdout().lock();
                    // Whoever closed our output still gets the verdict.
                    let _ = out.write_all(&chunk[..count]).and_then(|()| out.flush());
                }
                let Ok(mut kept) = kept.lock() else { return };
                if kept.len() + count > OUTPUT_LIMIT {
                    flags.full.store(true, Ordering::Relaxed);
                    return;
                }
                kept.extend_from_slice(&chunk[..count]);
                if let Some(marker) = &marker
                    && ends_with(&kept, marker.as_bytes(), count)
                {
                    flags.marked.store(true, Ordering::Relaxed);
                }
            }
        })
    });
    Collector { text, reader }
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
            let limits = Limits { timeout: Duration::from_secs(60), marker: Some("said".to_owned()), linger };
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
}
