//! What U-Boot reads: its environment, and FIT images (a device tree of files, each with a checksum, and of
//! configurations, which say what of them belongs together).
//!
//! Formats: U-Boot's doc/usage/fit/source_file_format.rst and tools/mkenvimage.c.

use crc::{CRC_32_ISO_HDLC, Crc};
use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

fn sum(bytes: &[u8]) -> u32 {
    Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(bytes)
}

/// Variables as U-Boot keeps them, in `bytes` bytes: a checksum, then each with a 0 behind it, and one more.
pub(crate) fn environment(variables: &[&str], bytes: usize) -> Vec<u8> {
    let mut text: Vec<u8> = variables.iter().flat_map(|variable| [variable.as_bytes(), &[0]].concat()).collect();
    text.resize(bytes - size_of::<u32>(), 0);
    [sum(&text).to_le_bytes().to_vec(), text].concat()
}

/// A FIT image of `image`, to be moved to `load_at`, and the tree it gets.
pub(crate) fn fit(image: &[u8], load_at: u32, tree: &[u8]) -> Vec<u8> {
    let kernel = node(
        "kernel",
        [text("type", "kernel"), text("os", "linux"), property("load", load_at), property("entry", load_at)],
    );
    let fdt = node("fdt", [text("type", "flat_dt")]);
    let files = [file(kernel, image), file(fdt, tree)];
    let both = node("board", [text("description", "Breakwater"), text("kernel", "kernel"), text("fdt", "fdt")]);
    let configurations = with(node("configurations", [text("default", "board")]), [both]);
    let mut fit = DeviceTree::new();
    for one in [text("description", "Breakwater"), property("timestamp", 0_u32), property("#address-cells", 1_u32)] {
        fit.root.add_property(one);
    }
    fit.root.add_child(with(node("images", []), files));
    fit.root.add_child(configurations);
    fit.to_dtb()
}

fn file(mut node: DeviceTreeNode, data: &[u8]) -> DeviceTreeNode {
    for one in [text("description", "Breakwater"), text("arch", "arm64"), text("compression", "none")] {
        node.add_property(one);
    }
    node.add_property(property("data", data.to_vec()));
    with(node, [self::node("hash-1", [text("algo", "crc32"), property("value", sum(data))])])
}

fn text(name: &str, value: &str) -> DeviceTreeProperty {
    property(name, value)
}

fn property(name: &str, value: impl ToPropertyValue) -> DeviceTreeProperty {
    DeviceTreeProperty::new_unchecked(name, value)
}

fn node(name: &str, properties: impl IntoIterator<Item = DeviceTreeProperty>) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(name);
    properties.into_iter().for_each(|property| node.add_property(property));
    node
}

fn with(mut node: DeviceTreeNode, children: impl IntoIterator<Item = DeviceTreeNode>) -> DeviceTreeNode {
    children.into_iter().for_each(|child| node.add_child(child));
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::fdt::Fdt;
    use dtoolkit::{Node, Property};

    #[test]
    fn good_an_environment_is_what_u_boot_checks() {
        let made = environment(&["bootdelay=0", "bootcmd=reset"], 64);
        assert_eq!(made.len(), 64);
        assert!(made[4..].starts_with(b"bootdelay=0\0bootcmd=reset\0\0"));
        assert_eq!(made[..4], sum(&made[4..]).to_le_bytes());
        assert_eq!(sum(b"123456789"), 0xcbf4_3926); // the catalogue's check
    }

    /// The file `name` of a FIT image, if its checksum is right.
    fn checked(fit: &[u8], name: &str) -> Option<Vec<u8>> {
        let model = DeviceTree::from_fdt(&Fdt::new(fit).ok()?);
        let value = |path: &str, name: &str| {
            model.find_node(path).and_then(|node| node.property(name).map(|property| property.value().to_vec()))
        };
        let data = value(&format!("/images/{name}"), "data")?;
        let hash = value(&format!("/images/{name}/hash-1"), "value")?;
        (hash == sum(&data).to_be_bytes()).then_some(data)
    }

    #[test]
    fn good_a_fit_image_brings_both_files_whole() {
        let made = fit(b"an image", 0x4080_0000, b"a tree");
        assert_eq!(checked(&made, "kernel").as_deref(), Some(&b"an image"[..]));
        assert_eq!(checked(&made, "fdt").as_deref(), Some(&b"a tree"[..]));
        let model = DeviceTree::from_fdt(&Fdt::new(&made).expect("a tree"));
        let kernel = model.find_node("/images/kernel").expect("its kernel");
        assert_eq!(kernel.property("entry").expect("an entry").value(), [0x40, 0x80, 0, 0]);
    }

    #[test]
    fn bad_a_file_of_a_fit_image_that_changed() {
        let mut made = fit(b"an image", 0, b"a tree");
        let at = made.windows(8).position(|bytes| bytes == b"an image").expect("its kernel");
        made[at] ^= 1;
        assert_eq!((checked(&made, "kernel"), checked(&made, "fdt").is_some()), (None, true));
    }
}
