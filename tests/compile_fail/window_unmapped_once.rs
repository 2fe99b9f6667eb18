//! A frame in the window is unmapped once, is not used afterwards, and is held by those alone to whom the window gave it.
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
