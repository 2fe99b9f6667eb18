//! Reading one node: what every reader of the tree needs.

#![forbid(unsafe_code)]

use dtoolkit::fdt::FdtNode;
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

use super::{Error, NodeName};
use crate::addr::{ADDRESS_BITS, PhysAddr, PhysSpan};

/// The error that `node` has a malformed `property`.
pub(super) fn malformed(node: FdtNode<'_>, property: &'static str) -> Error {
    let node = NodeName::new(node.name());
    if property == "reg" { Error::MalformedReg { node } } else { Error::MalformedProperty { node, property } }
}

/// The bytes of a property.
pub(super) fn bytes<'a>(node: FdtNode<'a>, name: &str) -> Option<&'a [u8]> {
    node.property(name)?.value_as().ok()
}

/// The bytes of a property that is a string, without the NUL that ends it.
pub(super) fn string<'a>(node: FdtNode<'a>, name: &str) -> Option<&'a [u8]> {
    bytes(node, name).map(until_nul)
}

/// What stands before the first NUL; everything when there is none.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
}

/// A property that is a number of one or two cells, if it is there.
pub(super) fn number(node: FdtNode<'_>, name: &'static str) -> Result<Option<u64>, Error> {
    let Some(bytes) = bytes(node, name) else { return Ok(None) };
    if let Ok(word) = <[u8; 4]>::try_from(bytes) {
        return Ok(Some(u32::from_be_bytes(word).into()));
    }
    match <[u8; 8]>::try_from(bytes) {
        Ok(words) => Ok(Some(u64::from_be_bytes(words))),
        Err(_) => Err(malformed(node, name)),
    }
}

/// Whether the node may be used: it has no `status`, or says that it is okay.
pub(super) fn is_available(node: FdtNode<'_>) -> bool {
    string(node, "status").is_none_or(|status| matches!(status, b"okay" | b"ok"))
}

/// Refuses a node whose cell counts are malformed: the crate would read its children's `reg` with the default ones.
pub(super) fn check_cells(node: FdtNode<'_>) -> Result<(), Error> {
    node.address_cells().map_err(|_| malformed(node, "#address-cells"))?;
    node.size_cells().map_err(|_| malformed(node, "#size-cells"))?;
    Ok(())
}

/// The children of a node, whose cell counts are well formed.
pub(super) fn children<'a>(node: FdtNode<'a>) -> Result<impl Iterator<Item = FdtNode<'a>>, Error> {
    check_cells(node)?;
    Ok(node.children())
}

/// The entries of `reg`, each an address and a size; none when there is no `reg`.
pub(super) fn reg<'a>(node: FdtNode<'a>) -> Result<impl Iterator<Item = Result<(u64, u64), Error>> + 'a, Error> {
    let error = Error::MalformedReg { node: NodeName::new(node.name()) };
    let entries = node.reg().map_err(|_| error)?.into_iter().flatten();
    Ok(entries.map(move |entry| match (entry.address(), entry.size()) {
        (Ok(address), Ok(bytes)) => Ok((address, bytes)),
        _ => Err(error),
    }))
}

/// How many cells of 32 bits an address and a size have.
#[derive(Clone, Copy)]
pub(super) struct Cells {
    address: usize,
    size: usize,
}

impl Cells {
    /// Where no node says it.
    pub(super) const DEFAULT: Self = Self { address: 2, size: 1 };

    /// Of the children of `node`; those of its parent, `above`, where it does not say.
    pub(super) fn of(node: FdtNode<'_>, above: Self) -> Result<Self, Error> {
        above.counted_by(node, "#address-cells", "#size-cells")
    }

    /// As the properties `address` and `size` of `node` say; otherwise these.
    pub(super) fn counted_by(
        self,
        node: FdtNode<'_>,
        address: &'static str,
        size: &'static str,
    ) -> Result<Self, Error> {
        let count = |name, otherwise| number(node, name).map(|said| said.map_or(otherwise, |count| count as usize));
        Ok(Self { address: count(address, self.address)?, size: count(size, self.size)? })
    }

    /// The spans that the property `name` of `node` lists, without those that are empty.
    pub(super) fn spans<'a>(
        self,
        node: FdtNode<'a>,
        name: &'static str,
    ) -> Result<impl Iterator<Item = Result<PhysSpan, Error>> + 'a, Error> {
        let value = bytes(node, name).unwrap_or(&[]);
        let (1..=2, 1..=2) = (self.address, self.size) else { return Err(malformed(node, name)) };
        let entry_bytes = 4 * (self.address + self.size);
        if !value.len().is_multiple_of(entry_bytes) {
            return Err(malformed(node, name));
        }
        let entries = value.chunks_exact(entry_bytes).map(move |entry| entry.split_at(4 * self.address));
        let entries = entries.map(|(address, size)| (big_endian(address), big_endian(size)));
        Ok(entries.filter(|(_, bytes)| *bytes != 0).map(move |(address, bytes)| span(node.name(), address, bytes)))
    }
}

/// The number in at most eight bytes.
fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The spans of `reg` that are not empty.
pub(super) fn reg_spans<'a>(node: FdtNode<'a>) -> Result<impl Iterator<Item = Result<PhysSpan, Error>> + 'a, Error> {
    let entries = reg(node)?.filter(|entry| !matches!(entry, Ok((_, 0))));
    Ok(entries.map(move |entry| entry.and_then(|(address, bytes)| span(node.name(), address, bytes))))
}

/// The span of `bytes` bytes from `address`, which `name` names.
pub(super) fn span(name: &str, address: u64, bytes: u64) -> Result<PhysSpan, Error> {
    let span =
        PhysAddr::new(address).and_then(|start| PhysSpan::of(start, bytes)).filter(|span| span.fits(ADDRESS_BITS));
    span.ok_or(Error::BeyondAddressBits { node: NodeName::new(name), address, bytes })
}
