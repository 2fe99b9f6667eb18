//! Blocks and tables replace each other in place only on the evidence that every CPU allows it.
use breakwater::bbm::{Changed, FreeTables, FreshTable, Protocol, Resize};
use breakwater::descriptor::Leaf;
use breakwater::machine::{Machine, Slot};

pub fn block<M: Machine>(p: &mut Protocol<M>, slot: Slot, table: FreshTable, evidence: Resize, changed: &mut Changed) {
    p.replace_block(slot, table, evidence, changed); //~ E0423: p.replace_block(slot, table, Resize(()), changed);
}

pub fn asked<M: Machine>(p: &mut Protocol<M>, slot: Slot, leaf: Leaf, free: &mut FreeTables) -> Option<()> {
    let evidence = p.resize()?; //~ E0308: let evidence = p.resize();
    p.replace_table(slot, leaf, evidence, free);
    Some(())
}

pub fn without<M: Machine>(p: &mut Protocol<M>, slot: Slot, leaf: Leaf, evidence: Resize, free: &mut FreeTables) {
    p.replace_table(slot, leaf, evidence, free); //~ E0061: p.replace_table(slot, leaf, free);
}
