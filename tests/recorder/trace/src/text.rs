//! The text form: [`Display`](fmt::Display) writes a line, [`parse`] reads one, [`Reader`] reads a file.
//!
//! Addresses and values are lower-case hexadecimal without a prefix; ordinals, counts and sizes are decimal. Fields are
//! separated by blanks; `#` starts a comment; empty lines are allowed.

use core::fmt;
use std::io::BufRead;

use crate::event::{Access, Barrier, Call, End, Event, Feature, MemoryKind, Record, Step};
use crate::names::{Family, Operation, Register};

/// The first line of every trace.
pub const HEADER: &str = "breakwater-trace 1";

/// A longer line is no trace but some other file.
const LONGEST_LINE: u64 = 512;

/// Why a trace could not be read, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Line, counted from 1.
    pub line: u64,
    /// Field of that line, counted from 1; 0 when the line as a whole is meant.
    pub field: usize,
    /// What was wrong.
    pub reason: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace line {}", self.line)?;
        if self.field > 0 {
            write!(f, ", field {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for Malformed {}

/// The names of DSB and DMB by CRm; a reserved encoding is spelled `c<CRm>`.
const BARRIERS: [&str; 16] = [
    "c0", "oshld", "oshst", "osh", "c4", "nshld", "nshst", "nsh", "c8", "ishld", "ishst", "ish", "c12", "ld", "st",
    "sy",
];
/// The four DSB nXS forms by domain.
const BARRIERS_NXS: [&str; 4] = ["oshnxs", "nshnxs", "ishnxs", "synxs"];

const CALLS: [(&str, Call); 5] =
    [("svc", Call::Svc), ("hvc", Call::Hvc), ("smc", Call::Smc), ("brk", Call::Brk), ("hlt", Call::Hlt)];
const MEMORY_KINDS: [(&str, MemoryKind); 2] = [("ram", MemoryKind::Ram), ("no-map", MemoryKind::NoMap)];
/// Features without a number.
const FEATURES: [(&str, Feature); 13] = [
    ("ets2", Feature::Ets2),
    ("ntlbpa", Feature::NTlbPa),
    ("tlbirange", Feature::TlbiRange),
    ("ttl", Feature::Ttl),
    ("hafdbs", Feature::Hafdbs),
    ("lpa2", Feature::Lpa2),
    ("no-contiguous", Feature::NoContiguous),
    ("repeat-tlbi", Feature::RepeatTlbi),
    ("bbm-always", Feature::BbmAlways),
    ("bbm-for-xn", Feature::BbmForXn),
    ("isb-before-mmu-off", Feature::IsbBeforeMmuOff),
    ("hcr-barriers", Feature::HcrBarriers),
    ("clean-invalidates", Feature::CleanInvalidates),
];
const ENDS: [(&str, End); 3] = [("exit", End::Exit), ("limit", End::Limit), ("cap", End::Cap)];

/// The text of a value in a table that holds every value.
fn name_in<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|row| row.1 == *value).map_or("?", |row| row.0)
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crm = usize::from(self.crm & 15);
        f.write_str(if self.without_xs { BARRIERS_NXS[crm >> 2] } else { BARRIERS[crm] })
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, va, pa, value: [low, high], device } = self;
        write!(f, "{bytes} {va:x} {pa:x} {low:x}")?;
        if *bytes == 16 {
            write!(f, " {high:x}")?;
        }
        if *device { f.write_str(" device") } else { Ok(()) }
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
            Self::Eret => f.write_str("eret"),
            Self::Exception { syndrome, link, fault_address } => {
                write!(f, "exception {syndrome:x} {link:x} {fault_address:x}")
            }
            Self::Call { call, immediate, arguments: [x0, x1, x2, x3] } => {
                write!(f, "{} {immediate:x} {x0:x} {x1:x} {x2:x} {x3:x}", name_in(&CALLS, call))
            }
            Self::Take { pa, bytes } => write!(f, "take {pa:x} {bytes}"),
            Self::Give { pa, bytes } => write!(f, "give {pa:x} {bytes}"),
            Self::Settled => f.write_str("settled"),
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

/// The fields of a line, with the position of the last one taken.
struct Fields<'a> {
    rest: core::iter::Peekable<core::str::SplitAsciiWhitespace<'a>>,
    taken: usize,
}

/// Field and reason; the line is known to the caller.
type Refusal = (usize, String);

impl<'a> Fields<'a> {
    fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, Refusal> {
        Err((self.taken, reason.into()))
    }

