//! Nobody stores to a table, zeroes a frame or invalidates without a permit, and nobody but `bbm` makes one.
use breakwater::addr::Frame;
use breakwater::bbm::{Permit, Protocol};
use breakwater::machine::{Machine, Slot, Tlbi};

pub fn store<M: Machine>(p: &mut Protocol<M>, slot: Slot, permit: &Permit) {
    let machine = p.machine_mut();
    machine.store(permit, slot, 0); //~ E0423: machine.store(&Permit(()), slot, 0);
}

pub fn zero<M: Machine>(p: &mut Protocol<M>, frame: Frame, permit: &Permit) {
    p.machine_mut().zero_frame(permit, frame); //~ E0061: p.machine_mut().zero_frame(frame);
}

pub fn invalidate<M: Machine>(p: &mut Protocol<M>, permit: &Permit) {
    p.machine_mut().tlbi(permit, Tlbi::All); //~ E0616: p.machine_mut().tlbi(&p.permit, Tlbi::All);
}
