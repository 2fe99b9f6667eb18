//! PSCI, by SMC: at EL2 an HVC would come back to ourselves.

use breakwater::addr::PhysAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use smccc::Smc;
use smccc::psci::{self, AffinityState, LowestAffinityLevel};

/// Whether firmware answers SMC: set from the device tree, never after an entry at EL3.
#[unsafe(link_section = ".sealed.psci")]
static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// Lets [`cpu_on`] and the others issue SMCs: firmware below answers them.
pub fn allow() {
    AVAILABLE.store(true, Ordering::Relaxed);
}

/// Whether PSCI may be used.
#[must_use]
pub fn is_available() -> bool {
    AVAILABLE.load(Ordering::Relaxed)
}

/// Starts the CPU with `affinity` at `entry`, MMU off, with `context` in x0.
///
/// # Errors
/// What PSCI answered, or that there is none.
pub(super) fn cpu_on(affinity: u64, entry: PhysAddr, context: u64) -> Result<(), psci::error::Error> {
    if !is_available() {
        return Err(psci::error::Error::NotSupported);
    }
    psci::cpu_on::<Smc>(affinity, entry.raw(), context)
}

/// Whether the CPU with `affinity` is off for good: it will not arrive any more.
pub(super) fn is_off(affinity: u64) -> bool {
    is_available() && matches!(psci::affinity_info::<Smc>(affinity, LowestAffinityLevel::All), Ok(AffinityState::Off))
}

/// Turns this CPU off, if PSCI can.
pub(super) fn cpu_off() {
    if is_available() {
        let _ = psci::cpu_off::<Smc>();
    }
}

/// Turns the machine off, if PSCI can.
pub fn system_off() {
    if is_available() {
        let _ = psci::system_off::<Smc>();
    }
}
