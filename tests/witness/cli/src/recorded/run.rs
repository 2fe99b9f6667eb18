//! Runs QEMU with the recorder.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Options;

/// Runs it to its end; QEMU's exit status, if it had one. The trace is then complete, or absent.
pub(crate) fn run(options: &Options) -> Result<Option<i32>> {
    ensure!(
        !options.icount || options.smp == 1,
        "icount with {} CPUs: QEMU then runs them in one thread and gives plugins wrong CPU numbers",
        options.smp
    );
    let _ = fs::remove_file(&options.trace);
    let mut command = command(options);
    let child = command.spawn().with_context(|| format!("{} cannot be run", options.tools.qemu.program.display()))?;
    let status = wait(child, options.timeout)?;
    ensure!(
        options.trace.exists(),
        "QEMU wrote no trace: plugins need QEMU 9.2 or later, built with them (its exit status was {status:?})"
    );
    Ok(status)
}

/// QEMU with the recorder; the trace goes to `options.trace`.
pub(crate) fn command(options: &Options) -> Command {
    let mut plugin = format!("{},out={}", options.tools.plugin.display(), options.trace.display());
    if let Some(limit) = options.limit {
        plugin += &format!(",limit={limit}");
    }
    if options.fetches {
        plugin += ",fetches=on";
    }
    if options.loads {
        plugin += ",loads=all";
    } else if options.shared_loads {
        plugin += ",loads=shared";
    }
    if let Some(cap) = options.cap_bytes {
        plugin += &format!(",cap={cap}");
    }
    let serial = options.serial.as_ref().map_or("null".into(), |path| format!("file:{}", path.display()));
    let mut command = options.tools.qemu.command();
    command.args(["-M", &options.machine, "-cpu", &options.cpu, "-smp", &options.smp.to_string()]);
    command.args(["-m", &options.memory, "-serial", &serial, "-plugin", &plugin]);
    command.args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"]);
    command.args(["-semihosting-config", "enable=on,target=native"]);
    if options.icount {
        command.args(["-icount", "shift=0,sleep=off", "-accel", "tcg,thread=single"]);
    } else {
        command.args(["-accel", "tcg,thread=multi"]);
    }
    let has = |is: fn(&str) -> bool| options.extra.iter().any(|argument| is(argument));
    if !has(|argument| argument.starts_with("loader,")) {
        command.args(["-append", &options.append]);
        if !has(|argument| argument == "-kernel") {
            command.arg("-kernel").arg(&options.image);
        }
    }
    command.args(&options.extra).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Waits for the child, or ends it after `timeout`.
fn wait(mut child: Child, timeout: Duration) -> Result<Option<i32>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if begun.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            bail!("the image did not end within {} s", timeout.as_secs());
        }
        sleep(Duration::from_millis(5));
    }
}
