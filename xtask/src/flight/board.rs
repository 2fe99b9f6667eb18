//! The machines of QEMU that a flight may take: `virt`, and boards, each with the device tree that Debian's arm64
//! kernel has for it.

use crate::boards;
use crate::image::Earlycon;
use crate::machine::Machine;
use anyhow::{Result, ensure};
use std::ops::RangeInclusive;

/// A machine of QEMU, by the name that `-M` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, clap::ValueEnum)]
pub(crate) enum Board {
    /// QEMU's own; every option is for it
    #[default]
    Virt,
    /// Raspberry Pi 3B: mini UART, spin tables, 4 CPUs
    Raspi3b,
    /// Raspberry Pi 4B: mini UART, spin tables, 4 CPUs
    Raspi4b,
    /// Xilinx ZCU102: Cadence UART, PSCI, up to 4 CPUs
    XlnxZcu102,
    /// NXP i.MX 8M Plus EVK: i.MX UART, PSCI, up to 4 CPUs
    Imx8mpEvk,
    /// Xilinx Versal: PL011, PSCI, 2 CPUs
    XlnxVersalVirt,
    /// Arm SBSA reference: PL011 as --earlycon, since its tree names no console, and 1 CPU, since it names no PSCI
    SbsaRef,
}

/// What is known of a board.
#[derive(Debug)]
struct Known {
    /// `-M`, and what else makes the machine.
    options: &'static [&'static str],
    /// The tree, below the folder of the kernel's trees; nothing where QEMU has one of its own.
    tree: Option<&'static str>,
    /// How many CPUs may run.
    cpus: RangeInclusive<u32>,
    /// What `-smp` must say whatever runs.
    smp: Option<u32>,
    /// The least and the most memory in GiB, and what it has if nothing is said is 2; nothing where it has what it has.
    memory_gib: Option<RangeInclusive<u64>>,
    /// Which of QEMU's serial lines is the board's console.
    serial: usize,
}

impl Board {
    fn known(self) -> Option<Known> {
        let raspberry = |options, tree| Known {
            options,
            tree: Some(tree),
            cpus: 4..=4,
            smp: None,
            memory_gib: None,
            // The mini UART: the first line is the PL011, which the wireless chip has.
            serial: 1,
        };
        Some(match self {
            Self::Virt => return None,
            Self::Raspi3b => raspberry(&["-M", "raspi3b"], "broadcom/bcm2837-rpi-3-b.dtb"),
            Self::Raspi4b => raspberry(&["-M", "raspi4b"], "broadcom/bcm2711-rpi-4-b.dtb"),
            Self::XlnxZcu102 => Known {
                // Else QEMU complains of a host without sound.
                options: &["-M", "xlnx-zcu102,virtualization=on", "-audio", "none"],
                tree: Some("xilinx/zynqmp-zcu102-rev1.0.dtb"),
                cpus: 1..=4,
                smp: None,
                // With more QEMU puts a bank over the UART.
                memory_gib: Some(1..=2),
                serial: 0,
            },
            Self::Imx8mpEvk => Known {
                options: &["-M", "imx8mp-evk"],
                tree: Some("freescale/imx8mp-evk.dtb"),
                cpus: 1..=4,
                smp: None,
                memory_gib: Some(1..=8),
                serial: 1,
            },
            Self::XlnxVersalVirt => Known {
                options: &["-M", "xlnx-versal-virt"],
                tree: None,
                cpus: 2..=2,
                // Two of them are for real-time work.
                smp: Some(4),
                memory_gib: Some(1..=8),
                serial: 0,
            },
            Self::SbsaRef => Known {
                // The display's ROM is in a package that nothing else here needs.
                options: &["-M", "sbsa-ref", "-global", "bochs-display.romfile="],
                tree: None,
                cpus: 1..=1,
                smp: None,
                memory_gib: Some(1..=8),
                serial: 0,
            },
        })
    }

