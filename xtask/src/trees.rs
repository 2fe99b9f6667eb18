//! Device trees that QEMU would repair or refuse, made from its own by name, for the loader shim to hand over as they
//! are.

use crate::loader::{IMAGE_AT, LATE, PEN_AT, TREE_AT, release_address};
use crate::machine::{Machine, RAM_BASE};
use crate::setup::Qemu;
use anyhow::{Context, Result, bail};
use dtoolkit::fdt::Fdt;
use dtoolkit::memreserve::MemoryReservation;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};
use std::path::Path;

/// Of the header: how many bytes the tree has.
const TOTALSIZE: usize = 4;
/// The most that the image's slot for the tree takes.
const LIMIT: usize = 2 << 20;
/// A span of memory that nothing else uses.
const SPARE: u64 = RAM_BASE + 0x600_0000;
/// The RAM of a guest, where boot/examples/guest.rs expects it.
pub(crate) const GUEST_RAM: u64 = 0x8000_0000;
pub(crate) const GUEST_RAM_BYTES: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What the shim hands over: bytes, and where. No bytes and address 0 is no tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: u64,
}

type Edit = fn(&mut DeviceTree) -> Result<()>;
type Damage = fn(&mut Tree);

/// A way to make a tree: what it is for, what is edited in it, what is done to its bytes.
pub(crate) struct Mutation {
    pub(crate) name: &'static str,
    edit: Edit,
    damage: Damage,
}

const fn edited(name: &'static str, edit: Edit) -> Mutation {
    Mutation { name, edit, damage: |_| {} }
}

const fn damaged(name: &'static str, damage: Damage) -> Mutation {
    Mutation { name, edit: |_| Ok(()), damage }
}

/// The one that is QEMU's own, its command line aside.
pub(crate) const UNCHANGED: &str = "none-changed";

