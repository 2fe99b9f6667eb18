//! A window for any frame, as Xen's map_domain_page is one.
//!
//! Why it exists: code that has a frame needs an address for it. A frame of the directmap has one, by arithmetic and without a request. Any
//! other (the image's own, a device's) is shown in one of the few pages that each CPU has for it: the slots of [`layout::WINDOW`].
//!
//! A slot keeps what it shows after its last user has gone, so that asking for the same frame again costs nothing; it is a cache, and idle
//! slots are its spare ones. Slots belong to CPUs, so that no CPU runs out of them because of another; what they show is seen by all CPUs,
//! since all share the tables, and so are their invalidations.
//!
//! What must hold: a slot shows another frame only after the old translation was broken and invalidated, and only while nobody uses it.
//! Whoever wants an idle slot to let go of a frame, because the frame gets another owner or another memory type, says so by
//! [`Window::release`].
//!
//! What it refuses: see [`Error`]; a refused request leaves everything as it was.

#![forbid(unsafe_code)]

use super::alias::{self, Ram};
use super::{Failure, RegionMap, Space, frame_span};
use crate::addr::{Frame, Level, PAGE_BYTES, PhysSpan, VirtAddr, VirtSpan};
use crate::audit::Declared;
use crate::descriptor::Attributes;
use crate::layout::{self, WINDOW_SLOTS};
use crate::machine::Machine;
use core::fmt;
use core::mem;

const NAME: &str = "window";

/// What a slot shows, and to how many users.
#[derive(Clone, Copy, Debug)]
struct Shown {
    frame: Frame,
    attributes: Attributes,
    users: u16,
}

/// The slots of one CPU.
#[derive(Clone, Copy, Debug)]
pub struct CpuSlots {
    shown: [Option<Shown>; WINDOW_SLOTS],
    /// Where the search for a slot to reuse begins: after the one that was reused last.
    next: usize,
}

/// The slots of all CPUs.
#[derive(Debug)]
pub struct Window {
    first: CpuSlots,
    others: &'static mut [CpuSlots],
}

/// A frame that has an address for as long as this is held: until [`Window::unmap`]. Dropping it instead panics, wherever the address
/// came from: a forgotten one would keep a slot in use for ever.
#[derive(Debug)]
#[must_use = "a mapped frame is unmapped"]
pub struct Mapped {
    virt: VirtAddr,
    slot: Option<(usize, usize)>,
    debt: Debt,
}

#[derive(Debug)]
struct Debt;

impl Drop for Debt {
    fn drop(&mut self) {
        panic!("dropped instead of unmapped: a frame in the window");
    }
}

impl Mapped {
    fn new(virt: VirtAddr, slot: Option<(usize, usize)>) -> Self {
        Self { virt, slot, debt: Debt }
    }

    /// Where the frame's first byte is.
    #[must_use]
    pub fn virt(&self) -> VirtAddr {
        self.virt
    }

    /// Whether it is the directmap that shows it: no slot is in use.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.slot.is_none()
    }
}

/// Why a frame was not shown, or not released. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Every slot of the CPU has users.
    AllInUse {
        /// The CPU's index.
        cpu: usize,
    },
    /// The slot that shows the frame has as many users as it can count.
    TooManyUsers {
        /// The CPU's index.
        cpu: usize,
        /// The frame.
        frame: Frame,
    },
    /// A frame to release still has users.
    InUse {
        /// The CPU's index.
        cpu: usize,
        /// The frame.
        frame: Frame,
    },
    /// The frame may not be mapped as asked.
    Refused(alias::Refusal),
    /// The mapper or the region map refused.
    Mapping(Failure),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllInUse { cpu } => write!(f, "window: all {WINDOW_SLOTS} slots of CPU {cpu} have users"),
            Self::TooManyUsers { cpu, frame } => {
                write!(f, "window: CPU {cpu} shows {} to as many users as it can count", frame.start())
            }
            Self::InUse { cpu, frame } => write!(f, "window: CPU {cpu} shows {} to a user", frame.start()),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Mapping(failure) => write!(f, "{failure}"),
        }
    }
}

impl core::error::Error for Error {}

