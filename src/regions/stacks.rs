//! Stacks of the secondaries, in vmap, each with a page below it that is never mapped.
//!
//! ```text
//! STACKS, MAX_CPUS slots of 64 KiB, one a CPU:
//!   + 0        guard
//!   + 4 KiB    exception stack, 8 KiB
//!   + 12 KiB   guard
//!   + 16 KiB   stack, 32 KiB unless its maker wants another size, at most 44 KiB
//!   + 60 KiB   nothing
//! ```

#![forbid(unsafe_code)]

use super::{Failure, Space, image};
use crate::addr::{Level, PAGE_BYTES, VirtAddr, VirtSpan};
use crate::audit::Declared;
use crate::layout::{MAX_CPUS, STACKS};
use crate::machine::Machine;
use core::marker::PhantomData;
use static_assertions::const_assert;

const SLOT_BYTES: u64 = 64 << 10;
const EXCEPTION_STACK_OFFSET: u64 = PAGE_BYTES;
const EXCEPTION_STACK_BYTES: u64 = 8 << 10;
const STACK_OFFSET: u64 = 16 << 10;
/// The usual size of a stack, in bytes.
pub const STACK_BYTES: u64 = 32 << 10;
/// The most that a stack may have, in bytes: the page behind it is never mapped.
pub const STACK_BYTES_MAX: u64 = SLOT_BYTES - STACK_OFFSET - PAGE_BYTES;

const_assert!(EXCEPTION_STACK_OFFSET + EXCEPTION_STACK_BYTES + PAGE_BYTES <= STACK_OFFSET);
const_assert!(STACK_BYTES <= STACK_BYTES_MAX);
const_assert!(MAX_CPUS as u64 * SLOT_BYTES == STACKS.bytes());

/// The stacks of a CPU.
#[derive(Clone, Copy, Debug)]
pub struct Stacks {
    /// Where it runs.
    pub stack: VirtSpan,
    /// Where it takes exceptions.
    pub exception_stack: VirtSpan,
}

/// The stacks of a CPU that were mapped, just now and for it alone: what a CPU is started on.
#[derive(Debug)]
#[must_use = "stacks are for a CPU to be started on"]
pub struct MappedStacks<M> {
    index: usize,
    stacks: Stacks,
    machine: PhantomData<fn() -> M>,
}

impl<M> MappedStacks<M> {
    /// The index of the CPU.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Where they are.
    #[must_use]
    pub fn stacks(&self) -> Stacks {
        self.stacks
    }
}

/// Where the stacks of CPU `index` are, mapped or not; the one it runs on has `stack_bytes` bytes.
///
/// # Panics
/// When there is no such CPU: `index` is below [`MAX_CPUS`]. When the size is no whole number of pages, or above [`STACK_BYTES_MAX`].
#[must_use]
pub fn stacks_of(index: usize, stack_bytes: u64) -> Stacks {
    assert!(index < MAX_CPUS, "CPU indices are below MAX_CPUS");
    assert!(stack_bytes.is_multiple_of(PAGE_BYTES) && stack_bytes <= STACK_BYTES_MAX, "a stack fits in its slot");
    let slot = STACKS.start().raw() + index as u64 * SLOT_BYTES;
    let span = |offset, bytes| {
        VirtSpan::of(VirtAddr::at(slot + offset), bytes).unwrap_or_else(|| unreachable!("stacks lie in vmap"))
    };
    Stacks {
        stack: span(STACK_OFFSET, stack_bytes),
        exception_stack: span(EXCEPTION_STACK_OFFSET, EXCEPTION_STACK_BYTES),
    }
}

/// Whether `virt` lies in the page below one of the stacks.
#[must_use]
pub fn is_guard(virt: VirtAddr) -> bool {
    if !STACKS.contains(virt) {
        return false;
    }
    let offset = virt.raw() - STACKS.start().raw();
    let page = offset % SLOT_BYTES / PAGE_BYTES * PAGE_BYTES;
    page == EXCEPTION_STACK_OFFSET - PAGE_BYTES || page == STACK_OFFSET - PAGE_BYTES
}

/// The first page of `span` that lies below one of the stacks.
#[must_use]
pub fn guard_in(span: VirtSpan) -> Option<VirtSpan> {
    let met = STACKS.intersection(span.page_cover())?;
    let mut pages = (met.start().raw()..met.end_exclusive().raw()).step_by(PAGE_BYTES as usize).map(VirtAddr::at);
    VirtSpan::of(pages.find(|&page| is_guard(page))?, PAGE_BYTES)
}

/// Maps the stacks of CPU `index`, whose frames come from free RAM.
///
/// # Errors
/// [`Failure`]; what was mapped before stays declared.
///
/// # Panics
/// As [`stacks_of`].
pub fn map<M: Machine>(space: &mut Space<'_, M>, index: usize, stack_bytes: u64) -> Result<MappedStacks<M>, Failure> {
    let stacks = stacks_of(index, stack_bytes);
    for (name, virt) in [("CPU stack", stacks.stack), ("CPU exception stack", stacks.exception_stack)] {
        let bytes = virt.bytes();
        let piece = space.frames.take_ram(bytes, PAGE_BYTES).ok_or(Failure::NoRam { name, bytes })?;
        let region = Declared { name, virt, output: Some(piece.span().start()), attributes: image::DATA };
        space.map(region, Level::L3)?;
    }
    Ok(MappedStacks { index, stacks, machine: PhantomData })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_each_stack_has_a_guard_below() {
        for (index, bytes) in [(0, STACK_BYTES), (1, STACK_BYTES_MAX), (MAX_CPUS - 1, STACK_BYTES_MAX)] {
            let Stacks { stack, exception_stack } = stacks_of(index, bytes);
            assert_eq!(stack.bytes(), bytes);
            for span in [stack, exception_stack] {
                assert!(STACKS.covers(span));
                assert!(is_guard(VirtAddr::at(span.start().raw() - 1)), "below {span:?}");
                assert!(!is_guard(span.start()));
                assert!(!is_guard(VirtAddr::at(span.end_exclusive().raw() - 1)));
            }
        }
    }

    #[test]
    fn good_guards_of_a_span() {
        let stack = stacks_of(1, STACK_BYTES).stack;
        let below = VirtSpan::of(VirtAddr::at(stack.start().raw() - PAGE_BYTES), PAGE_BYTES).unwrap();
        assert_eq!(guard_in(stack), None);
        assert_eq!(guard_in(VirtSpan::new(below.start(), stack.end_exclusive()).unwrap()), Some(below));
        assert!(guard_in(STACKS).is_some_and(|guard| guard.start() == STACKS.start()), "CPU 0's slot has them too");
    }

    #[test]
    fn bad_addresses_outside_the_stacks_are_no_guards() {
        assert!(!is_guard(VirtAddr::at(STACKS.start().raw() - 1)));
        assert!(!is_guard(VirtAddr::at(STACKS.end_exclusive().raw())));
        assert!(!is_guard(VirtAddr::at(0)));
    }
}
