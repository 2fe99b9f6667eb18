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
use crate::{flight, trees, verdict};
use anyhow::{Context as _, Result, anyhow, ensure};
use breakwater_card::{disk, uboot};
use breakwater_witness::qemu::quiet_console;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Of a card, a power of two: QEMU's are.
const CARD_BYTES: u64 = 256 << 20;
/// CPUs of each machine.
const CPUS: u64 = 4;

/// At its prompt, U-Boot has given up.
const PROMPT: &str = "=> ";
const PROMPT_OF_RASPBERRY: &str = "U-Boot> ";

/// A boot by each card.
pub(super) fn cases() -> Vec<Case> {
    let rpi3 = (Board::Rpi3, flight::Board::Raspi3b, Loader::UBootRpi3);
    let rpi4 = (Board::Rpi4, flight::Board::Raspi4b, Loader::UBootRpi4);
    let raspberry = [rpi3, rpi4].map(|(board, machine, loader)| {
        Case::new(format!("card/{}", board.name()), move |context, scratch| {
            let card = made(board, "exit=semihosting", context, scratch)?;
            disk::read(&fs::read(&card)?, "LICENCE.raspi-firmware.txt")?;
            let mut qemu = context.ready.qemu.command();
            qemu.args(machine.settle(&Machine::default(), |_| false)?.arguments()?);
            qemu.arg("-kernel").arg(setup::loader(loader)?);
            quiet_console(qemu.arg("-drive").arg(format!("if=sd,format=raw,file={}", card.display())), "stdio");
            let finished = run(&mut qemu, PROMPT_OF_RASPBERRY)?;
            all_online(verdict::judge(&finished).map_err(|error| anyhow!("{error}; it said {}", finished.serial))?)
        })
    });
    // No U-Boot for these is packaged: QEMU gets what it would take from the card.
    let zcu102 = (Board::Zcu102, flight::Board::XlnxZcu102);
    let imx8mp = (Board::Imx8mp, flight::Board::Imx8mpEvk);
    let contents = [zcu102, imx8mp].map(|(board, machine)| {
        Case::new(format!("card/{}-contents", board.name()), move |context, scratch| {
            let fit = disk::read(&fs::read(made(board, "", context, scratch)?)?, "breakwater.itb")?;
            let file = |name: &str| {
                let bytes = uboot::file_of_fit(&fit, name).with_context(|| format!("no {name}, or another"))?;
                write(scratch, name, &bytes)
            };
            let mut qemu = context.ready.qemu.command();
            qemu.args(machine.settle(&Machine::default(), |_| false)?.arguments()?);
            qemu.arg("-kernel").arg(file("kernel")?).arg("-dtb").arg(file("fdt")?);
            quiet_console(qemu.arg("-append").arg(patient("exit=semihosting")), "stdio");
            all_online(verdict::judge(&run(&mut qemu, PROMPT)?)?)
        })
    });
    // Nor has a packaged U-Boot their RAM; but that of the i.MX 8M Plus begins where virt's does.
    let fit_script = Case::new("card/imx8mp-script-on-virt", |context, scratch| {
        let tree = trees::make("none-changed", &context.ready.qemu, &Machine::default(), "exit=park", scratch)?;
        let image = fs::read(&context.image.img)?;
        let card = card::with_tree(Board::Imx8mp, &image, &patient("exit=semihosting"), &tree.bytes)?;
        let mut qemu = virt(&write(scratch, "card.img", &card)?, Loader::UBoot, context)?;
        all_online(verdict::judge(&run(&mut qemu, PROMPT)?)?)
    });
    // Nothing here runs them: that they can be made is all.
    let unseen = [Board::Rpi5, Board::Rock5].map(|board| {
        Case::new(format!("card/{}-is-made", board.name()), move |context, scratch| {
            let card = fs::read(made(board, "", context, scratch)?)?;
            let kernel = match board {
                Board::Rpi5 => disk::read(&card, "breakwater.img")?,
                _ => uboot::file_of_fit(&disk::read(&card, "breakwater.itb")?, "kernel").context("no kernel")?,
            };
            disk::read(&card, "LICENCE.device-tree.txt")?;
            ensure!(kernel == fs::read(&context.image.img)?, "the card has another image");
            Ok(())
        })
    });
    let by_script = Case::new("card/generic-uboot", |context, scratch| {
        let card = made(Board::GenericUboot, "exit=semihosting", context, scratch)?;
        let mut qemu = virt(&card, Loader::UBoot, context)?;
        all_online(verdict::judge(&run(&mut qemu, PROMPT)?)?)
    });
    let by_uefi = [("aavmf", Loader::Uefi), ("u-boot", Loader::UBoot)].map(|(name, loader)| {
        Case::new(format!("card/generic-uefi-{name}"), move |context, scratch| {
            let mut qemu = virt(&made(Board::GenericUefi, "", context, scratch)?, loader, context)?;
            // Without a command line it parks.
            let finished = run(&mut qemu, "BOOT-REPORT ")?;
            ensure!(finished.marked && finished.status.is_none(), "no report, or QEMU ended: {}", finished.ended());
            all_online(verdict::audited(&finished)?)
        })
    });
    let boards = raspberry.into_iter().chain(contents).chain([fit_script]).chain(unseen);
    boards.chain([by_script]).chain(by_uefi).collect()
}

/// QEMU's `virt` with a card behind this loader.
fn virt(card: &Path, loader: Loader, context: &Context) -> Result<Command> {
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
    // What a person gets; those that nothing starts have the image that there is already.
    let image = match board {
        Board::Rpi5 | Board::Rock5 => fs::read(&context.image.img)?,
        _ => card::built(board, &context.ready.toolchain)?,
    };
    let append = if append.is_empty() { String::new() } else { patient(append) };
    let card = write(scratch, "card.img", &card::make(board, &image, &append)?)?;
    // People's cards are larger than what is written to them.
    fs::OpenOptions::new().write(true).open(&card)?.set_len(CARD_BYTES)?;
    Ok(card)
}

fn all_online(report: Value) -> Result<()> {
    let report = verdict::complete(report)?;
    let online = report.pointer("/cpus/online").and_then(Value::as_u64).context("the report has no CPUs")?;
    ensure!(online == CPUS, "{online} CPUs are online, not {CPUS}");
    Ok(())
}
