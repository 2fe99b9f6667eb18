//! Proofs come from the protocol alone.
use breakwater::addr::{Frame, Level, PhysSpan, VirtAddr};
use breakwater::bbm::{Detached, FreeFrame, FreeTables, FreshTable, Invalidated, Live, Protocol, Released, UnusedSlots};
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
    proof.span() //~ E0616: proof.pending.span()
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
    frames.available() //~ E0624: frames.tables().count()
}

pub fn noted<M: Machine>(protocol: &mut Protocol<M>, span: PhysSpan) -> bool {
    protocol.aliases().may_conflict(span, Rights::WRITE) //~ E0624: protocol.aliases_mut().may_conflict(span, Rights::WRITE)
}
