//! The exception level that a PE executes at, and what is known of accesses that EL2's tables do not translate.
//!
//! EL2's registers say nothing about what EL3, EL1 and EL0 access. Still, what these store is in memory, their cache
//! maintenance counts, and so do their barriers. So the level is followed: down by ERET, up by exceptions. Where a
//! trace does not say where an ERET led, the level is unknown until something is done that only EL2 can do.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use breakwater_trace::{Event, Register};

/// Where a PE executes, as seen from EL2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ExceptionLevel {
    /// EL3.
    El3,
    /// EL2.
    #[default]
    El2,
    /// EL1 or EL0: which of them makes no difference to EL2.
    Lower,
    /// Nothing says.
    Unknown,
}

impl ExceptionLevel {
    /// The level of this number.
    #[must_use]
    pub const fn of(number: u8) -> Self {
        match number {
            0 | 1 => Self::Lower,
            2 => Self::El2,
            _ => Self::El3,
        }
    }

    /// Where an ERET leads with this SPSR: M\[4\] is AArch32, whose Hyp mode is EL2, and M\[3:2\] the level otherwise.
    const fn of_spsr(spsr: u64) -> Self {
        match spsr & 0x1f {
            0x1a => Self::El2,
            0x10..=0x1f => Self::Lower,
            mode => Self::of((mode >> 2) as u8),
        }
    }
}

/// The level of one PE, and the registers that tell of the other levels.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Levels {
    now: ExceptionLevel,
    /// Where an ERET from EL2 leads.
    from_el2: ExceptionLevel,
    /// Where an ERET from EL3 leads.
    from_el3: ExceptionLevel,
    /// It was at EL2 or below.
    has_left_el3: bool,
    sctlr_el1: Option<u64>,
    sctlr_el3: Option<u64>,
    /// Where accesses from below EL2 led.
    lower: SeenAddresses,
    /// Where accesses from EL3 led.
    above: SeenAddresses,
}

impl Default for Levels {
    fn default() -> Self {
        Self::start(2)
    }
}

impl Levels {
    /// A PE that begins at this level. One that begins at EL3 has SCTLR_EL3 as reset leaves it, with M and C = 0, and
    /// hands over to EL2 unless it says otherwise.
    #[must_use]
    pub fn start(exception_level: u8) -> Self {
        let now = ExceptionLevel::of(exception_level);
        Self {
            now,
            from_el2: ExceptionLevel::Unknown,
            from_el3: ExceptionLevel::El2,
            has_left_el3: now != ExceptionLevel::El3,
            sctlr_el1: None,
            sctlr_el3: (now == ExceptionLevel::El3).then_some(0),
            lower: SeenAddresses::default(),
            above: SeenAddresses::default(),
        }
    }

    /// Where it executes.
    #[must_use]
    pub const fn now(&self) -> ExceptionLevel {
        self.now
    }

    /// Whether EL2's tables translate its accesses.
    #[must_use]
    pub fn is_el2(&self) -> bool {
        self.now == ExceptionLevel::El2
    }

    /// Whether it executes at EL3.
    #[must_use]
    pub fn is_el3(&self) -> bool {
        self.now == ExceptionLevel::El3
    }

    /// Whether it was at EL2 or below.
    #[must_use]
    pub const fn has_left_el3(&self) -> bool {
        self.has_left_el3
    }

    /// A register is written, or found.
    pub fn set(&mut self, register: Register, value: u64) {
        match register.name() {
            // A return to a higher level is illegal, and goes nowhere.
            Some("spsr_el2") => {
                self.from_el2 = match ExceptionLevel::of_spsr(value) {
                    ExceptionLevel::El3 => ExceptionLevel::El2,
                    level => level,
                }
            }
            Some("spsr_el3") => self.from_el3 = ExceptionLevel::of_spsr(value),
            Some("sctlr_el1") => self.sctlr_el1 = Some(value),
            Some("sctlr_el3") => self.sctlr_el3 = Some(value),
            _ => {}
        }
    }

    /// Whether the level, or where the next ERET leads, may be another after `event`.
    #[must_use]
    pub fn heeds(&self, event: &Event) -> bool {
        let is_unknown = self.now == ExceptionLevel::Unknown;
        match event {
            Event::Exception { .. } | Event::Eret { .. } => true,
            Event::Msr { register, .. } => {
                is_unknown || matches!(register.name(), Some("spsr_el2" | "spsr_el3" | "sctlr_el1" | "sctlr_el3"))
            }
            Event::Maintain { .. } => is_unknown,
            _ => false,
        }
    }

