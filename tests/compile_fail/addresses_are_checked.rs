//! An address has at most 52 bits and a frame is aligned, or there is none.
use breakwater::addr::{Frame, PhysAddr, PhysSpan};

pub fn address(raw: u64) -> Option<PhysAddr> {
    PhysAddr::new(raw) //~ E0423: Some(PhysAddr(raw))
}

pub fn frame(address: PhysAddr) -> Option<Frame> {
    Frame::new(address) //~ E0423: Some(Frame(address))
}

pub fn span(start: PhysAddr, end_exclusive: PhysAddr) -> Option<PhysSpan> {
    PhysSpan::new(start, end_exclusive) //~ E0451: Some(PhysSpan { start, end_exclusive })
}

pub const LINK: PhysAddr = PhysAddr::at(0x4000_0000); //~ E0080: pub const LINK: PhysAddr = PhysAddr::at((1 << 52) + 1);