impl Window {
    /// Slots that show nothing, of CPU 0 alone.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: CpuSlots::EMPTY, others: &mut [] }
    }

    /// Gives CPUs from 1 on the slots `others`, one each.
    ///
    /// # Panics
    /// When they have some already, which may show something.
    pub fn give(&mut self, others: &'static mut [CpuSlots]) {
        assert!(self.others.is_empty(), "CPUs get their slots once");
        self.others = others;
    }

    fn count(&self) -> usize {
        1 + self.others.len()
    }

    fn cpu(&self, cpu: usize) -> &CpuSlots {
        cpu.checked_sub(1).map_or(&self.first, |other| &self.others[other])
    }

    fn cpu_mut(&mut self, cpu: usize) -> &mut CpuSlots {
        cpu.checked_sub(1).map_or(&mut self.first, |other| &mut self.others[other])
    }

    /// An address for `frame`, to use as `attributes` allow: that of the directmap, which may allow more, or a slot of CPU `cpu`.
    ///
    /// # Errors
    /// [`Error`], with all as before.
    ///
    /// # Panics
    /// When there is no such CPU: `cpu` is 0, or one that [`Self::give`] gave slots.
    pub fn map<M: Machine>(
        &mut self,
        space: &mut Space<'_, M>,
        cpu: usize,
        frame: Frame,
        attributes: Attributes,
    ) -> Result<Mapped, Error> {
        let slots = self.cpu_mut(cpu);
        if let Some(virt) = in_directmap(space.regions, frame, attributes) {
            return Ok(Mapped::new(virt, None));
        }
        if let Some(index) = slots.showing(frame, attributes) {
            slots.add_user(index).ok_or(Error::TooManyUsers { cpu, frame })?;
            return Ok(Mapped::new(slot(cpu, index).start(), Some((cpu, index))));
        }
        let phys = frame_span(space, NAME, frame).map_err(Error::Mapping)?;
        alias::check(space.regions, Ram::Declared, phys, attributes).map_err(Error::Refused)?;
        let index = slots.reusable().ok_or(Error::AllInUse { cpu })?;
        let virt = slot(cpu, index);
        if slots.shown[index].is_some() {
            space.remap(NAME, virt, frame.start(), attributes).map_err(Error::Mapping)?;
        } else {
            let region = Declared { name: NAME, virt, output: Some(frame.start()), attributes };
            space.map(region, Level::L3).map_err(Error::Mapping)?;
        }
        slots.shown[index] = Some(Shown { frame, attributes, users: 1 });
        slots.next = (index + 1) % WINDOW_SLOTS;
        Ok(Mapped::new(virt.start(), Some((cpu, index))))
    }

    /// Ends a use of a frame. Its slot goes on showing it, idle, until it is needed for another or released.
    pub fn unmap(&mut self, mapped: Mapped) {
        let Mapped { slot, debt, .. } = mapped;
        mem::forget(debt);
        // What is held proves that the slot counts this user.
        if let Some(shown) = slot.and_then(|(cpu, index)| self.cpu_mut(cpu).shown[index].as_mut()) {
            shown.users -= 1;
        }
    }

    /// Makes every idle slot of every CPU that shows a frame of `frames` show nothing, and returns how many did: from here on only the
    /// frames' other mappings are left.
    ///
    /// # Errors
    /// [`Error::InUse`] when one of the frames has users; all is then as before. [`Error::Mapping`] when someone else has unmapped a slot;
    /// those before it are then released.
    pub fn release<M: Machine>(&mut self, space: &mut Space<'_, M>, frames: PhysSpan) -> Result<usize, Error> {
        let is_shown = |shown: &Shown| frames.page_cover().contains(shown.frame.start());
        let count = self.count();
        let all = || (0..count).flat_map(|cpu| (0..WINDOW_SLOTS).map(move |index| (cpu, index)));
        let shown_at = |window: &Self, (cpu, index): (usize, usize)| window.cpu(cpu).shown[index].filter(is_shown);
        if let Some((cpu, shown)) = all().find_map(|at| Some((at.0, shown_at(self, at).filter(|s| s.users > 0)?))) {
            return Err(Error::InUse { cpu, frame: shown.frame });
        }
        let mut released = 0;
        for at in all() {
            if shown_at(self, at).is_some() {
                space.unmap(NAME, slot(at.0, at.1)).map_err(Error::Mapping)?;
                self.cpu_mut(at.0).shown[at.1] = None;
                released += 1;
            }
        }
        Ok(released)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl CpuSlots {
    /// Slots that show nothing.
    pub const EMPTY: Self = Self { shown: [None; WINDOW_SLOTS], next: 0 };

    /// The slot that shows `frame` as just these attributes.
    fn showing(&self, frame: Frame, attributes: Attributes) -> Option<usize> {
        let is_it = |shown: &Shown| shown.frame == frame && shown.attributes == attributes;
        self.shown.iter().position(|shown| shown.as_ref().is_some_and(is_it))
    }

    fn add_user(&mut self, index: usize) -> Option<()> {
        let shown = self.shown[index].as_mut()?;
        shown.users = shown.users.checked_add(1)?;
        Some(())
    }

    /// A slot that shows nothing, else the idle one that was filled longest ago.
    fn reusable(&self) -> Option<usize> {
        let unused = self.shown.iter().position(Option::is_none);
        let in_turn = (0..WINDOW_SLOTS).map(|step| (self.next + step) % WINDOW_SLOTS);
        unused.or_else(|| in_turn.into_iter().find(|&index| self.shown[index].is_some_and(|shown| shown.users == 0)))
    }
}

/// The slots of `cpus` CPUs: what [`super::slots::populate_vmap`] makes tables for.
pub(super) fn slots_of(cpus: usize) -> VirtSpan {
    let bytes = (cpus * WINDOW_SLOTS) as u64 * PAGE_BYTES;
    let slots = VirtSpan::of(layout::WINDOW.start(), bytes).filter(|slots| layout::WINDOW.covers(*slots));
    slots.unwrap_or(layout::WINDOW)
}

/// Slot `index` of CPU `cpu`.
fn slot(cpu: usize, index: usize) -> VirtSpan {
    let offset = (cpu * WINDOW_SLOTS + index) as u64 * PAGE_BYTES;
    VirtSpan::of(VirtAddr::at(layout::WINDOW.start().raw() + offset), PAGE_BYTES)
        .unwrap_or_else(|| unreachable!("the window ends within 48 bits"))
}

/// Where the directmap shows `frame`, with at least the rights of `attributes`. By arithmetic, once it is known which of its spans holds
/// the frame: those are declared, and stay.
fn in_directmap(regions: &RegionMap, frame: Frame, attributes: Attributes) -> Option<VirtAddr> {
    let directmap = regions.iter().filter(|region| layout::DIRECTMAP.covers(region.virt));
    let mut allowing = directmap.filter(|region| {
        region.attributes.same_memory_type(attributes) && region.attributes.rights().contains(attributes.rights())
    });
    allowing.find_map(|region| {
        let span = alias::output_span(region)?;
        let offset = frame.start().raw().checked_sub(span.start().raw()).filter(|_| span.contains(frame.start()))?;
        region.virt.start().checked_add(offset)
    })
}
