//! Memory for tables: frames side by side in host memory, each at the physical address that is its host address.
//!
//! Why it exists: candidates are compared by what they do to tables, so what stands for physical memory costs all of them the same and as
//! little as can be: no map, no check, no addition. A physical address *is* a pointer, as under an identity map.
//!
//! What must hold: one candidate uses the arena at a time, which the lock of [`Arena::lock`] sees to. Every access is one relaxed atomic load
//! or store of 64 bits, as hardware that walks tables requires of a descriptor; the compiler then merges none of them.
//!
//! Barriers and TLB maintenance are counted, and cost every candidate the same. A DSB waits for the stores before it; the host's instruction that
//! does most nearly that is a full fence, and so a DSB is one here. It costs some tens of cycles and lets no request overlap the next one. TLBI
//! and ISB have no counterpart, and cost next to nothing. The counts are static because a peer's hooks are functions without a receiver.
//!
//! All `unsafe` of this crate that is not in a peer's interface is here.

use std::alloc::{Layout, alloc};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes in a frame.
pub const FRAME: u64 = 4096;
/// Frames of the arena: tables for 4 GiB of pages, and as many again.
pub const FRAMES: u64 = 4096;
/// Fills frames that nobody has taken: neither zero nor a valid descriptor.
const RUBBISH: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// The first frame not yet taken by [`take`]. Here and not in the arena: a peer asks for frames without saying of which arena.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The right to use the arena: whoever has it uses it alone.
#[derive(Debug)]
pub struct Arena {
    base: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Arena {
    /// Waits for the arena. No frame is taken, and every frame holds rubbish.
    #[must_use]
    pub fn lock() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let arena = Self { base: base(), _alone: alone };
        arena.refresh(FRAMES);
        arena
    }

    /// The physical address of the first frame.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Takes every frame back, and writes rubbish over the first `frames`: they are warm, and their past is nobody's.
    pub fn refresh(&self, frames: u64) {
        NEXT.store(self.base as usize, Ordering::Relaxed);
        let words = frames.min(FRAMES) * FRAME / 8;
        (0..words).for_each(|word| store(self.base + 8 * word, RUBBISH));
    }
}

/// Takes the next frame; its contents are unknown.
///
/// # Panics
/// When the arena is used up: the requests of this crate are sized for it.
#[inline]
#[must_use]
pub fn take() -> u64 {
    let frame = NEXT.load(Ordering::Relaxed);
    NEXT.store(frame + FRAME as usize, Ordering::Relaxed);
    assert!((frame as u64) < base() + FRAMES * FRAME, "the arena has frames for every request");
    frame as u64
}

/// The arena's first byte. It is never freed.
fn base() -> u64 {
    static BASE: OnceLock<u64> = OnceLock::new();
    *BASE.get_or_init(|| {
        // Aligned to 2 MiB: whether the host maps it by large pages is then the host's choice alone, and the same for all.
        let layout = Layout::from_size_align((FRAMES * FRAME) as usize, 2 << 20).expect("a size that fits");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(layout) };
        assert!(!start.is_null(), "16 MiB of memory");
        start.expose_provenance() as u64
    })
}

/// The word at physical address `address`.
#[inline(always)]
fn word<'a>(address: u64) -> &'a AtomicU64 {
    debug_assert!(address.is_multiple_of(8) && (base()..base() + FRAMES * FRAME).contains(&address));
    let pointer = std::ptr::with_exposed_provenance::<AtomicU64>(address as usize);
    // SAFETY: every address that reaches this function is a frame's of the arena plus a multiple of 8 below 4096: the arena is the only
    // memory whose addresses the candidates are given for tables. It is aligned, never freed, and accessed as atomic words only.
    unsafe { &*pointer }
}

/// Loads the descriptor at `address`, in one access.
#[inline(always)]
#[must_use]
pub fn load(address: u64) -> u64 {
    word(address).load(Ordering::Relaxed)
}

/// Stores the descriptor at `address`, in one access.
#[inline(always)]
pub fn store(address: u64, value: u64) {
    word(address).store(value, Ordering::Relaxed);
}

/// Stores `count` descriptors from `first` on, side by side, the first of which is `descriptor` and each further one greater by `step`.
#[inline(always)]
pub fn store_run(first: u64, count: u64, mut descriptor: u64, step: u64) {
    for index in 0..count {
        store(first + 8 * index, descriptor);
        descriptor = descriptor.wrapping_add(step);
    }
}

/// Zeroes the frame at `frame`, as fast as the host can.
#[inline]
pub fn zero(frame: u64) {
    debug_assert!(frame.is_multiple_of(FRAME) && (base()..base() + FRAMES * FRAME).contains(&frame));
    let pointer = std::ptr::with_exposed_provenance_mut::<u8>(frame as usize);
    // SAFETY: a whole frame of the arena, as for `word`; no other thread has it, because the arena is locked.
    unsafe { pointer.write_bytes(0, FRAME as usize) }
}

static TLBIS: AtomicU64 = AtomicU64::new(0);
static DSBS: AtomicU64 = AtomicU64::new(0);
static ISBS: AtomicU64 = AtomicU64::new(0);

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Maintenance {
    /// TLBI instructions.
    pub tlbis: u64,
    /// DSB instructions.
    pub dsbs: u64,
    /// ISB instructions.
    pub isbs: u64,
}

/// Load and store, not one atomic operation: the cost of an instruction that the host does not have should be small.
#[inline(always)]
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// A TLBI with this operand.
#[inline(always)]
pub fn tlbi(operand: u64) {
    black_box(operand);
    count(&TLBIS);
}

/// A DSB of any kind: the host's full fence.
#[inline(always)]
pub fn dsb() {
    fence(Ordering::SeqCst);
    count(&DSBS);
}

/// An ISB.
#[inline(always)]
pub fn isb() {
    count(&ISBS);
}

/// What was done since the process began.
#[must_use]
pub fn done() -> Maintenance {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Maintenance { tlbis: read(&TLBIS), dsbs: read(&DSBS), isbs: read(&ISBS) }
}

impl std::ops::Sub for Maintenance {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { tlbis: self.tlbis - before.tlbis, dsbs: self.dsbs - before.dsbs, isbs: self.isbs - before.isbs }
    }
}
