//! What a hypervisor gets.

use crate::el2::{self, Cpus, El2, Status};
use breakwater::addr::PhysSpan;
use breakwater::audit::{self, Audit, Declared, Scratch};
use breakwater::bringup::Editor;
use breakwater::command_line::Exit;
use breakwater::frames::FrameSupply;
use breakwater::regions::{OnDemand, RegionMap, Space};
use breakwater::uefi;
use spin::Mutex;

/// Where a hypervisor takes over: on the boot CPU, at EL2, MMU and caches on, interrupts masked, in audited runtime tables that every online
/// CPU shares; nothing broken that is not invalidated, no maintenance owed.
///
/// A hypervisor is a function from this to never: `fn hand_over(handover: Handover) -> !`, called with what [`crate::boot()`] returns. It may
/// edit at once, from any CPU that [`Cpus::run`] has given work:
///
/// ```ignore
/// handover.edit(|mut space| space.mapper().map(request))?;
/// ```
///
/// What comes and goes after boot (devices, scattered frames, single frames) is best mapped by [`breakwater::regions::vmap`],
/// [`breakwater::regions::window`] and [`breakwater::regions::fixmap`], which find addresses and keep the declarations true:
/// [`Self::edit_on_demand`].
///
/// # Requests from several CPUs
///
/// Requests are serial: the page-table lock is held from a request's first look at the tables to its last barrier. When it returns, it is
/// complete on every CPU, and the lock may go. What *other* CPUs do meanwhile needs no lock, and may see, of the pages of the request:
///
/// - `map`: nothing (a translation fault), then the new page, never anything else. What is already mapped is not touched. Without FEAT_ETS2 a
///   CPU that hears of the new page by way of memory may fault once more, until its next ISB or exception; [`Cpus::run`] and
///   [`Cpus::wait`] see to that.
/// - `protect` of whole leaves and whole contiguous runs, where only rights change: the page throughout, first with the old rights, then with
///   the new, one CPU earlier than the other.
/// - whatever needs break-before-make (`remap`, `unmap`, `split`, `merge`, another memory type, and every request that covers a block or a
///   contiguous run in part): first the old page, then a translation fault, then, but for `unmap`, the new one. This holds for all of a leaf or
///   run that is broken, also for what of it lies outside the request's span.
/// - a request that is refused: nothing, not for a moment.
///
/// So whoever accesses what another CPU may be changing either keeps away by a lock of its own, or accesses it by [`el2::load_or_fault`]
/// and [`el2::store_or_fault`], and tries again. What a CPU itself stands on (text, data, stacks, vectors) cannot be kept away from:
/// a request that would break it is refused ([`breakwater::mapper::Error::WouldBreakSelf`]).
///
/// `tests/boot/src/bin/concurrent_requests.rs` holds all CPUs to this, access by access.
///
/// # The locks
///
/// 1. Order: `frames`, `tables`, `regions`, `on_demand`. [`Self::edit`] takes the first three so, [`Self::edit_on_demand`] all four. Who takes
///    fewer keeps the order.
/// 2. They are atomics, which Device memory need not support: they are taken only with MMU and caches on. Every CPU that [`Cpus`] knows has
///    them on; a secondary takes its first lock after it has them.
/// 3. Never in the exception path: it runs on top of whatever was interrupted, which may hold the lock, and would wait for itself. For the
///    same reason, whoever unmasks interrupts masks them while holding one.
/// 4. Who holds one does nothing that may wait for another CPU ([`Cpus::wait`], a rendezvous), and accesses nothing by way of a page that it
///    is changing. Printing is allowed: the console's own lock is always the last.
/// 5. They are fair to nobody: `spin::Mutex` gives a free lock to whoever asks next. Hold them for one request, not for a series.
#[derive(Debug)]
pub struct Handover {
    pub(super) tables: Mutex<Editor<El2>>,
    pub(super) frames: Mutex<FrameSupply<El2>>,
    pub(super) regions: &'static Mutex<RegionMap>,
    pub(super) on_demand: &'static Mutex<OnDemand>,
    pub(super) device_tree: &'static [u8],
    pub(super) firmware: Option<uefi::Map<'static>>,
    pub(super) console: Console,
    pub(super) cpus: Cpus,
    pub(super) exit: Exit,
}

