//! The properties that somebody reads, and how the name of any is checked.
//!
//! Why it exists: a tree has thousands of properties, and a hundred names for them. A name is compared with those that
//! matter here once, not again for each property that has it.

#![forbid(unsafe_code)]

use super::{Error, NodeName};

macro_rules! properties {
    ($($name:ident $text:literal)*) => {
        /// A property that somebody reads. All others are passed over, but for what an alias is short for.
        #[derive(Clone, Copy)]
        pub(super) enum Name {
            $(#[doc = $text] $name,)*
        }

        impl Name {
            pub(super) const ALL: &'static [&'static str] = &[$($text),*];

            /// The one that is called `name`.
            pub(super) fn of(name: &[u8]) -> Option<Self> {
                $(if name == $text.as_bytes() {
                    return Some(Self::$name);
                })*
                None
            }

            /// The error that this property of the node called `node` is malformed.
            pub(super) fn malformed(self, node: &[u8]) -> Error {
                let node = NodeName::new(node);
                match self {
                    Self::Reg => Error::MalformedReg { node },
                    property => Error::MalformedProperty { node, property: Self::ALL[property as usize] },
                }
            }
        }
    };
}

properties! {
    AddressCells "#address-cells"
    BigEndian "big-endian"
    Bootargs "bootargs"
    Compatible "compatible"
    CpuReleaseAddr "cpu-release-addr"
    DeviceType "device_type"
    EnableMethod "enable-method"
    InitrdEnd "linux,initrd-end"
    InitrdStart "linux,initrd-start"
    LinuxStdoutPath "linux,stdout-path"
    Method "method"
    NoMap "no-map"
    Ranges "ranges"
    Reg "reg"
    RegIoWidth "reg-io-width"
    RegOffset "reg-offset"
    RegShift "reg-shift"
    SizeCells "#size-cells"
    StaticHeap "xen,static-heap"
    StaticHeapAddressCells "#xen,static-heap-address-cells"
    StaticHeapSizeCells "#xen,static-heap-size-cells"
    StaticMem "xen,static-mem"
    StaticMemAddressCells "#xen,static-mem-address-cells"
    StaticMemSizeCells "#xen,static-mem-size-cells"
    Status "status"
    StdoutPath "stdout-path"
    UsableMemory "linux,usable-memory"
    UsableMemoryRange "linux,usable-memory-range"
    XenBootargs "xen,xen-bootargs"
}

static_assertions::const_assert!(Name::ALL.len() <= u32::BITS as usize);

/// What is known of the names in the strings block: for some of them, by where they begin, how long they are and whose
/// they are.
pub(super) struct Names {
    checked: [Checked; 64],
}

/// A name that has been checked.
#[derive(Clone, Copy)]
pub(super) struct Checked {
    offset: u32,
    /// Its length; 0 where there is none yet.
    pub(super) bytes: u8,
    /// What it names, if somebody reads that.
    pub(super) name: Option<Name>,
}

impl Names {
    /// Nothing.
    pub(super) const fn new() -> Self {
        Self { checked: [Checked { offset: 0, bytes: 0, name: None }; 64] }
    }

    /// What is known of the name at `offset`.
    pub(super) fn get(&self, offset: u32) -> Option<Checked> {
        let checked = self.checked[offset as usize % self.checked.len()];
        (checked.bytes != 0 && checked.offset == offset).then_some(checked)
    }

    /// Keeps that `name`, of at most 255 bytes, stands at `offset`.
    pub(super) fn note(&mut self, offset: u32, name: &[u8]) -> Checked {
        let checked = Checked { offset, bytes: name.len() as u8, name: Name::of(name) };
        self.checked[offset as usize % self.checked.len()] = checked;
        checked
    }
}