    fn word(&mut self, what: &str) -> Result<&'a str, Refusal> {
        self.taken += 1;
        match self.rest.next() {
            Some(word) => Ok(word),
            None => self.refuse(format!("{what} is missing")),
        }
    }

    fn number(&mut self, what: &str, radix: u32) -> Result<u64, Refusal> {
        let word = self.word(what)?;
        let kind = if radix == 16 { "hexadecimal" } else { "decimal" };
        match u64::from_str_radix(word, radix) {
            Ok(value) if !word.starts_with('+') => Ok(value),
            _ => self.refuse(format!("{what}: {word:?} is no {kind} number of 64 bits")),
        }
    }

    fn hex(&mut self, what: &str) -> Result<u64, Refusal> {
        self.number(what, 16)
    }

    fn decimal<T: TryFrom<u64>>(&mut self, what: &str) -> Result<T, Refusal> {
        let value = self.number(what, 10)?;
        T::try_from(value).or_else(|_| self.refuse(format!("{what}: {value} is out of range")))
    }

    fn looked_up<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T, Refusal> {
        let word = self.word(what)?;
        find(word).map_or_else(|| self.refuse(format!("unknown {what} {word:?}")), Ok)
    }

    fn register(&mut self) -> Result<Register, Refusal> {
        self.looked_up("register", Register::from_text)
    }

    fn barrier(&mut self) -> Result<Barrier, Refusal> {
        self.looked_up("barrier", |word| {
            let plain = BARRIERS.iter().position(|name| *name == word);
            let plain = plain.map(|crm| Barrier { crm: crm as u8, without_xs: false });
            let nxs = || BARRIERS_NXS.iter().position(|name| *name == word);
            plain.or_else(|| nxs().map(|domain| Barrier { crm: (domain as u8) << 2 | 2, without_xs: true }))
        })
    }

    fn maintain(&mut self, family: Family) -> Result<Event, Refusal> {
        let operation =
            self.looked_up("operation", |word| Operation::from_text(word).filter(|op| op.family() == Some(family)))?;
        Ok(Event::Maintain { operation, operand: self.hex("operand")? })
    }

    fn access(&mut self) -> Result<Access, Refusal> {
        let bytes = self.decimal("size")?;
        if !matches!(bytes, 1 | 2 | 4 | 8 | 16) {
            return self.refuse(format!("size {bytes} is none of 1, 2, 4, 8, 16"));
        }
        let (va, pa) = (self.hex("virtual address")?, self.hex("physical address")?);
        let value = [self.hex("value")?, if bytes == 16 { self.hex("value")? } else { 0 }];
        if bytes < 8 && value[0] >> (8 * u32::from(bytes)) != 0 {
            return self.refuse(format!("value {:x} does not fit {bytes} bytes", value[0]));
        }
        if pa.checked_add(u64::from(bytes)).is_none() {
            return self.refuse(format!("the access at physical address {pa:x} wraps round"));
        }
        let device = self.rest.next_if_eq(&"device").is_some();
        self.taken += usize::from(device);
        Ok(Access { bytes, va, pa, value, device })
    }

    fn event(&mut self) -> Result<Event, Refusal> {
        Ok(match self.word("event")? {
            "start" => match self.decimal("exception level")? {
                exception_level @ 0..=3 => Event::Start { exception_level },
                _ => return self.refuse("there is no such exception level"),
            },
            "found" => Event::Found { register: self.register()?, value: self.hex("value")? },
            "store" => Event::Store(self.access()?),
            "load" => Event::Load(self.access()?),
            "msr" => Event::Msr { register: self.register()?, value: self.hex("value")? },
            "mrs" => Event::Mrs { register: self.register()? },
            "tlbi" => self.maintain(Family::Tlbi)?,
            "dc" => self.maintain(Family::Dc)?,
            "ic" => self.maintain(Family::Ic)?,
            "at" => self.maintain(Family::At)?,
            "dsb" => Event::Dsb(self.barrier()?),
            "dmb" => Event::Dmb(self.barrier()?),
            "isb" => Event::Isb,
            "eret" => Event::Eret,
            "exception" => Event::Exception {
                syndrome: self.hex("syndrome")?,
                link: self.hex("link")?,
                fault_address: self.hex("fault address")?,
            },
            "take" => {
                let (pa, bytes) = self.frames()?;
                Event::Take { pa, bytes }
            }
            "give" => {
                let (pa, bytes) = self.frames()?;
                Event::Give { pa, bytes }
            }
            "settled" => Event::Settled,
            "fetch" => Event::Fetch { instructions: self.decimal("instructions")? },
            other => match CALLS.iter().find(|row| row.0 == other) {
                Some((_, call)) => self.call(*call)?,
                None => return self.refuse(format!("unknown event {other:?}")),
            },
        })
    }

    fn frames(&mut self) -> Result<(u64, u64), Refusal> {
        let (pa, bytes): (u64, u64) = (self.hex("physical address")?, self.decimal("bytes")?);
        if bytes == 0 || bytes > 1 << 40 || pa.checked_add(bytes).is_none() {
            return self.refuse(format!("{bytes} bytes at physical address {pa:x} are no frames"));
        }
        Ok((pa, bytes))
    }

    fn memory(&mut self) -> Result<Record, Refusal> {
        let (start, end_exclusive) = (self.hex("start")?, self.hex("end")?);
        if start >= end_exclusive {
            return self.refuse(format!("memory from {start:x} to {end_exclusive:x} is empty"));
        }
        let kind =
            self.looked_up("kind of memory", |word| MEMORY_KINDS.iter().find(|row| row.0 == word).map(|row| row.1))?;
        Ok(Record::Memory { start, end_exclusive, kind })
    }

    fn feature(&mut self) -> Result<Record, Refusal> {
        let cpu = match self.rest.next_if_eq(&"all") {
            Some(_) => {
                self.taken += 1;
                None
            }
            None => Some(self.decimal("cpu")?),
        };
        match self.word("feature")?.parse() {
            Ok(feature) => Ok(Record::Feature { cpu, feature }),
            Err(reason) => self.refuse(reason),
        }
    }

    fn call(&mut self, call: Call) -> Result<Event, Refusal> {
        let immediate = self.hex("immediate")?;
        let Ok(immediate) = u16::try_from(immediate) else {
            return self.refuse(format!("immediate {immediate:x} has more than 16 bits"));
        };
        let arguments = [self.hex("x0")?, self.hex("x1")?, self.hex("x2")?, self.hex("x3")?];
        Ok(Event::Call { call, immediate, arguments })
    }

    fn record(&mut self) -> Result<Record, Refusal> {
        let record = match self.rest.peek().copied() {
            Some("word") => {
                self.word("record")?;
                let pa = self.hex("physical address")?;
                if !pa.is_multiple_of(8) {
                    return self.refuse(format!("physical address {pa:x} is no multiple of 8"));
                }
                Record::Word { pa, value: self.hex("value")? }
            }
            Some("memory") => {
                self.word("record")?;
                self.memory()?
            }
            Some("feature") => {
                self.word("record")?;
                self.feature()?
            }
            Some("count") => {
                self.word("record")?;
                Record::Count { cpu: self.decimal("cpu")?, instructions: self.decimal("instructions")? }
            }
            Some("end") => {
                self.word("record")?;
                Record::End(self.looked_up("end", |word| ENDS.iter().find(|row| row.0 == word).map(|row| row.1))?)
            }
            _ => Record::Step(Step {
                cpu: self.decimal("cpu")?,
                instruction: self.decimal("instruction")?,
                pc: self.hex("pc")?,
                event: self.event()?,
            }),
        };
        self.taken += 1;
        match self.rest.next() {
            None => Ok(record),
            Some(word) => self.refuse(format!("{word:?} follows a complete record")),
        }
    }
}

