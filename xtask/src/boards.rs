//! `cargo xtask trees`: what the core makes of device trees, those of every board that Debian's arm64 kernel has one
//! for, or a user's own.
//!
//! Most boards' trees name no RAM, which is for firmware to fill in: such a tree gets [`GIVEN`] bytes of it here, and
//! that is counted.

use crate::{linux, paths, trees, ui};
use anyhow::{Context, Result, ensure};
use breakwater::addr::{PhysAddr, PhysSpan};
use breakwater::device_tree::{ConsoleKind, EnableMethod, Error, Platform, parse};
use breakwater::layout;
use breakwater::memory_map::{self, Limits};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// RAM for a tree that names none, in bytes, and where it may lie: boards begin theirs at one of these.
const GIVEN: u64 = 1 << 30;
const RAM_AT: [u64; 5] = [0x8000_0000, 0x4000_0000, 0, 1 << 32, 1 << 40];
/// Room for a tree, and as much for the image.
const ROOM: u64 = 8 << 20;
const ALIGN: u64 = 2 << 20;

/// `cargo xtask trees`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Device trees, or folders of them, in place of those of Debian's arm64 kernel; a refused one is then an error
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A line for each tree besides
    #[arg(long)]
    list: bool,
}

/// What became of one tree.
struct Outcome {
    name: String,
    had_ram: bool,
    read: Result<Read, Error>,
}

/// What the core reads of a tree that it accepts.
struct Read {
    console: Option<ConsoleKind>,
    starts: &'static str,
    cpus: usize,
}

/// Reads trees, and counts what they give.
///
/// # Errors
/// A file cannot be read, there is none, Debian's cannot be fetched, or one that was named is refused.
pub(crate) fn command(args: &Args) -> Result<()> {
    let outcomes = outcomes(&args.files)?;
    if args.list {
        outcomes.iter().for_each(|outcome| println!("{}", line(outcome)));
    }
    print!("{}", counted(&outcomes));
    let refused = outcomes.iter().filter(|outcome| outcome.read.is_err()).count();
    ensure!(args.files.is_empty() || refused == 0, "{refused} of {} device trees are refused", outcomes.len());
    Ok(())
}

/// What became of the trees in `given`, or else of Debian's.
fn outcomes(given: &[PathBuf]) -> Result<Vec<Outcome>> {
    let within = if given.is_empty() { vec![fetch(None)?] } else { given.to_vec() };
    let mut files = Vec::new();
    for file in &within {
        collect(file, !given.is_empty(), &mut files)?;
    }
    files.sort();
    ensure!(!files.is_empty(), "there is no .dtb in {}", within[0].display());
    files.iter().map(|file| outcome(file)).collect()
}

/// The fewest consoles that Debian's trees must give, and the most trees that may be refused.
const DRIVEN: usize = 480;
const REFUSED: usize = 10;

/// Holds what becomes of Debian's trees against boot/BOARDS.md, and against what is promised whatever their kernel.
///
/// # Errors
/// The page or a promise is not true any more, or the trees cannot be fetched.
pub(crate) fn check() -> Result<()> {
    let outcomes = outcomes(&[])?;
    let page = fs::read_to_string(paths::root().join("boot/BOARDS.md"))?;
    let block = page.split("```\n").find(|block| block.contains(" device trees: "));
    held(&outcomes, block.context("boot/BOARDS.md has no table of device trees")?)
}

fn held(outcomes: &[Outcome], page: &str) -> Result<()> {
    let text = counted(outcomes);
    let is_of_these = page.split(' ').next() == text.split(' ').next();
    ensure!(!is_of_these || page == text, "boot/BOARDS.md says otherwise:\n{text}");
    let refused: Vec<&Error> = outcomes.iter().filter_map(|outcome| outcome.read.as_ref().err()).collect();
    ensure!(refused.len() <= REFUSED && driven(outcomes) >= DRIVEN, "not as many boards as there were:\n{text}");
    for error in refused {
        let said = error.to_string();
        ensure!(said.starts_with("device tree node "), "`{said}` names no node");
        ensure!(page.contains(&format!(" {}\n", reason(error))), "boot/BOARDS.md has no {}", reason(error));
    }
    Ok(())
}

