//! What a hypervisor does first that is written with the crates aarch64-rt and aarch64-paging: start at EL2 on the
//! static table of the one, make tables with the other, change to them, then map, change and unmap memory while they
//! are in use. Every step is as the crates document it.

#![no_std]
#![no_main]

use core::panic::PanicInfo;
use core::ptr::write_volatile;

use aarch64_paging::descriptor::El23Attributes;
use aarch64_paging::idmap::IdMap;
use aarch64_paging::paging::{El2, MemoryRegion};
use aarch64_rt::{ExceptionHandlers, InitialPagetable, entry, exception_handlers, initial_pagetable};
use buddy_system_allocator::LockedHeap;
use smccc::{Smc, psci::system_off};

const DEVICE: El23Attributes = El23Attributes::VALID
    .union(El23Attributes::ATTRIBUTE_INDEX_0)
    .union(El23Attributes::ACCESSED)
    .union(El23Attributes::XN);
const MEMORY: El23Attributes = El23Attributes::VALID
    .union(El23Attributes::ATTRIBUTE_INDEX_1)
    .union(El23Attributes::INNER_SHAREABLE)
    .union(El23Attributes::ACCESSED);
const DATA: El23Attributes = MEMORY.union(El23Attributes::XN);

/// The program, its stack and its heap: what a table of level 2 maps by one block.
const IMAGE: usize = 0x4000_0000;
const IMAGE_END: usize = 0x4060_0000;
/// Memory that comes and goes.
const PAGES: usize = 0x8000_0000;
const PAGE: usize = 0x1000;

const HEAP: usize = 0x4040_0000;
const HEAP_BYTES: usize = 0x10_0000;

#[global_allocator]
static ALLOCATOR: LockedHeap<32> = LockedHeap::empty();

initial_pagetable!({
    let mut table = [0; 512];
    table[0] = DEVICE.bits();
    table[1] = MEMORY.bits() | 0x4000_0000;
    InitialPagetable(table)
});

exception_handlers!(Exceptions);
struct Exceptions;
impl ExceptionHandlers for Exceptions {}

entry!(main);
fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    // SAFETY: RAM of the machine behind the image, which is linked to end below it, mapped by both tables.
    unsafe { ALLOCATOR.lock().init(HEAP, HEAP_BYTES) };

    let mut map = IdMap::new(1, El2);
    let pages = |first: usize, count| MemoryRegion::new(PAGES + first * PAGE, PAGES + (first + count) * PAGE);
    map.map_range(&MemoryRegion::new(IMAGE, IMAGE_END), MEMORY).expect("an empty map");
    // SAFETY: code, stack, heap and tables lie in IMAGE, which both maps lead to alike.
    unsafe { map.activate() };

    map.map_range(&pages(0, 16), DATA).expect("nothing is there");
    touch(&pages(0, 16));
    // Read-only from here on.
    map.modify_range(&pages(0, 4), &|_, entry| entry.modify_flags(El23Attributes::READ_ONLY, El23Attributes::empty()))
        .expect("what is mapped, by pages");
    // Unmapped, and other memory in its place.
    map.modify_range(&pages(8, 4), &|_, entry| entry.modify_flags(El23Attributes::empty(), El23Attributes::VALID))
        .expect("what is mapped, by pages");
    map.map_range(&pages(16, 16), DATA).expect("nothing is there");
    touch(&pages(16, 16));

    system_off::<Smc>().expect("PSCI is there");
    unreachable!("the machine is off");
}

/// Stores a word to every page.
fn touch(region: &MemoryRegion) {
    for page in (region.start().0..region.end().0).step_by(PAGE) {
        // SAFETY: the map that is active leads there, writable, and nothing else uses that memory.
        unsafe { write_volatile(page as *mut u64, 1) };
    }
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
