//! `cargo xtask mutate`: the mutants of our image, and the boots that they are tried in. Between them these execute whatever the
//! image can be brought to execute under QEMU; what no boot of it executes, a program does that makes every kind of request
//! (tests/boot/src/bin/every_request.rs) and says after each that nothing is owed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use breakwater_oracle::obligations::Rule;
use breakwater_witness::Tools;
use breakwater_witness::mutate::{Boot, LoadedBy, Plan, Program, Reasons, Score};
use serde_json::Value;

use crate::boot::{Boot as Booted, patient};
use crate::image::{self, Image, Recipe};
use crate::loader::{IMAGE_AT, Loading, State};
use crate::machine::{Level, Machine};
use crate::setup::{self, Loader, Qemu, Ready};
use crate::{child, paths, trees, ui, verdict, witness};

/// The package and the program that make every kind of request.
const REQUESTS: [&str; 4] = ["--package", "breakwater-boot-tests", "--bin", "every_request"];

/// What is asked of a root switch: leaving firmware's tables is none, for the image starts anew with memory that it has cleaned.
const OF_ROOT_SWITCHES: [Rule; 4] = [Rule::WindowAccess, Rule::WindowStores, Rule::WindowCache, Rule::RootSwitch];

/// `cargo xtask mutate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only every Nth mutant, and those that another instruction covers
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) every: usize,
    /// Only those of functions whose names contain this, inlined ones included
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Option<String>,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    pub(crate) qemu: Option<PathBuf>,
}

/// Builds everything and tries the mutants.
///
/// # Errors
/// Set-up or build failed, an unchanged image is not clean, a reason is out of date, or a mutant survived.
pub(crate) fn command(args: &Args) -> Result<()> {
    let ready = setup::ready(args.qemu.as_deref())?;
    let image = image::build(&ready.toolchain, &Recipe::default())?;
    score(&ready, &image, &paths::out().join("mutate"), (args.every, args.only.clone()))?.said()
}

/// Tries every `every`th mutant of `image`, or of functions whose names contain `only`. Files go to `scratch`.
///
/// # Errors
/// As [`command`], survivors aside.
pub(crate) fn score(
    ready: &Ready,
    image: &Image,
    scratch: &Path,
    (every, only): (usize, Option<String>),
) -> Result<Score> {
    let requests = image::program(&ready.toolchain, &REQUESTS)?;
    let tools = witness::tools(&ready.qemu, scratch)?;
    let firmware = (every <= 1).then(|| under_firmware(image, &tools)).transpose()?.flatten();
    let plan = Plan {
        image: Program { elf: &image.elf, boots: own(&tools, firmware)? },
        twin: Some(Program { elf: &requests.elf, boots: of_requests(&tools)? }),
        reasons: Reasons::read(&paths::root().join("tests/witness/redundant.toml"))?,
        weakened: routines(&paths::root().join("boot"))?,
        only,
        every,
    };
    plan.score(&tools)
}

/// The image's own boots, the cheap ones first. Entered at EL3 there is no firmware to start other CPUs, so that all maintenance is of one PE.
fn own(tools: &Tools, firmware: Option<Boot>) -> Result<Vec<Boot>> {
    let mut boots = vec![
        plain("two CPUs", "cortex-a57"),
        at_el3(tools, "entered at EL3", "cortex-a57")?,
        at_el3(tools, "entered at EL3, every feature", "max")?,
        plain("repeated invalidations", "cortex-a76"),
        plain("every feature", "max"),
        plain("repeated invalidations by range", "cortex-a710"),
        Boot { refuses: Some("secondary_entry".to_owned()), ..plain("a CPU is refused", "cortex-a57") },
        // Two of the three others share a release address.
        by_shim(tools, "spin tables", "spin-tables", machine("cortex-a57", 4, Level::El2), State::AsProtocol)?,
        by_shim(tools, "big-endian", "spin-tables", machine("cortex-a57", 2, Level::El2), State::BigEndian)?,
    ];
    if let Some(firmware) = firmware {
        // Behind firmware, which alone leaves lines to be cleaned by what the two ways share.
        let flat = by_shim(tools, "a flat map", "none-changed", machine("cortex-a57", 1, Level::El2), State::FlatMap)?;
        boots.extend([firmware, Boot { excused: OF_ROOT_SWITCHES.to_vec(), ..flat }]);
    }
    Ok(boots)
}

