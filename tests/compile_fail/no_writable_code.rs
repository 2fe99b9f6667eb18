//! Writable and executable, and executable Device memory, have no value; a leaf is aligned to its level.
use breakwater::addr::{Level, PhysAddr, VirtAddr};
use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind, Leaf};

pub fn code() -> Attributes {
    Attributes::Normal(Access::ReadExecute) //~ E0599: Attributes::Normal(Access::ReadWriteExecute)
}

pub fn both() -> Access {
    Access::ReadWrite //~ E0369: Access::ReadWrite | Access::ReadExecute
}

pub fn guarded() -> Attributes {
    Attributes::Normal(Access::ReadExecuteGuarded) //~ E0599: Attributes::Normal(Access::ReadWriteGuarded)
}

pub fn device(kind: DeviceKind) -> Attributes {
    Attributes::Device(kind, DataAccess::ReadOnly) //~ E0308: Attributes::Device(kind, Access::ReadExecute)
}

pub fn device_code(kind: DeviceKind) -> Attributes {
    Attributes::Device(kind, DataAccess::ReadWrite) //~ E0599: Attributes::Device(kind, DataAccess::ReadExecute)
}

pub fn non_cacheable() -> Attributes {
    Attributes::NonCacheable(DataAccess::ReadWrite) //~ E0308: Attributes::NonCacheable(Access::ReadExecute)
}

pub fn tagged() -> Attributes {
    Attributes::Tagged(DataAccess::ReadWrite) //~ E0308: Attributes::Tagged(Access::ReadExecute)
}

pub fn leaf(output: PhysAddr, attributes: Attributes) -> Option<Leaf> {
    Leaf::new(Level::L2, output, attributes) //~ E0451: Some(Leaf { output, attributes, contiguous: false })
}

pub fn physical(output: PhysAddr, _virt: VirtAddr) -> Option<Leaf> {
    Leaf::new(Level::L3, output, code()) //~ E0308: Leaf::new(Level::L3, _virt, code())
}
