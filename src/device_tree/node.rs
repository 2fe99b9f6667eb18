//! One node: what every reader of the tree needs.

#![forbid(unsafe_code)]

use super::names::Name;
use super::structure::{Property, Walk};
use super::{Error, NodeName};
use crate::addr::{ADDRESS_BITS, PhysAddr, PhysSpan};

/// A node: its name, and those of its properties that somebody reads.
#[derive(Clone)]
pub(super) struct Node<'a> {
    /// Its name, the unit address included; the root's is empty.
    pub(super) name: &'a [u8],
    /// Bit n: `values[n]` is this node's.
    present: u32,
    values: [&'a [u8]; Name::ALL.len()],
}

impl<'a> Node<'a> {
    /// Room for one.
    pub(super) const fn new() -> Self {
        Self { name: &[], present: 0, values: [&[]; Name::ALL.len()] }
    }

    /// Reads the next child of the node at `depth`, which `walk` is in; `false` when there is none.
    pub(super) fn read_next(&mut self, depth: usize, walk: &mut Walk<'a>) -> bool {
        let Some(name) = walk.next_child(depth) else { return false };
        self.read(name, walk);
        true
    }

    /// Reads the node called `name`, which `walk` has just come upon.
    pub(super) fn read(&mut self, name: &'a [u8], walk: &mut Walk<'a>) {
        (self.name, self.present) = (name, 0);
        while let Some(Property { name, value, .. }) = walk.next_property() {
            let Some(name) = name else { continue };
            // Of two with one name the first counts.
            if !self.has(name) {
                self.present |= 1 << name as u32;
                self.values[name as usize] = value;
            }
        }
    }

    /// Whether it is called `name`, which may leave out the unit address.
    pub(super) fn is_called(&self, name: &str) -> bool {
        is_called(self.name, name.as_bytes())
    }

    /// The bytes of a property.
    pub(super) fn bytes(&self, name: Name) -> Option<&'a [u8]> {
        self.has(name).then(|| self.values[name as usize])
    }

    /// Whether it has a property.
    pub(super) const fn has(&self, name: Name) -> bool {
        self.present & (1 << name as u32) != 0
    }

    /// The bytes of a property that is a string, without the NUL that ends it.
    pub(super) fn string(&self, name: Name) -> Option<&'a [u8]> {
        self.bytes(name).map(until_nul)
    }

    /// A property that is one string as the specification has it: text, and a NUL that ends it.
    pub(super) fn text(&self, name: Name) -> Option<&'a str> {
        self.bytes(name).and_then(text)
    }

    /// A property that is a number of one or two cells, if it is there.
    pub(super) fn number(&self, name: Name) -> Result<Option<u64>, Error> {
        let Some(bytes) = self.bytes(name) else { return Ok(None) };
        match bytes.len() {
            4 | 8 => Ok(Some(big_endian(bytes))),
            _ => Err(self.malformed(name)),
        }
    }

    /// The strings of `compatible`, up to the first that is no text or does not end.
    pub(super) fn compatible(&self) -> impl Iterator<Item = &'a str> {
        let value = self.bytes(Name::Compatible).unwrap_or(&[]);
        value.split_inclusive(|&byte| byte == 0).map_while(text)
    }

    /// Whether one of them is in `wanted`.
    pub(super) fn is_compatible(&self, wanted: &[&str]) -> bool {
        self.compatible().any(|string| wanted.contains(&string))
    }

    /// Whether the node may be used: it has no `status`, or says that it is okay.
    pub(super) fn is_available(&self) -> bool {
        self.string(Name::Status).is_none_or(|status| matches!(status, b"okay" | b"ok"))
    }

    /// The error that a property of this node is malformed.
    pub(super) fn malformed(&self, property: Name) -> Error {
        property.malformed(self.name)
    }

    /// The entries of `reg`, which `cells` of the parent counts, each an address and a size; none when there is no
    /// `reg`.
    pub(super) fn reg(&self, cells: Cells) -> Result<impl Iterator<Item = Result<(u64, u64), Error>> + use<'a>, Error> {
        let error = self.malformed(Name::Reg);
        let entries = entries(self.bytes(Name::Reg), [cells.address, cells.size]).ok_or(error)?;
        Ok(entries.map(move |[address, bytes]| Ok((address.ok_or(error)?, bytes.ok_or(error)?))))
    }

    /// The spans of `reg` that are not empty.
    pub(super) fn reg_spans(
        &self,
        cells: Cells,
    ) -> Result<impl Iterator<Item = Result<PhysSpan, Error>> + use<'a>, Error> {
        let name = self.name;
        let entries = self.reg(cells)?.filter(|entry| !matches!(entry, Ok((_, 0))));
        Ok(entries.map(move |entry| entry.and_then(|(address, bytes)| span(name, address, bytes))))
    }
}

