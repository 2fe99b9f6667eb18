//! Addresses and the units they come in.
//!
//! Why it exists: a physical address handed to a function that wants a virtual one is the oldest page-table fault there is.
//! Here the two are different types, a frame cannot be misaligned, and every bound says in its name whether it is exclusive.
//!
//! What must hold: a [`PhysAddr`] and a [`VirtAddr`] have at most 52 bits, the most that any stage 1 format has (EL2 with E2H=0 has one
//! range, from 0). Constructors refuse anything else; whether tables of a certain granule can say an address is for
//! [`crate::mapper`] to refuse. Methods of [`Level`] and constants here are those of the granule that boots, 4 KiB with 48 bits;
//! [`crate::geometry`] has the others.

#![forbid(unsafe_code)]

use core::fmt;

/// Bytes in a frame or page: the 4 KiB granule.
pub const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;
/// log2 of [`PAGE_BYTES`].
pub const PAGE_SHIFT: u32 = 12;
/// Bits of a virtual or physical address that the 4 KiB granule translates without FEAT_LPA2.
pub const ADDRESS_BITS: u32 = 48;
/// Bits of an address that any format has.
pub const ADDRESS_BITS_MAX: u32 = 52;
/// Descriptors in one table.
pub const SLOTS: usize = 512;

const LIMIT: u64 = 1 << ADDRESS_BITS_MAX;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address `raw`, or `None` when it has more than 52 bits. An exclusive end of exactly 2^52 is allowed.
            #[must_use]
            pub const fn new(raw: u64) -> Option<Self> {
                if raw <= LIMIT { Some(Self(raw)) } else { None }
            }

            /// The address `raw` of a constant expression.
            ///
            /// # Panics
            /// When `raw` has more than 52 bits; in a `const` this is a compile error.
            #[must_use]
            pub const fn at(raw: u64) -> Self {
                assert!(raw <= LIMIT, "an address has at most 52 bits");
                Self(raw)
            }

            /// The address `raw`, which is known to have at most 52 bits: part of a span or a table that exists.
            #[must_use]
            #[inline(always)]
            pub(crate) const fn within(raw: u64) -> Self {
                debug_assert!(raw <= LIMIT, "an address has at most 52 bits");
                Self(raw)
            }

            /// The number itself, in bytes.
            #[must_use]
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// `self + bytes`, or `None` beyond 2^52.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Self::new(raw),
                    None => None,
                }
            }

            /// Whether the address is a multiple of `bytes`, a power of two.
            #[must_use]
            pub const fn is_aligned(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }

            /// The greatest multiple of `bytes`, a power of two, that is not above the address.
            #[must_use]
            pub const fn align_down(self, bytes: u64) -> Self {
                Self(self.0 & !(bytes - 1))
            }

            /// The least multiple of `bytes`, a power of two, that is not below the address.
            #[must_use]
            pub const fn align_up(self, bytes: u64) -> Self {
                // At most 2^52 after rounding: every alignment used here divides 2^52.
                Self((self.0 + (bytes - 1)) & !(bytes - 1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:#x}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#014x}", self.0)
            }
        }
    };
}

address! {
    /// A physical address of at most 52 bits, in bytes.
    PhysAddr, "pa:"
}
address! {
    /// A virtual address of the EL2 regime (E2H=0: one range from 0), in bytes.
    VirtAddr, "va:"
}

impl VirtAddr {
    /// The index of this address in a table of `level`.
    #[must_use]
    pub const fn slot(self, level: Level) -> usize {
        ((self.0 >> level.shift()) & (SLOTS as u64 - 1)) as usize
    }

    /// The page that holds this address.
    #[must_use]
    pub const fn page(self) -> Page {
        Page(self.align_down(PAGE_BYTES))
    }
}

/// A physical frame of 4 KiB. Holding one proves that its address is aligned; it does not prove ownership.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Frame(PhysAddr);

impl Frame {
    /// The frame that starts at `start`, or `None` when `start` is not a multiple of 4 KiB.
    #[must_use]
    pub const fn new(start: PhysAddr) -> Option<Self> {
        if start.is_aligned(PAGE_BYTES) { Some(Self(start)) } else { None }
    }

