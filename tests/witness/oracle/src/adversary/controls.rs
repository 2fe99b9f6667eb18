//! Control registers: in force at once or only after context synchronisation, and cached in TLBs (RVNRFW).

use breakwater_trace::{Register, Step};

use crate::descriptor::{Format, Granule};
use crate::level::ExceptionLevel;
use crate::regime::{Control, Controls};

use super::element::{Element, FaultView, Neighbour};
use super::permission::Permission;
use super::roots::Begun;
use super::{Adversary, HarmKind, Held};

/// Unsynchronised writes beyond are not told apart.
const MOST_OLDER: usize = 16;

/// How TLBI operands are read while TCR_EL2 has values that no walk can follow.
pub(super) const fn fallback_format() -> Format {
    Format {
        granule: Granule::K4,
        ds: false,
        start_level: 0,
        input_bits: 48,
        output_bits: 48,
        wide: false,
        hardware_dirty: false,
        hardware_access: false,
        hierarchy_disabled: false,
        shareability: 0,
    }
}

impl Adversary {
    /// MSR.
    pub(super) fn write_control(&mut self, at: usize, register: Register, value: u64, pc: u64) {
        let Element { levels, controls, .. } = &*self.elements[at];
        let reached = if levels.is_el2() { Control::written(register, controls) } else { Control::of(register) };
        let Some(control) = reached else {
            if self.elements[at].neighbour != Neighbour::Other {
                self.elements[at].neighbour = Neighbour::Other;
            }
            return;
        };
        let old = self.elements[at].controls;
        let begun = self.elements[at].begun();
        self.check_neighbours(at, control, &old, value);
        self.elements[at].set_control(control, value, self.permissions);
        self.controls_changed(at, &old, &begun);
        if control == Control::Sctlr && (old.sctlr ^ value) & 1 != 0 && !self.elements[at].levels.is_el3() {
            self.fetch_past(at, &old, pc);
        }
    }

    /// M has changed in the instruction at `pc`: that and the next one are fetched with either value.
    fn fetch_past(&mut self, at: usize, old: &Controls, pc: u64) {
        let element = &self.elements[at];
        if !element.has_fetched || pc == 0 || !self.permissions.has(Permission::OldControlsUntilIsb) {
            return;
        }
        let translating = if old.mmu_on() { *old } else { element.controls };
        if [pc, pc.wrapping_add(4)].iter().any(|pc| !element.runs_in_place(&self.memory, &translating, *pc)) {
            let what = "the instruction that changes M and the next one are not executable at their physical addresses";
            self.harm(at, HarmKind::Controls, Some(pc), what);
        }
    }

    /// Walks with controls that may be in force from now on, and what they make of the caches.
    /// Its walks had `begun` before.
    fn controls_changed(&mut self, at: usize, old: &Controls, begun: &[Begun]) {
        let now = self.elements[at].controls;
        if self.elements[at].levels.is_el3() {
            return;
        }
        if now.mmu_on() && !old.mmu_on() {
            self.enable(at);
        } else if old.mmu_on() && !now.mmu_on() {
            self.elements[at].was_on = true;
            self.elements[at].window_access |= self.elements[at].is_storing || old.cache_on() != now.cache_on();
        }
        if self.elements[at].walks() {
            if !self.elements[at].former_roots.is_empty() {
                self.elements[at].retire_roots(&[]);
            }
            self.refuse_unsupported(at);
            let walked =
                |controls: &Controls| (controls.mmu_on(), controls.ttbr0, controls.tcr, controls.mair, controls.sctlr);
            if walked(old) != walked(&now) {
                let mut begins = self.elements[at].begun();
                // Where another PE walks already, what lines hide is owed already.
                let others = self.elements.iter().enumerate().filter(|(other, _)| *other != at);
                let known: Vec<Begun> = others.flat_map(|(_, element)| element.begun()).collect();
                begins.retain(|begun_now| !begun.contains(begun_now) && !known.contains(begun_now));
                self.walk(at, |walker| {
                    walker.change_types(old.mair, now.mair);
                    walker.explore_roots(&begins);
                });
            }
            self.share(at);
        }
    }

    fn check_neighbours(&mut self, at: usize, control: Control, old: &Controls, value: u64) {
        let Element { features, neighbour, .. } = *self.elements[at];
        let at_el3 = self.elements[at].levels.is_el3();
        if features.isb_before_mmu_off && self.permissions.has(Permission::FetchPastMmuOff) {
            let clears_m = control == Control::Sctlr && old.mmu_on() && value & 1 == 0;
            if clears_m && !at_el3 && neighbour != Neighbour::Isb {
                self.harm(at, HarmKind::Erratum, None, "no ISB directly before M is cleared");
            }
        }
        let watches = features.hcr_barriers && self.permissions.has(Permission::OverlapHcrWrite);
        if watches && control == Control::Hcr && neighbour != Neighbour::Dsb {
            self.harm(at, HarmKind::Erratum, None, "no DSB directly before a write of HCR_EL2");
        }
        let is_watched = watches && control == Control::Hcr;
        self.elements[at].neighbour = if is_watched { Neighbour::HcrWrite } else { Neighbour::Other };
    }

