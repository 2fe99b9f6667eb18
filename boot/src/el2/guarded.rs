//! A load and a store that survive finding nothing mapped.
//!
//! Why it exists: while one CPU changes a mapping by break-before-make, the others may access it, and for that moment
//! there is nothing there. Whoever accesses what others may be changing, or what may not be mapped at all, has to
//! survive that and decide by itself what it means: try again, or give up.
//!
//! What must hold: exactly two instructions of the image are treated so (boot/vectors.S: the load of `guarded_load`,
//! the store of `guarded_store`), and of their faults only those of their own access, from this EL, at a level from 0
//! to 3: translation faults, and permission faults of the store. Every other fault there (a TLB conflict, an external
//! abort, a read that is not permitted), and every fault anywhere else, is reported and ends the run, as ever. The way
//! there and back uses neither memory nor a stack, so it holds whatever is broken meanwhile, short of the text itself.
//!
//! Exception entry and return are context synchronization events: a second attempt translates anew.
//!
//! Both wrap one instruction, and neither is for the exception path, where every fault is one too many.

use breakwater::fault::Syndrome;

/// An access that was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faulted {
    /// FAR_EL2: the address, in bytes.
    pub address: u64,
    /// ESR_EL2: a data abort, with its kind and the level where the walk ended.
    pub syndrome: Syndrome,
}

/// What both return, in x0 and x1.
#[repr(C)]
struct Outcome {
    value: u64,
    syndrome: u64,
}

unsafe extern "C" {
    /// boot/vectors.S.
    ///
    /// # Safety
    /// As for [`load_or_fault`].
    fn guarded_load(address: u64) -> Outcome;

    /// boot/vectors.S.
    ///
    /// # Safety
    /// As for [`store_or_fault`].
    fn guarded_store(address: u64, value: u64) -> Outcome;
}

impl Outcome {
    fn into_result(self) -> Result<u64, Faulted> {
        match self.syndrome {
            0 => Ok(self.value),
            syndrome => Err(Faulted { address: self.value, syndrome: Syndrome(syndrome) }),
        }
    }
}

/// Loads 64 bits from `address`, in one access.
///
/// # Errors
/// [`Faulted`]: a translation fault. Any other fault ends the run with a report.
///
/// # Safety
/// `address` is a multiple of 8, and what may be mapped there is Normal memory where no Rust object lives but atomics.
pub unsafe fn load_or_fault(address: u64) -> Result<u64, Faulted> {
    // SAFETY: the caller vouches for what may be mapped; that nothing is, the vector handles.
    unsafe { guarded_load(address) }.into_result()
}

/// Stores 64 bits at `address`, in one access.
///
/// # Errors
/// [`Faulted`]: a translation fault or a permission fault; nothing was stored. Any other fault ends the run with a
/// report.
///
/// # Safety
/// As for [`load_or_fault`]; and no Rust object lives in any frame that may be mapped there, but atomics that may take
/// any value.
pub unsafe fn store_or_fault(address: u64, value: u64) -> Result<(), Faulted> {
    // SAFETY: the caller vouches for what may be mapped; that nothing is, or nothing that may be written, the vector
    // handles.
    unsafe { guarded_store(address, value) }.into_result().map(drop)
}