    /// The frame that holds `address`.
    #[must_use]
    pub const fn containing(address: PhysAddr) -> Self {
        Self(address.align_down(PAGE_BYTES))
    }

    /// The frame's first byte.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        self.0
    }

    /// The frame `count` frames further up, or `None` beyond 2^52.
    #[must_use]
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match count.checked_mul(PAGE_BYTES) {
            Some(bytes) => match self.0.checked_add(bytes) {
                Some(start) => Some(Self(start)),
                None => None,
            },
            None => None,
        }
    }
}

/// A virtual page of 4 KiB. Holding one proves that its address is aligned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Page(VirtAddr);

impl Page {
    /// The page that starts at `start`, or `None` when `start` is not a multiple of 4 KiB.
    #[must_use]
    pub const fn new(start: VirtAddr) -> Option<Self> {
        if start.is_aligned(PAGE_BYTES) { Some(Self(start)) } else { None }
    }

    /// The page's first byte.
    #[must_use]
    pub const fn start(self) -> VirtAddr {
        self.0
    }
}

/// A level of the translation table walk: 3 holds pages. Sizes are those of the 4 KiB granule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(i8)]
pub enum Level {
    /// The root of the 4 KiB granule with 52-bit addresses: 256 TiB a slot.
    Minus1 = -1,
    /// The root: 512 GiB a slot, tables only (no blocks in the 4 KiB granule without FEAT_LPA2).
    L0 = 0,
    /// 1 GiB a slot.
    L1 = 1,
    /// 2 MiB a slot.
    L2 = 2,
    /// 4 KiB a slot, pages only.
    L3 = 3,
}

impl Level {
    /// log2 of the bytes that one slot of this level spans.
    #[must_use]
    pub const fn shift(self) -> u32 {
        PAGE_SHIFT + 9 * (3 - self as i32) as u32
    }

    /// The bytes that one slot of this level spans.
    #[must_use]
    pub const fn slot_bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The next level of the walk, or `None` below pages.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Minus1 => Some(Self::L0),
            Self::L0 => Some(Self::L1),
            Self::L1 => Some(Self::L2),
            Self::L2 => Some(Self::L3),
            Self::L3 => None,
        }
    }

    /// Whether a leaf may stand at this level: pages at 3, blocks at 2 and 1.
    #[must_use]
    pub const fn allows_leaf(self) -> bool {
        !matches!(self, Self::Minus1 | Self::L0)
    }
}

