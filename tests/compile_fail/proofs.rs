//! What nobody can make up: a proof, a permit, rights to write and to execute at once.

pub mod proofs_not_forged {
    //! Proofs come from the protocol alone.
    use breakwater::addr::{Frame, Level, PhysSpan, VirtAddr};
    use breakwater::bbm::{
        Detached, FreeFrame, FreeTables, FreshTable, Invalidated, Live, Protocol, Released, UnusedSlots,
    };
    use breakwater::descriptor::Rights;
    use breakwater::frames::FrameSupply;
    use breakwater::geometry::{Geometry, Granule4K, Slot};
    use breakwater::machine::Machine;

    pub fn released<M: Machine>(released: Released<M>, _frame: Frame) -> Released<M> {
        released //~ E0451: Released { frames: [Some(_frame); 8], ..released }
    }

    pub fn invalidated(proof: Invalidated) -> Invalidated {
        proof //~ E0451: Invalidated { ..proof }
    }

    pub fn newer(proof: Invalidated) -> Option<breakwater::addr::VirtSpan> {
        proof.span() //~ E0616: proof.span
    }

    pub fn unused<M: Machine>(proof: UnusedSlots<'_, M, Live>, _first: Slot) -> UnusedSlots<'_, M, Live> {
        proof //~ E0624: UnusedSlots::run(_first, 1)
    }

    pub fn fresh<M: Machine>(p: &mut Protocol<M>, frame: FreeFrame<M>, virt: VirtAddr) -> FreshTable<M> {
        p.new_table(frame, Level::L2, virt) //~ E0624: FreshTable::new(Granule4K::slot(frame.frame(), Level::L2, virt))
    }

    pub fn slot(table: Frame, virt: VirtAddr) -> Slot {
        Granule4K::slot(table, Level::L3, virt) //~ E0451: Slot { index: 1, ..Granule4K::slot(table, Level::L3, virt) }
    }

    pub fn detached<M: Machine>(frames: &mut FrameSupply<M>, released: Released<M>, _old: Detached) {
        frames.release(released); //~ E0308: frames.release(_old);
    }

    pub fn copied(proof: Invalidated) -> (Invalidated, u8) {
        (proof, 0) //~ E0599: (proof.clone(), 0)
    }

    pub fn free<M: Machine>(free: &FreeTables<M>) -> Option<Frame> {
        free.next() //~ E0616: free.head
    }

    pub fn former<M: Machine>(frames: &FrameSupply<M>) -> u64 {
        frames.available() //~ E0616: frames.tables.count()
    }

    pub fn noted<M: Machine>(protocol: &mut Protocol<M>, span: PhysSpan) -> bool {
        protocol.aliases().may_conflict(span, Rights::WRITE) //~ E0624: protocol.aliases_mut().may_conflict(span, Rights::WRITE)
    }
}

pub mod aliases_are_declared_once {
    //! What is written by declaration is declared to a mapper, by its machine, and closed once.
    use breakwater::addr::{PhysSpan, VirtSpan};
    use breakwater::bbm::{Live, OpenAlias, Protocol};
    use breakwater::machine::Machine;
    use breakwater::mapper::Mapper;

    type Closed<M> = Result<(), (OpenAlias<M>, breakwater::mapper::Error)>;

    pub fn twice<M: Machine>(mapper: &mut Mapper<'_, M, Live>, one: OpenAlias<M>, two: OpenAlias<M>) -> [Closed<M>; 2] {
        let first = mapper.close_alias(one);
        [first, mapper.close_alias(two)] //~ E0382: core::mem::forget(two); [first, mapper.close_alias(one)]
    }

    pub fn of_another<M: Machine, N: Machine>(
        mapper: &mut Mapper<'_, M, Live>,
        alias: OpenAlias<M>,
        _other: OpenAlias<N>,
    ) -> Closed<M> {
        mapper.close_alias(alias) //~ E0308: mapper.close_alias(_other)
    }

    pub fn forged<M: Machine>(alias: OpenAlias<M>, _virt: VirtSpan) -> OpenAlias<M> {
        alias //~ E0451: OpenAlias { virt: _virt, ..alias }
    }