/// Parses one line after the header; nothing for an empty line or a comment.
///
/// # Errors
/// The field, counted from 1, and what is wrong with it; `line` is copied into the error.
pub fn parse(line: u64, text: &str) -> Result<Option<Record>, Malformed> {
    let text = text.split('#').next().unwrap_or_default();
    let mut fields = Fields { rest: text.split_ascii_whitespace().peekable(), taken: 0 };
    if fields.rest.peek().is_none() {
        return Ok(None);
    }
    fields.record().map(Some).map_err(|(field, reason)| Malformed { line, field, reason })
}

/// Reads a trace record by record.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    line: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    /// A reader of the trace in `input`.
    pub const fn new(input: R) -> Self {
        Self { input, line: 0, buffer: Vec::new() }
    }

    /// Number of the line read last, counted from 1.
    pub const fn line(&self) -> u64 {
        self.line
    }

    fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, Malformed> {
        Err(Malformed { line: self.line, field: 0, reason: reason.into() })
    }

    /// The next line; nothing at the end of the input.
    fn next_line(&mut self) -> Result<Option<&str>, Malformed> {
        self.line += 1;
        self.buffer.clear();
        let mut limited = std::io::Read::take(&mut self.input, LONGEST_LINE);
        match limited.read_until(b'\n', &mut self.buffer) {
            Err(error) => return self.refuse(error.to_string()),
            Ok(0) => return Ok(None),
            Ok(_) if self.buffer.last() != Some(&b'\n') && self.buffer.len() as u64 == LONGEST_LINE => {
                return self.refuse(format!("longer than {LONGEST_LINE} bytes"));
            }
            Ok(_) => {}
        }
        match core::str::from_utf8(&self.buffer) {
            Ok(text) => Ok(Some(text.trim_end())),
            Err(_) => Err(Malformed { line: self.line, field: 0, reason: "no text".into() }),
        }
    }

    /// The next record; nothing at the end of the input.
    ///
    /// # Errors
    /// The line that is no record, or that could not be read, or a first line other than [`HEADER`].
    pub fn next_record(&mut self) -> Result<Option<Record>, Malformed> {
        if self.line == 0 {
            match self.next_line()? {
                Some(HEADER) => {}
                _ => return self.refuse(format!("the first line of a trace is {HEADER:?}")),
            }
        }
        loop {
            let line = self.line + 1;
            let Some(text) = self.next_line()? else { return Ok(None) };
            if let Some(record) = parse(line, text)? {
                return Ok(Some(record));
            }
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Record, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}
