//! The emulated machine: what is asked for, and the QEMU options that say so.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use breakwater_trace::{MOST_CPUS, MemoryKind, Record};

use crate::exec;
use crate::qemu::{Qemu, quiet_console};

/// Where `virt` puts its memory.
pub const RAM_BASE: u64 = 0x4000_0000;

/// The two parts of flash of `virt`: firmware in the first, its variables in the second.
pub const FLASH: [Range<u64>; 2] = [0..0x400_0000, 0x400_0000..0x800_0000];

/// From here on memory is only promised by the host, not reserved: a boot touches little of it.
const SPARSE_FROM: u64 = 16 << 30;

/// A `virt` machine.
#[derive(Debug, Clone, clap::Args)]
pub struct Machine {
    /// CPU model
    #[arg(long, default_value = "cortex-a57", value_name = "MODEL")]
    pub cpu: String,
    /// Number of CPUs
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub smp: u32,
    /// Memory, with K, M or G; a bare number is MiB
    #[arg(long, default_value = "2G", value_name = "SIZE")]
    pub memory: String,
    /// Interrupt controller: 2, 3, 4 or max
    #[arg(long, default_value = "3", value_name = "VERSION")]
    pub gic: String,
    /// Two banks of memory, one per NUMA node
    #[arg(long)]
    pub numa: bool,
    /// Count instructions: virtual time is their number, and two runs are alike
    #[arg(long)]
    pub icount: bool,
    /// Another option for -M, such as acpi=off (may be repeated)
    #[arg(long = "machine-option", value_name = "OPTION")]
    pub options: Vec<String>,
    /// Where the CPUs start
    #[arg(skip)]
    pub level: Level,
    /// Another board than virt: QEMU's options for it, in place of those for CPU model, GIC, NUMA and size. Where its
    /// memory is, nobody then says.
    #[arg(skip)]
    pub board: Option<Vec<String>>,
}

/// The exception level that the first instruction runs at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Too low for a hypervisor.
    El1,
    /// As a loader or firmware leaves it.
    #[default]
    El2,
    /// No firmware below.
    El3,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cpu: "cortex-a57".to_owned(),
            smp: 4,
            memory: "2G".to_owned(),
            gic: "3".to_owned(),
            numa: false,
            icount: false,
            options: Vec::new(),
            level: Level::El2,
            board: None,
        }
    }
}

impl Machine {
    /// The options of QEMU that make this machine.
    ///
    /// # Errors
    /// The memory is no size.
    pub fn arguments(&self) -> Result<Vec<String>> {
        let mut words = self.board.clone().map_or_else(|| self.virt(), Ok)?;
        if self.icount {
            words.extend(["-icount".to_owned(), "shift=0,sleep=off".to_owned()]);
        }
        Ok(words)
    }

    fn virt(&self) -> Result<Vec<String>> {
        let levels = match self.level {
            Level::El1 => "virtualization=off",
            Level::El2 => "virtualization=on",
            Level::El3 => "virtualization=on,secure=on",
        };
        let mut board = format!("virt,{levels},gic-version={}", self.gic);
        if self.icount {
            board.push_str(",dtb-randomness=off");
        }
        for option in &self.options {
            board.push(',');
            board.push_str(option);
        }
        let sparse = self.memory_bytes()? >= SPARSE_FROM;
        if sparse {
            board.push_str(",memory-backend=sparse");
        }
        let mut words = vec!["-M".to_owned(), board];
        if sparse {
            let backend = format!("memory-backend-ram,id=sparse,size={},reserve=off", self.memory_bytes()?);
            words.extend(["-object".to_owned(), backend]);
        }
        words.extend(["-cpu".to_owned(), self.cpu.clone(), "-smp".to_owned(), self.smp.to_string()]);
        words.extend(["-m".to_owned(), format!("{}", self.memory_bytes()? >> 20)]);
        if self.numa {
            words.extend(self.two_banks()?);
        }
        Ok(words)
    }

    fn two_banks(&self) -> Result<Vec<String>> {
        let half = self.memory_bytes()? / 2;
        let bank = |id: u32| {
            [
                "-object".to_owned(),
                format!("memory-backend-ram,id=bank{id},size={half}"),
                "-numa".to_owned(),
                format!("node,nodeid={id},memdev=bank{id}"),
            ]
        };
        Ok([bank(0), bank(1)].concat())
    }

