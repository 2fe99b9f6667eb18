//! Barriers and TLB maintenance, decoded exactly: what they wait for, what they are asked to invalidate.

use breakwater_trace::{Access, Barrier, Operation, Register};

use crate::descriptor::{Format, Granule};
use crate::params::Features;

/// How far a barrier or a TLBI reaches, the nearest first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Reach {
    /// This PE: Non-shareable.
    Own,
    /// The Inner Shareable domain: every PE of a trace is in it.
    Inner,
    /// The Outer Shareable domain.
    Outer,
    /// The full system.
    System,
}

/// What a DSB or DMB orders or completes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ordering {
    /// For whom.
    pub reach: Reach,
    /// Loads before it are done.
    pub loads: bool,
    /// Stores before it are done. With [`Ordering::loads`] too: only then does it complete a TLBI (RPSMWS).
    pub stores: bool,
    /// The nXS form: completes nXS TLBIs alone.
    pub without_xs: bool,
}

impl Ordering {
    /// Decodes `barrier`. Reserved kinds act as SY.
    #[must_use]
    pub const fn of(barrier: Barrier) -> Self {
        let reserved = barrier.crm & 3 == 0 && !barrier.without_xs;
        let reach = match barrier.crm >> 2 & 3 {
            _ if reserved => Reach::System,
            0 => Reach::Outer,
            1 => Reach::Own,
            2 => Reach::Inner,
            _ => Reach::System,
        };
        let full = barrier.orders_everything();
        let (loads, stores) = (full || barrier.crm & 3 == 1, full || barrier.crm & 3 == 2);
        Self { reach, loads, stores, without_xs: barrier.without_xs }
    }

    /// Whether loads and stores both are done: what completing a TLBI takes.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.loads && self.stores
    }
}

/// What one DC ZVA of a PE zeroes, by its DCZID_EL0: a block that has its own size as alignment. Until the register is
/// [found](Self::find), 64 bytes, as most cores have: a guess, on which no verdict can rest ([`Self::doubt`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ZeroedBlock {
    dczid: Option<u64>,
}

impl ZeroedBlock {
    /// `register` was found to hold `value`.
    pub fn find(&mut self, register: Register, value: u64) {
        if register.name() == Some("dczid_el0") {
            self.dczid = Some(value);
        }
    }

    /// Bytes of the block, 8 to 2048: BS, bits 3:0, is log2 of their number in words of 4 bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        4 << (self.dczid.unwrap_or(4) & 15).clamp(1, 9)
    }

    /// Where the block begins that `address` lies in.
    #[must_use]
    pub fn start(self, address: u64) -> u64 {
        address & !(self.bytes() - 1)
    }

    /// The words that become 0, as a store to each, where the block begins at `pa`.
    pub fn words(self, pa: u64) -> impl Iterator<Item = (u64, u64, u64)> + Clone {
        (0..self.bytes() / 8).map(move |word| (pa.wrapping_add(8 * word), u64::MAX, 0))
    }

    /// Why it is not known what the PE zeroes, if it is not.
    #[must_use]
    pub fn doubt(self) -> Option<String> {
        let why = match (self.dczid, self.dczid.unwrap_or(0) & 15) {
            (None, _) => return Some("nothing says what DCZID_EL0 holds".to_owned()),
            (Some(dczid), _) if dczid & 1 << 4 != 0 => "DZP is 1: it is prohibited, and may have been trapped",
            (_, 0) => "BS is 0: a block of 4 bytes is not followed",
            (_, 1..=9) => return None,
            _ => "BS is reserved",
        };
        Some(format!("DCZID_EL0 = {:x}, whose {why}", self.dczid.unwrap_or(0)))
    }
}

/// What a TLBI of EL2 stage 1 is asked to invalidate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TlbiTarget {
    /// Everything of the regime (ALLE2).
    All,
    /// The walk of one address.
    Page {
        /// The address, its offset in a page cleared.
        va: u64,
        /// TTL: the level of the leaf. Nothing: any level.
        level: Option<i8>,
    },
    /// The walks of a range of addresses.
    Range {
        /// First address.
        first: u64,
        /// Last address, inclusive.
        last: u64,
        /// TTL: the level of the leaves. Nothing: any level.
        level: Option<i8>,
    },
    /// Nothing that software may count on, and why (RSQXYZ, RXKMMX, RXMZFH).
    Nothing(&'static str),
}

/// A TLBI of EL2 stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Invalidation {
    /// [`Reach::Own`] for the local forms, [`Reach::Inner`] or [`Reach::Outer`] for broadcast.
    pub reach: Reach,
    /// What it names.
    pub target: TlbiTarget,
    /// The L forms: entries of the last level alone, pages and blocks (RVMSWQ, RLQLSD).
    pub last_level_only: bool,
    /// The nXS form.
    pub without_xs: bool,
    /// A range operation: PEs without FEAT_TLBIRANGE do not take part.
    pub is_range: bool,
}

impl Invalidation {
    /// Decodes it as the PE with `features` issues it under `format`; nothing for an operation that is no TLBI of EL2 stage 1.
    #[must_use]
    pub fn decode(operation: Operation, operand: u64, format: &Format, features: &Features) -> Option<Self> {
        if !operation.invalidates_el2() {
            return None;
        }
        let Operation(encoding) = operation;
        let (reach, is_range) = match encoding.crm() {
            7 => (Reach::Own, false),
            3 => (Reach::Inner, false),
            1 => (Reach::Outer, false),
            6 => (Reach::Own, true),
            2 => (Reach::Inner, true),
            5 => (Reach::Outer, true),
            _ => return None,
        };
        let target = match encoding.op2() {
            0 if is_range => return None,
            0 => TlbiTarget::All,
            _ if is_range => range(operand, format, features),
            _ => page(operand, format, features),
        };
        let (last_level_only, without_xs) = (encoding.op2() == 5, encoding.crn() == 9);
        Some(Self { reach, target, last_level_only, without_xs, is_range })
    }
}

