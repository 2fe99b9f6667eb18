//! The proof that a slot is unused is used up by the fill or the link, a fresh table by its link.
use breakwater::addr::VirtAddr;
use breakwater::bbm::{Filled, FreshTable, Live, Protocol, UnusedSlots};
use breakwater::descriptor::Leaf;
use breakwater::geometry::Slot;
use breakwater::machine::Machine;

type Unused<'t, M> = UnusedSlots<'t, M, Live>;

pub fn fill<M: Machine>(
    p: &mut Protocol<M>,
    one: Unused<'_, M>,
    two: Unused<'_, M>,
    leaf: Leaf,
    filled: &mut Filled<Live>,
) {
    p.fill(one, leaf, filled);
    p.fill(two, leaf, filled); //~ E0382: p.fill(one, leaf, filled);
}

pub fn without_a_proof<M: Machine>(
    p: &mut Protocol<M>,
    slots: Unused<'_, M>,
    _slot: Slot,
    leaf: Leaf,
    filled: &mut Filled<Live>,
) {
    p.fill(slots, leaf, filled); //~ E0308: p.fill(_slot, leaf, filled);
}

pub fn link<M: Machine>(
    p: &mut Protocol<M>,
    (one, two): (Unused<'_, M>, Unused<'_, M>),
    (child, other): (FreshTable<M>, FreshTable<M>),
    filled: &mut Filled<Live>,
) {
    p.link(one, child, false, filled);
    p.link(two, other, false, filled); //~ E0382: p.link(two, child, false, filled);
}

/// Without a barrier only into a table that nothing links to, which a table is until it is linked.
pub fn link_fresh<M: Machine>(
    p: &mut Protocol<M>,
    one: Unused<'_, M>,
    (parent, child, other): (FreshTable<M>, FreshTable<M>, FreshTable<M>),
    filled: &mut Filled<Live>,
) {
    p.link(one, other, false, filled); //~ E0382: p.link(one, parent, false, filled);
    p.link_fresh(&parent, child, false); //~ E0308: p.link_fresh(parent.frame(), child, false);
}

/// What is filled is filled before the link.
pub fn fill_fresh<M: Machine>(
    p: &mut Protocol<M>,
    (one, virt): (Unused<'_, M>, VirtAddr),
    (parent, child): (FreshTable<M>, FreshTable<M>),
    leaf: Leaf,
    filled: &mut Filled<Live>,
) {
    p.link(one, child, false, filled);
    p.fill_fresh(&parent, virt, 1, leaf); //~ E0382: p.fill_fresh(&child, virt, 1, leaf);
}