/// How many have a console with a driver.
fn driven(outcomes: &[Outcome]) -> usize {
    let accepted = outcomes.iter().filter_map(|outcome| outcome.read.as_ref().ok());
    accepted.filter(|read| !matches!(read.console, None | Some(ConsoleKind::Unknown))).count()
}

/// The device trees at and below `path`; a file that was named is one whatever it is called.
fn collect(path: &Path, is_named: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        if is_named || path.extension().is_some_and(|extension| extension == "dtb") {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    for entry in entries {
        collect(&entry?.path(), false, files)?;
    }
    Ok(())
}

fn outcome(file: &Path) -> Result<Outcome> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    let folder = file.parent().and_then(Path::file_name).map(|folder| folder.to_string_lossy().into_owned());
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    Ok(judged(folder.map_or_else(|| stem.to_string(), |folder| format!("{folder}/{stem}")), &bytes))
}

/// What the core makes of the tree `bytes`.
fn judged(name: String, bytes: &[u8]) -> Outcome {
    let as_it_is = read(bytes);
    if !matches!(as_it_is, Err(Error::Memory(memory_map::Error::NoRam))) {
        return Outcome { name, had_ram: true, read: as_it_is };
    }
    // The core has found its structure to be right; dtoolkit's own check has its opinion of names besides.
    let tree = Fdt::new_unchecked(bytes);
    // The first place at which nothing else is.
    let tried = RAM_AT.map(|at| read(&with_ram(tree, at)));
    let tried = tried.into_iter().reduce(|first, next| if first.is_ok() { first } else { next }).unwrap_or(as_it_is);
    Outcome { name, had_ram: false, read: tried }
}

/// The tree with RAM at `at`.
fn with_ram(tree: Fdt<'_>, at: u64) -> Vec<u8> {
    let mut model = DeviceTree::from_fdt(&tree);
    let cells = |name: &str, default: u32| {
        let property = model.root.property(name).map(|property| property.value().to_vec());
        property.and_then(|value| value.try_into().ok()).map_or(default, u32::from_be_bytes)
    };
    let number = |cells: u32, value: u64| {
        let bytes = value.to_be_bytes();
        if cells == 1 { bytes[4..].to_vec() } else { bytes.to_vec() }
    };
    let reg = [number(cells("#address-cells", 2), at), number(cells("#size-cells", 1), GIVEN)].concat();
    trees::keep(&mut model.root, |name| name != "memory" && !name.starts_with("memory@"));
    let mut memory = DeviceTreeNode::new_unchecked(format!("memory@{at:x}"));
    memory.add_property(DeviceTreeProperty::new_unchecked("device_type", "memory"));
    memory.add_property(DeviceTreeProperty::new_unchecked("reg", reg));
    model.root.add_child(memory);
    model.to_dtb()
}

fn read(tree: &[u8]) -> Result<Read, Error> {
    let mut platform = Box::new(Platform::new());
    parse(tree, PhysAddr::at(0), None, &mut platform)?;
    // Where a loader would put both: where nothing is.
    platform.memory.device_tree = None;
    let taken = platform.memory.free(&[]).find(|span| span.bytes() >= 2 * ROOM + ALIGN);
    if let Some(start) = taken.map(|span| span.start().align_up(ALIGN)) {
        let span = |offset: u64| PhysSpan::of(PhysAddr::at(start.raw() + offset), ROOM);
        platform.memory.device_tree = span(0);
        let limits = Limits { directmap_bytes: layout::DIRECTMAP.bytes(), phys_bits: 48 };
        span(ROOM).map_or(Ok(()), |image| platform.memory.check(image, limits).map(drop))?;
    }
    let cpus = platform.cpus.as_slice();
    let method = cpus.iter().filter(|cpu| cpu.enabled).map(|cpu| cpu.enable_method).next_back();
    let starts = match method {
        Some(EnableMethod::Psci) if platform.psci.is_some() => "PSCI",
        Some(EnableMethod::SpinTable { .. }) => "spin tables",
        Some(EnableMethod::ParkingProtocol) => "the parking protocol",
        _ => "nothing that is known",
    };
    Ok(Read { console: platform.console.map(|console| console.kind), starts, cpus: cpus.len() })
}