/// What stands before the first NUL; everything when there is none.
fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
}

/// A value that is text and a NUL that ends it.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    value.strip_suffix(b"\0").and_then(|text| str::from_utf8(text).ok())
}

/// Whether `name`, a node's, is `wanted`, which may leave out the unit address.
pub(super) fn is_called(name: &[u8], wanted: &[u8]) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest[0] == b'@' && !wanted.contains(&b'@'))
}

/// The entries of the property `value`, whose numbers have so many cells each; `None` when it is not made of such. Of
/// more than two cells a number is `None`, of no cells 0.
pub(super) fn entries<'a, const N: usize>(
    value: Option<&'a [u8]>,
    cells: [usize; N],
) -> Option<impl Iterator<Item = [Option<u64>; N]> + use<'a, N>> {
    let (value, entry_bytes) = value.map_or((&[][..], 1), |value| (value, 4 * cells.iter().sum::<usize>()));
    if entry_bytes == 0 || !value.len().is_multiple_of(entry_bytes) {
        return None;
    }
    Some(value.chunks_exact(entry_bytes).map(move |mut entry| {
        cells.map(|cells| {
            let number;
            (number, entry) = entry.split_at(4 * cells);
            (cells <= 2).then(|| big_endian(number))
        })
    }))
}

/// How many cells of 32 bits an address and a size have.
#[derive(Clone, Copy)]
pub(super) struct Cells {
    /// An address.
    pub(super) address: usize,
    /// A size.
    pub(super) size: usize,
}

impl Cells {
    /// Where no node says it.
    pub(super) const DEFAULT: Self = Self { address: 2, size: 1 };

    /// Of the `reg` of the children of `node`, as the specification has it: each count is one cell, and no node above
    /// matters.
    pub(super) fn of_reg(node: &Node<'_>) -> Result<Self, Error> {
        match Self::odd_count(node) {
            Some(name) => Err(node.malformed(name)),
            None => Ok(Self::of_reg_or_default(node)),
        }
    }

    /// The first count of `node` that is not one cell.
    pub(super) fn odd_count(node: &Node<'_>) -> Option<Name> {
        [Name::AddressCells, Name::SizeCells]
            .into_iter()
            .find(|name| node.bytes(*name).is_some_and(|count| count.len() != 4))
    }

    /// As [`Self::of_reg`], with the default for a count that is not one cell.
    pub(super) fn of_reg_or_default(node: &Node<'_>) -> Self {
        let one_cell = |name| node.bytes(name).filter(|count| count.len() == 4);
        let count = |name, otherwise| one_cell(name).map_or(otherwise, |count| big_endian(count) as usize);
        let Self { address, size } = Self::DEFAULT;
        Self { address: count(Name::AddressCells, address), size: count(Name::SizeCells, size) }
    }

    /// Of the children of `node`; those of its parent, `above`, where it does not say.
    pub(super) fn of(node: &Node<'_>, above: Self) -> Result<Self, Error> {
        above.counted_by(node, Name::AddressCells, Name::SizeCells)
    }

    /// As the properties `address` and `size` of `node` say; otherwise these.
    pub(super) fn counted_by(self, node: &Node<'_>, address: Name, size: Name) -> Result<Self, Error> {
        let count = |name, otherwise| node.number(name).map(|said| said.map_or(otherwise, |count| count as usize));
        Ok(Self { address: count(address, self.address)?, size: count(size, self.size)? })
    }

    /// The spans that a property of `node` lists, without those that are empty.
    pub(super) fn spans<'a>(
        self,
        node: &Node<'a>,
        property: Name,
    ) -> Result<impl Iterator<Item = Result<PhysSpan, Error>> + use<'a>, Error> {
        let (1..=2, 1..=2) = (self.address, self.size) else { return Err(node.malformed(property)) };
        let entries = entries(node.bytes(property), [self.address, self.size]).ok_or(node.malformed(property))?;
        let name = node.name;
        let entries = entries.map(|entry| entry.map(Option::unwrap_or_default));
        Ok(entries.filter(|[_, bytes]| *bytes != 0).map(move |[address, bytes]| span(name, address, bytes)))
    }
}

/// The number in at most eight bytes.
fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The span of `bytes` bytes from `address`, which `name` names.
pub(super) fn span(name: &[u8], address: u64, bytes: u64) -> Result<PhysSpan, Error> {
    let span =
        PhysAddr::new(address).and_then(|start| PhysSpan::of(start, bytes)).filter(|span| span.fits(ADDRESS_BITS));
    span.ok_or(Error::BeyondAddressBits { node: NodeName::new(name), address, bytes })
}
