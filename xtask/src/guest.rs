//! Running QEMU: the serial line is kept and, when asked, shown as it comes; time and output are limited.

use crate::exec;
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wait_timeout::ChildExt;

/// More than any boot says; a guest in a loop that prints must not fill the disk.
const OUTPUT_LIMIT: usize = 4 << 20;

/// How often time and output are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What became of a run.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    /// The exit status; `None` when it was killed.
    pub(crate) status: Option<i32>,
    /// The serial line.
    pub(crate) serial: String,
    /// What QEMU itself and semihosting wrote.
    pub(crate) messages: String,
    pub(crate) timed_out: bool,
    pub(crate) too_much: bool,
    pub(crate) took: Duration,
}

impl Finished {
    /// Serial line and messages, as one text to look through.
    pub(crate) fn everything(&self) -> String {
        format!("{}\n{}", self.serial, self.messages)
    }
}

/// What is common to all runs: no display, serial line on standard output, semihosting for the exit status.
pub(crate) fn quiet_console(command: &mut Command) -> &mut Command {
    command.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot"]);
    command.args(["-semihosting-config", "enable=on,target=native"])
}

/// Runs a QEMU to its end.
///
/// # Errors
/// It cannot be started.
pub(crate) fn run(command: &mut Command, timeout: Duration, live: bool) -> Result<Finished> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", exec::shown(command)))?;
    let full = Arc::new(AtomicBool::new(false));
    let serial = collect(child.stdout.take(), live, &full);
    let messages = collect(child.stderr.take(), false, &full);
    let (status, timed_out) = wait(&mut child, started + timeout, &full)?;
    Ok(Finished {
        status,
        serial: serial.finish(),
        messages: messages.finish(),
        timed_out,
        too_much: full.load(Ordering::Relaxed),
        took: started.elapsed(),
    })
}

fn wait(child: &mut Child, deadline: Instant, full: &AtomicBool) -> Result<(Option<i32>, bool)> {
    loop {
        if let Some(status) = child.wait_timeout(LOOK)? {
            return Ok((status.code(), false));
        }
        let late = Instant::now() >= deadline;
        if late || full.load(Ordering::Relaxed) {
            child.kill().context("cannot end QEMU")?;
            child.wait()?;
            return Ok((None, late));
        }
    }
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

fn collect(pipe: Option<impl Read + Send + 'static>, live: bool, full: &Arc<AtomicBool>) -> Collector {
    let text = Arc::new(Mutex::new(Vec::new()));
    let (kept, full) = (Arc::clone(&text), Arc::clone(full));
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
                    full.store(true, Ordering::Relaxed);
                    return;
                }
                kept.extend_from_slice(&chunk[..count]);
            }
        })
    });
    Collector { text, reader }
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
    fn bad_endless_output_is_cut_off() {
        let finished = shell("exec yes", Duration::from_secs(30));
        assert!(finished.too_much && !finished.timed_out && finished.serial.len() <= OUTPUT_LIMIT);
    }
}
