//! Memory types and rights of leaves: [`Attributes`] is what a request may ask for, [`Rights`] what a descriptor was found to say.

use super::fields::DESCRIPTOR;
use bitflags::bitflags;
use core::fmt;

bitflags! {
    /// What EL2 may do with a page, as the tables in force say it: requests use [`Access`], which has no value for
    /// write and execute; this one is for observed descriptors, which may say anything.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Rights: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXECUTE = 4;
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |right, letter| if self.contains(right) { letter } else { '-' };
        write!(f, "{}{}{}", letter(Self::READ, 'r'), letter(Self::WRITE, 'w'), letter(Self::EXECUTE, 'x'))
    }
}

/// What a mapping of Normal memory may be used for. Writable and executable at once has no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Data that nobody writes.
    ReadOnly,
    /// Data.
    ReadWrite,
    /// Code.
    ReadExecute,
    /// Code whose indirect branches must land on a BTI: GP is set. Only where every CPU has FEAT_BTI; elsewhere the bit is RES0.
    ReadExecuteGuarded,
}

/// What a mapping that can never be executed may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataAccess {
    /// Loads only.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Kinds of Device memory, strictest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceKind {
    /// No gathering, no reordering, no early write acknowledgement.
    NGnRnE,
    /// No gathering, no reordering.
    NGnRE,
    /// Gathering, reordering, early write acknowledgement.
    Gre,
}

/// Memory type, shareability and rights of a leaf. Device memory is execute-never by construction (Arm ARM B2.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attributes {
    /// Write-Back cacheable, Inner Shareable.
    Normal(Access),
    /// Normal Non-cacheable, Outer Shareable.
    NonCacheable(DataAccess),
    /// Device, which the architecture treats as Outer Shareable.
    Device(DeviceKind, DataAccess),
    /// Write-Back cacheable, Inner Shareable, with allocation tags. Only where every CPU has FEAT_MTE2.
    Tagged(DataAccess),
}

impl From<DataAccess> for Access {
    fn from(access: DataAccess) -> Self {
        match access {
            DataAccess::ReadOnly => Self::ReadOnly,
            DataAccess::ReadWrite => Self::ReadWrite,
        }
    }
}

impl Attributes {
    /// The rights that these attributes give.
    #[must_use]
    pub fn rights(self) -> Rights {
        let access = match self {
            Self::Normal(access) => access,
            Self::NonCacheable(access) | Self::Device(_, access) | Self::Tagged(access) => access.into(),
        };
        match access {
            Access::ReadOnly => Rights::READ,
            Access::ReadWrite => Rights::READ | Rights::WRITE,
            Access::ReadExecute | Access::ReadExecuteGuarded => Rights::READ | Rights::EXECUTE,
        }
    }

    /// The same memory type, or another: whatever a TLB entry pair may not differ in without break-before-make (RWHZWS).
    #[must_use]
    pub fn same_memory_type(self, other: Self) -> bool {
        match (self, other) {
            (Self::Normal(_), Self::Normal(_))
            | (Self::NonCacheable(_), Self::NonCacheable(_))
            | (Self::Tagged(_), Self::Tagged(_)) => true,
            (Self::Device(one, _), Self::Device(two, _)) => one == two,
            _ => false,
        }
    }

    /// The descriptor bits of a leaf with these attributes, the type and address bits left 0.
    #[must_use]
    pub const fn bits(self) -> u64 {
        let (index, shareability, access) = match self {
            Self::Normal(access) => (DESCRIPTOR::ATTR_INDX::Normal.value, DESCRIPTOR::SH::Inner.value, access),
            Self::NonCacheable(access) => {
                (DESCRIPTOR::ATTR_INDX::NonCacheable.value, DESCRIPTOR::SH::Outer.value, data(access))
            }
            Self::Device(kind, access) => (device_index(kind), DESCRIPTOR::SH::Outer.value, data(access)),
            Self::Tagged(access) => (DESCRIPTOR::ATTR_INDX::Tagged.value, DESCRIPTOR::SH::Inner.value, data(access)),
        };
        let rights = match access {
            Access::ReadOnly => DESCRIPTOR::READ_ONLY::SET.value | DESCRIPTOR::XN::SET.value,
            Access::ReadWrite => DESCRIPTOR::XN::SET.value,
            Access::ReadExecute => DESCRIPTOR::READ_ONLY::SET.value,
            Access::ReadExecuteGuarded => DESCRIPTOR::READ_ONLY::SET.value | DESCRIPTOR::GP::SET.value,
        };
        index | shareability | rights | DESCRIPTOR::AF::SET.value | DESCRIPTOR::AP1::SET.value
    }

