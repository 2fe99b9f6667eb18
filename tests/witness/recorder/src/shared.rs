//! `loads=shared`: which loads tell something about the order between CPUs.
//!
//! A load does if another CPU has stored to its word since this CPU last stored to or loaded from it, or if it returns another value than
//! this CPU last saw there (the store's report may arrive after the load's). All others, which are nearly all, could be left out without
//! anybody knowing less about who came before whom.
//!
//! Both halves are bounded, so that the cost is: per CPU what it last saw of 2^14 words, and for the machine who stored last to 2^18, both
//! by the low bits of the word's address. A word that another has pushed out is treated as changed: one line too many, none too few.
//! The one load that can be missed is a CPU's first of a word, when the first store to it ever is under way.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use breakwater_trace::Access;

const SEEN_BITS: u32 = 14;
const STORED_BITS: u32 = 18;
/// A stamp: the word's address above [`STORED_BITS`], a serial number, and the CPU.
const CPU_BITS: u32 = 7;
const SERIAL_BITS: u32 = 26;

/// What is remembered of a word of eight bytes that a CPU has accessed.
#[derive(Clone, Copy, Default)]
struct Word {
    /// Its number, the physical address over 8, plus one; 0 for none.
    tag: u64,
    value: u64,
    /// A bit per byte whose value is known.
    known: u8,
    /// The stamp that the word had.
    stamp: u64,
}

/// Who stored what, and who knows of it.
pub(crate) struct Shared {
    serial: AtomicU64,
    stamps: Vec<AtomicU64>,
    /// By CPU. Each is used by that CPU's thread alone: the lock is there for the compiler.
    seen: Vec<Mutex<Vec<Word>>>,
    started: AtomicU32,
}

/// A part of an access: one word, and which of its bytes.
#[derive(Clone, Copy)]
struct WordPart {
    number: u64,
    value: u64,
    bytes: u8,
}

impl Shared {
    /// Nothing seen, nothing stored.
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            serial: AtomicU64::new(1),
            stamps: (0..1 << STORED_BITS).map(|_| AtomicU64::new(0)).collect(),
            seen: (0..cpus).map(|_| Mutex::default()).collect(),
            started: AtomicU32::new(0),
        }
    }

    /// A CPU executes its first instruction.
    pub(crate) fn starts(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// True once there is an order between CPUs to speak of.
    pub(crate) fn several(&self) -> bool {
        self.started.load(Ordering::Relaxed) > 1
    }

    /// `cpu` has stored.
    pub(crate) fn stored(&self, cpu: u32, access: &Access) {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let mut seen = self.seen_by(cpu);
        for part in parts(access) {
            let stamp = stamp_of(part.number, serial, cpu);
            self.stamps[part.number as usize & ((1 << STORED_BITS) - 1)].store(stamp, Ordering::Relaxed);
            see(&mut seen, part, stamp);
        }
    }

    /// `cpu` has loaded: whether that says anything about other CPUs.
    pub(crate) fn tells(&self, cpu: u32, access: &Access) -> bool {
        let mut seen = self.seen_by(cpu);
        let mut tells = false;
        for part in parts(access) {
            let stamp = self.stamps[part.number as usize & ((1 << STORED_BITS) - 1)].load(Ordering::Relaxed);
            let known = slot(&mut seen, part.number);
            let here = known.tag == part.number + 1;
            let of_this_word = stamp >> (CPU_BITS + SERIAL_BITS) == part.number >> STORED_BITS;
            let own = of_this_word && stamp & ((1 << CPU_BITS) - 1) == u64::from(cpu);
            let stored_since = stamp != 0 && !own && !(here && known.stamp == stamp);
            let differs = here && (known.value ^ part.value) & spread(known.known & part.bytes) != 0;
            tells |= stored_since || differs;
            see(&mut seen, part, stamp);
        }
        tells
    }

    fn seen_by(&self, cpu: u32) -> std::sync::MutexGuard<'_, Vec<Word>> {
        let mut seen = self.seen[cpu as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_empty() {
            seen.resize(1 << SEEN_BITS, Word::default());
        }
        seen
    }
}

const fn stamp_of(number: u64, serial: u64, cpu: u32) -> u64 {
    let serial = serial & ((1 << SERIAL_BITS) - 1);
    (number >> STORED_BITS) << (CPU_BITS + SERIAL_BITS) | serial << CPU_BITS | cpu as u64
}

fn slot(seen: &mut [Word], number: u64) -> &mut Word {
    &mut seen[number as usize & ((1 << SEEN_BITS) - 1)]
}

/// Notes that the CPU knows `part` as of `stamp`.
fn see(seen: &mut [Word], part: WordPart, stamp: u64) {
    let word = slot(seen, part.number);
    if word.tag != part.number + 1 {
        *word = Word { tag: part.number + 1, ..Word::default() };
    }
    let mask = spread(part.bytes);
    word.value = word.value & !mask | part.value & mask;
    word.known |= part.bytes;
    word.stamp = stamp;
}

/// A bit per byte -> eight bits per byte.
const fn spread(bytes: u8) -> u64 {
    let mut mask = 0;
    let mut byte = 0;
    while byte < 8 {
        if bytes & (1 << byte) != 0 {
            mask |= 0xff << (8 * byte);
        }
        byte += 1;
    }
    mask
}

/// The words that an access touches, one to three of them.
fn parts(access: &Access) -> impl Iterator<Item = WordPart> {
    let (first, shift) = (access.pa >> 3, access.pa as u32 & 7);
    // 24 bytes from the first word's start: the value, and which bytes it has.
    let value = u128::from(access.value[0]) | u128::from(access.value[1]) << 64;
    let bytes = ((1_u32 << access.bytes) - 1) << shift;
    (0..3).filter_map(move |index: u32| {
        let number = first + u64::from(index);
        let bytes = (bytes >> (8 * index)) as u8;
        let up = 8 * shift;
        let in_word = || if index == 0 { value << up } else { value >> (64 * index - up) };
        (bytes != 0).then(|| WordPart { number, value: in_word() as u64, bytes })
    })
}