/// Boots of the program that makes every kind of request.
fn of_requests(tools: &Tools) -> Result<Vec<Boot>> {
    Ok(vec![
        at_el3(tools, "requests at EL3", "cortex-a57")?,
        at_el3(tools, "requests at EL3, every feature", "max")?,
        plain("requests", "cortex-a57"),
        plain("requests, every feature", "max"),
        plain("requests, repeated invalidations", "cortex-a76"),
        plain("requests, repeated invalidations by range", "cortex-a710"),
    ])
}

fn machine(cpu: &str, smp: u32, level: Level) -> Machine {
    Machine { cpu: cpu.to_owned(), smp, memory: "256M".to_owned(), level, ..Machine::default() }
}

fn plain(name: &str, cpu: &str) -> Boot {
    let boot = Boot::new(name, machine(cpu, 2, Level::El2));
    Boot { append: patient("exit=semihosting"), features: witness::weakest(cpu), house_rules: true, ..boot }
}

/// Handed QEMU's own tree, without firmware.
fn at_el3(tools: &Tools, name: &str, cpu: &str) -> Result<Boot> {
    by_shim(tools, name, "none-changed", machine(cpu, 1, Level::El3), State::AsProtocol)
}

/// Handed the tree `tree` by a shim that leaves the CPUs in `state`.
fn by_shim(tools: &Tools, name: &str, tree: &str, machine: Machine, state: State) -> Result<Boot> {
    let tree = trees::make(tree, &tools.qemu, &machine, &patient("exit=semihosting"), &tools.scratch)?;
    let way = LoadedBy::Shim { tree: tree.bytes, tree_at: tree.at, image_at: IMAGE_AT, state };
    let boot = plain(name, &machine.cpu);
    Ok(Boot { loads: machine.smp > 1, machine, way, ..boot })
}

/// The boot by edk2; nothing where there is none. Where the firmware puts the image, its report says.
fn under_firmware(image: &Image, tools: &Tools) -> Result<Option<Boot>> {
    let file: PathBuf = match setup::loader(Loader::Uefi) {
        Ok(file) => file,
        Err(error) => {
            ui::step("Note", &format!("no UEFI firmware here: {error:#}"));
            return Ok(None);
        }
    };
    let mut boot = plain("UEFI", "cortex-a57");
    boot.machine.options.push("acpi=off".to_owned());
    let entry = Loading::Kernel { load_address: None, append: patient("exit=semihosting") };
    let (qemu, img, machine): (&Qemu, _, _) = (&tools.qemu, &image.img, &boot.machine);
    let booted = Booted { qemu, img, machine, entry: &entry, scratch: &tools.scratch };
    let finished = child::run(booted.command()?.arg("-bios").arg(&file), Duration::from_secs(180), false)?;
    let report = verdict::judge(&finished)?;
    let image_at = report.pointer("/image/start").and_then(Value::as_u64).context("no image.start in the report")?;
    (boot.way, boot.excused) = (LoadedBy::Firmware { file, image_at }, OF_ROOT_SWITCHES.to_vec());
    Ok(Some(boot))
}

/// The names after ROUTINE in the assembly files.
fn routines(sources: &Path) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for entry in fs::read_dir(sources).with_context(|| sources.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "S") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let declared = text.lines().filter_map(|line| line.strip_prefix("ROUTINE ")?.split(',').next());
            names.extend(declared.map(|name| name.trim().to_owned()));
        }
    }
    Ok(names)
}
