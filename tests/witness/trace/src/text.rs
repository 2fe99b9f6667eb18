//! The text form: [`Display`](fmt::Display) writes a line, [`parse`] reads one, [`Reader`] reads a file.
//!
//! Addresses and values are lower-case hexadecimal without a prefix; ordinals, counts and sizes are decimal. Fields are
//! separated by blanks; `#` starts a comment; empty lines are allowed.

mod fields;
mod packed;
mod reader;

use core::fmt;

use crate::event::{Access, Barrier, Call, End, Event, Feature, MemoryKind, Record, Step};
use crate::names::Family;

pub use fields::parse;
pub use packed::{PACKED_HEADER, pack, pack_line};
pub use reader::{Malformed, Reader};

/// The first line of every trace.
pub const HEADER: &str = "breakwater-trace 1";
/// CPUs that a trace may have: their indices are 0 to 127. Judges keep sets of them in one word.
pub const MOST_CPUS: u32 = 128;

/// The names of DSB and DMB by CRm; a reserved encoding is spelled `c<CRm>`.
const BARRIERS: [&str; 16] = [
    "c0", "oshld", "oshst", "osh", "c4", "nshld", "nshst", "nsh", "c8", "ishld", "ishst", "ish", "c12", "ld", "st",
    "sy",
];
/// The four DSB nXS forms by domain.
const BARRIERS_NXS: [&str; 4] = ["oshnxs", "nshnxs", "ishnxs", "synxs"];

const CALLS: [(&str, Call); 5] =
    [("svc", Call::Svc), ("hvc", Call::Hvc), ("smc", Call::Smc), ("brk", Call::Brk), ("hlt", Call::Hlt)];
const MEMORY_KINDS: [(&str, MemoryKind); 3] =
    [("ram", MemoryKind::Ram), ("flash", MemoryKind::Flash), ("no-map", MemoryKind::NoMap)];
/// Features without a number.
const FEATURES: [(&str, Feature); 15] = [
    ("ets2", Feature::Ets2),
    ("ntlbpa", Feature::NTlbPa),
    ("tlbirange", Feature::TlbiRange),
    ("ttl", Feature::Ttl),
    ("hafdbs", Feature::Hafdbs),
    ("lpa2", Feature::Lpa2),
    ("no-contiguous", Feature::NoContiguous),
    ("no-cnp", Feature::NoCnp),
    ("repeat-tlbi", Feature::RepeatTlbi),
    ("bbm-always", Feature::BbmAlways),
    ("bbm-for-xn", Feature::BbmForXn),
    ("isb-before-mmu-off", Feature::IsbBeforeMmuOff),
    ("hcr-barriers", Feature::HcrBarriers),
    ("clean-invalidates", Feature::CleanInvalidates),
    ("strict-switch", Feature::StrictSwitch),
];
const ENDS: [(&str, End); 3] = [("exit", End::Exit), ("limit", End::Limit), ("cap", End::Cap)];

/// The text of a value in a table that holds every value.
fn name_in<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|row| row.1 == *value).map_or("?", |row| row.0)
}

impl Barrier {
    /// Its option as the assembler spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        let crm = usize::from(self.crm & 15);
        if self.without_xs { BARRIERS_NXS[crm >> 2] } else { BARRIERS[crm] }
    }
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, va, pa, value: [low, high], device, release } = self;
        write!(f, "{bytes} {va:x} {pa:x} {low:x}")?;
        if *bytes == 16 {
            write!(f, " {high:x}")?;
        }
        f.write_str(if *device { " device" } else { "" })?;
        f.write_str(if *release { " release" } else { "" })
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bbm(level) => write!(f, "bbm={level}"),
            Self::PhysicalBits(bits) => write!(f, "pa-bits={bits}"),
            Self::LineBytes(bytes) => write!(f, "line={bytes}"),
            plain => f.write_str(name_in(&FEATURES, plain)),
        }
    }
}

impl core::str::FromStr for Feature {
    type Err = String;

    /// Parses a feature as a trace spells it.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let Some((name, number)) = word.split_once('=') else {
            let plain = FEATURES.iter().find(|row| row.0 == word).map(|row| row.1);
            return plain.ok_or_else(|| format!("unknown feature {word:?}"));
        };
        let value: u16 = number.parse().map_err(|_| format!("{name}: {number:?} is no number"))?;
        match (name, value) {
            ("bbm", 0..=3) => Ok(Self::Bbm(value as u8)),
            ("pa-bits", 32..=52) => Ok(Self::PhysicalBits(value as u8)),
            ("line", 16..=2048) if value.is_power_of_two() => Ok(Self::LineBytes(value)),
            ("bbm" | "pa-bits" | "line", _) => Err(format!("{name}: {value} is out of range")),
            _ => Err(format!("unknown feature {name:?}")),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { exception_level } => write!(f, "start {exception_level}"),
            Self::Found { register, value } => write!(f, "found {register} {value:x}"),
            Self::Store(access) => write!(f, "store {access}"),
            Self::Load(access) => write!(f, "load {access}"),
            Self::Msr { register, value } => write!(f, "msr {register} {value:x}"),
            Self::Mrs { register } => write!(f, "mrs {register}"),
            Self::Maintain { operation, operand } => {
                let family = match operation.family() {
                    Some(Family::Dc) => "dc",
                    Some(Family::Ic) => "ic",
                    Some(Family::At) => "at",
                    Some(Family::Tlbi) | None => "tlbi",
                };
                write!(f, "{family} {operation} {operand:x}")
            }
            Self::Dsb(barrier) => write!(f, "dsb {barrier}"),
            Self::Dmb(barrier) => write!(f, "dmb {barrier}"),
            Self::Isb => f.write_str("isb"),
            Self::Eret { to: None } => f.write_str("eret"),
            Self::Eret { to: Some(level) } => write!(f, "eret {level}"),
            Self::Exception { to, syndrome, link, fault_address } => {
                write!(f, "exception {syndrome:x} {link:x} {fault_address:x}")?;
                if *to == 2 { Ok(()) } else { write!(f, " {to}") }
            }
            Self::Call { call, immediate, arguments: [x0, x1, x2, x3] } => {
                write!(f, "{} {immediate:x} {x0:x} {x1:x} {x2:x} {x3:x}", name_in(&CALLS, call))
            }
            Self::Take { pa, bytes } => write!(f, "take {pa:x} {bytes}"),
            Self::Give { pa, bytes } => write!(f, "give {pa:x} {bytes}"),
            Self::Settled => f.write_str("settled"),
            Self::Enter { pa, bytes } => write!(f, "enter {pa:x} {bytes}"),
            Self::Fetch { instructions } => write!(f, "fetch {instructions}"),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word { pa, value } => write!(f, "word {pa:x} {value:x}"),
            Self::Memory { start, end_exclusive, kind } => {
                write!(f, "memory {start:x} {end_exclusive:x} {}", name_in(&MEMORY_KINDS, kind))
            }
            Self::Feature { cpu: None, feature } => write!(f, "feature all {feature}"),
            Self::Feature { cpu: Some(cpu), feature } => write!(f, "feature {cpu} {feature}"),
            Self::Step(Step { cpu, instruction, pc, event }) => {
                write!(f, "{cpu} {instruction} {pc:x} {event}")
            }
            Self::Count { cpu, instructions } => write!(f, "count {cpu} {instructions}"),
            Self::End(end) => write!(f, "end {}", name_in(&ENDS, end)),
        }
    }
}