/// All of them. The first half must boot, the second must be refused.
pub(crate) const MUTATIONS: [Mutation; 31] = [
    damaged(UNCHANGED, |_| {}),
    damaged("straddling-2m", |tree| {
        resize(tree, 0x1_0000);
        tree.at = TREE_AT + 2 * MIB - 0x2000;
    }),
    damaged("exactly-2m", |tree| resize(tree, LIMIT)),
    damaged("exactly-2m-straddling", |tree| {
        resize(tree, LIMIT);
        tree.at = TREE_AT + MIB;
    }),
    edited("unsorted-banks", |tree| banks_from(tree, |at, size| vec![(at + size / 2, size / 2), (at, size / 2)])),
    edited("odd-banks", |tree| {
        banks_from(tree, |at, size| vec![(at, size / 2 - 0x800), (at + size / 2 + 0x800, size / 2 - 0x1800)])
    }),
    edited("memreserve", |tree| {
        tree.memory_reservations.push(MemoryReservation::new(SPARE + 0x123, 0x4567));
        Ok(())
    }),
    edited("reserved", |tree| reserve(tree, SPARE, MIB, false)),
    edited("no-map", |tree| reserve(tree, SPARE, MIB, true)),
    edited("guest", |tree| reserve(tree, GUEST_RAM, GUEST_RAM_BYTES, true)),
    edited("module", |tree| module(tree, SPARE, MIB)),
    edited("no-stdout", |tree| {
        tree.root.remove_child("aliases");
        node(tree, "/chosen")?.remove_property("stdout-path").map(drop).context("no stdout-path")
    }),
    edited("second-console", |tree| {
        // As QEMU's own tree has it where there is a second serial line.
        let mut uart = DeviceTreeNode::new_unchecked("pl011@9040000");
        uart.add_property(DeviceTreeProperty::new_unchecked("compatible", "arm,pl011"));
        uart.add_property(reg(&[(0x904_0000, 0x1000)]));
        tree.root.add_child(uart);
        set(node(tree, "/chosen")?, DeviceTreeProperty::new_unchecked("stdout-path", "/pl011@9040000"));
        Ok(())
    }),
    edited("no-psci", |tree| tree.root.remove_child("psci").map(drop).context("no /psci")),
    edited("spin-tables", spin_tables),
    edited("spin-tables-late", |tree| {
        set(node(tree, "/cpus")?, DeviceTreeProperty::new_unchecked(LATE, Vec::<u8>::new()));
        spin_tables(tree)
    }),
    edited("700-cpus", |tree| {
        let cpus = node(tree, "/cpus")?;
        let model = cpus.child("cpu@1").context("no second CPU")?.clone();
        for index in 2..700_u32 {
            let mut cpu = DeviceTreeNode::new_unchecked(format!("cpu@{index}"));
            model.properties().for_each(|property| cpu.add_property(property.clone()));
            set(&mut cpu, DeviceTreeProperty::new_unchecked("reg", ((index / 16) << 8) | (index % 16)));
            cpu.remove_property("phandle");
            cpus.add_child(cpu);
        }
        Ok(())
    }),
    Mutation { name: "no-tree", edit: |_| Ok(()), damage: |tree| *tree = Tree { bytes: Vec::new(), at: 0 } },
    damaged("atags", |tree| {
        tree.bytes = [5_u32, 0x5441_0001, 0, 0, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
    }),
    damaged("wrong-magic", |tree| tree.bytes[0] ^= 1),
    damaged("misaligned", |tree| tree.at += 4),
    damaged("truncated", |tree| set_totalsize(tree, tree.bytes.len() / 2)),
    damaged("cut-off", |tree| {
        let half = tree.bytes.len() / 2;
        tree.bytes[half..].fill(0);
    }),
    damaged("too-large", |tree| resize(tree, LIMIT + 8)),
    edited("no-memory", |tree| {
        keep(&mut tree.root, |name| !name.starts_with("memory"));
        Ok(())
    }),
    edited("image-outside", |tree| banks_from(tree, |at, size| vec![(at + size / 2, size / 2)])),
    edited("reserved-over-image", |tree| reserve(tree, IMAGE_AT + 0x1000, 0x1000, false)),
    edited("module-over-image", |tree| module(tree, IMAGE_AT - 0x1000, 0x2000)),
    edited("modules-overlap", |tree| module(tree, SPARE, MIB).and_then(|()| module(tree, SPARE + 0x1000, MIB))),
    edited("beyond-directmap", |tree| banks_from(tree, |at, size| vec![(at, size), (6 << 40, 1024 * MIB)])),
    edited("beyond-pa-size", |tree| banks_from(tree, |at, size| vec![(at, size), (1 << 47, 1024 * MIB)])),
];

/// No PSCI; the CPUs but the first poll release addresses.
fn spin_tables(tree: &mut DeviceTree) -> Result<()> {
    tree.root.remove_child("psci");
    tree.memory_reservations.push(MemoryReservation::new(PEN_AT, 0x1000));
    for index in 1.. {
        let Some(cpu) = tree.find_node_mut(&format!("/cpus/cpu@{index}")) else { break };
        set(cpu, DeviceTreeProperty::new_unchecked("enable-method", "spin-table"));
        set(cpu, DeviceTreeProperty::new_unchecked("cpu-release-addr", release_address(index)));
    }
    Ok(())
}

/// QEMU's own tree for a machine, with a command line, changed as the name says.
///
/// # Errors
/// There is no mutation of that name, or QEMU gives no tree.
pub(crate) fn make(name: &str, qemu: &Qemu, machine: &Machine, append: &str, scratch: &Path) -> Result<Tree> {
    let Some(mutation) = MUTATIONS.iter().find(|mutation| mutation.name == name) else {
        let names: Vec<&str> = MUTATIONS.iter().map(|mutation| mutation.name).collect();
        bail!("there is no tree named {name}; there are: {}", names.join(", "));
    };
    mutate(mutation, &machine.tree(qemu, scratch)?, append)
}

fn mutate(mutation: &Mutation, base: &[u8], append: &str) -> Result<Tree> {
    let fdt = Fdt::new(base).map_err(|error| anyhow::anyhow!("QEMU's tree: {error}"))?;
    let mut model = DeviceTree::from_fdt(&fdt);
    set(node(&mut model, "/chosen")?, DeviceTreeProperty::new_unchecked("bootargs", append));
    (mutation.edit)(&mut model)?;
    let mut tree = Tree { bytes: model.to_dtb(), at: TREE_AT };
    (mutation.damage)(&mut tree);
    Ok(tree)
}

fn resize(tree: &mut Tree, bytes: usize) {
    tree.bytes.resize(bytes, 0);
    set_totalsize(tree, bytes);
}

fn set_totalsize(tree: &mut Tree, bytes: usize) {
    let value = u32::try_from(bytes).unwrap_or(u32::MAX);
    tree.bytes[TOTALSIZE..TOTALSIZE + 4].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn node<'a>(tree: &'a mut DeviceTree, path: &str) -> Result<&'a mut DeviceTreeNode> {
    tree.find_node_mut(path).with_context(|| format!("QEMU's tree has no {path}"))
}

/// Removes the children whose name is not `wanted`.
pub(crate) fn keep(node: &mut DeviceTreeNode, wanted: impl Fn(&str) -> bool) {
    let names: Vec<String> = node.children().map(|child| child.name().to_owned()).collect();
    names.iter().filter(|name| !wanted(name)).for_each(|name| drop(node.remove_child(name)));
}

