//! A broken slot is made again, or given back, only on the proof of its invalidation.
use breakwater::bbm::{Broken, Filled, Live, Protocol};
use breakwater::descriptor::Leaf;
use breakwater::machine::{Machine, Slot};

pub fn make<M: Machine>(p: &mut Protocol<M>, slot: Slot, leaf: Leaf, broken: Broken, filled: &mut Filled<Live>) {
    let proof = p.invalidate(broken); //~ E0308: let proof = broken;
    p.make(slot, leaf, &proof, filled);
}

pub fn reclaim<M: Machine>(p: &mut Protocol<M>, slot: Slot, broken: Broken) {
    let proof = p.invalidate(broken);
    p.reclaim(slot, &proof); //~ E0308: p.reclaim(slot, &broken);
}
