//! The structure block, checked and handed out in one pass.
//!
//! Why it exists: a tree is read while it is checked, so that its structure is passed over once, whatever it holds. A
//! crate that reads trees cannot serve here. It wants them whole before it begins, its own check holds names to the
//! specification's 31 characters, which 313 of the 577 trees of Debian's arm64 kernel (6.1.0-56) exceed, and it lets
//! through what makes reading slow without bound (170,000 nested nodes, names of a megabyte).
//!
//! What must hold: [`Walk`] gives nothing of a token that it has not checked; [`Walk::finish`] is `Ok` only when the
//! structure block starts with the root's token, is balanced, closed, and has properties before children only, and when
//! every name is printable ASCII, not empty (the root's apart), of bounded length, and ends where it should.

#![forbid(unsafe_code)]

use super::Error;
use super::names::{Checked, Name, Names};

/// The bytes of a version 17 header.
pub(super) const HEADER_BYTES: usize = 40;
/// How deep nodes may be nested, the root being at depth 1. Xen stops at 16; real trees reach about 10.
pub const MAX_DEPTH: usize = 32;
/// The longest name: bounds the time that looking up properties takes.
const MAX_NAME_BYTES: usize = 255;

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// A header field, by its offset in the header.
#[derive(Clone, Copy)]
enum Field {
    Magic = 0,
    TotalSize = 4,
    StructOffset = 8,
    StringsOffset = 12,
    ReservationsOffset = 16,
    Version = 20,
    LastCompatible = 24,
    StringsBytes = 32,
    StructBytes = 36,
}

fn be32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

fn be64(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|word| u64::from_be_bytes(*word))
}

fn field(tree: &[u8], field: Field) -> Result<u32, Error> {
    be32(tree, field as usize).ok_or(Error::Truncated { bytes: tree.len(), wanted: HEADER_BYTES })
}

/// The total size that the header in the first 40 bytes of `bytes` gives.
pub(super) fn total_size(bytes: &[u8]) -> Result<u32, Error> {
    if bytes.len() < HEADER_BYTES {
        return Err(Error::Truncated { bytes: bytes.len(), wanted: HEADER_BYTES });
    }
    let magic = field(bytes, Field::Magic)?;
    if magic != MAGIC {
        return Err(Error::BadMagic { magic });
    }
    let (version, last_compatible) = (field(bytes, Field::Version)?, field(bytes, Field::LastCompatible)?);
    if version < VERSION || last_compatible > VERSION {
        return Err(Error::UnsupportedVersion { version, last_compatible });
    }
    let total = field(bytes, Field::TotalSize)?;
    if (total as usize) < HEADER_BYTES {
        return Err(Error::TooSmall { bytes: total });
    }
    if total > super::MAX_BYTES {
        return Err(Error::TooLarge { bytes: total });
    }
    Ok(total)
}

/// Whether nodes other than `/chosen` stand below the root, as far as the structure block of `tree` can be followed.
/// For bytes that nothing has checked.
pub(super) fn describes_machine(tree: &[u8]) -> Option<bool> {
    let structure = tree.get(be32(tree, Field::StructOffset as usize)? as usize..)?;
    let (mut at, mut depth) = (0, 0_u32);
    loop {
        match be32(structure, at)? {
            BEGIN_NODE => {
                let rest = structure.get(at + 4..)?;
                let name = rest.get(..rest.iter().position(|byte| *byte == 0)?)?;
                if depth == 1 && name != b"chosen" {
                    return Some(true);
                }
                depth += 1;
                at = (at + 4 + name.len() + 1).next_multiple_of(4);
            }
            END_NODE => {
                depth = depth.checked_sub(1)?;
                at += 4;
            }
            PROPERTY => at = (at + 12 + be32(structure, at + 4)? as usize).next_multiple_of(4),
            NOP => at += 4,
            END if at > 0 && depth == 0 => return Some(false),
            _ => return None,
        }
    }
}

/// The bytes of `tree` up to its total size, once its header and its memory reservations are good, and the walk through
/// its structure. Gives every reservation, an address and a size, to `reservation`.
pub(super) fn open(tree: &[u8], reservation: impl FnMut(u64, u64)) -> Result<(&[u8], Walk<'_>), Error> {
    let wanted = total_size(tree)? as usize;
    let tree = tree.get(..wanted).ok_or(Error::Truncated { bytes: tree.len(), wanted })?;
    read_reservations(tree, reservation)?;
    let strings = Block::find(tree, "strings", Field::StringsOffset, Field::StringsBytes, 1)?;
    let structure = Block::find(tree, "structure", Field::StructOffset, Field::StructBytes, 4)?;
    Ok((
        tree,
        Walk {
            structure,
            strings,
            names: Names::new(),
            at: 0,
            node: 0,
            depth: 0,
            properties_allowed: false,
            state: Ok(()),
        },
    ))
}

