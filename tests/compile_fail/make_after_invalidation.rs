//! What is broken is made, given back or freed only on the proof of its invalidation: no method makes or reclaims without one.
use breakwater::bbm::{Broken, Detached, Filled, FreeTables, Invalidated, Live, Place, Protocol, Settling};
use breakwater::machine::Machine;

pub fn settle<M: Machine>(
    p: &mut Protocol<M>,
    first: Place<'_, M, Live>,
    broken: Broken,
    (filled, detached, free): (&mut Filled<Live>, &mut Detached, &mut FreeTables<M>),
) {
    let proof = p.invalidate(broken); //~ E0308: let proof = broken;
    let mut settling = Settling { proof: &proof, filled, detached, free, merges: false };
    p.settle_run(first, 1, &mut settling);
}

pub fn settle_without<'a, M: Machine>(
    proof: &'a Invalidated,
    (filled, detached, free): (&'a mut Filled<Live>, &'a mut Detached, &'a mut FreeTables<M>),
) -> Settling<'a, M> {
    Settling { proof, filled, detached, free, merges: false } //~ E0063: Settling { filled, detached, free, merges: false }
}
