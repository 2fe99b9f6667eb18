//! Runs QEMU with the recorder.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use super::Options;
use crate::child;
use crate::qemu;

/// Runs it to its end; QEMU's exit status, if it had one. The trace is then complete, or absent.
pub(crate) fn run(options: &Options) -> Result<Option<i32>> {
    ensure!(
        !options.icount || options.smp == 1,
        "icount with {} CPUs: QEMU then runs them in one thread and gives plugins wrong CPU numbers",
        options.smp
    );
    let _ = fs::remove_file(&options.trace);
    let finished = child::run(&mut command(options), options.timeout, false)?;
    ensure!(!finished.timed_out, "the image did not end within {} s", options.timeout.as_secs());
    let (ended, exists) = (finished.ended(), options.trace.exists());
    ensure!(exists, "QEMU wrote no trace: plugins need QEMU 9.2 or later, built with them ({ended})");
    Ok(finished.status)
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
    let mut command = options.tools.qemu.command();
    command.args(["-M", &options.machine, "-cpu", &options.cpu, "-smp", &options.smp.to_string()]);
    command.args(["-m", &options.memory, "-plugin", &plugin]);
    qemu::quiet_console(&mut command, "null");
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
    command.args(&options.extra);
    command
}