/// A block of the tree.
#[derive(Clone, Copy)]
struct Block<'a> {
    bytes: &'a [u8],
    /// Its offset in the tree, for the evidence.
    start: usize,
}

impl<'a> Block<'a> {
    fn find(tree: &'a [u8], block: &'static str, offset: Field, size: Field, align: usize) -> Result<Self, Error> {
        let (offset, size) = (field(tree, offset)?, field(tree, size)?);
        let start = offset as usize;
        let error = Error::BadBlock { block, offset, bytes: size };
        if start < HEADER_BYTES || !start.is_multiple_of(align) {
            return Err(error);
        }
        let bytes = tree.get(start..).and_then(|rest| rest.get(..size as usize)).ok_or(error)?;
        Ok(Self { bytes, start })
    }

    /// The name at `at`, without the NUL that ends it.
    fn name(self, at: usize, what: &'static str) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(at..).unwrap_or(&[]);
        let rest = rest.get(..=MAX_NAME_BYTES).unwrap_or(rest);
        match first_unprintable(rest) {
            Some(end) if rest[end] == 0 => Ok(&rest[..end]),
            None if rest.len() <= MAX_NAME_BYTES => Err(Error::Unterminated { what, offset: self.start + at }),
            _ => Err(Error::BadName { offset: self.start + at }),
        }
    }
}

/// The place of the first byte that is no printable ASCII. Looks at eight at a time.
fn first_unprintable(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    let (words, rest) = bytes.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // Bit 7 of each byte below ' ', above '~', or that has it. Carries come from such bytes alone, so the lowest is
        // right.
        let odd = (word.wrapping_sub(ONES * 0x20) | word.wrapping_add(ONES) | word) & (ONES * 0x80);
        if odd != 0 {
            return Some(8 * index + odd.trailing_zeros() as usize / 8);
        }
    }
    let odd = rest.iter().position(|byte| !matches!(byte, b' '..=b'~'))?;
    Some(8 * words.len() + odd)
}

fn read_reservations(tree: &[u8], mut reservation: impl FnMut(u64, u64)) -> Result<(), Error> {
    const ENTRY_BYTES: usize = 16;
    let offset = field(tree, Field::ReservationsOffset)?;
    let start = offset as usize;
    if start < HEADER_BYTES || !start.is_multiple_of(8) {
        return Err(Error::BadBlock { block: "memory reservation", offset, bytes: 0 });
    }
    for entry in (start..tree.len()).step_by(ENTRY_BYTES) {
        match (be64(tree, entry), be64(tree, entry + 8)) {
            (Some(0), Some(0)) => return Ok(()),
            (Some(address), Some(bytes)) => reservation(address, bytes),
            _ => break,
        }
    }
    Err(Error::Unterminated { what: "memory reservation block", offset: start })
}

/// What [`Walk::step`] has passed.
enum Step<'a> {
    Begin(&'a [u8]),
    Property,
    End,
    Over,
}

/// A property, as the walk comes upon it.
pub(super) struct Property<'a> {
    /// Which it is, if somebody reads it.
    pub(super) name: Option<Name>,
    /// Where in the strings block its name begins, and how long it is.
    text: (u32, u8),
    /// Its value.
    pub(super) value: &'a [u8],
}

/// One pass over the structure block's tokens.
///
/// What is wrong with the structure stays in the walk, which then comes upon nothing more: a reader of nodes need not
/// care.
pub(super) struct Walk<'a> {
    structure: Block<'a>,
    strings: Block<'a>,
    names: Names,
    at: usize,
    /// Where the node begins that was come upon last.
    node: usize,
    depth: usize,
    /// Properties stand between their node's name and its first child.
    properties_allowed: bool,
    state: Result<(), Error>,
}

impl<'a> Walk<'a> {
    /// How deep the node is that the walk is in; the root is at 1.
    pub(super) const fn depth(&self) -> usize {
        self.depth
    }

    /// Where the node begins that it has come upon last.
    pub(super) const fn place(&self) -> usize {
        self.node
    }

    /// Whether the node at `place`, which this walk came upon before, is called `name`, which may leave out the unit
    /// address.
    pub(super) fn is_called(&self, place: usize, name: &str) -> bool {
        let rest = self.structure.bytes.get(place + 4..).and_then(|rest| rest.strip_prefix(name.as_bytes()));
        rest.and_then(<[u8]>::first).is_some_and(|&next| next == 0 || next == b'@' && !name.contains('@'))
    }

