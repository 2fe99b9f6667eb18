//! A hypervisor on Breakwater, whole: it finds a device, maps it, and has each CPU say a word.
#![no_std]
#![no_main]

use breakwater::{addr::PhysSpan, descriptor::DeviceKind};
use breakwater_boot::{el2::Start, line};
breakwater_boot::entry!(main);

fn main(start: Start) -> ! {
    let handover = breakwater_boot::boot(start);
    let clock = device_tree::registers(handover.device_tree(), "arm,pl031").expect("QEMU's virt has this clock");
    let map = handover.edit_on_demand(|space, on_demand| on_demand.vmap.ioremap(space, clock, DeviceKind::NGnRE));
    let seconds = map.expect("there is room").raw() as *const u32;
    // SAFETY: the first register of a PL031 is the time; it is mapped, and reading it changes nothing.
    line!("{} seconds since 1970", unsafe { seconds.read_volatile() });
    for cpu in handover.cpus().others() {
        handover.cpus().run(cpu, |cpu| line!("CPU {cpu} runs"), cpu);
        handover.cpus().wait(cpu);
    }
    handover.leave()
}

mod device_tree {
    use dtoolkit::{Node, fdt::Fdt, standard::NodeStandard};
    pub fn registers(tree: &[u8], compatible: &str) -> Option<breakwater::addr::PhysSpan> {
        let node = Fdt::new(tree).ok()?.root().children().find(|node| node.is_compatible(compatible))?;
        let reg = node.reg().ok()??.next()?;
        super::PhysSpan::of(breakwater::addr::PhysAddr::new(reg.address().ok()?)?, reg.size().ok()?)
    }
}
