//! A store to tables has a place in them, and the proof that nothing is there is used up.

pub mod slot_used_once {
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
}

pub mod stores_have_a_place {
    //! A store to tables names a place in them, which a walk has found and which borrows them; a slot, which anyone can
    //! name, is not enough.
    use breakwater::addr::{Level, VirtAddr};
    use breakwater::bbm::{After, Broken, Detached, Filled, Live, Offline, Place, Protocol, Tables, UnusedSlots};
    use breakwater::descriptor::Leaf;
    use breakwater::geometry::{Geometry, Granule4K, Slot};
    use breakwater::machine::Machine;

    pub fn broken<M: Machine>(p: &mut Protocol<M>, place: Place<'_, M, Live>, broken: &mut Broken) {
        p.break_run(place, 1, After::Nothing, broken); //~ E0308: p.break_run(place.slot(), 1, After::Nothing, broken);
    }

    pub fn unused<'t, M: Machine>(
        p: &Protocol<M>,
        tables: &'t Tables<M, Live>,
        virt: VirtAddr,
    ) -> Option<UnusedSlots<'t, M, Live>> {
        let _named = Granule4K::slot(tables.root(), Level::L0, virt);
        let place = p.place(tables, Level::L0, virt)?;
        p.unused_run(place, 1).ok() //~ E0308: p.unused_run(_named, 1).ok()
    }

    pub fn in_force<M: Machine>(
        p: &mut Protocol<M>,
        place: Place<'_, M, Live>,
        _other: Place<'_, M, Offline>,
        broken: &mut Broken,
    ) {
        p.break_run(place, 1, After::Nothing, broken); //~ E0308: p.break_run(_other, 1, After::Nothing, broken);
    }

    pub fn forged<'t, M: Machine>(place: Place<'t, M, Live>, _slot: Slot) -> Place<'t, M, Live> {
        place //~ E0451: Place { slot: _slot, ..place }
    }

    pub fn vouched<'t, M: Machine>(
        p: &Protocol<M>,
        tables: &'t Tables<M, Live>,
        virt: VirtAddr,
    ) -> Option<Place<'t, M, Live>> {
        let _slot = Granule4K::slot(tables.root(), Level::L0, virt);
        p.place(tables, Level::L0, virt) //~ E0624: Some(p.vouch(tables, _slot))
    }

    /// What takes a table away takes the tables for itself: no place in what goes is left.
    pub fn detached<M: Machine>(
        p: &mut Protocol<M>,
        (tables, _other): (&mut Tables<M, Live>, &mut Tables<M, Live>),
        (slot, virt): (Slot, VirtAddr),
        (broken, detached): (&mut Broken, &mut Detached),
    ) -> Option<()> {
        let below = p.place(tables, Level::L3, virt)?;
        p.break_table(_other, slot, broken, detached); //~ E0502: p.break_table(tables, slot, broken, detached);
        p.break_run(below, 1, After::Nothing, broken);
        Some(())
    }

    /// What was unused in tables that nobody walked is not filled in tables that are in force.
    pub fn switched<M: Machine>(
        p: &mut Protocol<M>,
        (tables, _other): (Tables<M, Offline>, Tables<M, Offline>),
        (virt, leaf): (VirtAddr, Leaf),
        filled: &mut Filled<Offline>,
    ) -> Option<()> {
        let slots = p.unused_run(p.place(&tables, Level::L3, virt)?, 1).ok()?;
        let (_live, _released) = p.switch_root(_other, Detached::none()); //~ E0505: let (_live, _released) = p.switch_root(tables, Detached::none());
        p.fill(slots, leaf, filled);
        Some(())
    }
}