    /// M becomes 1: translation begins with whatever the TLB holds.
    fn enable(&mut self, at: usize) {
        let element = &self.elements[at];
        let (garbage, is_settling) = (element.garbage.is_some(), element.is_settling);
        let (is_cached, window) = (!element.cached_controls.is_empty(), element.window_access);
        let is_unknown = element.unknown_controls != 0 && self.permissions.has(Permission::ResetControls);
        if is_unknown {
            self.harm(
                at,
                HarmKind::Controls,
                None,
                "the MMU is turned on under controls that nobody wrote since reset",
            );
        }
        if garbage {
            self.harm(at, HarmKind::Garbage, None, "the MMU is turned on over what the TLB held out of reset");
        }
        if is_cached {
            self.harm(at, HarmKind::Controls, None, "the MMU is turned on while a TLB may hold other control values");
        }
        if is_settling {
            self.harm(
                at,
                HarmKind::Controls,
                None,
                "the MMU is turned on before an ISB follows the completed invalidation",
            );
        }
        if window {
            self.harm(at, HarmKind::Window, None, "memory was accessed while the MMU was off between two roots");
        }
        self.elements[at].window_access = false;
        self.elements[at].was_on = true;
    }

    fn refuse_unsupported(&mut self, at: usize) {
        let mut possible = self.elements[at].possible_controls();
        possible.retain(Controls::mmu_on);
        if possible.iter().any(Controls::e2h) {
            self.harm(at, HarmKind::Unsupported, None, "HCR_EL2.E2H is 1 with the MMU on");
        }
        if possible.iter().any(Controls::permission_indirection) {
            self.harm(at, HarmKind::Unsupported, None, "TCR2_EL2.PIE is 1 with the MMU on");
        }
        self.read_root_otherwise(at);
    }

    /// Hardware makes what it likes of RES0 bits.
    pub(super) fn read_root_otherwise(&mut self, at: usize) {
        let element = &self.elements[at];
        let is_reserved = |controls: &Controls| {
            let format = controls.format(&element.features);
            controls.mmu_on() && format.is_ok_and(|format| controls.reserved_root_bits(&format) != 0)
        };
        if self.permissions.has(Permission::UseReserved) && element.possible_controls().iter().any(is_reserved) {
            self.harm(at, HarmKind::Reserved, None, "a root is read with RES0 bits of TTBR0_EL2 that are set");
        }
    }

    /// PEs with CnP use each other's entries.
    fn share(&mut self, at: usize) {
        if !self.permissions.has(Permission::ShareCnp) {
            return;
        }
        let own = self.elements[at].shared_roots();
        if own.is_empty() {
            return;
        }
        let pe = self.elements[at].pe;
        let mut others = self.elements.iter().filter(|element| element.pe != pe);
        let differs = |root: &(u64, u64)| own.iter().any(|own| own != root);
        if others.any(|element| element.shared_roots().iter().any(differs)) {
            self.harm(at, HarmKind::Sharing, None, "another PE with CnP has another root");
        }
    }

    /// A context synchronisation event.
    pub(super) fn synchronise(&mut self, at: usize) {
        let keeps = self.permissions.has(Permission::KeepWithMmuOff);
        if self.elements[at].is_synchronised() && self.elements[at].controls.mmu_on() {
            return;
        }
        let element = &mut *self.elements[at];
        if !element.older_controls.is_empty() {
            let before = element.roots_in_force();
            element.older_controls.clear();
            if self.permissions.has(Permission::CacheTable) {
                element.retire_roots(&before);
            }
        }
        element.latent_roots.clear();
        element.latent_mairs.clear();
        element.latent.clear();
        element.is_settling = false;
        element.is_completing = false;
        if !keeps && !element.controls.mmu_on() {
            element.leaves.clear();
            element.tables.clear();
            element.former_roots.clear();
        }
        if !element.fault_views.is_empty() {
            let views = std::mem::take(&mut element.fault_views);
            let remains = |view: &FaultView| element.may_fault_at(&self.memory, view.slot, view.level);
            let remaining = views.into_iter().filter(remains).collect();
            element.fault_views = remaining;
        }
    }

    /// Exception entry or return: a context synchronisation, and the way into EL3 and out of it.
    pub(super) fn change_level(&mut self, at: usize, step: &Step) {
        self.synchronise(at);
        let (was_el3, has_left) = (self.elements[at].levels.is_el3(), self.elements[at].levels.has_left_el3());
        self.elements[at].levels.follow(step.pc, &step.event);
        let levels = &self.elements[at].levels;
        if was_el3 && !levels.is_el3() {
            let hands_over = !has_left && levels.now() != ExceptionLevel::Lower;
            let is_unknown = hands_over && self.elements[at].unknown_controls >> Control::Sctlr as u8 & 1 != 0;
            if is_unknown && self.permissions.has(Permission::ResetControls) {
                self.harm(
                    at,
                    HarmKind::Controls,
                    None,
                    "EL2 is entered with an SCTLR_EL2 that nobody wrote since reset",
                );
            }
            let off = Controls::default();
            self.controls_changed(at, &off, &[]);
        }
    }
}

impl Element {
    fn set_control(&mut self, control: Control, value: u64, permissions: super::Permissions) {
        let (old, cached) = (self.controls.get(control), self.cached_controls_now());
        let was_unknown = self.unknown_controls >> control as u8 & 1 != 0;
        self.set(control, value);
        self.unknown_controls &= !(1 << control as u8);
        let now = self.cached_controls_now();
        if now != cached && permissions.has(Permission::CacheControls) {
            self.cached_controls.retain(|held| held.what != now);
            let held = Held { what: cached, doom: 0 };
            self.cached_controls.retain(|other| other.what != cached);
            let at = self.cached_controls.partition_point(|other| other.what < cached);
            self.cached_controls.insert(at, held);
        }
        // Of a reset value nobody knows that it is the same.
        let is_new = (old != value || was_unknown) && self.older_controls.len() < MOST_OLDER;
        if is_new
            && permissions.has(Permission::OldControlsUntilIsb)
            && let Err(at) = self.older_controls.binary_search(&(control, old))
        {
            self.older_controls.insert(at, (control, old));
        }
    }
}
