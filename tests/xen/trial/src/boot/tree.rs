//! Device trees that QEMU does not make: banks of memory with a hole, a domain that Xen builds by itself.

use anyhow::{Context, Result, anyhow};
use breakwater_witness::machine::RAM_BASE;
use dtoolkit::Property;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use super::Module;

pub(super) type Tree = DeviceTree;

/// The hole between two banks ends here, where nothing is that a machine has below 4 GiB.
const SECOND_BANK: u64 = 4 << 30;
/// What the first bank has.
const FIRST_BANK_BYTES: u64 = 1 << 30;
/// Memory of a domain that Xen builds by itself, in KiB.
const DOMAIN_KIB: u32 = 192 << 10;

/// The tree that `edit` makes of QEMU's `base`.
pub(super) fn made(base: &[u8], edit: impl FnOnce(&mut Tree) -> Result<()>) -> Result<Vec<u8>> {
    let fdt = Fdt::new(base).map_err(|error| anyhow!("QEMU's tree: {error}"))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    edit(&mut tree)?;
    Ok(tree.to_dtb())
}

fn node<'a>(tree: &'a mut Tree, path: &str) -> Result<&'a mut DeviceTreeNode> {
    tree.find_node_mut(path).with_context(|| format!("QEMU's tree has no {path}"))
}

fn set(node: &mut DeviceTreeNode, property: DeviceTreeProperty) {
    node.remove_property((&property).name());
    node.add_property(property);
}

/// Two cells for an address and two for a size.
fn reg(spans: &[(u64, u64)]) -> DeviceTreeProperty {
    let bytes: Vec<u8> = spans.iter().flat_map(|&(at, size)| [at, size]).flat_map(u64::to_be_bytes).collect();
    DeviceTreeProperty::new_unchecked("reg", bytes)
}

/// Xen's command line.
pub(super) fn set_line(tree: &mut Tree, line: &str) -> Result<()> {
    set(node(tree, "/chosen")?, DeviceTreeProperty::new_unchecked("bootargs", line));
    Ok(())
}

/// Of `memory` bytes the first GiB and what lies from 4 GiB on; the rest of it is not there.
pub(super) fn two_banks(tree: &mut Tree, memory: u64) -> Result<()> {
    let end = RAM_BASE + memory;
    let above = end.checked_sub(SECOND_BANK).filter(|bytes| *bytes > 0).context("two banks need memory above 4 GiB")?;
    let memory = node(tree, &format!("/memory@{RAM_BASE:x}"))?;
    set(memory, reg(&[(RAM_BASE, FIRST_BANK_BYTES), (SECOND_BANK, above)]));
    Ok(())
}

/// A module for Xen, below `parent`.
pub(super) fn add_module(tree: &mut Tree, parent: &str, module: &Module) -> Result<()> {
    let mut child = DeviceTreeNode::new_unchecked(format!("module@{:x}", module.at));
    let kind = format!("multiboot,{}", module.kind);
    child.add_property(DeviceTreeProperty::new_unchecked("compatible", vec![kind.as_str(), "multiboot,module"]));
    child.add_property(reg(&[(module.at, module.bytes)]));
    if !module.line.is_empty() {
        child.add_property(DeviceTreeProperty::new_unchecked("bootargs", module.line));
    }
    let parent = node(tree, parent)?;
    for cells in ["#address-cells", "#size-cells"] {
        set(parent, DeviceTreeProperty::new_unchecked(cells, 2_u32));
    }
    parent.add_child(child);
    Ok(())
}

/// A domain of these modules, with one CPU and a serial line, that Xen starts by itself.
pub(super) fn add_domain(tree: &mut Tree, modules: &[Module]) -> Result<()> {
    let mut domain = DeviceTreeNode::new_unchecked("domain");
    domain.add_property(DeviceTreeProperty::new_unchecked("compatible", "xen,domain"));
    domain.add_property(DeviceTreeProperty::new_unchecked("memory", vec![0_u32, DOMAIN_KIB]));
    domain.add_property(DeviceTreeProperty::new_unchecked("cpus", 1_u32));
    domain.add_property(DeviceTreeProperty::new_unchecked("vpl011", Vec::<u8>::new()));
    node(tree, "/chosen")?.add_child(domain);
    modules.iter().try_for_each(|module| add_module(tree, "/chosen/domain", module))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::Node;

    fn base() -> Vec<u8> {
        let mut tree = DeviceTree::new();
        let mut memory = DeviceTreeNode::new_unchecked("memory@40000000");
        memory.add_property(reg(&[(RAM_BASE, 6 << 30)]));
        tree.root.add_child(memory);
        tree.root.add_child(DeviceTreeNode::new_unchecked("chosen"));
        tree.to_dtb()
    }

    fn module() -> Module {
        Module { kind: "kernel", file: "kernel".into(), at: 0x4900_0000, bytes: 5, line: "console=x" }
    }

    fn read(bytes: &[u8]) -> DeviceTree {
        DeviceTree::from_fdt(&Fdt::new(bytes).expect("a tree"))
    }

    #[test]
    fn good_two_banks_leave_a_hole_below_4_gib() {
        let bytes = made(&base(), |tree| two_banks(tree, 6 << 30)).expect("a tree");
        let tree = read(&bytes);
        let reg = tree.find_node("/memory@40000000").and_then(|node| node.property("reg")).expect("its banks");
        let banks = [RAM_BASE, 1 << 30, 4 << 30, 3 << 30].into_iter().flat_map(u64::to_be_bytes);
        assert_eq!(reg.value(), banks.collect::<Vec<_>>());
    }

    #[test]
    fn bad_two_banks_need_memory_above_4_gib() {
        let refused = made(&base(), |tree| two_banks(tree, 2 << 30)).expect_err("there is none").to_string();
        assert_eq!(refused, "two banks need memory above 4 GiB");
    }

    #[test]
    fn good_a_domain_has_its_modules_below_it() {
        let edit = |tree: &mut Tree| set_line(tree, "line").and_then(|()| add_domain(tree, &[module()]));
        let tree = read(&made(&base(), edit).expect("a tree"));
        let module = tree.find_node("/chosen/domain/module@49000000").expect("its module");
        let compatible = module.property("compatible").expect("what it is");
        assert_eq!(compatible.value(), b"multiboot,kernel\0multiboot,module\0");
        assert_eq!(module.property("bootargs").expect("its line").value(), b"console=x\0");
    }
}