    /// Goes back: the walk will come upon the child of the root at `place` next, as it did before.
    pub(super) const fn go_back(&mut self, place: usize) {
        (self.at, self.depth) = (place, 1);
    }

    /// The name of the next child of the node at `depth`, which the walk is in; `None` when that node is over. What was
    /// not read of the child before is passed over.
    pub(super) fn next_child(&mut self, depth: usize) -> Option<&'a [u8]> {
        while self.depth >= depth {
            match self.step()? {
                Step::Begin(name) if self.depth == depth + 1 => return Some(name),
                Step::Over => break,
                _ => {}
            }
        }
        None
    }

    /// The next property of the node that the walk is in; `None` when there are no more.
    pub(super) fn next_property(&mut self) -> Option<Property<'a>> {
        loop {
            match self.token()? {
                NOP => self.at += 4,
                PROPERTY if self.properties_allowed => return self.property(),
                _ => return None,
            }
        }
    }

    /// What `property` is called.
    pub(super) fn text(&self, property: &Property<'_>) -> &'a [u8] {
        let (offset, bytes) = property.text;
        self.strings.bytes.get(offset as usize..).and_then(|rest| rest.get(..bytes.into())).unwrap_or(&[])
    }

    /// Passes over what is left.
    ///
    /// # Errors
    /// What is wrong with the structure, here or where it was met.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        while !matches!(self.step(), None | Some(Step::Over)) {}
        self.state
    }

    fn step(&mut self) -> Option<Step<'a>> {
        loop {
            let token = self.token()?;
            match token {
                // Exactly one root, and nothing before it.
                BEGIN_NODE if self.depth > 0 || self.at == 0 => return self.node().map(Step::Begin),
                END_NODE if self.depth > 0 => {
                    self.depth -= 1;
                    self.at += 4;
                    self.properties_allowed = false;
                    return Some(Step::End);
                }
                PROPERTY if self.properties_allowed => return self.property().map(|_| Step::Property),
                NOP if self.at > 0 => self.at += 4,
                END if self.depth == 0 && self.at > 0 => return Some(Step::Over),
                _ => return self.fail(Error::BadToken { token, offset: self.structure.start + self.at }),
            }
        }
    }

    /// The name of the node whose token is next.
    fn node(&mut self) -> Option<&'a [u8]> {
        if self.depth == MAX_DEPTH {
            return self.fail(Error::TooDeep { offset: self.structure.start + self.at, limit: MAX_DEPTH });
        }
        let name = match self.structure.name(self.at + 4, "node name") {
            Ok([]) if self.depth > 0 => {
                return self.fail(Error::BadName { offset: self.structure.start + self.at + 4 });
            }
            Ok(name) => name,
            Err(error) => return self.fail(error),
        };
        self.node = self.at;
        self.at = (self.at + 4 + name.len() + 1).next_multiple_of(4);
        self.depth += 1;
        self.properties_allowed = true;
        Some(name)
    }

    /// The property whose token is next.
    fn property(&mut self) -> Option<Property<'a>> {
        let Some(words) = be64(self.structure.bytes, self.at + 4) else { return self.no_word() };
        let (bytes, name_offset) = ((words >> 32) as usize, words as u32);
        let start = self.at + 12;
        let Some(value) = self.structure.bytes.get(start..).and_then(|rest| rest.get(..bytes)) else {
            return self.fail(Error::Unterminated { what: "property", offset: self.structure.start + self.at });
        };
        let Checked { name, bytes: name_bytes, .. } = match self.names.get(name_offset) {
            Some(known) => known,
            None => self.new_name(name_offset)?,
        };
        self.at = (start + bytes).next_multiple_of(4);
        Some(Property { name, text: (name_offset, name_bytes), value })
    }

    /// Checks the name of a property at `offset` of the strings block.
    #[cold] // out of the way of all the others
    fn new_name(&mut self, offset: u32) -> Option<Checked> {
        match self.strings.name(offset as usize, "property name") {
            Ok([]) => self.fail(Error::BadName { offset: self.strings.start + offset as usize }),
            Ok(name) => Some(self.names.note(offset, name)),
            Err(error) => self.fail(error),
        }
    }

    /// The token that is next.
    fn token(&mut self) -> Option<u32> {
        match be32(self.structure.bytes, self.at) {
            None => self.no_word(),
            token => token,
        }
    }

    fn no_word<T>(&mut self) -> Option<T> {
        self.fail(Error::Unterminated { what: "structure block", offset: self.structure.start })
    }

    /// Keeps why the structure is refused, and goes where there are no more tokens.
    #[cold]
    fn fail<T>(&mut self, error: Error) -> Option<T> {
        if self.state.is_ok() {
            self.state = Err(error);
        }
        self.at = self.structure.bytes.len();
        None
    }
}