    /// The PE does this, at `pc`. An exception is followed before what it brings is judged, an ERET after.
    pub fn follow(&mut self, pc: u64, event: &Event) {
        match *event {
            Event::Start { exception_level } => *self = Self::start(exception_level),
            Event::Found { register, value } => self.set(register, value),
            Event::Msr { register, value } => {
                self.is_shown(register.0.op1());
                self.set(register, value);
            }
            Event::Maintain { operation, .. } => self.is_shown(operation.0.op1()),
            Event::Exception { to: 3, .. } => (self.from_el3, self.now) = (self.now, ExceptionLevel::El3),
            Event::Exception { .. } => {
                // The upper half of the vectors is for what comes from below.
                let unknown = self.now == ExceptionLevel::Unknown;
                let by_vector = if pc & 0x7ff < 0x400 { ExceptionLevel::El2 } else { ExceptionLevel::Lower };
                self.from_el2 = if unknown { by_vector } else { self.now };
                self.now = ExceptionLevel::El2;
            }
            Event::Eret { to } => {
                self.now = match (to, self.now) {
                    (Some(to), _) => ExceptionLevel::of(to),
                    (None, ExceptionLevel::El3) => self.from_el3,
                    (None, ExceptionLevel::El2) => self.from_el2,
                    (None, below) => below,
                };
                self.has_left_el3 |= !self.is_el3();
            }
            _ => {}
        }
    }

    /// What is encoded with op1 = 4 is EL2's to execute.
    fn is_shown(&mut self, op1: u16) {
        if self.now == ExceptionLevel::Unknown && op1 == 4 {
            self.now = ExceptionLevel::El2;
        }
    }

    /// SCTLR of the level that it executes at, which is not EL2.
    fn sctlr(&self) -> Option<u64> {
        match self.now {
            ExceptionLevel::El3 => self.sctlr_el3,
            ExceptionLevel::Lower => self.sctlr_el1,
            ExceptionLevel::El2 | ExceptionLevel::Unknown => None,
        }
    }

    /// Whether data accesses of a level other than EL2 go into the caches: by SCTLR.M and C of that level, and below
    /// EL2 by HCR_EL2.DC. Nothing where nothing says.
    #[must_use]
    pub fn caches(&self, hcr: u64) -> Option<bool> {
        let is_default = self.now == ExceptionLevel::Lower && hcr >> 12 & 1 != 0;
        self.sctlr().map(|sctlr| if sctlr & 1 != 0 { sctlr & 4 != 0 } else { is_default })
    }

    /// An access was made.
    pub fn note_access(&mut self, va: u64, pa: u64) {
        match self.now {
            ExceptionLevel::El3 => self.above.note(va, pa),
            ExceptionLevel::Lower => self.lower.note(va, pa),
            ExceptionLevel::El2 | ExceptionLevel::Unknown => {}
        }
    }

    /// The physical address of `va` at a level other than EL2: itself with the MMU off, else what the PE's accesses
    /// have shown. Its tables are not read.
    #[must_use]
    pub fn physical(&self, va: u64, hcr: u64) -> Option<u64> {
        let stage_2 = self.now == ExceptionLevel::Lower && hcr & 1 != 0;
        if self.sctlr().is_some_and(|sctlr| sctlr & 1 == 0) && !stage_2 {
            return Some(va);
        }
        match self.now {
            ExceptionLevel::El3 => self.above.find(va),
            ExceptionLevel::Lower => self.lower.find(va),
            ExceptionLevel::El2 | ExceptionLevel::Unknown => None,
        }
    }
}

/// More pages than that are begun anew.
const MOST_PAGES: usize = 1 << 18;

/// Where virtual addresses led: page by page, and by GiB where all pages seen lie alike.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct SeenAddresses {
    pages: HashMap<u64, u64>,
    /// By GiB, what is added to a virtual address; nothing where pages differ in it.
    offsets: HashMap<u64, Option<u64>>,
}

impl Hash for SeenAddresses {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pages.len().hash(state);
    }
}

impl SeenAddresses {
    fn note(&mut self, va: u64, pa: u64) {
        if self.pages.len() >= MOST_PAGES {
            self.pages.clear();
        }
        if self.pages.insert(va >> 12, pa >> 12) == Some(pa >> 12) {
            return;
        }
        let offset = Some(pa.wrapping_sub(va));
        let known = self.offsets.entry(va >> 30).or_insert(offset);
        if *known != offset {
            *known = None;
        }
    }

    fn find(&self, va: u64) -> Option<u64> {
        let by_page = self.pages.get(&(va >> 12)).map(|page| page << 12 | va & 0xfff);
        by_page.or_else(|| self.offsets.get(&(va >> 30)).copied().flatten().map(|offset| va.wrapping_add(offset)))
    }
}
