//! Addresses that there are, frames that have one owner, and what the window shows of them.

pub mod addresses_are_checked {
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
}

pub mod frames_are_moved {
    //! A table is made of a frame that the supply has given out, once; RAM and former tables return once.
    use breakwater::addr::{Frame, Level, PhysSpan, VirtAddr};
    use breakwater::bbm::{Detached, FreeTables, FreshTable, Protocol, Released, Tables};
    use breakwater::frames::{FrameSupply, FreeFrame, OwnedRam};
    use breakwater::machine::Machine;
    use breakwater::regions::Space;

    pub fn table<M: Machine>(p: &mut Protocol<M>, free: FreeFrame<M>, virt: VirtAddr) -> FreshTable<M> {
        p.new_table(free, Level::L2, virt) //~ E0308: p.new_table(free.frame(), Level::L2, virt)
    }

    pub fn root<M: Machine>(p: &mut Protocol<M>, free: FreeFrame<M>, _old: &Tables<M, breakwater::bbm::Live>) {
        let _root = p.new_root(free); //~ E0308: let _root = p.new_root(_old.root());
    }

    pub fn twice<M: Machine>(
        p: &mut Protocol<M>,
        one: FreeFrame<M>,
        two: FreeFrame<M>,
        virt: VirtAddr,
    ) -> [FreshTable<M>; 2] {
        let first = p.new_table(one, Level::L2, virt);
        [first, p.new_table(two, Level::L2, virt)] //~ E0382: [first, p.new_table(one, Level::L2, virt)]
    }

    pub fn forged<M: Machine>(free: FreeFrame<M>, _frame: Frame) -> FreeFrame<M> {
        free //~ E0423: FreeFrame(_frame)
    }

    pub fn named<M: Machine>(free: FreeFrame<M>, _frame: Frame) -> FreeFrame<M> {
        free //~ E0624: FreeFrame::new(_frame)
    }

    pub fn copied<M: Machine>(free: FreeFrame<M>) -> (FreeFrame<M>, u8) {
        (free, 0) //~ E0599: (free.clone(), 0)
    }

    pub fn released<M: Machine>(frames: &mut FrameSupply<M>, one: Released<M>, two: Released<M>) {
        frames.release(one);
        frames.release(two); //~ E0382: frames.release(one);
    }

    pub fn detached(_frame: Frame) -> Detached {
        Detached::none() //~ E0624: Detached::first_tables([Some(_frame); 8])
    }

    pub fn zeroed<M: Machine>(p: &mut Protocol<M>, ram: &OwnedRam<M>) {
        p.zero_frames(ram); //~ E0308: p.zero_frames(ram.span());
    }

    pub fn to_the_host<M: Machine>(one: FreeFrame<M>, two: FreeFrame<M>) -> [OwnedRam<M>; 2] {
        let first = one.into_ram();
        [first, two.into_ram()] //~ E0382: drop(two); [first, one.into_ram()]
    }

    pub fn of_the_host<M: Machine>(one: OwnedRam<M>, two: OwnedRam<M>) -> Option<[FreeFrame<M>; 2]> {
        let first = one.into_frame().ok()?;
        Some([first, two.into_frame().ok()?]) //~ E0382: drop(two); Some([first, one.into_frame().ok()?])
    }

    pub fn listed<M: Machine>(p: &mut Protocol<M>, list: &mut FreeTables<M>, one: FreeFrame<M>, two: FreeFrame<M>) {
        p.add_free(one, list);
        p.add_free(two, list); //~ E0382: p.add_free(one, list); drop(two);
    }

    pub fn listed_by_name<M: Machine>(p: &mut Protocol<M>, list: &mut FreeTables<M>, free: FreeFrame<M>) {
        p.add_free(free, list); //~ E0308: p.add_free(free.frame(), list);
    }

    pub fn any_ram<M: Machine>(ram: OwnedRam<M>, _span: PhysSpan) -> OwnedRam<M> {
        ram //~ E0423: OwnedRam(_span)
    }

    pub fn given_back<M: Machine>(space: &mut Space<'_, M>, one: OwnedRam<M>, two: OwnedRam<M>) {
        let _ = space.give_back(one);
        let _ = space.give_back(two); //~ E0382: let _ = space.give_back(one);
    }

    pub fn named_back<M: Machine>(space: &mut Space<'_, M>, ram: OwnedRam<M>) {
        let _ = space.give_back(ram); //~ E0308: let _ = space.give_back(ram.span());
    }

    /// Whether anything maps it is looked at on the way.
    pub fn looked<M: Machine>(space: &mut Space<'_, M>, ram: OwnedRam<M>) {
        let _ = space.give_back(ram); //~ E0624: let _ = space.frames().give_back(ram);
    }
}

pub mod window_unmapped_once {
    //! A frame in the window is unmapped once, is not used afterwards, and is held by those alone to whom the window
    //! gave it.
    use breakwater::addr::VirtAddr;
    use breakwater::regions::window::{Mapped, Window};

    pub fn ended(window: &mut Window, mapped: Mapped, other: Mapped) {
        window.unmap(mapped);
        window.unmap(other); //~ E0382: window.unmap(mapped); core::mem::forget(other);
    }

    pub fn used(window: &mut Window, mapped: Mapped) -> VirtAddr {
        let virt = mapped.virt();
        window.unmap(mapped);
        virt //~ E0382: mapped.virt()
    }

    pub fn forged(mapped: Mapped) -> Mapped {
        mapped //~ E0451: Mapped { virt: mapped.virt(), ..mapped }
    }
}
