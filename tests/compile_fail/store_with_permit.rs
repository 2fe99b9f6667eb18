//! Nobody stores to a table, zeroes a frame or invalidates without a permit, and nobody but `bbm` makes one.
use breakwater::addr::Frame;
use breakwater::bbm::{Permit, Protocol, Reach};
use breakwater::geometry::Slot;
use breakwater::machine::{Machine, Scope, Tlbi};

pub fn store<M: Machine>(p: &mut Protocol<M>, slot: Slot, permit: &Permit) {
    let machine = p.machine_mut();
    machine.store(permit, slot, 0); //~ E0423: machine.store(&Permit(()), slot, 0);
}

pub fn run<M: Machine>(machine: &mut M, slot: Slot, permit: &Permit) {
    machine.store_run(permit, slot, 2, 0, 0x1000); //~ E0061: machine.store_run(slot, 2, 0, 0x1000);
}

pub fn zero<M: Machine>(p: &mut Protocol<M>, frame: Frame, permit: &Permit) {
    p.machine_mut().zero_frame(permit, frame); //~ E0061: p.machine_mut().zero_frame(frame);
}

pub fn invalidate<M: Machine>(machine: &mut M, permit: &Permit) {
    let everything = Tlbi { scope: Scope::All, reach: Reach::Domain };
    machine.tlbi(permit, everything); //~ E0277: machine.tlbi(Default::default(), everything);
}

pub fn borrowed<M: Machine>(p: &mut Protocol<M>, permit: &Permit, next: Frame) {
    let _done = p.machine_mut().switch_root(permit, next); //~ E0616: let _done = p.machine_mut().switch_root(&p.permit, next);
}

pub fn owed<M: Machine>(p: &mut Protocol<M>) {
    p.invalidate_changed(breakwater::bbm::Changed::none()); //~ E0624: p.claim_settled();
}
