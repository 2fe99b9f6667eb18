//! The last few kilobytes of what was said before anyone could listen.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Bytes kept; older ones are lost first.
const CAPACITY: usize = 2048;

/// A ring of bytes that any CPU may push to without a lock.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: [AtomicU8; CAPACITY],
    pushed: AtomicUsize,
    drained: AtomicUsize,
}

impl Ring {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [const { AtomicU8::new(0) }; CAPACITY],
            pushed: AtomicUsize::new(0),
            drained: AtomicUsize::new(0),
        }
    }

    pub(super) fn push(&self, byte: u8) {
        let place = self.pushed.fetch_add(1, Ordering::Relaxed);
        self.bytes[place % CAPACITY].store(byte, Ordering::Relaxed);
    }

    /// Gives each byte kept to `sink`, oldest first, once.
    pub(super) fn drain(&self, sink: impl Fn(u8)) {
        let pushed = self.pushed.load(Ordering::Relaxed);
        let from = self.drained.swap(pushed, Ordering::Relaxed).max(pushed.saturating_sub(CAPACITY));
        for place in from..pushed {
            sink(self.bytes[place % CAPACITY].load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;

    fn drained(ring: &Ring) -> Vec<u8> {
        let out = RefCell::new(Vec::new());
        ring.drain(|byte| out.borrow_mut().push(byte));
        out.into_inner()
    }

    #[test]
    fn good_what_was_pushed_comes_out_once() {
        let ring = Ring::new();
        b"early".iter().for_each(|&byte| ring.push(byte));
        assert_eq!(drained(&ring), b"early");
        assert_eq!(drained(&ring), b"");
    }

    #[test]
    fn good_the_oldest_is_lost_first() {
        let ring = Ring::new();
        (0..CAPACITY + 3).for_each(|count| ring.push(count as u8));
        let out = drained(&ring);
        assert_eq!((out.len(), out[0]), (CAPACITY, 3));
    }
}
