//! Machines where nobody listens yet, or ever: early consoles, and what a debugger reads from memory. And machines that
//! are vast, or on paper: 1 TiB of RAM, the trees of Debian's boards, and the library for Xen.

use super::runner::Case;
use super::variety::{TIMEOUT, judged};
use super::{Context, witnessed};
use crate::boot::{Boot, patient};
use crate::child::{self, Finished, Limits};
use crate::flight::Board;
use crate::image::{self, Earlycon, Image, Recipe};
use crate::loader::{self, Loading, State};
use crate::machine::{Level, Machine};
use crate::{boards, report, trees, ui, verdict, xen};
use anyhow::{Context as _, Result, ensure};
use breakwater_image::Elf;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The first UART of QEMU's virt machine.
const ON_VIRT: &str = "pl011@0x9000000";
/// What a report begins with.
const BOOTED: &str = "breakwater: booted at ";
/// How much of memory is dumped: the image lies in it.
const DUMPED: u64 = 32 << 20;

pub(super) fn cases() -> Vec<Case> {
    let built = |earlycon: Earlycon, context: &Context| {
        image::build(&context.ready.toolchain, &Recipe { earlycon, ..Recipe::default() })
    };
    vec![
        Case::new("early/virt", move |context, scratch| {
            let image = built(Earlycon::Uart(ON_VIRT.to_owned()), context)?;
            let virt = Virt { context, image: &image, scratch };
            virt.is_the_trees_console()?;
            virt.speaks_without_a_console()?;
            virt.gives_way_to_another()?;
            virt.says_refusals()?;
            let machine = Machine::default();
            witnessed::clean(&witnessed::watched(context, &image, (&machine, None), scratch)?, machine.smp)
        }),
        Case::new("early/sbsa-ref", move |context, scratch| {
            on_sbsa_ref(context, &built(Board::SbsaRef.earlycon(), context)?, scratch)
        }),
        Case::new("early/report-from-memory", move |context, scratch| {
            from_memory(context, &built(Earlycon::None, context)?, scratch)
        }),
        Case::new("boards/one-tib-of-ram", one_tib),
        Case::new("boards/trees-of-debian", |_, _| boards::check()),
        Case::new("xen/library", |_, _| xen::check_library()),
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
    /// Enters `machine` with a tree of that name.
    fn with(&self, machine: &Machine, tree: &str) -> Result<Loading> {
        by_shim(self.context, machine, tree, &patient("exit=semihosting colour=red"), self.scratch)
    }

    /// Boots `machine` to its end, or until it says `marker`.
    fn boot(&self, machine: &Machine, entry: &Loading, more: &[String], marker: Option<&str>) -> Result<Finished> {
        let Self { context, image, scratch } = *self;
        let boot = Boot { qemu: &context.ready.qemu, img: &image.img, machine, entry, scratch };
        let limits = Limits { timeout: TIMEOUT, marker: marker.map(str::to_owned), ..Limits::default() };
        child::run_until(boot.command()?.args(more), &limits, false)
    }

    /// Four CPUs, and everything said once.
    fn booted(&self, tree: &str, more: &[String]) -> Result<String> {
        let machine = Machine::default();
        let finished = self.boot(&machine, &self.with(&machine, tree)?, more, None)?;
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
        let machine = Machine::default();
        let finished = self.boot(&machine, &self.with(&machine, "second-console")?, &more, None)?;
        ensure!(finished.status == Some(0), "{}", finished.ended());
        let there = std::fs::read_to_string(second)?;
        once(&finished.serial, "unknown option colour=red")?;
        once(&there, "unknown option colour=red")?;
        once(&there, BOOTED)?;
        ensure!(!finished.serial.contains(BOOTED), "the report is on the early console too");
        Ok(())
    }

    /// Before the MMU is on, a fault included, and after.
    fn says_refusals(&self) -> Result<()> {
        let (usual, low) = (Machine::default(), Machine { level: Level::El1, ..Machine::default() });
        let small = Machine { memory: "128M".to_owned(), ..Machine::default() };
        let at_el1 = Loading::Kernel { load_address: None, append: String::new() };
        let elf = Elf::read(&self.image.elf)?;
        let [start, tables] = ["_text_start", "_tables_start"].map(|name| elf.address_of(name));
        let ahead = tables.zip(start).context("no first tables")?;
        let ahead = ahead.0 - ahead.1;
        let refusals = [
            (&low, at_el1, "breakwater: refused: entered at EL1;"),
            (&usual, self.with(&usual, "wrong-magic")?, "breakwater: refused: device tree has wrong magic"),
            // What runs lies in RAM, and the first tables beyond.
            (&small, self.across(small.ram_end_exclusive()? - ahead), "breakwater: exception before the MMU was on"),
        ];
        for (machine, entry, what) in refusals {
            let finished = self.boot(machine, &entry, &[], Some("\n"))?;
            let line = finished.serial.lines().next().unwrap_or_default();
            ensure!(line.contains(what), "`{line}` is not `{what}`");
        }
        Ok(())
    }

    /// Enters the image at `address`, whatever is there.
    fn across(&self, address: u64) -> Loading {
        let file = format!("loader,file={},addr={address:#x},force-raw=on", self.image.img.display());
        let enter = format!("loader,addr={address:#x},cpu-num=0");
        Loading::Given(["-device", &file, "-device", &enter].map(str::to_owned).to_vec())
    }
}

fn once(text: &str, what: &str) -> Result<()> {
    let count = text.lines().filter(|line| line.contains(what)).count();
    ensure!(count == 1, "`{what}` is said {count} times:\n{text}");
    Ok(())
}

/// Its tree names neither a console nor PSCI, whose SMC would hang.
fn on_sbsa_ref(context: &Context, image: &Image, scratch: &Path) -> Result<()> {
    let machine = &Board::SbsaRef.settle(&Machine::default(), |_| false)?;
    let entry = &Loading::Kernel { load_address: None, append: "exit=semihosting".to_owned() };
    let boot = Boot { qemu: &context.ready.qemu, img: &image.img, machine, entry, scratch };
    let finished = child::run(&mut boot.command()?, TIMEOUT, false)?;
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