/// Adds a property or replaces the one of that name.
pub(crate) fn set(node: &mut DeviceTreeNode, property: DeviceTreeProperty) {
    node.remove_property((&property).name());
    node.add_property(property);
}

/// Two cells for an address and two for a size, as QEMU's root says.
pub(crate) fn reg(spans: &[(u64, u64)]) -> DeviceTreeProperty {
    let bytes: Vec<u8> = spans.iter().flat_map(|&(at, size)| [at, size]).flat_map(u64::to_be_bytes).collect();
    DeviceTreeProperty::new_unchecked("reg", bytes)
}

/// Replaces the bank that the machine has.
fn banks_from(tree: &mut DeviceTree, split: fn(u64, u64) -> Vec<(u64, u64)>) -> Result<()> {
    let memory = node(tree, &format!("/memory@{RAM_BASE:x}"))?;
    let value: Vec<u8> = memory.property("reg").context("the memory node has no reg")?.value().to_vec();
    let size =
        value.get(8..16).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes).context("reg is too short")?;
    set(memory, reg(&split(RAM_BASE, size)));
    Ok(())
}

fn reserve(tree: &mut DeviceTree, at: u64, size: u64, no_map: bool) -> Result<()> {
    if tree.find_node("/reserved-memory").is_none() {
        let mut parent = DeviceTreeNode::new_unchecked("reserved-memory");
        parent.add_property(DeviceTreeProperty::new_unchecked("#address-cells", 2_u32));
        parent.add_property(DeviceTreeProperty::new_unchecked("#size-cells", 2_u32));
        parent.add_property(DeviceTreeProperty::new_unchecked("ranges", Vec::<u8>::new()));
        tree.root.add_child(parent);
    }
    let mut child = DeviceTreeNode::new_unchecked(format!("region@{at:x}"));
    child.add_property(reg(&[(at, size)]));
    if no_map {
        child.add_property(DeviceTreeProperty::new_unchecked("no-map", Vec::<u8>::new()));
    }
    node(tree, "/reserved-memory")?.add_child(child);
    Ok(())
}

fn module(tree: &mut DeviceTree, at: u64, size: u64) -> Result<()> {
    let chosen = node(tree, "/chosen")?;
    // The root's cell counts hold, as QEMU's guest-loader has it.
    let mut child = DeviceTreeNode::new_unchecked(format!("module@{at:x}"));
    child.add_property(DeviceTreeProperty::new_unchecked("compatible", vec!["multiboot,kernel", "multiboot,module"]));
    child.add_property(reg(&[(at, size)]));
    chosen.add_child(child);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As much of QEMU's tree as the edits touch.
    fn base() -> Vec<u8> {
        let mut tree = DeviceTree::new();
        let mut memory = DeviceTreeNode::new_unchecked("memory@40000000");
        memory.add_property(reg(&[(RAM_BASE, 2048 * MIB)]));
        let chosen = DeviceTreeNode::new_unchecked("chosen");
        let mut cpus = DeviceTreeNode::new_unchecked("cpus");
        ["cpu@0", "cpu@1"].into_iter().for_each(|name| cpus.add_child(DeviceTreeNode::new_unchecked(name)));
        [memory, chosen, cpus, DeviceTreeNode::new_unchecked("psci")]
            .into_iter()
            .for_each(|child| tree.root.add_child(child));
        tree.to_dtb()
    }

    fn made(name: &str) -> Tree {
        let mutation = MUTATIONS.iter().find(|mutation| mutation.name == name).expect("a known name");
        mutate(mutation, &base(), "exit=semihosting").expect("the base takes every mutation")
    }

    #[test]
    fn good_every_mutation_differs_from_the_base() {
        let unchanged = made("none-changed");
        let others =
            || MUTATIONS.iter().filter(|mutation| mutation.name != "none-changed" && mutation.name != "no-stdout");
        assert!(others().all(|mutation| made(mutation.name) != unchanged));
    }

    #[test]
    fn good_edited_trees_are_trees_and_damaged_ones_are_not() {
        for name in ["none-changed", "exactly-2m", "unsorted-banks", "no-map", "module-over-image", "no-memory"] {
            assert!(Fdt::new(&made(name).bytes).is_ok(), "{name}");
        }
        for name in ["wrong-magic", "truncated", "atags"] {
            assert!(Fdt::new(&made(name).bytes).is_err(), "{name}");
        }
    }

    #[test]
    fn good_banks_stand_in_the_order_asked_for() {
        let tree = made("unsorted-banks");
        let fdt = Fdt::new(&tree.bytes).expect("a tree");
        let model = DeviceTree::from_fdt(&fdt);
        let memory = model.find_node("/memory@40000000").expect("the memory node");
        let reg = memory.property("reg").expect("its reg").value().to_vec();
        assert!(reg[..8] > reg[16..24]);
    }
}