macro_rules! span {
    ($(#[$doc:meta])* $name:ident, $address:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name {
            start: $address,
            end_exclusive: $address,
        }

        impl $name {
            /// No bytes, at 0.
            pub const EMPTY: Self = Self { start: $address(0), end_exclusive: $address(0) };

            /// The span from `start` up to, not including, `end_exclusive`; `None` when it would run backwards.
            #[must_use]
            pub const fn new(start: $address, end_exclusive: $address) -> Option<Self> {
                if start.0 <= end_exclusive.0 { Some(Self { start, end_exclusive }) } else { None }
            }

            /// The span of `bytes` bytes from `start`; `None` beyond 2^52.
            #[must_use]
            pub const fn of(start: $address, bytes: u64) -> Option<Self> {
                match start.checked_add(bytes) {
                    Some(end_exclusive) => Some(Self { start, end_exclusive }),
                    None => None,
                }
            }

            /// The first byte.
            #[must_use]
            pub const fn start(self) -> $address {
                self.start
            }

            /// The first byte after the span.
            #[must_use]
            pub const fn end_exclusive(self) -> $address {
                self.end_exclusive
            }

            /// Whether all of the span lies below 2^`bits`.
            #[must_use]
            pub const fn fits(self, bits: u32) -> bool {
                self.end_exclusive.0 <= 1 << bits
            }

            /// Length in bytes.
            #[must_use]
            pub const fn bytes(self) -> u64 {
                self.end_exclusive.0 - self.start.0
            }

            /// Whether the span holds no byte.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.start.0 == self.end_exclusive.0
            }

            /// Whether `address` lies in the span.
            #[must_use]
            pub const fn contains(self, address: $address) -> bool {
                self.start.0 <= address.0 && address.0 < self.end_exclusive.0
            }

            /// Whether `other` lies wholly in the span; an empty one lies in every span that holds its start.
            #[must_use]
            pub const fn covers(self, other: Self) -> bool {
                self.start.0 <= other.start.0 && other.end_exclusive.0 <= self.end_exclusive.0
            }

            /// The bytes that both spans hold, or `None` when they share none.
            #[must_use]
            pub const fn intersection(self, other: Self) -> Option<Self> {
                let start = if self.start.0 > other.start.0 { self.start } else { other.start };
                let end_exclusive =
                    if self.end_exclusive.0 < other.end_exclusive.0 { self.end_exclusive } else { other.end_exclusive };
                if start.0 < end_exclusive.0 { Some(Self { start, end_exclusive }) } else { None }
            }

            /// The smallest span that covers both; an empty one adds nothing.
            #[must_use]
            pub const fn joined(self, other: Self) -> Self {
                match (self.is_empty(), other.is_empty()) {
                    (true, _) => other,
                    (_, true) => self,
                    _ => Self {
                        start: if self.start.0 < other.start.0 { self.start } else { other.start },
                        end_exclusive: if self.end_exclusive.0 > other.end_exclusive.0 {
                            self.end_exclusive
                        } else {
                            other.end_exclusive
                        },
                    },
                }
            }

            /// The smallest span of whole 4 KiB units that covers this one.
            #[must_use]
            pub const fn page_cover(self) -> Self {
                Self {
                    start: self.start.align_down(PAGE_BYTES),
                    end_exclusive: self.end_exclusive.align_up(PAGE_BYTES),
                }
            }

            /// The largest span of whole 4 KiB units inside this one; empty when there is none.
            #[must_use]
            pub const fn page_core(self) -> Self {
                let start = self.start.align_up(PAGE_BYTES);
                let end_exclusive = self.end_exclusive.align_down(PAGE_BYTES);
                if start.0 <= end_exclusive.0 { Self { start, end_exclusive } } else { Self { start, end_exclusive: start } }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}..{:?}", self.start, self.end_exclusive)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}..{}", self.start, self.end_exclusive)
            }
        }
    };
}

span! {
    /// A span of physical bytes.
    PhysSpan, PhysAddr
}
span! {
    /// A span of virtual bytes.
    VirtSpan, VirtAddr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_slots_of_the_link_address() {
        let link = VirtAddr::at(0x0a00_0020_0000);
        let slots = [Level::L0, Level::L1, Level::L2, Level::L3].map(|level| link.slot(level));
        assert_eq!(slots, [20, 0, 1, 0]);
    }

    #[test]
    fn bad_addresses_are_refused() {
        assert_eq!(PhysAddr::new(LIMIT + 1), None);
        assert_eq!(PhysAddr::at(LIMIT).checked_add(1), None);
        assert_eq!(PhysAddr::at(8).checked_add(u64::MAX), None);
        assert_eq!(Frame::new(PhysAddr::at(0x1800)), None);
        assert_eq!(Page::new(VirtAddr::at(1)), None);
    }

    #[test]
    fn good_page_cover_and_core() {
        let span = PhysSpan::of(PhysAddr::at(0x1800), 0x1000).unwrap();
        assert_eq!(span.page_cover(), PhysSpan::of(PhysAddr::at(0x1000), 0x2000).unwrap());
        assert!(span.page_core().is_empty());
        assert_eq!(span.intersection(PhysSpan::of(PhysAddr::at(0x2800), 1).unwrap()), None);
        let other = PhysSpan::of(PhysAddr::at(0x4000), 0x800).unwrap();
        assert_eq!(span.joined(other), PhysSpan::of(PhysAddr::at(0x1800), 0x3000).unwrap());
        assert_eq!(other.joined(span), span.joined(other));
        assert_eq!((span.joined(PhysSpan::EMPTY), PhysSpan::EMPTY.joined(span)), (span, span));
    }
}
