//! A flight: one boot, as its command line names it. A machine, a way in, and what differs from the usual.
//!
//! Why it exists: who boots, watches, tries many or looks for the commit that broke one means the same thing by it.
//! What must hold: a flight and the line that repeats it say the same; nothing of a flight is ignored.

mod board;
pub(crate) mod ways;

pub(crate) use board::Board;

use crate::boot::{self, Boot};
use crate::child::{self, Finished, Limits};
use crate::firmware::{self, Way};
use crate::image::{Earlycon, Recipe};
use crate::loader::{self, Loading, State};
use crate::machine::{self, Machine};
use crate::setup::Qemu;
use crate::trees;
use crate::verdict::{self, Failure, Kind};
use anyhow::{Result, ensure};
use breakwater_witness::Tools;
use breakwater_witness::watch::{Start, Subject};
use clap::builder::PossibleValue;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

/// What a report ends with: the last that is said where no command line asks for an end.
pub(crate) const REPORT_ENDS: &str = "}}\r\n";

/// One boot.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Flight {
    /// The machine: QEMU's own, or a board with the tree that Debian's kernel has for it
    #[arg(long = "machine", value_enum, default_value_t, value_name = "NAME")]
    pub(crate) board: Board,
    /// Who starts the image
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    pub(crate) loader: Loader,
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Boot the layout of this seed
    #[arg(long, value_name = "N")]
    pub(crate) layout_seed: Option<u64>,
    /// Boot a build that speaks there before it knows its console: none, semihosting, or a UART, as pl011@0x9000000 or
    /// 8250@0x3f215040,2,4
    #[arg(long, value_name = "KIND@ADDRESS[,SHIFT,WIDTH]", default_value = "semihosting")]
    pub(crate) earlycon: Earlycon,
    /// Load the image at this physical address, any 4 KiB page of the memory
    #[arg(long, value_name = "ADDRESS", value_parser = machine::address)]
    pub(crate) load_address: Option<u64>,
    /// Command line of the image; exit=semihosting is added unless it says exit= itself
    #[arg(long, default_value = "", value_name = "LINE", allow_hyphen_values = true)]
    pub(crate) append: String,
}

/// Who starts the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Loader {
    /// QEMU's `-kernel`.
    #[default]
    Kernel,
    /// A shim of three instructions, with QEMU's tree in x0.
    Raw,
    /// Firmware.
    Firmware(Way),
}

impl clap::ValueEnum for Loader {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<Loader>> = LazyLock::new(|| {
            let firmware = Way::value_variants().iter().map(|way| Loader::Firmware(*way));
            [Loader::Kernel, Loader::Raw].into_iter().chain(firmware).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Kernel => Some(PossibleValue::new("kernel").help("QEMU's -kernel")),
            Self::Raw => Some(PossibleValue::new("raw").help("A shim of three instructions, with QEMU's tree in x0")),
            Self::Firmware(way) => way.to_possible_value(),
        }
    }
}

impl Flight {
    /// The flight that these options of `cargo xtask boot` ask for.
    ///
    /// # Errors
    /// They are none, or as [`Flight::settled`].
    pub(crate) fn parse(options: &[String]) -> Result<Self> {
        let command = Self::augment_args(clap::Command::new("boot").no_binary_name(true));
        let matches = command.try_get_matches_from(options)?;
        let given = given(&matches);
        Self::from_arg_matches(&matches)?.settled(|id| given.iter().any(|given| given == id))
    }

    /// This flight with what its board has, of options of which some were `given`.
    ///
    /// # Errors
    /// Its options exclude each other, or are not for its board or loader.
    pub(crate) fn settled(&self, given: impl Fn(&str) -> bool) -> Result<Self> {
        let mut flight = Self { machine: self.board.settle(&self.machine, &given)?, ..self.clone() };
        if !given("earlycon") {
            flight.earlycon = self.board.earlycon();
        }
        flight.machine.memory_bytes()?;
        let (board, loader) = (self.board.name(), spelled(&self.loader));
        ensure!(
            self.board == Board::Virt || self.loader == Loader::Kernel,
            "--loader {loader}: nothing starts {board} that way here; kernel does"
        );
        ensure!(
            self.load_address.is_none() || self.board == Board::Virt && self.loader <= Loader::Raw,
            "--load-address: on {board} by {loader} the image lies where it is put"
        );
        ensure!(
            self.append.is_empty() || self.is_told(),
            "--append: by the removable path and with ACPI no command line reaches an image; with --machine-option \
             acpi=off the tree brings one"
        );
        let is_told = |word: &str| self.append.split_whitespace().any(|told| told.starts_with(word));
        if self.board.most_cpus().is_some_and(|most| flight.machine.smp < most) && !is_told("maxcpus=") {
            // The board's tree tells of all CPUs, whatever QEMU runs.
            flight.append = format!("{} maxcpus={}", self.append, flight.machine.smp).trim_start().to_owned();
        }
        Ok(flight)
    }

    /// What to build for it.
    pub(crate) fn recipe(&self) -> Recipe {
        Recipe { layout_seed: self.layout_seed, earlycon: self.earlycon.clone(), target_dir: None }
    }