fn line(Outcome { name, had_ram, read }: &Outcome) -> String {
    let ram = if *had_ram { "" } else { "; RAM was given" };
    match read {
        Ok(Read { console, starts, cpus }) => {
            format!("{name}: console {}, {cpus} CPUs started by {starts}{ram}", label(*console))
        }
        Err(error) => format!("{name}: refused: {error}{ram}"),
    }
}

fn label(console: Option<ConsoleKind>) -> String {
    match console {
        None => "none".to_owned(),
        Some(ConsoleKind::Unknown) => "without a driver".to_owned(),
        Some(kind) => format!("{kind:?}"),
    }
}

/// Counts, by console, by how CPUs are started, and by reason.
fn counted(outcomes: &[Outcome]) -> String {
    let accepted: Vec<&Read> = outcomes.iter().filter_map(|outcome| outcome.read.as_ref().ok()).collect();
    let without_ram = outcomes.iter().filter(|outcome| !outcome.had_ram).count();
    let refused = outcomes.len() - accepted.len();
    let drivers = driven(outcomes);
    let mut text = format!(
        "{} device trees: {} accepted, {refused} refused; {drivers} with a console that has a driver; {without_ram} \
         name no RAM and were given 1 GiB\n",
        outcomes.len(),
        accepted.len()
    );
    let mut table = |title: &str, rows: BTreeMap<String, usize>| {
        if rows.is_empty() {
            return;
        }
        text += &format!("{title}\n");
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        rows.iter().for_each(|(name, count)| text += &format!("  {count:4} {name}\n"));
    };
    let by = |key: &dyn Fn(&Read) -> String| {
        accepted.iter().fold(BTreeMap::new(), |mut rows, read| {
            *rows.entry(key(read)).or_insert(0) += 1;
            rows
        })
    };
    table("console", by(&|read| label(read.console)));
    table("CPUs started by", by(&|read| read.starts.to_owned()));
    let errors = outcomes.iter().filter_map(|outcome| outcome.read.as_ref().err());
    let reasons = errors.fold(BTreeMap::new(), |mut rows, error| {
        *rows.entry(reason(error)).or_insert(0) += 1;
        rows
    });
    table("refused for", reasons);
    text
}

