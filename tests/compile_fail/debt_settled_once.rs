//! A debt is settled by value: nobody settles it twice, adds to it afterwards, or settles it as another kind of debt.
use breakwater::bbm::{After, Broken, Changed, Filled, Live, Place, Protocol};
use breakwater::machine::Machine;

pub fn complete<M: Machine>(p: &mut Protocol<M>, one: Filled<Live>, two: Filled<Live>) {
    p.complete(one);
    p.complete(two); //~ E0382: p.complete(one);
}

pub fn invalidate<M: Machine>(p: &mut Protocol<M>, slot: Place<'_, M, Live>, mut one: Broken, mut two: Broken) {
    p.break_run(slot, 1, After::Nothing, &mut one);
    let _first = p.invalidate(one);
    p.break_run(slot, 1, After::Nothing, &mut two); //~ E0382: p.break_run(slot, 1, After::Nothing, &mut one);
    let _second = p.invalidate(two);
}

pub fn changed<M: Machine>(p: &mut Protocol<M>, one: Changed, two: Changed) {
    p.invalidate_changed(one);
    p.invalidate_changed(two); //~ E0382: p.invalidate_changed(one);
}

pub fn kinds<M: Machine>(p: &mut Protocol<M>, changed: Changed, broken: Broken) {
    p.invalidate_changed(changed);
    let _proof = p.invalidate(broken); //~ E0308: let _proof = p.invalidate(Changed::none());
}

pub fn together<M: Machine>(p: &mut Protocol<M>, broken: Broken, changed: Changed, other: Changed) {
    let _proof = p.invalidate_all(broken, changed);
    p.invalidate_changed(other); //~ E0382: p.invalidate_changed(changed);
}

pub fn copied(broken: Broken, _again: impl Fn(Broken)) -> Broken {
    broken //~ E0599: broken.clone()
}