    /// The device tree that QEMU makes for it. A file goes to `scratch`, which is made.
    ///
    /// # Errors
    /// The memory is no size, or QEMU does not write a tree.
    pub fn tree(&self, qemu: &Qemu, scratch: &Path) -> Result<Vec<u8>> {
        std::fs::create_dir_all(scratch)?;
        let file = scratch.join("base.dtb");
        let mut words = self.arguments()?;
        words[1].push_str(&format!(",dumpdtb={}", file.display()));
        let mut command = qemu.command();
        quiet_console(command.args(words), "stdio");
        exec::ask(&mut command)?;
        std::fs::read(&file).with_context(|| format!("QEMU did not write {}", file.display()))
    }

    /// Refuses more CPUs than a trace has.
    ///
    /// # Errors
    /// It has too many.
    pub fn check_recordable(&self) -> Result<()> {
        ensure!(self.smp <= MOST_CPUS, "--smp {}: the witness judges at most {MOST_CPUS} CPUs", self.smp);
        Ok(())
    }

    /// The size of the memory.
    ///
    /// # Errors
    /// It is not a number with an optional K, M or G, or no whole number of MiB.
    pub fn memory_bytes(&self) -> Result<u64> {
        let text = self.memory.trim();
        let (digits, shift) = match text.chars().last() {
            Some('K' | 'k') => (&text[..text.len() - 1], 10),
            Some('M' | 'm') => (&text[..text.len() - 1], 20),
            Some('G' | 'g') => (&text[..text.len() - 1], 30),
            _ => (text, 20),
        };
        let number: u64 = digits.parse().with_context(|| format!("`{text}` is no amount of memory: say 512M or 2G"))?;
        match number.checked_mul(1 << shift) {
            Some(bytes) if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => Ok(bytes),
            _ => bail!("`{text}` is no whole number of MiB"),
        }
    }

    /// What physical memory is, for a trace; nothing where nobody says.
    ///
    /// # Errors
    /// As [`Machine::memory_bytes`].
    pub fn declared(&self) -> Result<Vec<Record>> {
        if self.board.is_some() {
            return Ok(Vec::new());
        }
        let record = |Range { start, end }, kind| Record::Memory { start, end_exclusive: end, kind };
        let flash = FLASH.into_iter().map(|part| record(part, MemoryKind::Flash));
        Ok([record(RAM_BASE..self.ram_end_exclusive()?, MemoryKind::Ram)].into_iter().chain(flash).collect())
    }

    /// The first address after the memory.
    ///
    /// # Errors
    /// As [`Machine::memory_bytes`].
    pub fn ram_end_exclusive(&self) -> Result<u64> {
        Ok(RAM_BASE + self.memory_bytes()?)
    }
}

/// A physical address, decimal or with 0x.
///
/// # Errors
/// It is neither.
pub fn address(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "");
    let parsed = digits.strip_prefix("0x").map_or_else(|| digits.parse(), |hex| u64::from_str_radix(hex, 16));
    parsed.map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_memory(memory: &str) -> Machine {
        Machine { memory: memory.to_owned(), ..Machine::default() }
    }

    #[test]
    fn good_sizes() {
        assert_eq!(with_memory("256M").memory_bytes().ok(), Some(256 << 20));
        assert_eq!(with_memory("8G").memory_bytes().ok(), Some(8 << 30));
        assert_eq!(with_memory("512").memory_bytes().ok(), Some(512 << 20));
    }

    #[test]
    fn bad_sizes_are_named() {
        for size in ["", "G", "much", "1K", "99999999999999G"] {
            assert!(with_memory(size).memory_bytes().is_err(), "{size}");
        }
    }

    #[test]
    fn bad_more_cpus_than_a_trace_has_are_named() {
        let with_cpus = |smp| Machine { smp, ..Machine::default() }.check_recordable();
        assert!(with_cpus(128).is_ok());
        let said = with_cpus(129).err().map(|error| error.to_string());
        assert_eq!(said.as_deref(), Some("--smp 129: the witness judges at most 128 CPUs"));
    }

    #[test]
    fn good_memory_and_both_parts_of_flash_are_declared() {
        let text: Vec<String> = with_memory("1G").declared().expect("a size").iter().map(ToString::to_string).collect();
        let flash = ["memory 0 4000000 flash", "memory 4000000 8000000 flash"];
        assert_eq!(text, ["memory 40000000 80000000 ram", flash[0], flash[1]]);
    }

    #[test]
    fn good_addresses_read_in_both_bases() {
        assert_eq!(address("0x1_4000_3000"), Ok(0x1_4000_3000));
        assert_eq!(address("4096"), Ok(4096));
        assert!(address("here").is_err());
    }
}
