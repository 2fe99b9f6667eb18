//! Why a device tree is refused, each in one line with its evidence.

#![forbid(unsafe_code)]

use core::fmt;

use crate::addr::{PhysAddr, PhysSpan};
use crate::memory_map;

/// The name of a node, kept by value so that an error needs neither the tree nor a heap. Longer names are cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NodeName {
    bytes: [u8; Self::CAPACITY],
    len: u8,
}

impl NodeName {
    /// Bytes kept: more than the 31 that the specification allows before the unit address.
    const CAPACITY: usize = 47;

    /// Keeps what fits of `name`; the root's empty name becomes `/`.
    #[must_use]
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        let name = if name.as_ref().is_empty() { b"/" } else { name.as_ref() };
        let mut bytes = [0; Self::CAPACITY];
        let len = bytes.iter_mut().zip(name).map(|(to, from)| *to = *from).count();
        Self { bytes, len: len as u8 }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.bytes.iter().take(usize::from(self.len));
        // The name comes from outside: nothing in it may break the line or drive the terminal.
        kept.map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' })
            .try_for_each(|character| fmt::Write::write_char(f, character))
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a device tree is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The loader gave none.
    Absent,
    /// It does not start at a multiple of 8 bytes.
    Misaligned {
        /// Where it starts.
        address: u64,
    },
    /// It does not start with the magic number: something else (ATAGs, rubbish) is there.
    BadMagic {
        /// What is there.
        magic: u32,
    },
    /// It is of a version that cannot be read as version 17.
    UnsupportedVersion {
        /// Its version.
        version: u32,
        /// The oldest version that it can be read as.
        last_compatible: u32,
    },
    /// Its total size is less than its header.
    TooSmall {
        /// The total size.
        bytes: u32,
    },
    /// Its total size is more than its slot in the virtual layout.
    TooLarge {
        /// The total size.
        bytes: u32,
    },
    /// Less of it is there than its header says.
    Truncated {
        /// What is there.
        bytes: usize,
        /// What the header says.
        wanted: usize,
    },
    /// A block does not lie in the tree, or is misaligned.
    BadBlock {
        /// Which one.
        block: &'static str,
        /// Where it starts.
        offset: u32,
        /// Its size; zero where the header gives none.
        bytes: u32,
    },
    /// A block, name or value runs past the end of what holds it.
    Unterminated {
        /// What runs past its end.
        what: &'static str,
        /// Where it starts.
        offset: usize,
    },
    /// A token that is unknown, or not allowed where it stands.
    BadToken {
        /// The token.
        token: u32,
        /// Where it stands.
        offset: usize,
    },
    /// The name of a node or property is empty, too long, or not printable ASCII.
    BadName {
        /// Where it starts.
        offset: usize,
    },
    /// Nodes are nested too deeply.
    TooDeep {
        /// Where the node starts that is too deep.
        offset: usize,
        /// How deep nodes may be nested.
        limit: usize,
    },
    /// A `reg` is missing, or is not a whole number of entries of a size that can be read.
    MalformedReg {
        /// Whose.
        node: NodeName,
    },
    /// A property cannot be what the specification says it is.
    MalformedProperty {
        /// Whose.
        node: NodeName,
        /// Which.
        property: &'static str,
    },
    /// A span runs beyond 48 bits.
    BeyondAddressBits {
        /// Who names it.
        node: NodeName,
        /// Where it starts.
        address: u64,
        /// How long it is.
        bytes: u64,
    },
    /// Two CPUs have one identity.
    DuplicateCpu {
        /// The affinity fields that both have.
        mpidr: u64,
    },
    /// The console's registers lie in RAM: its pages would be mapped with two memory types.
    ConsoleInRam {
        /// Its node.
        node: NodeName,
        /// The registers.
        registers: PhysSpan,
        /// The bank that they lie in.
        bank: PhysSpan,
    },
    /// The tree's own address does not leave room for it below 2^48.
    BadAddress {
        /// Where it starts.
        start: PhysAddr,
    },
    /// The memory that it describes is refused.
    Memory(memory_map::Error),
}

impl From<memory_map::Error> for Error {
    fn from(error: memory_map::Error) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no device tree was given"),
            Self::Misaligned { address } => write!(f, "device tree at {address:#x} is not aligned to 8 bytes"),
            Self::BadMagic { magic } => write!(f, "device tree has wrong magic {magic:#010x}, not 0xd00dfeed"),
            Self::UnsupportedVersion { version, last_compatible } => {
                write!(f, "device tree has version {version}, compatible back to {last_compatible}, not 17")
            }
            Self::TooSmall { bytes } => {
                write!(f, "device tree has a total size of {bytes} bytes, less than its header")
            }
            Self::TooLarge { bytes } => {
                write!(f, "device tree has a total size of {bytes} bytes, more than {}", super::MAX_BYTES)
            }
            Self::Truncated { bytes, wanted } => write!(f, "device tree is truncated: {bytes} of {wanted} bytes"),
            Self::BadBlock { block, offset, bytes } => {
                write!(f, "device tree is truncated or damaged: {block} block of {bytes} bytes at offset {offset:#x}")
            }
            Self::Unterminated { what, offset } => {
                write!(f, "device tree is truncated or damaged: {what} at offset {offset:#x} does not end")
            }
            Self::BadToken { token, offset } => {
                write!(f, "device tree is truncated or damaged: token {token:#x} at offset {offset:#x}")
            }
            Self::BadName { offset } => {
                write!(f, "device tree is truncated or damaged: name at offset {offset:#x} is not a name")
            }
            Self::TooDeep { offset, limit } => {
                write!(f, "device tree has nodes nested more than {limit} deep at offset {offset:#x}")
            }
            Self::MalformedReg { node } => write!(f, "device tree node {node} has a malformed reg"),
            Self::MalformedProperty { node, property } => {
                write!(f, "device tree node {node} has a malformed {property}")
            }
            Self::BeyondAddressBits { node, address, bytes } => {
                write!(f, "device tree node {node} names {bytes:#x} bytes at {address:#x}, beyond 48 bits")
            }
            Self::DuplicateCpu { mpidr } => write!(f, "device tree has two CPUs with MPIDR {mpidr:#x}"),
            Self::ConsoleInRam { node, registers, bank } => {
                write!(
                    f,
                    "device tree node {node}, the console, has a reg that lies in the RAM bank {bank}: {registers}"
                )
            }
            Self::BadAddress { start } => write!(f, "device tree at {start} runs beyond 48 bits"),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}
