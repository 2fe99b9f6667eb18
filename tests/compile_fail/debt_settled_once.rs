//! A debt is settled by value: nobody settles it twice, or goes on adding to it afterwards.
use breakwater::bbm::{Broken, Changed, Filled, Live, Protocol};
use breakwater::machine::{Machine, Slot};

pub fn complete<M: Machine>(p: &mut Protocol<M>, one: Filled<Live>, two: Filled<Live>) {
    p.complete(one);
    p.complete(two); //~ E0382: p.complete(one);
}

pub fn invalidate<M: Machine>(p: &mut Protocol<M>, slot: Slot, mut one: Broken, mut two: Broken) {
    p.break_leaf(slot, &mut one);
    let _first = p.invalidate(one);
    p.break_leaf(slot, &mut two); //~ E0382: p.break_leaf(slot, &mut one);
    let _second = p.invalidate(two);
}

pub fn kinds<M: Machine>(p: &mut Protocol<M>, changed: Changed, broken: Broken) {
    p.invalidate_changed(changed);
    let _proof = p.invalidate(broken); //~ E0308: let _proof = p.invalidate(Changed::none());
}
