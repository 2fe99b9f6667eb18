//! Machines where nobody listens yet, or ever: early consoles, and what a debugger reads from memory. And machines that
//! are vast, or on paper: 1 TiB of RAM, and the trees of Debian's boards.

use super::runner::Case;
use super::variety::{TIMEOUT, judged};
use super::{Context, witnessed};
use crate::boot::{Boot, patient};
use crate::child::{self, Finished, Limits};
use crate::image::{self, Image, Recipe};
use crate::loader::{self, Loading, State};
use crate::machine::{Level, Machine};
use crate::{boards, report, trees, ui, verdict};
use anyhow::{Context as _, Result, ensure};
use breakwater_witness::qemu::quiet_console;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The first UART of QEMU's virt machine, and of its sbsa-ref.
const ON_VIRT: &str = "pl011@0x9000000";
const ON_SBSA_REF: &str = "pl011@0x60000000";
/// What a refusal begins with, and a report.
const REFUSED: &str = "breakwater: refused: ";
const BOOTED: &str = "breakwater: booted at ";
/// How much of memory is dumped: the image lies in it.
const DUMPED: u64 = 32 << 20;

pub(super) fn cases() -> Vec<Case> {
    let built = |uart: Option<&str>, context: &Context| {
        let earlycon = uart.unwrap_or("none").parse()?;
        image::build(&context.ready.toolchain, &Recipe { earlycon, ..Recipe::default() })
    };
    vec![
        Case::new("early/virt", move |context, scratch| {
            let image = built(Some(ON_VIRT), context)?;
            let virt = Virt { context, image: &image, scratch };
            virt.is_the_trees_console()?;
            virt.speaks_without_a_console()?;
            virt.gives_way_to_another()?;
            virt.says_refusals()?;
            let machine = Machine::default();
            witnessed::clean(&witnessed::watched(context, &image, (&machine, None), scratch)?, machine.smp)
        }),
        Case::new("early/sbsa-ref", move |context, _| on_sbsa_ref(context, &built(Some(ON_SBSA_REF), context)?)),
        Case::new("early/report-from-memory", move |context, scratch| {
            from_memory(context, &built(None, context)?, scratch)
        }),
        Case::new("boards/one-tib-of-ram", one_tib),
        Case::new("boards/trees-of-debian", |_, _| boards::check()),
    ]
}

/// A tree of that name for `machine`, handed over by the shim.
fn by_shim(context: &Context, machine: &Machine, tree: &str, append: &str, scratch: &Path) -> Result<Loading> {
    let tree = trees::make(tree, &context.ready.qemu, machine, append, scratch)?;
    Ok(Loading::Shim { tree: tree.bytes, tree_at: tree.at, image_at: loader::IMAGE_AT, state: State::default() })
}

/// The image that speaks on the UART of virt.
struct Virt<'a> {
    context: &'a Context,
    image: &'a Image,
    scratch: &'a Path,
}

impl Virt<'_> {
    /// Boots `machine` with a tree of that name to its end, or until it says `marker`.
    fn boot(&self, machine: &Machine, tree: &str, more: &[String], marker: Option<&str>) -> Result<Finished> {
        let Self { context, image, scratch } = *self;
        let append = patient("exit=semihosting colour=red");
        let entry = match machine.level {
            Level::El1 => Loading::Kernel { load_address: None, append },
            _ => by_shim(context, machine, tree, &append, scratch)?,
        };
        let boot = Boot { qemu: &context.ready.qemu, img: &image.img, machine, entry: &entry, scratch };
        let limits = Limits { timeout: TIMEOUT, marker: marker.map(str::to_owned), ..Limits::default() };
        child::run_until(boot.command()?.args(more), &limits, false)
    }

    /// Four CPUs, and everything said once.
    fn booted(&self, tree: &str, more: &[String]) -> Result<String> {
        let finished = self.boot(&Machine::default(), tree, more, None)?;
        verdict::complete(judged(&finished, self.scratch)?)?;
        Ok(finished.serial)
    }

    fn is_the_trees_console(&self) -> Result<()> {
        let serial = self.booted("none-changed", &[])?;
        once(&serial, "unknown option colour=red")?;
        once(&serial, BOOTED)?;
        ensure!(!serial.contains("  console  "), "its registers are mapped twice");
        Ok(())
    }

    fn speaks_without_a_console(&self) -> Result<()> {
        let serial = self.booted("no-stdout", &[])?;
        once(&serial, "the device tree names no console")?;
        once(&serial, BOOTED)
    }

    /// What was said before is said there once more, and the report there alone.
    fn gives_way_to_another(&self) -> Result<()> {
        let second = self.scratch.join("second.txt");
        let more = ["-serial".to_owned(), format!("file:{}", second.display())];
        let finished = self.boot(&Machine::default(), "second-console", &more, None)?;
        ensure!(finished.status == Some(0), "{}", finished.ended());
        let there = std::fs::read_to_string(second)?;
        once(&finished.serial, "unknown option colour=red")?;
        once(&there, "unknown option colour=red")?;
        once(&there, BOOTED)?;
        ensure!(!finished.serial.contains(BOOTED), "the report is on the early console too");
        Ok(())
    }

    /// Before the MMU is on, and after.
    fn says_refusals(&self) -> Result<()> {
        let low = Machine { level: Level::El1, ..Machine::default() };
        let refusals = [(&low, "none-changed", "entered at EL1"), (&Machine::default(), "wrong-magic", "device tree")];
        for (machine, tree, why) in refusals {
            let finished = self.boot(machine, tree, &[], Some("\n"))?;
            let line = finished.serial.lines().next().unwrap_or_default();
            ensure!(line.starts_with(REFUSED) && line.contains(why), "`{line}` does not say `{why}`");
        }
        Ok(())
    }
}

