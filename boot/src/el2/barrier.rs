//! Barriers, one a function. The crate aarch64-cpu knows the encodings; these are the ones that boot needs.

use aarch64_cpu::asm::barrier;

/// Stores before are visible to table walks of the Inner Shareable domain.
#[inline(always)]
pub(super) fn dsb_ishst() {
    barrier::dsb(barrier::ISHST);
}

/// Loads, stores and broadcast TLBIs before are complete in the Inner Shareable domain.
#[inline(always)]
pub(super) fn dsb_ish() {
    barrier::dsb(barrier::ISH);
}

/// Loads, stores and local TLBIs before are complete for this PE.
#[inline(always)]
pub(super) fn dsb_nsh() {
    barrier::dsb(barrier::NSH);
}

/// Everything before is complete in the full system, cache maintenance to the point of coherency included.
#[inline(always)]
pub(super) fn dsb_sy() {
    barrier::dsb(barrier::SY);
}

/// What follows is fetched and translated anew.
#[inline(always)]
pub(super) fn isb() {
    barrier::isb(barrier::SY);
}