    /// Everything that a leaf can say.
    const ALL: [Self; 14] = {
        use DataAccess::{ReadOnly, ReadWrite};
        [
            Self::Normal(Access::ReadOnly),
            Self::Normal(Access::ReadWrite),
            Self::Normal(Access::ReadExecute),
            Self::Normal(Access::ReadExecuteGuarded),
            Self::NonCacheable(ReadOnly),
            Self::NonCacheable(ReadWrite),
            Self::Device(DeviceKind::NGnRnE, ReadOnly),
            Self::Device(DeviceKind::NGnRnE, ReadWrite),
            Self::Device(DeviceKind::NGnRE, ReadOnly),
            Self::Device(DeviceKind::NGnRE, ReadWrite),
            Self::Device(DeviceKind::Gre, ReadOnly),
            Self::Device(DeviceKind::Gre, ReadWrite),
            Self::Tagged(ReadOnly),
            Self::Tagged(ReadWrite),
        ]
    };

    /// [`Self::ALL`] with their bits, by [`key`]: what is read is what is written.
    const BY_KEY: [Option<(Self, u64)>; KEYS] = {
        let (mut by_key, mut index) = ([None; KEYS], 0);
        while index < Self::ALL.len() {
            let bits = Self::ALL[index].bits();
            by_key[key(bits)] = Some((Self::ALL[index], bits));
            index += 1;
        }
        by_key
    };

    /// The only attributes that `raw` can say, with their [`Self::bits`], which tell whether it does. `None` for what has no value.
    #[inline(always)]
    pub(super) fn of_bits(raw: u64) -> Option<(Self, u64)> {
        Self::BY_KEY[key(raw)]
    }
}

/// Values that [`key`] may have.
const KEYS: usize = 1 << 6;

/// The fields that tell attributes apart: AttrIndx, AP\[2\], XN and GP of `raw`, as one number.
#[inline(always)]
const fn key(raw: u64) -> usize {
    (raw >> 2 & 7 | (raw >> 7 & 1) << 3 | (raw >> 54 & 1) << 4 | (raw >> 50 & 1) << 5) as usize
}

const fn data(access: DataAccess) -> Access {
    match access {
        DataAccess::ReadOnly => Access::ReadOnly,
        DataAccess::ReadWrite => Access::ReadWrite,
    }
}

const fn device_index(kind: DeviceKind) -> u64 {
    match kind {
        DeviceKind::NGnRnE => DESCRIPTOR::ATTR_INDX::DeviceNgnrne.value,
        DeviceKind::NGnRE => DESCRIPTOR::ATTR_INDX::DeviceNgnre.value,
        DeviceKind::Gre => DESCRIPTOR::ATTR_INDX::DeviceGre.value,
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Normal(_) => "normal",
            Self::NonCacheable(_) => "non-cacheable",
            Self::Device(DeviceKind::NGnRnE, _) => "device nGnRnE",
            Self::Device(DeviceKind::NGnRE, _) => "device nGnRE",
            Self::Device(DeviceKind::Gre, _) => "device GRE",
            Self::Tagged(_) => "tagged",
        };
        let guarded = if matches!(self, Self::Normal(Access::ReadExecuteGuarded)) { ", guarded" } else { "" };
        write!(f, "{} {kind}{guarded}", self.rights())
    }
}
