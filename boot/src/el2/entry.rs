//! From assembly to Rust, once, on the boot CPU.

use super::image::{ImageMap, Known, image_map};
use super::memory::El2;
use super::phys_to_virt::PhysToVirt;
use breakwater::addr::{Frame, PhysAddr, PhysSpan, VirtSpan};
use breakwater::bringup::Bringup;
use breakwater::command_line::Exit;
use breakwater::errata::Errata;
use breakwater::machine::Maintenance;
use breakwater::memory_map::KnownRam;
use breakwater::regions::image::{CODE, CONSTANTS, DATA, Image, Part};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
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

/// What assembly found and did before Rust: first tables in force, MMU and caches on. Nobody but [`breakwater_start`]
/// makes one.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    image_start: PhysAddr,
    entry_level: u8,
    device_tree: u64,
    entry_sctlr: u64,
    stores: u32,
    maintenance: Maintenance,
    identity: Frame,
    map: ImageMap,
}

/// Whether the machine was brought up.
static BROUGHT_UP: AtomicBool = AtomicBool::new(false);
/// Whether the RAM of the machine was claimed.
static RAM_CLAIMED: AtomicBool = AtomicBool::new(false);

impl Start {
    /// Where the image's first byte is.
    #[must_use]
    pub fn image_start(&self) -> PhysAddr {
        self.image_start
    }

    /// The exception level of entry: 2 or 3.
    #[must_use]
    pub fn entry_level(&self) -> u8 {
        self.entry_level
    }

    /// x0 at entry: a device tree, if the loader keeps the protocol.
    #[must_use]
    pub fn device_tree(&self) -> u64 {
        self.device_tree
    }

    /// SCTLR_EL2 at entry; 0 when entered at EL3.
    #[must_use]
    pub fn entry_sctlr(&self) -> u64 {
        self.entry_sctlr
    }

    /// Descriptors that the first tables took.
    #[must_use]
    pub fn stores(&self) -> u32 {
        self.stores
    }

    /// Maintenance that the first enable took.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        self.maintenance
    }

    /// The frame of the identity page.
    #[must_use]
    pub fn identity(&self) -> Frame {
        self.identity
    }

    /// The parts of the image.
    #[must_use]
    pub fn map(&self) -> &ImageMap {
        &self.map
    }

    /// Where `part` of the image is, physically.
    #[must_use]
    pub fn physical(&self, part: VirtSpan) -> PhysSpan {
        self.map.physical(self.image_start, part)
    }

    /// Where the image is, guard pages included.
    #[must_use]
    pub fn image(&self) -> PhysSpan {
        self.physical(self.map.whole)
    }

    /// The machine, and what the image brings along for it: for whoever asks first.
    ///
    /// # Panics
    /// When it was brought up before: a second one could be edited behind the first one's back.
    #[must_use]
    pub(crate) fn bring_up(&self) -> Bringup<El2> {
        // Boot asks before there is another CPU; any that asks later sees its answer.
        assert!(!BROUGHT_UP.load(Ordering::Relaxed), "there is one machine, and one protocol for its tables");
        BROUGHT_UP.store(true, Ordering::Relaxed);
        let machine = El2::new(self.phys_to_virt());
        // SAFETY: the parts are linker.ld's symbols of the image that executes this, and head.S measured where it lies.
        // Nothing is linked into .pool; the first tables are what tables.S built between their symbols, and no Rust
        // names them. `boot`, which frees init, is not in it, calls nothing of it afterwards (xtask refuses an image
        // that does) and maps its frames nowhere else. `BROUGHT_UP` lets this happen once.
        unsafe { Bringup::new(machine, Errata::empty(), self.described()) }
    }

    /// The RAM of the machine `known`, and the right to what is free there.
    ///
    /// # Panics
    /// When it was claimed before.
    pub(crate) fn claim_ram<'m>(&self, known: &Known<'m>) -> KnownRam<'m, El2> {
        assert!(!RAM_CLAIMED.load(Ordering::Relaxed), "RAM is claimed once");
        RAM_CLAIMED.store(true, Ordering::Relaxed);
        // SAFETY: the map is what this machine's firmware says of it, and names whoever uses RAM but this image;
        // `RAM_CLAIMED` lets this happen once, on the boot CPU, before there is another.
        unsafe { KnownRam::claim(known.memory(), self.image()) }
    }

    fn described(&self) -> Image {
        let map = &self.map;
        let part = |name, virt, attributes| Part { name, virt, attributes };
        Image {
            start: self.image_start,
            parts: [
                part("init", map.init, CODE),
                part("identity routines", map.identity, CODE),
                part("text", map.text, CODE),
                part("rodata", map.rodata, CONSTANTS),
                part("sealed data", map.sealed, DATA),
                part("data", map.data, DATA),
                part("boot stack", map.stack, DATA),
                part("boot exception stack", map.exception_stack, DATA),
            ],
            identity: self.identity,
            first_tables: map.first_tables,
            pool: map.pool,
        }
    }

    /// How physical memory is reached at first.
    fn phys_to_virt(&self) -> PhysToVirt {
        PhysToVirt::image_only(self.image())
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
    start.phys_to_virt().publish();
    super::uart::use_earlycon();
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
