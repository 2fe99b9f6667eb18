//! The boots that mutants are tried in: between them they execute whatever the image can be brought to execute under QEMU.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breakwater_oracle::obligations::Rule;

use super::sites::Site;
use super::watch::{Court, Ending, Seen, watch};
use crate::boot::Boot;
use crate::loader::{self, Entry, IMAGE_AT};
use crate::machine::{Level, Machine};
use crate::measure::{Loaded, Options, virt_load_address};
use crate::setup::{Qemu, firmware};
use crate::{guest, recorded, trees, ui, verdict};

/// How the image is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// At EL2, by QEMU's own loader.
    Kernel,
    /// At EL3, without firmware.
    El3,
    /// As a UEFI application, by edk2.
    Uefi,
}

/// What is asked of a root switch: leaving firmware's tables is none, for the image starts anew with memory that it has cleaned.
const OF_ROOT_SWITCHES: &[Rule] = &[Rule::WindowAccess, Rule::WindowStores, Rule::WindowCache, Rule::RootSwitch];

/// A boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// What the report calls it.
    pub(crate) name: &'static str,
    cpu: &'static str,
    smp: u32,
    way: Way,
    /// The routine whose last conditional branch is taken whatever the condition: it refuses a CPU as QEMU has none.
    refuses: Option<&'static str>,
}

const PLAIN: Scenario = Scenario { name: "two CPUs", cpu: "cortex-a57", smp: 2, way: Way::Kernel, refuses: None };

const ABLE: Scenario = Scenario { name: "every feature", cpu: "max", ..PLAIN };
const AT_EL3: Scenario = Scenario { name: "entered at EL3", smp: 1, way: Way::El3, ..PLAIN };

/// The image's own boots, the cheap ones first. Entered at EL3 there is no firmware to start other CPUs, so that all maintenance is of one PE.
pub(crate) const BOOTS: &[Scenario] = &[
    PLAIN,
    AT_EL3,
    Scenario { name: "entered at EL3, every feature", cpu: "max", ..AT_EL3 },
    Scenario { name: "repeated invalidations", cpu: "cortex-a76", ..PLAIN },
    ABLE,
    Scenario { name: "repeated invalidations by range", cpu: "cortex-a710", ..PLAIN },
    Scenario { name: "a CPU is refused", refuses: Some("secondary_entry"), ..PLAIN },
    Scenario { name: "UEFI", way: Way::Uefi, ..PLAIN },
];

/// Boots of the program that makes every kind of request.
pub(crate) const REQUESTS: &[Scenario] = &[
    Scenario { name: "requests at EL3", ..AT_EL3 },
    Scenario { name: "requests at EL3, every feature", cpu: "max", ..AT_EL3 },
    Scenario { name: "requests", ..PLAIN },
    Scenario { name: "requests, every feature", ..ABLE },
    Scenario { name: "requests, repeated invalidations", cpu: "cortex-a76", ..PLAIN },
    Scenario { name: "requests, repeated invalidations by range", cpu: "cortex-a710", ..PLAIN },
];

/// What every scenario runs with.
pub(crate) struct Tools<'a> {
    pub(crate) qemu: &'a Qemu,
    pub(crate) plugin: PathBuf,
    /// A directory for files.
    pub(crate) scratch: PathBuf,
}

/// A scenario with what its clean boot has shown.
pub(crate) struct Stage {
    pub(crate) scenario: Scenario,
    /// Where the image lies.
    load: u64,
    /// Link addresses of the barriers and maintenance that it executes.
    executed: HashSet<u64>,
    /// How long a boot may take.
    limit: Duration,
    /// The shim's way in, or the firmware.
    extra: Extra,
}

enum Extra {
    Nothing,
    Shim { tree: Vec<u8>, tree_at: u64 },
    Firmware(PathBuf),
}

/// An image and where it is linked.
pub(crate) struct Linked<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) link: u64,
}

impl Stage {
    /// Boots the unchanged image in `scenario`; nothing where the scenario needs what is not to be had here.
    ///
    /// # Errors
    /// The boot fails, or the witness objects.
    pub(crate) fn open(scenario: Scenario, image: &Linked<'_>, tools: &Tools<'_>) -> Result<Option<Self>> {
        let extra = match scenario.way {
            Way::Kernel => Extra::Nothing,
            Way::El3 => {
                let tree =
                    trees::make("none-changed", tools.qemu, &scenario.machine(), "exit=semihosting", &tools.scratch)?;
                Extra::Shim { tree: tree.bytes, tree_at: tree.at }
            }
            Way::Uefi => match firmware() {
                Ok(firmware) => Extra::Firmware(firmware),
                Err(error) => {
                    ui::step("Note", &format!("no UEFI firmware here: {error:#}"));
                    return Ok(None);
                }
            },
        };
        let limit = Duration::from_secs(180);
        let mut stage = Self { scenario, load: 0, executed: HashSet::new(), limit, extra };
        stage.load = match scenario.way {
            Way::Kernel => virt_load_address(image.bytes)?,
            Way::El3 => IMAGE_AT,
            Way::Uefi => stage.load_under_firmware(image, tools)?,
        };
        let seen = stage.boot(image, tools, 0, true)?;
        let Ending::Status(status) = seen.end else { anyhow::bail!("{}: {:?}", scenario.name, seen.end) };
        ensure!(status == Some(0), "{}: the unchanged image ends with {status:?}", scenario.name);
        ensure!(seen.objection.is_none(), "{}: the unchanged image: {:?}", scenario.name, seen.objection);
        let extent = stage.load..stage.load + image.bytes.len() as u64;
        let linked = |pc: u64| if extent.contains(&pc) { pc - stage.load + image.link } else { pc };
        stage.executed = seen.executed.into_iter().map(linked).collect();
        // Another helper of the same machine may be at work: four times as long is a hang, and a little more for small boots.
        stage.limit = seen.took * 4 + Duration::from_secs(3);
        Ok(Some(stage))
    }

