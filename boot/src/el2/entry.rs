//! From assembly to Rust, once, on the boot CPU.

use super::image::{ImageMap, image_map};
use super::window::Window;
use breakwater::addr::{Frame, PhysAddr, PhysSpan};
use breakwater::command_line::Exit;
use breakwater::machine::Maintenance;
use core::sync::atomic::{AtomicU8, Ordering};
use static_assertions::const_assert_eq;

/// What mmu.S, start_on_link_address, pushes on the stack.
#[derive(Debug)]
#[repr(C)]
struct BootRecord {
    head: u64,
    current_el: u64,
    x0: u64,
    sctlr: u64,
    stores: u64,
    maintenance: u64,
    root: u64,
    identity: u64,
}

const_assert_eq!(size_of::<BootRecord>(), 64);

/// What assembly found and did before Rust: first tables in force, MMU and caches on.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Where the image's first byte is.
    pub image_start: PhysAddr,
    /// The exception level of entry: 2 or 3.
    pub entry_level: u8,
    /// x0 at entry: a device tree, if the loader keeps the protocol.
    pub device_tree: u64,
    /// SCTLR_EL2 at entry; 0 when entered at EL3.
    pub entry_sctlr: u64,
    /// Descriptors that the first tables took.
    pub stores: u32,
    /// Maintenance that the first enable took.
    pub maintenance: Maintenance,
    /// The frame of the identity page.
    pub identity: Frame,
    /// The parts of the image.
    pub map: ImageMap,
}

impl Start {
    /// Where the image is, guard pages included.
    #[must_use]
    pub fn image(&self) -> PhysSpan {
        self.map.physical(self.image_start, self.map.whole)
    }

    /// How physical memory is reached at first.
    #[must_use]
    pub fn window(&self) -> Window {
        Window::image_only(self.image())
    }
}

unsafe extern "Rust" {
    /// The image's main function: `entry!` defines it.
    safe fn breakwater_main(start: Start) -> !;
}

#[unsafe(no_mangle)]
extern "C" fn breakwater_start(record: &BootRecord) -> ! {
    let count = |shift: u32| ((record.maintenance >> shift) & 0xff) as u32;
    let start = Start {
        image_start: PhysAddr::at(record.head),
        entry_level: (record.current_el >> 2) as u8,
        device_tree: record.x0,
        entry_sctlr: record.sctlr,
        stores: record.stores as u32,
        maintenance: Maintenance { isbs: count(0), dsbs: count(8), tlbis: count(16) },
        identity: Frame::containing(PhysAddr::at(record.identity)),
        map: image_map(),
    };
    start.window().publish();
    breakwater_main(start)
}

/// How the run ends, for paths that can be given nothing: an [`Exit`], or 0 while the command line is not read.
#[unsafe(link_section = ".sealed.exit")]
static EXIT: AtomicU8 = AtomicU8::new(0);

/// Notes how the command line wants the run to end.
pub fn set_exit(exit: Exit) {
    let number = match exit {
        Exit::Semihosting => 1,
        Exit::Psci => 2,
        Exit::Park => 3,
    };
    EXIT.store(number, Ordering::Relaxed);
}

/// How the command line wants the run to end, once it is read.
#[must_use]
pub fn wanted_exit() -> Option<Exit> {
    match EXIT.load(Ordering::Relaxed) {
        1 => Some(Exit::Semihosting),
        2 => Some(Exit::Psci),
        3 => Some(Exit::Park),
        _ => None,
    }
}

/// How the run ends: as the command line says, else by the debugger that the image was built for, else parked.
pub(super) fn exit() -> Exit {
    let early = if cfg!(feature = "earlycon-semihosting") { Exit::Semihosting } else { Exit::Park };
    wanted_exit().unwrap_or(early)
}
