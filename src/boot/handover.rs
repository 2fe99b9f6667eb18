//! What a hypervisor gets.

use crate::bbm::{Live, Protocol, Tables};
use crate::command_line::Exit;
use crate::el2::{self, Cpus, El2, Status};
use crate::frames::FrameSupply;
use crate::mapper::Mapper;
use crate::regions::RegionMap;
use spin::Mutex;

/// The way to the tables in force. Behind the page-table lock: whoever holds it edits alone.
#[derive(Debug)]
pub struct Editor {
    pub(super) protocol: Protocol<El2>,
    pub(super) tables: Tables<Live>,
}

impl Editor {
    /// A mapper that takes table frames from `frames`.
    pub fn mapper<'a>(&'a mut self, frames: &'a mut FrameSupply) -> Mapper<'a, El2, Live> {
        Mapper::new(&mut self.protocol, frames, &mut self.tables)
    }
}

/// Where a hypervisor takes over: on the boot CPU, at EL2, MMU and caches on, interrupts masked, in audited runtime tables that every online
/// CPU shares; nothing broken that is not invalidated, no maintenance owed.
///
/// A hypervisor is a function from this to never: `fn hand_over(handover: Handover) -> !`, called with what [`super::boot`] returns. It may
/// edit at once, from any CPU that [`Cpus::run`] has given work:
///
/// ```ignore
/// let mut frames = handover.frames.lock();
/// handover.tables.lock().mapper(&mut frames).map(request)?;
/// ```
///
/// Locks are taken in the order `frames`, `tables`, `regions`. Nothing that any online CPU stands on may be unmapped or remapped: text,
/// stacks, vectors, and the tables' own frames; [`Self::regions`] says where they are.
#[derive(Debug)]
pub struct Handover {
    /// The page-table lock, and the tables behind it.
    pub tables: Mutex<Editor>,
    /// Free frames: pool, former tables, freed init, RAM. All reachable through image or directmap.
    pub frames: Mutex<FrameSupply>,
    /// What is mapped where, as what. Whoever maps on keeps it true.
    pub regions: &'static Mutex<RegionMap>,
    /// The device tree, mapped read-only. [`crate::device_tree`] is freed with init: a hypervisor reads it with what it brings along.
    pub device_tree: &'static [u8],
    /// Prints, before and after the hypervisor has its own: [`crate::console`].
    pub console: Console,
    /// The CPUs that run; all but this one wait for work.
    pub cpus: Cpus,
    /// How the command line wants the run to end.
    pub exit: Exit,
}

/// The console that boot found: whole lines through [`crate::line!`], or pieces through [`crate::console::print`].
#[derive(Clone, Copy, Debug)]
pub struct Console {
    /// Whether a sink is installed; otherwise a ring buffer keeps the last of what is printed.
    pub is_known: bool,
}

impl Handover {
    /// Ends the run, in success, as the command line asks.
    pub fn leave(self) -> ! {
        el2::leave(self.exit, Status::Success)
    }
}
