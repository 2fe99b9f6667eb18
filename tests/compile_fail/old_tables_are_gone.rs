//! A root switch takes the offline tables and the old frames: what is left is what is in force.
use breakwater::addr::Frame;
use breakwater::bbm::{Detached, Offline, Protocol, Released, Tables};
use breakwater::machine::Machine;

pub fn switch<M: Machine>(p: &mut Protocol<M>, next: Tables<M, Offline>, old: Detached) -> Frame {
    let (live, _released) = p.switch_root(next, old);
    live.root() //~ E0382: next.root()
}

pub fn detached_twice<M: Machine>(
    p: &mut Protocol<M>,
    (a, b): (Tables<M, Offline>, Tables<M, Offline>),
    old: Detached,
) {
    let (_one, _released) = p.switch_root(a, old);
    let (_two, _none) = p.switch_root(b, Detached::none()); //~ E0382: let (_two, _none) = p.switch_root(b, old);
}

pub fn frames<M: Machine>(released: &Released<M>) -> usize {
    released.frames().count() //~ E0616: released.frames.len()
}