fn once(text: &str, what: &str) -> Result<()> {
    let count = text.lines().filter(|line| line.contains(what)).count();
    ensure!(count == 1, "`{what}` is said {count} times:\n{text}");
    Ok(())
}

/// Its tree names neither a console nor PSCI, whose SMC would hang.
fn on_sbsa_ref(context: &Context, image: &Image) -> Result<()> {
    let mut command = context.ready.qemu.command();
    // Its display wants a file that is packaged elsewhere.
    command.args(["-M", "sbsa-ref", "-smp", "1", "-m", "1G", "-global", "bochs-display.romfile=", "-kernel"]);
    command.arg(&image.img).args(["-append", "exit=semihosting"]);
    let finished = child::run(quiet_console(&mut command, "stdio"), TIMEOUT, false)?;
    verdict::complete(verdict::judge(&finished)?)?;
    once(&finished.serial, "the device tree names no console")?;
    once(&finished.serial, BOOTED)
}

/// Boots with less memory of the host's than 6 GiB, of which the frametable takes 4.
fn one_tib(context: &Context, scratch: &Path) -> Result<()> {
    let machine = Machine { memory: "1024G".to_owned(), ..Machine::default() };
    let entry = Loading::Kernel { load_address: None, append: patient("exit=semihosting") };
    let boot = Boot { qemu: &context.ready.qemu, img: &context.image.img, machine: &machine, entry: &entry, scratch };
    let finished = child::run(&mut boot.command()?, TIMEOUT, false)?;
    verdict::complete(judged(&finished, scratch)?)?;
    let mib = finished.peak_bytes >> 20;
    ui::step("Measured", &format!("1 TiB of RAM booted within {mib} MiB of resident memory"));
    ensure!((4096..6144).contains(&mib), "{mib} MiB were resident at once");
    Ok(())
}

/// Eight CPUs and no console at all: when the image parks, its report is whole in a dump of memory.
fn from_memory(context: &Context, image: &Image, scratch: &Path) -> Result<()> {
    let machine = Machine { smp: 8, ..Machine::default() };
    let entry = by_shim(context, &machine, "no-stdout", &patient("exit=park"), scratch)?;
    let mut command = context.ready.qemu.command();
    command.args(machine.arguments()?).args(loader::arguments(&entry, &machine, &image.img, scratch)?);
    command.args(["-display", "none", "-serial", "null", "-monitor", "stdio", "-nic", "none"]);
    let mut qemu = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("QEMU does not start")?;
    let mut monitor = qemu.stdin.take().context("QEMU has no input")?;
    let began = Instant::now();
    let said = (0..).find_map(|n| {
        let dump = scratch.join(format!("{n}.dump"));
        let text = format!("pmemsave {:#x} {DUMPED:#x} \"{}\"\n", loader::IMAGE_AT, dump.display());
        monitor.write_all(text.as_bytes()).ok()?;
        std::thread::sleep(Duration::from_millis(500));
        let said = report::read(&dump, None);
        let is_over = said.as_ref().is_ok_and(|said| said.text.contains("\nBOOT-REPORT ") && said.text.ends_with('\n'));
        (is_over || began.elapsed() > TIMEOUT).then_some(said)
    });
    drop(monitor);
    qemu.kill()?;
    qemu.wait()?;
    let said = said.context("QEMU takes no commands")??;
    ensure!(said.lost == 0, "{} bytes of it are lost", said.lost);
    verdict::complete(verdict::judge(&Finished { status: Some(0), serial: said.text, ..Finished::default() })?)?;
    Ok(())
}