    /// The flight as a test flies it: with the CPUs and memory that it has, and it waits for every CPU, however busy
    /// the host is.
    ///
    /// # Errors
    /// As [`Flight::settled`].
    pub(crate) fn patient(&self) -> Result<Self> {
        let mut flight = self.settled(|id| match id {
            "smp" => true,
            "memory" => self.board.memory_gib().is_some(),
            "earlycon" => self.earlycon != Earlycon::default(),
            _ => false,
        })?;
        if flight.is_told() {
            flight.append = boot::patient(&flight.append);
        }
        Ok(flight)
    }

    /// QEMU, with `img` on its way in. What has to be made goes to `scratch`.
    ///
    /// # Errors
    /// The machine or the way in cannot be had.
    pub(crate) fn command(&self, qemu: &Qemu, img: &Path, scratch: &Path) -> Result<Command> {
        let entry = match self.loader {
            Loader::Kernel => {
                Loading::Kernel { load_address: self.load_address, append: boot::with_exit(&self.append) }
            }
            _ => Loading::Given(self.brought(qemu, img, scratch)?),
        };
        Boot { qemu, img, machine: &self.machine, entry: &entry, scratch }.command()
    }

    /// QEMU's options that bring the image by another loader than QEMU's own, firmware first.
    ///
    /// # Errors
    /// As [`Flight::command`].
    pub(crate) fn brought(&self, qemu: &Qemu, img: &Path, scratch: &Path) -> Result<Vec<String>> {
        let append = boot::with_exit(&self.append);
        let tree = trees::make(trees::UNCHANGED, qemu, &self.machine, &append, scratch)?;
        let Loader::Firmware(way) = self.loader else {
            let image_at = self.load_address.unwrap_or(loader::IMAGE_AT);
            let shim = Loading::Shim { tree: tree.bytes, tree_at: tree.at, image_at, state: State::AsProtocol };
            return loader::arguments(&shim, &self.machine, img, scratch);
        };
        firmware::arguments(way, img, &append, &tree.bytes, scratch)
    }

    /// The flight under the witness, judged from the image's entry on.
    ///
    /// # Errors
    /// As [`Flight::command`], or a file cannot be read.
    pub(crate) fn subject(&self, tools: &Tools, img: &Path, elf: Option<&Path>) -> Result<Subject> {
        let (elfs, append): (Vec<PathBuf>, _) =
            (elf.map(Path::to_owned).into_iter().collect(), boot::with_exit(&self.append));
        let start = Start { load_address: self.load_address, append: &append, ..Start::of(img, &elfs, &self.machine) };
        if self.loader == Loader::Kernel {
            return Subject::image(tools, &start);
        }
        let start = Start { load_address: None, append: "", ..start };
        match &self.brought(&tools.qemu, img, &tools.scratch)?[..] {
            [option, bios, more @ ..] if option == "-bios" => {
                Subject::behind(tools, &Start { more, ..start }, Path::new(bios))
            }
            more => Subject::brought(tools, &Start { more, ..start }),
        }
    }

    /// Whether a command line reaches the image: it does not by the removable path of UEFI with ACPI.
    pub(crate) fn is_told(&self) -> bool {
        let acpi = self.machine.options.iter().rev().find_map(|option| option.strip_prefix("acpi="));
        self.loader != Loader::Firmware(Way::Esp) || acpi == Some("off")
    }

    /// When a run of it ends: by itself, or for want of a command line once it has reported.
    pub(crate) fn limits(&self, timeout: Duration) -> Limits {
        let marker = (!self.is_told()).then(|| REPORT_ENDS.to_owned());
        Limits { timeout, marker, ..Limits::default() }
    }

    /// Flies it to its end, with `img`. What has to be made goes to `scratch`.
    ///
    /// # Errors
    /// As [`Flight::command`], or QEMU cannot be started.
    pub(crate) fn fly(&self, qemu: &Qemu, img: &Path, scratch: &Path, timeout: Duration) -> Result<Finished> {
        child::run_until(&mut self.command(qemu, img, scratch)?, &self.limits(timeout), false)
    }

    /// The report of a run of it that went well.
    ///
    /// # Errors
    /// The boot failed, not every CPU that may run is online, or the image is not where it was to be.
    pub(crate) fn judge(&self, finished: &Finished) -> Result<Value, Failure> {
        let report = verdict::judge(finished).and_then(verdict::complete)?;
        let start = report.pointer("/image/start").and_then(Value::as_u64);
        if self.load_address.is_some_and(|address| start != Some(address)) {
            let line = format!("report: the image is at {start:#x?}, not at {:#x?}", self.load_address);
            return Err(Failure { kind: Kind::BadReport, line });
        }
        Ok(report)
    }