const fn granule_of(code: u64) -> Option<Granule> {
    match code {
        1 => Some(Granule::K4),
        2 => Some(Granule::K16),
        3 => Some(Granule::K64),
        _ => None,
    }
}

/// The level that a TTL names, whether or not the tables of the moment have leaves there. Values that are reserved count as no hint: those of
/// levels that the granule does not have, or has leaves at with FEAT_LPA2 alone.
const fn level_of(granule: Granule, ttl: u64, features: &Features) -> Option<i8> {
    match (granule, ttl) {
        (Granule::K4, 0) | (Granule::K16, 1) if !features.lpa2 => None,
        (Granule::K16 | Granule::K64, 0) => None,
        (_, level) => Some(level as i8),
    }
}

/// VA\[55:12\] in 43:0, TTL in 47:44, 63:48 RES0. The bits of VA below a larger granule's page are ignored.
fn page(operand: u64, format: &Format, features: &Features) -> TlbiTarget {
    if operand >> 48 != 0 {
        return TlbiTarget::Nothing("operand bits 63:48 are RES0");
    }
    let hint = operand >> 44 & 0xf;
    if hint != 0 && !features.ttl {
        return TlbiTarget::Nothing("operand bits 47:44 are RES0 without FEAT_TTL");
    }
    let va = (operand & ((1 << 44) - 1)) << 12 & !(format.granule.page_bytes() - 1);
    let level = match granule_of(hint >> 2) {
        None => None,
        Some(granule) if granule != format.granule => return TlbiTarget::Nothing("TTL is of another granule"),
        Some(granule) => level_of(granule, hint & 3, features),
    };
    TlbiTarget::Page { va, level }
}

/// Base in 36:0 (in pages; in units of 64 KiB with DS), TTL 38:37, NUM 43:39, SCALE 45:44, TG 47:46, 63:48 RES0.
fn range(operand: u64, format: &Format, features: &Features) -> TlbiTarget {
    if !features.tlbi_range {
        return TlbiTarget::Nothing("this PE has no FEAT_TLBIRANGE");
    }
    if operand >> 48 != 0 {
        return TlbiTarget::Nothing("operand bits 63:48 are RES0");
    }
    if granule_of(operand >> 46 & 3) != Some(format.granule) {
        return TlbiTarget::Nothing("TG is of another granule");
    }
    let unit = if format.ds { 16 } else { format.granule.page_shift() };
    let first = (operand & ((1 << 37) - 1)) << unit;
    let (num, scale, ttl) = (operand >> 39 & 31, operand >> 44 & 3, operand >> 37 & 3);
    let level = if ttl == 0 { None } else { level_of(format.granule, ttl, features) };
    if let Some(level) = level.filter(|&level| level < 3)
        && first & (format.span(level) - 1) != 0
    {
        return TlbiTarget::Nothing("the base is not aligned to the level that TTL names");
    }
    let pages = (num + 1) << (5 * scale + 1);
    let last = first.saturating_add((pages << format.granule.page_shift()) - 1);
    TlbiTarget::Range { first, last, level }
}

/// An aligned 8-byte word that a store touches: address, which bits, and their new value.
pub type StoredWord = (u64, u64, u64);

/// The words that a store touches, lowest first.
pub fn stored_words(access: &Access) -> impl Iterator<Item = StoredWord> + Clone {
    let Access { bytes, pa, value: words, .. } = *access;
    let is_whole = pa.is_multiple_of(8) && bytes >= 8;
    let bits = |count: u32| if count >= 64 { u64::MAX } else { (1 << count) - 1 };
    let value = u128::from(words[0]) | u128::from(words[1]) << 64;
    let (offset, end) = (pa & 7, (pa & 7) + u64::from(bytes));
    (0..end.div_ceil(8)).map(move |index| {
        // Nearly every store.
        if is_whole {
            return (pa + 8 * index, u64::MAX, words[index as usize & 1]);
        }
        let low = offset.max(8 * index);
        let high = end.min(8 * index + 8);
        let mask = bits(8 * (high - low) as u32) << (8 * (low - 8 * index));
        let shifted = if 8 * index >= offset {
            (value >> (8 * (8 * index - offset))) as u64
        } else {
            (value << (8 * (offset - 8 * index))) as u64
        };
        (((pa & !7) + 8 * index), mask, shifted & mask)
    })
}

/// What a DC by set and way names: a level of the caches of the PE that executes it, and a line there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SetAndWay {
    /// The level, from 1.
    pub level: u8,
    /// Set and way as they stand in the operand: the way from bit 31 down, the set from log2 of the bytes of a line up.
    pub line: u32,
}

impl SetAndWay {
    /// Decodes an operand: the level less 1 in 3:1, the rest of 3:0 and 63:32 RES0. Nothing where one of these is set.
    #[must_use]
    pub const fn decode(operand: u64) -> Option<Self> {
        let level = (operand >> 1 & 7) as u8 + 1;
        let is_reserved = operand >> 32 != 0 || operand & 1 != 0 || level > 7;
        if is_reserved { None } else { Some(Self { level, line: operand as u32 & !0xf }) }
    }
}
