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
