//! One line, field by field.

use super::{BARRIERS, BARRIERS_NXS, CALLS, ENDS, MEMORY_KINDS, MOST_CPUS, Malformed};
use crate::event::{Access, Barrier, Call, Event, Record, Step};
use crate::names::{Family, Operation, Register};

/// The fields of a line, with the place of the last one taken.
struct Fields<'a> {
    text: &'a str,
    /// Where the untaken rest begins, in bytes.
    next: usize,
    /// How many were taken.
    taken: usize,
    /// Where the last one began, in bytes; past the end of the text if it was missing.
    start: usize,
}

/// What is wrong, and where; the line is known to the caller.
struct Refusal {
    field: usize,
    column: usize,
    reason: String,
}

impl<'a> Fields<'a> {
    const fn new(text: &'a str) -> Self {
        Self { text, next: 0, taken: 0, start: 0 }
    }

    /// The field that comes next and where it begins, untaken.
    fn peek(&self) -> Option<(usize, &'a str)> {
        let rest = &self.text.as_bytes()[self.next..];
        let start = self.next + rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let rest = &self.text.as_bytes()[start..];
        let length = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        // Blanks are ASCII: both ends stand between characters.
        self.text.get(start..start + length).map(|word| (start, word))
    }

    fn take(&mut self) -> Option<&'a str> {
        self.taken += 1;
        let Some((start, word)) = self.peek() else {
            self.start = self.text.trim_ascii_end().len();
            return None;
        };
        (self.start, self.next) = (start, start + word.len());
        Some(word)
    }

    /// Takes the next field if it is `word`.
    fn take_if(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|(_, next)| next == word);
        if found {
            self.take();
        }
        found
    }

    fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, Refusal> {
        Err(Refusal { field: self.taken, column: self.start + 1, reason: reason.into() })
    }

    fn word(&mut self, what: &str) -> Result<&'a str, Refusal> {
        self.take().map_or_else(|| self.refuse(format!("{what} is missing")), Ok)
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

    fn cpu(&mut self) -> Result<u32, Refusal> {
        let cpu = self.decimal("cpu")?;
        if cpu >= MOST_CPUS {
            return self.refuse(format!("cpu {cpu}: a trace has at most {MOST_CPUS} CPUs, 0 to {}", MOST_CPUS - 1));
        }
        Ok(cpu)
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

    fn access(&mut self, is_store: bool) -> Result<Access, Refusal> {
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
        let device = self.take_if("device");
        Ok(Access { bytes, va, pa, value, device, release: is_store && self.take_if("release") })
    }

    fn exception_level(&mut self) -> Result<u8, Refusal> {
        match self.decimal("exception level")? {
            level @ 0..=3 => Ok(level),
            _ => self.refuse("there is no such exception level"),
        }
    }

    fn exception(&mut self) -> Result<Event, Refusal> {
        let (syndrome, link) = (self.hex("syndrome")?, self.hex("link")?);
        let fault_address = self.hex("fault address")?;
        let to = if self.peek().is_some() { self.exception_level()? } else { 2 };
        if to < 2 {
            return self.refuse("exceptions to EL1 are in no trace");
        }
        Ok(Event::Exception { to, syndrome, link, fault_address })
    }

    fn event(&mut self) -> Result<Event, Refusal> {
        Ok(match self.word("event")? {
            "start" => Event::Start { exception_level: self.exception_level()? },
            "found" => Event::Found { register: self.register()?, value: self.hex("value")? },
            "store" => Event::Store(self.access(true)?),
            "load" => Event::Load(self.access(false)?),
            "msr" => Event::Msr { register: self.register()?, value: self.hex("value")? },
            "mrs" => Event::Mrs { register: self.register()? },
            "tlbi" => self.maintain(Family::Tlbi)?,
            "dc" => self.maintain(Family::Dc)?,
            "ic" => self.maintain(Family::Ic)?,
            "at" => self.maintain(Family::At)?,
            "dsb" => Event::Dsb(self.barrier()?),
            "dmb" => Event::Dmb(self.barrier()?),
            "isb" => Event::Isb,
            "eret" => Event::Eret { to: if self.peek().is_some() { Some(self.exception_level()?) } else { None } },
            "exception" => self.exception()?,
            "take" => {
                let (pa, bytes) = self.frames()?;
                Event::Take { pa, bytes }
            }
            "give" => {
                let (pa, bytes) = self.frames()?;
                Event::Give { pa, bytes }
            }
            "settled" => Event::Settled,
            "enter" => {
                let (pa, bytes): (u64, u64) = (self.hex("physical address")?, self.decimal("bytes")?);
                if bytes > 1 << 40 || pa.checked_add(bytes).is_none() {
                    return self.refuse(format!("{bytes} bytes at physical address {pa:x} are no image"));
                }
                Event::Enter { pa, bytes }
            }
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
        let cpu = if self.take_if("all") { None } else { Some(self.cpu()?) };
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
        let record = match self.peek().map(|(_, word)| word) {
            Some("word") => {
                self.take();
                let pa = self.hex("physical address")?;
                if !pa.is_multiple_of(8) {
                    return self.refuse(format!("physical address {pa:x} is no multiple of 8"));
                }
                Record::Word { pa, value: self.hex("value")? }
            }
            Some("memory") => {
                self.take();
                self.memory()?
            }
            Some("feature") => {
                self.take();
                self.feature()?
            }
            Some("count") => {
                self.take();
                Record::Count { cpu: self.cpu()?, instructions: self.decimal("instructions")? }
            }
            Some("end") => {
                self.take();
                Record::End(self.looked_up("end", |word| ENDS.iter().find(|row| row.0 == word).map(|row| row.1))?)
            }
            _ => Record::Step(Step {
                cpu: self.cpu()?,
                instruction: self.decimal("instruction")?,
                pc: self.hex("pc")?,
                event: self.event()?,
            }),
        };
        match self.take() {
            None => Ok(record),
            Some(word) => self.refuse(format!("{word:?} follows a complete record")),
        }
    }
}

/// Parses one line after the header; nothing for an empty line or a comment.
///
/// # Errors
/// The place and what is wrong with it; `line` is copied into the error.
pub fn parse(line: u64, text: &str) -> Result<Option<Record>, Malformed> {
    let text = text.split('#').next().unwrap_or_default();
    let mut fields = Fields::new(text);
    if fields.peek().is_none() {
        return Ok(None);
    }
    let refused = |Refusal { field, column, reason }| Malformed { line, column, field, reason };
    fields.record().map(Some).map_err(refused)
}
