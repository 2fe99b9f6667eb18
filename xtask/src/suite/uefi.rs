//! The same file as a UEFI application: run by edk2 as the distribution packages it.

use super::runner::Case;
use super::variety::{TIMEOUT, judged};
use crate::boot::Boot;
use crate::guest::Limits;
use crate::loader::Entry;
use crate::machine::Machine;
use crate::setup::firmware;
use crate::{guest, ui};
use anyhow::{Result, ensure};
use std::path::Path;
use std::time::Duration;

/// Boots under UEFI, and a refusal that goes back to the firmware; where no firmware is to be had the cases say so and pass.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("uefi/boots-4-cpus", |context, scratch| {
            let Some(firmware) = found() else { return Ok(()) };
            let machine = Machine { options: vec!["acpi=off".to_owned()], ..Machine::default() };
            let limits = Limits { timeout: TIMEOUT, ..Limits::default() };
            let finished = run(context, &machine, &firmware, scratch, &limits)?;
            let report = judged(&finished, scratch)?;
            let online = report.pointer("/cpus/online").and_then(serde_json::Value::as_u64);
            ensure!(online == Some(4), "{online:?} CPUs are online, not 4");
            Ok(())
        }),
        Case::new("uefi/no-device-tree-refused", |context, scratch| {
            let Some(firmware) = found() else { return Ok(()) };
            // The firmware goes on to other things after a refusal, so the run has no end of its own.
            let marker = Some("breakwater: refused: the firmware gives no device tree".to_owned());
            let limits = Limits { timeout: TIMEOUT, marker, linger: Duration::from_secs(2) };
            let finished = run(context, &Machine::default(), &firmware, scratch, &limits)?;
            ensure!(finished.marked, "the refusal is not said");
            ensure!(finished.status.is_none(), "the firmware does not go on: {:?}", finished.status);
            Ok(())
        }),
    ]
}

fn found() -> Option<std::path::PathBuf> {
    firmware().inspect_err(|error| ui::step("Note", &format!("no UEFI firmware here: {error:#}"))).ok()
}

fn run(
    context: &super::Context,
    machine: &Machine,
    firmware: &Path,
    scratch: &Path,
    limits: &Limits,
) -> Result<guest::Finished> {
    let entry = Entry::Kernel { load_address: None, append: "exit=semihosting".to_owned() };
    let boot = Boot { qemu: &context.ready.qemu, img: &context.image.img, machine, entry: &entry, scratch };
    let mut command = boot.command()?;
    command.arg("-bios").arg(firmware);
    guest::run_until(&mut command, limits, false)
}
