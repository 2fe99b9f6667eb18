//! Tables that nothing walks and tables in force are told apart, and replaced on evidence alone.

pub mod offline_is_not_live {
    //! What is filled in tables that nothing walks is not completed as if they were walked, nor the other way round;
    //! and nothing is ever broken or changed but in live tables.
    use breakwater::addr::{Level, VirtSpan};
    use breakwater::bbm::{Filled, FreshTable, Live, Offline, Place, Protocol, State, Tables, UnusedSlots};
    use breakwater::descriptor::Leaf;
    use breakwater::machine::Machine;
    use breakwater::mapper::{Cost, Error, Mapper, Unmapped};

    pub fn complete<M: Machine>(p: &mut Protocol<M>, live: Filled<Live>, _offline: Filled<Offline>) {
        p.complete::<Live>(live); //~ E0308: p.complete::<Live>(_offline);
    }

    pub fn fill<M: Machine>(
        p: &mut Protocol<M>,
        slots: UnusedSlots<'_, M, Live>,
        leaf: Leaf,
        filled: &mut Filled<Live>,
    ) {
        p.fill::<Live>(slots, leaf, filled); //~ E0308: p.fill::<Offline>(slots, leaf, &mut Filled::none());
    }

    pub fn noted<M: Machine>(
        p: &mut Protocol<M>,
        slots: UnusedSlots<'_, M, Live>,
        leaf: Leaf,
        filled: &mut Filled<Live>,
    ) {
        p.fill(slots, leaf, filled); //~ E0308: p.fill(slots, leaf, &mut Filled::<Offline>::none());
    }

    pub fn proof<M: Machine>(p: &Protocol<M>, live: Place<'_, M, Live>, _offline: Place<'_, M, Offline>) {
        let _proof = p.unused_run::<Live>(live, 1); //~ E0308: let _proof = p.unused_run::<Live>(_offline, 1);
    }

    pub fn link<M: Machine>(
        p: &mut Protocol<M>,
        slot: UnusedSlots<'_, M, Live>,
        table: FreshTable<M>,
        filled: &mut Filled<Live>,
    ) {
        p.link::<Live>(slot, table, false, filled); //~ E0308: p.link::<Offline>(slot, table, false, &mut Filled::none());
    }

    pub fn unmap<M: Machine>(mut mapper: Mapper<'_, M, Live>, virt: VirtSpan) -> Result<Unmapped, Error> {
        mapper.unmap(virt)
    }

    pub fn protect<M: Machine>(
        mapper: Mapper<'_, M, Live>, //~ E0308: mapper: Mapper<'_, M, Offline>,
        virt: VirtSpan,
    ) -> Result<Unmapped, Error> {
        unmap(mapper, virt)
    }

    pub fn split<M: Machine>(
        mapper: &mut Mapper<'_, M, Live>, //~ E0599: mapper: &mut Mapper<'_, M, Offline>,
        virt: VirtSpan,
    ) -> Result<Cost, Error> {
        mapper.split(virt, Level::L3)
    }

    pub fn tables<M: Machine>(root: FreshTable<M>) -> Tables<M, Offline> {
        Tables::<M, Offline>::new(root) //~ E0599: Tables::<M, Live>::new(root)
    }

    pub fn in_force<M: Machine>(p: &mut Protocol<M>, next: Tables<M, Offline>) -> Tables<M, Live> {
        p.switch_root(next, breakwater::bbm::Detached::none()).0 //~ E0624: next.into_live()
    }

    pub fn states<S: State>() {}

    pub fn no_third_state() {
        states::<Live>(); //~ E0277: states::<()>();
    }
}

pub mod old_tables_are_gone {
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
}

pub mod resize_is_evidence {
    //! Blocks and tables replace each other in place only on the evidence that every CPU allows it.
    use breakwater::bbm::{Changed, FreeTables, FreshTable, Live, Place, Protocol, Resize, Tables};
    use breakwater::descriptor::Leaf;
    use breakwater::geometry::Slot;
    use breakwater::machine::Machine;

    type At<'t, M> = Place<'t, M, Live>;

    pub fn block<M: Machine>(
        p: &mut Protocol<M>,
        slot: At<'_, M>,
        table: FreshTable<M>,
        evidence: Resize,
        changed: &mut Changed,
    ) {
        p.replace_block(slot, table, evidence, changed); //~ E0423: p.replace_block(slot, table, Resize(()), changed);
    }

    type Under<'t, M> = (&'t mut Tables<M, Live>, Slot);

    pub fn asked<M: Machine>(
        p: &mut Protocol<M>,
        (all, slot): Under<'_, M>,
        leaf: Leaf,
        free: &mut FreeTables<M>,
    ) -> Option<()> {
        let evidence = p.resize()?; //~ E0308: let evidence = p.resize();
        p.replace_table(all, slot, leaf, evidence, free);
        Some(())
    }

    pub fn without<M: Machine>(
        p: &mut Protocol<M>,
        (all, slot): Under<'_, M>,
        leaf: Leaf,
        evidence: Resize,
        free: &mut FreeTables<M>,
    ) {
        p.replace_table(all, slot, leaf, evidence, free); //~ E0061: p.replace_table(all, slot, leaf, free);
    }
}
