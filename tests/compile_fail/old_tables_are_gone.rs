//! A root switch takes the offline tables and the old frames: what is left is what is in force.
use breakwater::addr::Frame;
use breakwater::bbm::{Detached, Offline, Protocol, Tables};
use breakwater::machine::Machine;

pub fn switch<M: Machine>(p: &mut Protocol<M>, next: Tables<Offline>, old: Detached) -> Frame {
    let (live, _released) = p.switch_root(next, old);
    live.root() //~ E0382: next.root()
}