    /// The options that differ from the usual, as `cargo xtask boot` takes them.
    pub(crate) fn options(&self) -> Vec<String> {
        let (usual, machine) = (Machine::default(), &self.machine);
        let mut words = Vec::new();
        let mut say = |differs: bool, option: &str, value: String| {
            if differs {
                words.extend([format!("--{option}"), value]);
            }
        };
        say(self.board != Board::Virt, "machine", self.board.name());
        say(self.loader != Loader::Kernel, "loader", spelled(&self.loader));
        say(self.earlycon != self.board.earlycon(), "earlycon", self.earlycon.to_string());
        say(machine.cpu != usual.cpu, "cpu", machine.cpu.clone());
        say(machine.smp != self.board.most_cpus().unwrap_or(usual.smp), "smp", machine.smp.to_string());
        say(machine.memory != usual.memory, "memory", machine.memory.clone());
        say(machine.gic != usual.gic, "gic", machine.gic.clone());
        machine.options.iter().for_each(|option| say(true, "machine-option", option.clone()));
        self.layout_seed.iter().for_each(|seed| say(true, "layout-seed", seed.to_string()));
        self.load_address.iter().for_each(|address| say(true, "load-address", format!("{address:#x}")));
        say(!self.append.is_empty(), "append", self.append.clone());
        words.extend(
            [(machine.numa, "--numa"), (machine.icount, "--icount")]
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, option)| (*option).to_owned()),
        );
        words
    }

    /// Its machine and its loader, as they are called.
    pub(crate) fn row(&self) -> (String, String) {
        (self.board.name(), spelled(&self.loader))
    }

    /// A short name that no other flight has: machine and loader, then the options that differ from the usual.
    pub(crate) fn name(&self) -> String {
        let options = self.options();
        let (board, loader) = self.row();
        let mut name = format!("{board}/{loader}");
        let mut rest = options.iter();
        while let Some(option) = rest.next() {
            match option.as_str() {
                "--machine" | "--loader" => drop(rest.next()),
                "--numa" | "--icount" => name += &format!("/{}", &option[2..]),
                option => {
                    name += &format!(
                        "/{}-{}",
                        option.trim_start_matches("--").replace("machine-option", "with"),
                        rest.next().map_or("", |value| value)
                    )
                }
            }
        }
        name
    }
}

/// The ids of a command's options that stand on its line.
pub(crate) fn given(matches: &ArgMatches) -> Vec<String> {
    let is_given = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    matches.ids().filter(is_given).map(|id| id.as_str().to_owned()).collect()
}

/// What the command line calls a value.
pub(crate) fn spelled(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flight: Flight,
    }

    fn parsed(words: &[String]) -> Flight {
        let line = ["boot".to_owned()].into_iter().chain(words.iter().cloned());
        Line::try_parse_from(line).expect("it is a command line").flight
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn good_a_flight_and_its_line_say_the_same() {
        let lines = [
            "",
            "--loader raw --cpu max --smp 8 --memory 6G --gic 2 --load-address 0x140003000 --append exit=psci --numa",
            "--earlycon pl011@0x9000000 --layout-seed 7",
            "--earlycon none",
            "--loader esp --machine-option acpi=off --machine-option secure=on --icount",
        ];
        let mut names = Vec::new();
        for line in lines {
            let flight = parsed(&words(line));
            assert_eq!(flight.options().join(" "), line);
            assert_eq!(flight.name(), parsed(&flight.options()).name());
            names.push(flight.name());
        }
        assert_eq!(names[0], "virt/kernel");
        assert_eq!(names[4], "virt/esp/with-acpi=off/with-secure=on/icount");
    }

    #[test]
    fn good_a_boards_own_number_of_cpus_goes_without_saying() {
        let asked = parsed(&words("--machine xlnx-versal-virt"));
        let flight = asked.settled(|id| id == "board").expect("it needs nothing");
        assert_eq!((flight.machine.smp, flight.name()), (2, "xlnx-versal-virt/kernel".to_owned()));
        assert_eq!(flight.options(), words("--machine xlnx-versal-virt"));
    }

    #[test]
    fn good_a_board_without_a_console_in_its_tree_gets_an_early_one() {
        let own = parsed(&words("--machine sbsa-ref")).settled(|_| false).expect("it needs nothing");
        assert_eq!(own.recipe().earlycon, Earlycon::Uart("pl011@0x60000000".to_owned()));
        let asked = parsed(&words("--machine sbsa-ref --earlycon none")).settled(|id| id == "earlycon").expect("so");
        assert_eq!(asked.recipe().earlycon, Earlycon::None);
        assert_eq!(asked.options(), words("--machine sbsa-ref --earlycon none"));
        assert_eq!(own.options(), words("--machine sbsa-ref"));
    }

    fn refusal(line: &str) -> String {
        parsed(&words(line)).settled(|_| false).expect_err("it is refused").to_string()
    }

    #[test]
    fn bad_options_that_are_not_for_this_way_are_named() {
        assert!(
            refusal("--machine xlnx-versal-virt --loader uefi")
                .starts_with("--loader uefi: nothing starts xlnx-versal-virt that way")
        );
        assert!(refusal("--loader uefi --load-address 0x41000000").starts_with("--load-address: on virt by uefi"));
        assert!(refusal("--loader esp --append maxcpus=1").starts_with("--append: "));
        assert!(parsed(&words("--loader esp --machine-option acpi=off --append maxcpus=1")).settled(|_| false).is_ok());
    }
}