    pub fn undeclared<M: Machine>(p: &Protocol<M>, _virt: VirtSpan, _frames: PhysSpan) -> bool {
        p.aliases().declared().is_some() //~ E0624: p.aliases().is_declared(_frames, _virt)
    }
}

pub mod store_with_permit {
    //! Nobody stores to a table, zeroes a frame or invalidates without a permit, and nobody but `bbm` makes one.
    use breakwater::addr::Frame;
    use breakwater::bbm::{Permit, Protocol, Reach};
    use breakwater::geometry::Slot;
    use breakwater::machine::{Machine, Scope, Tlbi};

    pub fn store<M: Machine>(p: &mut Protocol<M>, slot: Slot, permit: &Permit) {
        let machine = p.machine_mut();
        machine.store(permit, slot, 0); //~ E0423: machine.store(&Permit(()), slot, 0);
    }

    pub fn run<M: Machine>(machine: &mut M, slot: Slot, permit: &Permit) {
        machine.store_run(permit, slot, 2, 0, 0x1000); //~ E0061: machine.store_run(slot, 2, 0, 0x1000);
    }

    pub fn zero<M: Machine>(p: &mut Protocol<M>, frame: Frame, permit: &Permit) {
        p.machine_mut().zero_frame(permit, frame); //~ E0061: p.machine_mut().zero_frame(frame);
    }

    pub fn invalidate<M: Machine>(machine: &mut M, permit: &Permit) {
        let everything = Tlbi { scope: Scope::All, reach: Reach::Domain };
        machine.tlbi(permit, everything); //~ E0277: machine.tlbi(Default::default(), everything);
    }

    pub fn borrowed<M: Machine>(p: &mut Protocol<M>, permit: &Permit, next: Frame) {
        let _done = p.machine_mut().switch_root(permit, next); //~ E0616: let _done = p.machine_mut().switch_root(&p.permit, next);
    }

    pub fn owed<M: Machine>(p: &mut Protocol<M>) {
        p.invalidate_changed(breakwater::bbm::Changed::none()); //~ E0624: p.claim_settled();
    }
}

pub mod no_writable_code {
    //! Writable and executable, and executable Device memory, have no value; a leaf is aligned to its level.
    use breakwater::addr::{Level, PhysAddr, VirtAddr};
    use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind, Leaf};

    pub fn code() -> Attributes {
        Attributes::Normal(Access::ReadExecute) //~ E0599: Attributes::Normal(Access::ReadWriteExecute)
    }

    pub fn both() -> Access {
        Access::ReadWrite //~ E0369: Access::ReadWrite | Access::ReadExecute
    }

    pub fn guarded() -> Attributes {
        Attributes::Normal(Access::ReadExecuteGuarded) //~ E0599: Attributes::Normal(Access::ReadWriteGuarded)
    }

    pub fn device(kind: DeviceKind) -> Attributes {
        Attributes::Device(kind, DataAccess::ReadOnly) //~ E0308: Attributes::Device(kind, Access::ReadExecute)
    }

    pub fn device_code(kind: DeviceKind) -> Attributes {
        Attributes::Device(kind, DataAccess::ReadWrite) //~ E0599: Attributes::Device(kind, DataAccess::ReadExecute)
    }

    pub fn non_cacheable() -> Attributes {
        Attributes::NonCacheable(DataAccess::ReadWrite) //~ E0308: Attributes::NonCacheable(Access::ReadExecute)
    }

    pub fn tagged() -> Attributes {
        Attributes::Tagged(DataAccess::ReadWrite) //~ E0308: Attributes::Tagged(Access::ReadExecute)
    }

    pub fn leaf(output: PhysAddr, attributes: Attributes) -> Option<Leaf> {
        Leaf::new(Level::L2, output, attributes) //~ E0451: Some(Leaf { output, attributes, contiguous: false })
    }

    pub fn physical(output: PhysAddr, _virt: VirtAddr) -> Option<Leaf> {
        Leaf::new(Level::L3, output, code()) //~ E0308: Leaf::new(Level::L3, _virt, code())
    }
}