    /// The machine for this board, of options of which some were `given`; the others are the board's own.
    ///
    /// # Errors
    /// The board has no such CPUs or memory, or takes no such option, or its tree cannot be had.
    pub(crate) fn settle(self, asked: &Machine, given: impl Fn(&str) -> bool) -> Result<Machine> {
        let Some(known) = self.known() else { return Ok(asked.clone()) };
        let mut machine = asked.clone();
        for (id, option) in [("cpu", "cpu"), ("gic", "gic"), ("numa", "numa"), ("options", "machine-option")] {
            ensure!(!given(id), "--{option} is for virt: {} has its own", self.name());
        }
        if !given("smp") {
            machine.smp = *known.cpus.end();
        }
        ensure!(
            known.cpus.contains(&machine.smp),
            "--smp {}: {} takes {}",
            machine.smp,
            self.name(),
            some(&known.cpus)
        );
        let mut words: Vec<String> = known.options.iter().map(|word| (*word).to_owned()).collect();
        words.extend(["-smp".to_owned(), known.smp.unwrap_or(machine.smp).to_string()]);
        match &known.memory_gib {
            None => ensure!(!given("memory"), "--memory: {} has the memory that it has", self.name()),
            Some(gib) => {
                let bytes = machine.memory_bytes()?;
                let fits = (gib.start() << 30..=gib.end() << 30).contains(&bytes);
                ensure!(fits, "--memory {}: {} takes {} GiB", machine.memory, self.name(), some(gib));
                words.extend(["-m".to_owned(), (bytes >> 20).to_string()]);
            }
        }
        if let Some(tree) = known.tree {
            words.extend(["-dtb".to_owned(), boards::of_kernel(tree)?.display().to_string()]);
        }
        for _ in 0..known.serial {
            words.extend(["-serial".to_owned(), "null".to_owned()]);
        }
        machine.board = Some(words);
        Ok(machine)
    }

    /// Where its image speaks before it knows its console, unless something is asked for: sbsa-ref's tree names none.
    pub(crate) fn earlycon(self) -> Earlycon {
        match self {
            Self::SbsaRef => Earlycon::Uart("pl011@0x60000000".to_owned()),
            _ => Earlycon::default(),
        }
    }

    /// The most CPUs that run on it, of which its tree tells; nothing for `virt`, whose tree tells of what there is.
    pub(crate) fn most_cpus(self) -> Option<u32> {
        self.known().map(|known| *known.cpus.end())
    }

    /// The fewest.
    pub(crate) fn fewest_cpus(self) -> Option<u32> {
        self.known().map(|known| *known.cpus.start())
    }

    /// The least and the most memory that it may have, in GiB; nothing where it has what it has.
    pub(crate) fn memory_gib(self) -> Option<RangeInclusive<u64>> {
        self.known()?.memory_gib
    }

    /// What the command line calls it.
    pub(crate) fn name(self) -> String {
        super::spelled(&self)
    }
}

/// A range in words.
fn some<T: std::fmt::Display + PartialEq>(range: &RangeInclusive<T>) -> String {
    let (least, most) = (range.start(), range.end());
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(board: Board, asked: &Machine, given: &[&str]) -> Result<Vec<String>> {
        board.settle(asked, |id| given.contains(&id))?.arguments()
    }

    fn refusal(board: Board, asked: &Machine, given: &[&str]) -> String {
        settled(board, asked, given).expect_err("it is refused").to_string()
    }

    #[test]
    fn good_a_board_has_its_own_cpus_and_memory_unless_some_are_asked_for() {
        let own = settled(Board::XlnxVersalVirt, &Machine::default(), &[]).expect("it needs no tree");
        assert_eq!(own, ["-M", "xlnx-versal-virt", "-smp", "4", "-m", "2048"]);
        let asked = Machine { memory: "8G".to_owned(), icount: true, ..Machine::default() };
        let large = settled(Board::XlnxVersalVirt, &asked, &["memory", "icount"]).expect("it needs no tree");
        assert!(large.ends_with(&["8192", "-icount", "shift=0,sleep=off"].map(str::to_owned)), "{large:?}");
    }

    #[test]
    fn bad_what_a_board_does_not_take_is_named() {
        let with = |smp, memory: &str| Machine { smp, memory: memory.to_owned(), ..Machine::default() };
        assert_eq!(refusal(Board::XlnxVersalVirt, &with(4, "2G"), &["smp"]), "--smp 4: xlnx-versal-virt takes 2");
        assert_eq!(refusal(Board::XlnxZcu102, &with(8, "2G"), &["smp"]), "--smp 8: xlnx-zcu102 takes 1 to 4");
        let large = refusal(Board::XlnxZcu102, &with(4, "4G"), &["memory"]);
        assert_eq!(large, "--memory 4G: xlnx-zcu102 takes 1 to 2 GiB");
        assert_eq!(
            refusal(Board::Raspi3b, &with(4, "1G"), &["memory"]),
            "--memory: raspi3b has the memory that it has"
        );
        assert_eq!(refusal(Board::Raspi4b, &with(4, "2G"), &["cpu"]), "--cpu is for virt: raspi4b has its own");
    }
}
