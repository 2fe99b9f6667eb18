//! Whether the bytes are a device tree at all.
//!
//! Why it exists: the crate that reads the tree for us can check it too, but it holds names to the specification's 31 characters, which
//! 313 of the 577 trees of Debian's arm64 kernel (6.1.0-56) exceed, and lets through what makes reading slow without bound (170,000
//! nested nodes, names of a megabyte). So the check is ours and the reading is its: a tree that passes here cannot make it panic.
//!
//! What must hold after [`check`], for every function of the crate that we call: the header and the memory reservations lie in the
//! tree and end; the structure block starts with the root's token, is balanced, closed, and has properties before children
//! only; every name is printable ASCII, not empty (the root's apart), of bounded length, and ends where it should.

#![forbid(unsafe_code)]

use super::Error;

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

/// The bytes of `tree` up to its total size, once all that the module's head lists holds.
pub(super) fn check(tree: &[u8]) -> Result<&[u8], Error> {
    let wanted = total_size(tree)? as usize;
    let tree = tree.get(..wanted).ok_or(Error::Truncated { bytes: tree.len(), wanted })?;
    check_reservations(tree)?;
    let strings = Block::find(tree, "strings", Field::StringsOffset, Field::StringsBytes, 1)?;
    let structure = Block::find(tree, "structure", Field::StructOffset, Field::StructBytes, 4)?;
    Walk { structure, strings }.run()?;
    Ok(tree)
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
        let unterminated = Error::Unterminated { what, offset: self.start + at };
        let rest = self.bytes.get(at..).ok_or(unterminated)?;
        let rest = rest.get(..=MAX_NAME_BYTES).unwrap_or(rest);
        match rest.iter().position(|byte| !matches!(byte, b' '..=b'~')) {
            Some(end) if rest[end] == 0 => Ok(&rest[..end]),
            None if rest.len() <= MAX_NAME_BYTES => Err(unterminated),
            _ => Err(Error::BadName { offset: self.start + at }),
        }
    }
}

fn check_reservations(tree: &[u8]) -> Result<(), Error> {
    const ENTRY_BYTES: usize = 16;
    let offset = field(tree, Field::ReservationsOffset)?;
    let start = offset as usize;
    if start < HEADER_BYTES || !start.is_multiple_of(8) {
        return Err(Error::BadBlock { block: "memory reservation", offset, bytes: 0 });
    }
    for entry in (start..tree.len()).step_by(ENTRY_BYTES) {
        match (be64(tree, entry), be64(tree, entry + 8)) {
            (Some(0), Some(0)) => return Ok(()),
            (Some(_), Some(_)) => {}
            _ => break,
        }
    }
    Err(Error::Unterminated { what: "memory reservation block", offset: start })
}

/// One pass over the structure block's tokens.
struct Walk<'a> {
    structure: Block<'a>,
    strings: Block<'a>,
}

impl Walk<'_> {
    fn run(&self) -> Result<(), Error> {
        let mut depth = 0;
        let mut at = 0;
        // Properties stand between their node's name and its first child.
        let mut properties_allowed = false;
        loop {
            let token = self.word(at)?;
            let bad_token = Err(Error::BadToken { token, offset: self.structure.start + at });
            match token {
                // Exactly one root, and nothing before it: the crate looks for it at the block's first byte.
                BEGIN_NODE if depth > 0 || at == 0 => {
                    if depth == MAX_DEPTH {
                        return Err(Error::TooDeep { offset: self.structure.start + at, limit: MAX_DEPTH });
                    }
                    at = self.node_name(at + 4, depth == 0)?;
                    depth += 1;
                    properties_allowed = true;
                }
                END_NODE if depth > 0 => {
                    depth -= 1;
                    at += 4;
                    properties_allowed = false;
                }
                PROPERTY if properties_allowed => at = self.property(at)?,
                NOP if at > 0 => at += 4,
                END if depth == 0 && at > 0 => return Ok(()),
                _ => return bad_token,
            }
        }
    }

    fn word(&self, at: usize) -> Result<u32, Error> {
        be32(self.structure.bytes, at)
            .ok_or(Error::Unterminated { what: "structure block", offset: self.structure.start })
    }

    /// Checks the node name at `at`; gives the offset of what follows.
    fn node_name(&self, at: usize, root: bool) -> Result<usize, Error> {
        let name = self.structure.name(at, "node name")?;
        if name.is_empty() && !root {
            return Err(Error::BadName { offset: self.structure.start + at });
        }
        Ok((at + name.len() + 1).next_multiple_of(4))
    }

    /// Checks the property whose token is at `at`; gives the offset of what follows.
    fn property(&self, at: usize) -> Result<usize, Error> {
        let (bytes, name_offset) = (self.word(at + 4)? as usize, self.word(at + 8)? as usize);
        let value = at + 12;
        if self.structure.bytes.get(value..).and_then(|rest| rest.get(..bytes)).is_none() {
            return Err(Error::Unterminated { what: "property", offset: self.structure.start + at });
        }
        if self.strings.name(name_offset, "property name")?.is_empty() {
            return Err(Error::BadName { offset: self.strings.start + name_offset });
        }
        Ok((value + bytes).next_multiple_of(4))
    }
}
