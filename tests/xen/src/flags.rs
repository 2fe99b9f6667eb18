//! What Xen's callers say of a mapping: the flags of asm/page.h, as the core's attributes.

use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};

/// Bits 2:0: the index of the memory type in MAIR_EL2.
const TYPE: u32 = 7;
const DEVICE_NGNRNE: u32 = 0;
const NORMAL_NON_CACHEABLE: u32 = 1;
const DEVICE_NGNRE: u32 = 4;
const NORMAL: u32 = 7;
const EXECUTE_NEVER: u32 = 1 << 3;
const READ_ONLY: u32 = 1 << 4;
const PRESENT: u32 = 1 << 5;
const POPULATE: u32 = 1 << 6;
const BLOCK: u32 = 1 << 7;
/// What callers may say.
const KNOWN: u32 = 0xff;

/// No frame at all, as Xen says it.
pub(crate) const INVALID_MFN: u64 = u64::MAX;

/// What a call of Xen's editor asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// Map as many frames from the first on.
    Map {
        /// As what.
        attributes: Attributes,
        /// Whether blocks and contiguous runs will do.
        blocks: bool,
    },
    /// Other rights or another type for what is mapped.
    Modify(Attributes),
    /// Tables, and nothing in them.
    Populate,
    /// What is mapped goes.
    Destroy,
}

impl Wish {
    /// What `flags` and the frame say; `None` for what Xen's own editor refuses too: writable and executable, devices
    /// and non-cacheable memory that can be executed, types that Xen never uses, flags that are not for callers.
    pub(crate) fn of(mfn: u64, flags: u32) -> Option<Self> {
        if flags & !KNOWN != 0 {
            return None;
        }
        if flags & POPULATE != 0 {
            return Some(Self::Populate);
        }
        if flags & PRESENT == 0 {
            return Some(Self::Destroy);
        }
        let attributes = attributes(flags)?;
        let maps = Self::Map { attributes, blocks: flags & BLOCK != 0 };
        Some(if mfn == INVALID_MFN { Self::Modify(attributes) } else { maps })
    }
}

fn attributes(flags: u32) -> Option<Attributes> {
    let (never, read_only) = (flags & EXECUTE_NEVER != 0, flags & READ_ONLY != 0);
    let data = if read_only { DataAccess::ReadOnly } else { DataAccess::ReadWrite };
    Some(match (flags & TYPE, never, read_only) {
        (NORMAL, true, true) => Attributes::Normal(Access::ReadOnly),
        (NORMAL, true, false) => Attributes::Normal(Access::ReadWrite),
        (NORMAL, false, true) => Attributes::Normal(Access::ReadExecute),
        (NORMAL_NON_CACHEABLE, true, _) => Attributes::NonCacheable(data),
        (DEVICE_NGNRNE, true, _) => Attributes::Device(DeviceKind::NGnRnE, data),
        (DEVICE_NGNRE, true, _) => Attributes::Device(DeviceKind::NGnRE, data),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_what_xen_calls_its_mappings() {
        let of = |flags| Wish::of(0x1234, flags);
        let map = |attributes| Some(Wish::Map { attributes, blocks: false });
        let (xn, ro) = (EXECUTE_NEVER | PRESENT, READ_ONLY | PRESENT);
        assert_eq!(of(NORMAL | xn | ro), map(Attributes::Normal(Access::ReadOnly)));
        assert_eq!(of(NORMAL | ro), map(Attributes::Normal(Access::ReadExecute)));
        assert_eq!(of(NORMAL | xn), map(Attributes::Normal(Access::ReadWrite)));
        assert_eq!(of(DEVICE_NGNRE | xn), map(Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite)));
        assert_eq!(of(NORMAL_NON_CACHEABLE | xn), map(Attributes::NonCacheable(DataAccess::ReadWrite)));
        let blocks = Some(Wish::Map { attributes: Attributes::Normal(Access::ReadWrite), blocks: true });
        assert_eq!(of(NORMAL | xn | BLOCK), blocks);
    }

    #[test]
    fn good_without_a_frame_or_without_presence() {
        let sealed = Attributes::Normal(Access::ReadOnly);
        assert_eq!(Wish::of(INVALID_MFN, NORMAL | EXECUTE_NEVER | READ_ONLY | PRESENT), Some(Wish::Modify(sealed)));
        assert_eq!(Wish::of(INVALID_MFN, POPULATE), Some(Wish::Populate));
        assert_eq!(Wish::of(INVALID_MFN, 0), Some(Wish::Destroy));
        assert_eq!(Wish::of(INVALID_MFN, BLOCK), Some(Wish::Destroy));
    }

    #[test]
    fn bad_rights_and_types_that_nobody_may_have() {
        let internal = NORMAL | EXECUTE_NEVER | 1 << 8;
        for flags in
            [internal, NORMAL, NORMAL_NON_CACHEABLE, DEVICE_NGNRE | READ_ONLY, 2 | EXECUTE_NEVER, 5 | EXECUTE_NEVER]
        {
            assert_eq!(Wish::of(1, flags | PRESENT), None, "{flags:#x}");
        }
    }
}