/// The console that boot found: whole lines through [`crate::line!`], or pieces through [`crate::console::print`].
#[derive(Clone, Copy, Debug)]
pub struct Console {
    /// Whether a sink is installed; with and without, a log keeps the newest of what is printed.
    pub is_known: bool,
}

impl Handover {
    /// The page-table lock, and the tables behind it.
    #[must_use]
    pub fn tables(&self) -> &Mutex<Editor<El2>> {
        &self.tables
    }

    /// Free frames: pool, former tables, freed init, RAM. All reachable through image or directmap.
    #[must_use]
    pub fn frames(&self) -> &Mutex<FrameSupply<El2>> {
        &self.frames
    }

    /// What is mapped where, as what. Whoever maps on keeps it true.
    #[must_use]
    pub fn regions(&self) -> &'static Mutex<RegionMap> {
        self.regions
    }

    /// What is mapped on demand.
    #[must_use]
    pub fn on_demand(&self) -> &'static Mutex<OnDemand> {
        self.on_demand
    }

    /// The device tree, mapped read-only; empty where ACPI describes the machine. [`breakwater::device_tree`] is freed
    /// with init: a hypervisor reads it with what it brings along.
    #[must_use]
    pub fn device_tree(&self) -> &'static [u8] {
        self.device_tree
    }

    /// UEFI's memory map as it was when boot services ended, if UEFI started the image: what it keeps is neither mapped
    /// nor in the supply. Who calls runtime services needs it.
    #[must_use]
    pub fn firmware_map(&self) -> Option<uefi::Map<'static>> {
        self.firmware
    }

    /// Prints, before and after the hypervisor has its own: [`crate::console`].
    #[must_use]
    pub fn console(&self) -> Console {
        self.console
    }

    /// The CPUs that run; all but this one wait for work.
    #[must_use]
    pub fn cpus(&self) -> &Cpus {
        &self.cpus
    }

    /// How the command line wants the run to end.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Holds the tables in force against `declared`. Memory of `ram` may be mapped as Normal, and nothing may be mapped
    /// of `no_map`; `runs` is room to note leaves and tables in. Takes no lock: whoever wants the tables to stay as
    /// they are meanwhile holds theirs.
    ///
    /// # Panics
    /// Never: the tables in force are reached from boot on.
    #[must_use]
    pub fn audit(&self, declared: &[Declared], ram: &[PhysSpan], no_map: &[PhysSpan], runs: &mut [Scratch]) -> Audit {
        let (root, window) = el2::tables_in_force().unwrap_or_else(|| unreachable!("boot is over"));
        audit::audit(root, &window, declared, ram, no_map, runs)
    }

    /// As [`Self::edit`], with what is mapped on demand besides.
    ///
    /// ```ignore
    /// let uart = handover.edit_on_demand(|space, on_demand| on_demand.vmap.ioremap(space, registers, DeviceKind::NGnRE))?;
    /// ```
    pub fn edit_on_demand<R>(&self, work: impl FnOnce(&mut Space<'_, El2>, &mut OnDemand) -> R) -> R {
        self.edit(|mut space| work(&mut space, &mut self.on_demand.lock()))
    }

    /// Ends the run, in success, as the command line asks.
    pub fn leave(self) -> ! {
        el2::leave(self.exit, Status::Success)
    }

    /// Takes the first three locks, in their order, for `work`, which gets all that mapping needs: what it maps, unmaps or protects through
    /// [`Space`] is declared in the same breath; what goes by way of [`Space::mapper`] it declares itself, or leaves undeclared for as long
    /// as no audit looks.
    ///
    /// Waits, without end, for whoever holds one: not for the exception path, and not for who holds one already.
    pub fn edit<R>(&self, work: impl FnOnce(Space<'_, El2>) -> R) -> R {
        let mut frames = self.frames.lock();
        let mut editor = self.tables.lock();
        let mut regions = self.regions.lock();
        work(editor.space(&mut frames, &mut regions))
    }
}
