//! The stores to a word of memory, and which of them a load's bytes may have come from.
//!
//! QEMU calls back between an access and the CPU's next instruction. So an access took place after the line of its CPU's instruction before,
//! and before its own line; and one of another CPU whose line stands before that interval is certainly earlier. Only within the
//! interval arrival order says nothing.

use breakwater_trace::Access;

use super::Moment;

/// More stores to one word than anybody needs to look back on.
const MOST: usize = 16;

/// A store to a word, or a part of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Store {
    pub(super) at: Moment,
    /// The line of its CPU's instruction before.
    pub(super) since: u64,
    pub(super) part: WordPart,
}

/// The bytes of an access that lie in one word.
#[derive(Clone, Copy, Debug)]
pub(super) struct WordPart {
    /// Physical address of the word, a multiple of 8.
    pub(super) pa: u64,
    /// A bit per byte.
    pub(super) bytes: u8,
    /// The word's value, as far as `bytes` go.
    pub(super) value: u64,
}

impl WordPart {
    /// The parts of an access, lowest first.
    pub(super) fn all(access: &Access) -> impl Iterator<Item = Self> {
        let (first, shift) = (access.pa & !7, access.pa as u32 & 7);
        let value = u128::from(access.value[0]) | u128::from(access.value[1]) << 64;
        let bytes = ((1_u32 << access.bytes) - 1) << shift;
        (0..3).filter_map(move |index: u32| {
            let pa = first.wrapping_add(8 * u64::from(index));
            let here = (bytes >> (8 * index)) as u8;
            let value = || if index == 0 { value << (8 * shift) } else { value >> (64 * index - 8 * shift) };
            (here != 0).then(|| Self { pa, bytes: here, value: value() as u64 })
        })
    }

    /// Byte `index` of the word, if it is among these.
    pub(super) const fn byte(&self, index: u32) -> Option<u8> {
        if self.bytes & (1 << index) != 0 { Some((self.value >> (8 * index)) as u8) } else { None }
    }

    /// The word `old` with these bytes in it.
    pub(super) fn over(&self, old: u64) -> u64 {
        (0..8).fold(old, |word, index| match self.byte(index) {
            Some(byte) => word & !(0xff << (8 * index)) | u64::from(byte) << (8 * index),
            None => word,
        })
    }
}

/// Where a byte's value came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// Nothing that is known has this value.
    Unknown,
    /// This store, or a later one of the same CPU.
    Store(Moment),
    /// One of several CPUs, or what was there in the beginning.
    Several,
}

impl Source {
    /// It may also have come from a store at `moment`.
    pub(super) fn or(self, moment: Moment) -> Self {
        match self {
            Self::Unknown => Self::Store(moment),
            Self::Store(known) if known.cpu == moment.cpu => Self::Store(known.min(moment)),
            Self::Store(_) | Self::Several => Self::Several,
        }
    }
}

/// A load: its place, the line of its CPU's instruction before, and what it returned.
pub(super) type Load = Store;

/// The stores to one word since there are several CPUs.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    stores: Vec<Store>,
    /// Some are forgotten.
    forgotten: bool,
}

impl History {
    pub(super) fn add(&mut self, store: Store) {
        if self.stores.len() == MOST {
            self.stores.remove(0);
            self.forgotten = true;
        }
        self.stores.push(store);
    }

    /// Where byte `index` of `load` may have come from, by the stores whose lines stand before its own. In the beginning it was
    /// `initial`.
    pub(super) fn source(&self, load: &Load, index: u32, initial: u8) -> Source {
        let Some(value) = load.part.byte(index) else { return Source::Unknown };
        let certain = |store: &Store| store.at.cpu == load.at.cpu || store.at.line < load.since;
        let mut last: Vec<&Store> = Vec::new();
        let mut source = Source::Unknown;
        let mut from_the_beginning = true;
        for store in self.stores.iter().rev() {
            let Some(stored) = store.part.byte(index) else { continue };
            let overwritten = |by: &&Store| certain(by) && (store.at.cpu == by.at.cpu || store.at.line < by.since);
            if last.iter().any(overwritten) {
                continue;
            }
            from_the_beginning &= !certain(store);
            last.push(store);
            if stored == value {
                source = source.or(store.at);
            }
        }
        let initially = from_the_beginning && (self.forgotten || initial == value);
        if initially { Source::Several } else { source }
    }
}
