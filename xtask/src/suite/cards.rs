//! Cards as a board's firmware finds them: U-Boot of Debian's packages is all that QEMU starts; what the card has on it
//! does the rest. The Raspberry Pi's own firmware, which runs on the other processor, is not emulated.

use super::Context;
use super::runner::Case;
use super::variety::TIMEOUT;
use crate::boot::patient;
use crate::card::{self, Board};
use crate::child::{self, Finished, Limits};
use crate::loader::write;
use crate::machine::Machine;
use crate::setup::{self, Loader};
use crate::{boards, verdict};
use anyhow::{Context as _, Result, anyhow, ensure};
use breakwater_witness::qemu::quiet_console;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// CPUs of each machine.
const CPUS: u64 = 4;

/// At its prompt, U-Boot has given up.
const PROMPT: &str = "=> ";
const PROMPT_OF_RASPBERRY: &str = "U-Boot> ";

/// A boot by each card.
pub(super) fn cases() -> Vec<Case> {
    let rpi3 = (Board::Rpi3, "raspi3b", Loader::UBootRpi3, "broadcom/bcm2837-rpi-3-b.dtb");
    let rpi4 = (Board::Rpi4, "raspi4b", Loader::UBootRpi4, "broadcom/bcm2711-rpi-4-b.dtb");
    let raspberry = [rpi3, rpi4].map(|(board, machine, loader, tree)| {
        Case::new(format!("card/{}", board.name()), move |context, scratch| {
            let card = made(board, "exit=semihosting", context, scratch)?;
            let mut qemu = context.ready.qemu.command();
            qemu.args(["-M", machine]).arg("-kernel").arg(setup::loader(loader)?);
            qemu.arg("-dtb").arg(boards::of_kernel(tree)?);
            qemu.arg("-drive").arg(format!("if=sd,format=raw,file={}", card.display()));
            // The first serial line is the PL011, the second the mini UART, which the trees say is the console.
            quiet_console(qemu.args(["-serial", "null"]), "stdio");
            let finished = run(&mut qemu, PROMPT_OF_RASPBERRY)?;
            all_online(verdict::judge(&finished).map_err(|error| anyhow!("{error}; it said {}", finished.serial))?)
        })
    });
    let by_script = Case::new("card/generic-uboot", |context, scratch| {
        let mut qemu = virt(Board::GenericUboot, Loader::UBoot, "exit=semihosting", context, scratch)?;
        all_online(verdict::judge(&run(&mut qemu, PROMPT)?)?)
    });
    let by_uefi = [("aavmf", Loader::Uefi), ("u-boot", Loader::UBoot)].map(|(name, loader)| {
        Case::new(format!("card/generic-uefi-{name}"), move |context, scratch| {
            let mut qemu = virt(Board::GenericUefi, loader, "", context, scratch)?;
            // Without a command line it parks.
            let finished = run(&mut qemu, "BOOT-REPORT ")?;
            ensure!(finished.marked && finished.status.is_none(), "no report, or QEMU ended: {}", finished.ended());
            all_online(verdict::audited(&finished)?)
        })
    });
    raspberry.into_iter().chain([by_script]).chain(by_uefi).collect()
}

/// QEMU's `virt` with a card behind this loader.
fn virt(board: Board, loader: Loader, append: &str, context: &Context, scratch: &Path) -> Result<Command> {
    let card = made(board, append, context, scratch)?;
    let mut qemu = context.ready.qemu.command();
    qemu.args(Machine::default().arguments()?).arg("-bios").arg(setup::loader(loader)?);
    qemu.arg("-drive").arg(format!("if=none,id=card,format=raw,file={}", card.display()));
    quiet_console(qemu.args(["-device", "virtio-blk-device,drive=card"]), "stdio");
    Ok(qemu)
}

/// Runs it to its end, or until it has said `last`.
fn run(qemu: &mut Command, last: &str) -> Result<Finished> {
    let linger = Duration::from_secs(2);
    let limits = Limits { timeout: TIMEOUT, marker: Some(last.to_owned()), linger, ..Limits::default() };
    child::run_until(qemu, &limits, false)
}

fn made(board: Board, append: &str, context: &Context, scratch: &Path) -> Result<PathBuf> {
    let image = fs::read(&context.image.img)?;
    let append = if append.is_empty() { String::new() } else { patient(append) };
    write(scratch, "card.img", &card::make(board, &image, &append)?)
}

fn all_online(report: Value) -> Result<()> {
    let report = verdict::complete(report)?;
    let online = report.pointer("/cpus/online").and_then(Value::as_u64).context("the report has no CPUs")?;
    ensure!(online == CPUS, "{online} CPUs are online, not {CPUS}");
    Ok(())
}