    /// Whether this boot executes all of `sites`.
    pub(crate) fn executes(&self, sites: &[&Site]) -> bool {
        sites.iter().all(|site| self.executed.contains(&site.address))
    }

    /// Boots `image` under the witness.
    ///
    /// # Errors
    /// QEMU cannot be run, or its trace is malformed.
    pub(crate) fn boot(&self, image: &Linked<'_>, tools: &Tools<'_>, worker: usize, to_the_end: bool) -> Result<Seen> {
        let dir = tools.scratch.join(format!("worker-{worker}"));
        fs::create_dir_all(&dir)?;
        let file = dir.join("mutant.img");
        fs::write(&file, image.bytes).with_context(|| file.display().to_string())?;
        let options = self.options(&file, &dir, tools)?;
        let under_firmware = self.scenario.way == Way::Uefi;
        let bytes = if under_firmware { Vec::new() } else { image.bytes.to_vec() };
        let declared = recorded::declarations(&Loaded { pa: self.load, bytes }, &options)?;
        let length = image.bytes.len() as u64;
        let own_only = under_firmware.then_some(image.link..image.link + length);
        let excused = if under_firmware { OF_ROOT_SWITCHES } else { &[] };
        watch(&options, &Court { declared, image: self.load..self.load + length, own_only, excused }, to_the_end)
    }

    fn options(&self, img: &Path, dir: &Path, tools: &Tools<'_>) -> Result<Options> {
        let Scenario { cpu, smp, .. } = self.scenario;
        let mut options = Options::new(&tools.qemu.program, &tools.plugin, img, &dir.join("unused"));
        (options.cpu, options.smp, options.memory) = (cpu.to_owned(), smp, self.scenario.machine().memory);
        (options.fetches, options.timeout) = (false, self.limit);
        // What a refused CPU leaves behind is loaded with the MMU on, and its line judged then.
        options.shared_loads = self.scenario.refuses.is_some();
        match &self.extra {
            Extra::Nothing => {}
            Extra::Shim { tree, tree_at } => {
                options.machine = "virt,virtualization=on,secure=on,gic-version=3".to_owned();
                let entry = Entry::Shim { tree: tree.clone(), tree_at: *tree_at, image_at: IMAGE_AT };
                options.extra = loader::arguments(&entry, &self.scenario.machine(), img, dir)?;
            }
            Extra::Firmware(firmware) => {
                options.machine.push_str(",acpi=off");
                options.extra = vec!["-bios".to_owned(), firmware.display().to_string()];
                options.cap_bytes = Some(16 << 30);
            }
        }
        Ok(options)
    }

    /// Where the firmware puts the image: as its report says.
    fn load_under_firmware(&self, image: &Linked<'_>, tools: &Tools<'_>) -> Result<u64> {
        let Extra::Firmware(firmware) = &self.extra else { return Ok(0) };
        let img = tools.scratch.join("firmware.img");
        fs::write(&img, image.bytes)?;
        let machine = self.scenario.machine();
        let entry = Entry::Kernel { load_address: None, append: "exit=semihosting".to_owned() };
        let boot = Boot { qemu: tools.qemu, img: &img, machine: &machine, entry: &entry, scratch: &tools.scratch };
        let finished = guest::run(boot.command()?.arg("-bios").arg(firmware), self.limit, false)?;
        let report = verdict::judge(&finished)?;
        report.pointer("/image/start").and_then(serde_json::Value::as_u64).context("no image.start in the report")
    }
}

impl Scenario {
    fn machine(&self) -> Machine {
        let (level, options) = match self.way {
            Way::Kernel => (Level::El2, Vec::new()),
            Way::El3 => (Level::El3, Vec::new()),
            Way::Uefi => (Level::El2, vec!["acpi=off".to_owned()]),
        };
        let (cpu, memory) = (self.cpu.to_owned(), "256M".to_owned());
        Machine { cpu, smp: self.smp, memory, level, options, ..Machine::default() }
    }

    /// Some ten seconds: firmware stores much before the image has its turn.
    pub(crate) fn is_long(&self) -> bool {
        self.way == Way::Uefi
    }

    /// The routine that refuses whatever CPU it finds.
    pub(crate) const fn refuses(&self) -> Option<&'static str> {
        self.refuses
    }
}
