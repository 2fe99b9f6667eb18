//! What U-Boot reads: its environment, scripts, and FIT images (a device tree of files, each with a checksum, and of
//! configurations, which say what of them belongs together).
//!
//! Formats: U-Boot's doc/usage/fit/source_file_format.rst, include/image.h and tools/mkenvimage.c.

use crc::{CRC_32_ISO_HDLC, Crc};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property, ToPropertyValue};

/// Of a script: what it begins with, and its header's bytes.
const MAGIC: u32 = 0x2705_1956;
const HEADER_BYTES: usize = 64;
/// Of a header: Linux, arm64, a script, not compressed.
const SCRIPT: [u8; 4] = [5, 22, 6, 0];

fn sum(bytes: &[u8]) -> u32 {
    Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(bytes)
}

/// Variables as U-Boot keeps them, in `bytes` bytes: a checksum, then each with a 0 behind it, and one more.
pub fn environment(variables: &[&str], bytes: usize) -> Vec<u8> {
    let mut text: Vec<u8> = variables.iter().flat_map(|variable| [variable.as_bytes(), &[0]].concat()).collect();
    text.resize(bytes - size_of::<u32>(), 0);
    [sum(&text).to_le_bytes().to_vec(), text].concat()
}

/// A script as U-Boot's `source` takes it: a header with two checksums, the length of the text, the text.
#[must_use]
pub fn script(text: &str) -> Vec<u8> {
    let word = |value: u32| value.to_be_bytes().to_vec();
    let data = [word(text.len() as u32), word(0), text.into()].concat();
    // Time, load address and entry point are 0.
    let header = |own: u32| {
        let words = [MAGIC, own, 0, data.len() as u32, 0, 0, sum(&data)].map(word).concat();
        let mut header = [&words, &SCRIPT[..], b"Breakwater"].concat();
        header.resize(HEADER_BYTES, 0);
        header
    };
    [header(sum(&header(0))), data].concat()
}

/// A FIT image of `image`, to be moved to `load_at`, and the tree it gets.
pub fn fit(image: &[u8], load_at: u32, tree: &[u8]) -> Vec<u8> {
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

/// The file `name` of a FIT image, `kernel` or `fdt`, if its checksum is right.
pub fn file_of_fit(fit: &[u8], name: &str) -> Option<Vec<u8>> {
    let model = DeviceTree::from_fdt(&Fdt::new(fit).ok()?);
    let value = |path: &str, name: &str| {
        model.find_node(path).and_then(|node| node.property(name).map(|property| property.value().to_vec()))
    };
    let data = value(&format!("/images/{name}"), "data")?;
    let hash = value(&format!("/images/{name}/hash-1"), "value")?;
    (hash == sum(&data).to_be_bytes()).then_some(data)
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

    #[test]
    fn good_an_environment_is_what_u_boot_checks() {
        let made = environment(&["bootdelay=0", "bootcmd=reset"], 64);
        assert_eq!(made.len(), 64);
        assert!(made[4..].starts_with(b"bootdelay=0\0bootcmd=reset\0\0"));
        assert_eq!(made[..4], sum(&made[4..]).to_le_bytes());
        assert_eq!(sum(b"123456789"), 0xcbf4_3926); // the catalogue's check
    }

    #[test]
    fn good_a_script_carries_its_text_under_two_checksums() {
        let made = script("reset\n");
        let (header, data) = made.split_at(HEADER_BYTES);
        assert_eq!(header[..4], [0x27, 0x05, 0x19, 0x56]);
        let mut without_sum = header.to_vec();
        without_sum[4..8].fill(0);
        assert_eq!(header[4..8], sum(&without_sum).to_be_bytes());
        assert_eq!(header[12..16], 14_u32.to_be_bytes());
        assert_eq!(header[24..28], sum(data).to_be_bytes());
        assert_eq!(data, b"\0\0\0\x06\0\0\0\0reset\n");
    }

    #[test]
    fn good_a_fit_image_brings_both_files_whole() {
        let made = fit(b"an image", 0x4080_0000, b"a tree");
        assert_eq!(file_of_fit(&made, "kernel").as_deref(), Some(&b"an image"[..]));
        assert_eq!(file_of_fit(&made, "fdt").as_deref(), Some(&b"a tree"[..]));
        let model = DeviceTree::from_fdt(&Fdt::new(&made).expect("a tree"));
        let kernel = model.find_node("/images/kernel").expect("its kernel");
        assert_eq!(kernel.property("entry").expect("an entry").value(), [0x40, 0x80, 0, 0]);
    }

    #[test]
    fn bad_a_file_of_a_fit_image_that_changed() {
        let mut made = fit(b"an image", 0, b"a tree");
        let at = made.windows(8).position(|bytes| bytes == b"an image").expect("its kernel");
        made[at] ^= 1;
        assert_eq!((file_of_fit(&made, "kernel"), file_of_fit(&made, "fdt").is_some()), (None, true));
    }
}