/// The name of the error, of the innermost one: what its trees have in common.
fn reason(error: &Error) -> String {
    let spelled = match error {
        Error::Memory(error) => format!("{error:?}"),
        error => format!("{error:?}"),
    };
    spelled.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// The tree `name`, such as `broadcom/bcm2837-rpi-3-b.dtb`, of Debian's newest arm64 kernel.
///
/// # Errors
/// It has none, or cannot be fetched.
pub(crate) fn of_kernel(name: &str) -> Result<PathBuf> {
    of_suite(name, None)
}

/// The same of the newest kernel of another suite, if one is named.
///
/// # Errors
/// As [`of_kernel`].
pub(crate) fn of_suite(name: &str, suite: Option<&str>) -> Result<PathBuf> {
    let folders = fetch(suite)?.join("usr/lib");
    let found = fs::read_dir(&folders)?.flatten().map(|kernel| kernel.path().join(name)).find(|tree| tree.is_file());
    found.with_context(|| format!("Debian's kernel has no tree {name}"))
}

/// The trees of Debian's newest arm64 kernel, from `target/breakwater/board-trees` if they are there; those of another
/// suite from beside it.
fn fetch(suite: Option<&str>) -> Result<PathBuf> {
    let _lock = paths::lock()?;
    let home = paths::out().join(suite.map_or("board-trees".to_owned(), |suite| format!("board-trees-{suite}")));
    if home.is_dir() {
        return Ok(home);
    }
    let (debian, kernel) =
        linux::newest_kernel("the boards' trees are in Debian packages (yours can be named)", suite)?;
    ui::step("Fetching", &format!("{kernel} for its device trees"));
    debian.unpack_alone(std::slice::from_ref(&kernel), &home, |tree| {
        // Some hundred MiB of modules.
        linux::leave_out(tree, &["boot", "lib", "usr/lib/modules"])
    })?;
    Ok(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A board without RAM, whose serial port is `compatible`, beside RAM's first place or in it.
    fn board(compatible: &str, serial_at: u64) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        let number = |name: &str, value: u32| DeviceTreeProperty::new_unchecked(name, value);
        let text = |name: &str, value: &str| DeviceTreeProperty::new_unchecked(name, value);
        tree.root.add_property(number("#address-cells", 2));
        tree.root.add_property(number("#size-cells", 2));
        let mut serial = DeviceTreeNode::new_unchecked("serial");
        serial.add_property(text("compatible", compatible));
        serial.add_property(trees::reg(&[(serial_at, 0x1000)]));
        let mut chosen = DeviceTreeNode::new_unchecked("chosen");
        chosen.add_property(text("stdout-path", "/serial"));
        let mut psci = DeviceTreeNode::new_unchecked("psci");
        psci.add_property(text("compatible", "arm,psci-1.0"));
        psci.add_property(text("method", "smc"));
        let mut cpu = DeviceTreeNode::new_unchecked("cpu@0");
        cpu.add_property(text("device_type", "cpu"));
        cpu.add_property(text("enable-method", "psci"));
        cpu.add_property(number("reg", 0));
        let mut cpus = DeviceTreeNode::new_unchecked("cpus");
        cpus.add_property(number("#address-cells", 1));
        cpus.add_property(number("#size-cells", 0));
        cpus.add_child(cpu);
        [serial, chosen, psci, cpus].into_iter().for_each(|node| tree.root.add_child(node));
        tree.to_dtb()
    }

    fn of(compatible: &str, serial_at: u64) -> Outcome {
        judged("a board".into(), &board(compatible, serial_at))
    }

    #[test]
    fn good_a_board_without_ram_gets_some_where_nothing_else_is() {
        for at in [0x900_0000, RAM_AT[0]] {
            let outcome = of("arm,pl011", at);
            assert!(
                !outcome.had_ram && line(&outcome).ends_with("console Pl011, 1 CPUs started by PSCI; RAM was given")
            );
        }
    }

    #[test]
    fn good_trees_are_counted_by_what_they_give() {
        let outcomes = [of("arm,pl011", 0x900_0000), of("nobody,uart", 0x900_0000), of("arm,pl011", 0xa00_0000)];
        let text = counted(&outcomes);
        assert!(text.starts_with("3 device trees: 3 accepted, 0 refused; 2 with a console"), "{text}");
        assert!(text.contains("     2 Pl011\n     1 without a driver\n") && text.contains("     3 PSCI\n"), "{text}");
    }

    #[test]
    fn bad_a_module_outside_ram_is_refused_as_at_boot() {
        let mut tree = DeviceTree::from_fdt(&Fdt::new_unchecked(&board("arm,pl011", 0x900_0000)));
        let mut module = DeviceTreeNode::new_unchecked("module@4000000");
        module.add_property(DeviceTreeProperty::new_unchecked("compatible", "multiboot,module"));
        module.add_property(trees::reg(&[(0x400_0000, 0x1000)]));
        tree.find_node_mut("/chosen").expect("it has one").add_child(module);
        assert_eq!(
            judged("x".into(), &tree.to_dtb()).read.err().map(|error| reason(&error)),
            Some("ModuleOutsideRam".into())
        );
    }

    #[test]
    fn bad_a_page_that_is_no_longer_true() {
        let outcomes: Vec<Outcome> = (0..DRIVEN).map(|_| of("arm,pl011", 0x900_0000)).collect();
        let page = counted(&outcomes);
        assert!(held(&outcomes, &page).is_ok());
        assert!(held(&outcomes, &page.replace("Pl011", "Imx")).is_err(), "another count");
        assert!(held(&outcomes, "999 device trees: ").is_ok(), "of another kernel");
        assert!(held(&outcomes[1..], "999 device trees: ").is_err(), "too few consoles");
        let refused = || Outcome { name: "x".into(), had_ram: true, read: read(&[0; 64]) };
        let more: Vec<Outcome> = outcomes.into_iter().chain([refused()]).collect();
        assert!(held(&more, "999 device trees: \n  1 BadMagic\n").is_err(), "its sentence names no node");
    }

    #[test]
    fn bad_a_tree_that_is_none_is_refused_by_reason() {
        let outcome = Outcome { name: "x".into(), had_ram: true, read: read(&[0; 64]) };
        assert!(line(&outcome).starts_with("x: refused: "));
        assert!(counted(&[outcome]).contains("refused for\n     1 BadMagic\n"));
    }
}
