//! Xen's page tables, kept by the core: every request of Xen's editor is one of the mapper's.
//!
//! What must hold: Xen calls with its page-table lock held, one request at a time. A request that is refused has changed
//! nothing.

use super::flags::Wish;
use breakwater::addr::{Frame, Level, PAGE_BYTES, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::audit::{Audit, Scratch, audit};
use breakwater::bbm::{Detached, FreeFrame, FreeTables, Live, Offline, OpenAlias, Protocol, Tables};
use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};
use breakwater::errata::Errata;
use breakwater::features::{CpuFeatures, Unsuited};
use breakwater::frames::{FrameSupply, OwnedRam, Supply};
use breakwater::geometry::Geometry;
use breakwater::layout;
use breakwater::machine::Machine;
use breakwater::mapper::{Error, Mapper, Request, Visit};
use breakwater::record::{Full, Record};
use breakwater::walk::ReadTable;

const CODE: Attributes = Attributes::Normal(Access::ReadExecute);
const DATA: Attributes = Attributes::Normal(Access::ReadWrite);
const REGISTERS: Attributes = Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite);

/// Frames for tables: the image's pool, and then Xen's allocator.
#[derive(Debug)]
pub(crate) struct Frames<M> {
    pool: FrameSupply<M>,
    pool_span: PhysSpan,
    allocator: Option<Allocator<M>>,
}

/// Xen's allocator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocator<M> {
    /// A frame that the directmap shows, if there is one.
    pub(crate) ask: fn() -> Option<OwnedRam<M>>,
    /// Such a frame comes back.
    pub(crate) take_back: fn(OwnedRam<M>),
}

impl<M: Machine> Frames<M> {
    /// Those of `pool`, and no others until [`Host::use_allocator`].
    pub(crate) fn new(pool: OwnedRam<M>) -> Self {
        let pool_span = pool.span();
        Self { pool: FrameSupply::new(pool), pool_span, allocator: None }
    }
}

impl<M: Machine> Supply<M> for Frames<M> {
    fn tables(&self) -> &FreeTables<M> {
        self.pool.tables()
    }

    fn tables_mut(&mut self) -> &mut FreeTables<M> {
        self.pool.tables_mut()
    }

    fn ask(&mut self) -> Option<FreeFrame<M>> {
        (self.allocator.as_ref()?.ask)()?.into_frame().ok()
    }

    fn take_back(&mut self, frame: FreeFrame<M>) {
        match &self.allocator {
            Some(allocator) if !self.pool_span.contains(frame.frame().start()) => {
                (allocator.take_back)(frame.into_ram())
            }
            _ => self.pool.take_back(frame),
        }
    }

    fn available(&self) -> u64 {
        self.pool.available()
    }

    fn has(&self, count: u64) -> bool {
        self.pool.has(count)
    }

    fn take(&mut self) -> Option<FreeFrame<M>> {
        self.pool.take()
    }

    fn spans(&self) -> impl Iterator<Item = PhysSpan> + '_ {
        self.pool.spans()
    }
}

/// The tables in force and what edits them.
#[derive(Debug)]
pub(crate) struct Host<M> {
    protocol: Protocol<M>,
    frames: Frames<M>,
    tables: Tables<M, Live>,
    notes: &'static mut Notes,
    /// Where the image lies, which the directmap leaves out.
    image: PhysSpan,
    /// Init, once it is RAM like any other.
    freed: PhysSpan,
    /// The page that is mapped where it lies while a CPU may turn its MMU on.
    identity: PhysAddr,
    /// CPUs that were told to come and have not come yet.
    awaited: u32,
    /// Xen writes its own text just now.
    patching: Option<OpenAlias<M>>,
}

/// What the audit is told. It stays where it is: Xen's stacks have 32 KiB.
#[derive(Debug)]
pub(crate) struct Notes {
    /// What was asked for.
    record: Record<PARTS>,
    /// RAM, as the directmap shows it.
    ram: [PhysSpan; BANKS],
}

impl Notes {
    /// None.
    pub(crate) const fn none() -> Self {
        Self { record: Record::new("Xen"), ram: [PhysSpan::EMPTY; BANKS] }
    }
}

/// What Xen maps, counted in parts that go on side by side.
const PARTS: usize = 256;
/// Banks of RAM that the audit can tell apart: as many as Xen has.
const BANKS: usize = 256;

/// A piece of the image as it is mapped for good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) virt: VirtSpan,
    pub(crate) phys: PhysAddr,
    pub(crate) attributes: Attributes,
}

impl Piece {
    /// The page of `phys`, where it lies, for code.
    fn identity(phys: PhysAddr) -> Self {
        let virt = VirtSpan::of(VirtAddr::at(phys.raw()), PAGE_BYTES).unwrap_or(layout::NOWHERE);
        Self { virt, phys, attributes: CODE }
    }
}

/// What the audit had to go by.
#[derive(Debug)]
pub(crate) enum NoAudit {
    /// More was mapped than the record holds.
    Full(Full),
    /// RAM has more banks than [`BANKS`].
    Banks,
}

/// Why Xen cannot write its text.
#[derive(Debug)]
pub(crate) enum NoPatching {
    /// Of these frames some are RAM like any other: vmap may show them for other reasons, and then nobody could tell in
    /// the end that nothing is left of what was declared.
    OtherFrames(PhysSpan),
    /// The editor's reason.
    Refused(Error),
}

impl<M: Machine> Host<M> {
    /// Builds the runtime tables of an image of `pieces` that lies at `image`, and puts them in force by a strict root
    /// switch. `console` is the early console's page of registers and where it is mapped.
    ///
    /// # Errors
    /// The pool is too small, or pieces overlap.
    pub(crate) fn start(
        mut protocol: Protocol<M>,
        mut frames: Frames<M>,
        image: PhysSpan,
        pieces: impl Iterator<Item = Piece>,
        console: Option<(VirtSpan, PhysAddr)>,
        notes: &'static mut Notes,
    ) -> Result<Self, Error> {
        let Some(root) = frames.take() else { return Err(Error::OutOfFrames { needed: 1, available: 0 }) };
        let mut tables: Tables<M, Offline> = protocol.new_root(root);
        let identity = image.start();
        let mut mapper = Mapper::new(&mut protocol, &mut frames, &mut tables);
        let console = console.map(|(virt, phys)| Piece { virt, phys, attributes: REGISTERS });
        for Piece { virt, phys, attributes } in pieces.chain(console).chain([Piece::identity(identity)]) {
            mapper.map(Request::new(virt, phys, attributes, Level::L3))?;
            notes.record.map(virt, phys, attributes);
        }
        mapper.populate(layout::FIXMAP, Level::L3)?;
        let (tables, _) = protocol.switch_root(tables, Detached::none());
        let mut host = Self {
            protocol,
            frames,
            tables,
            notes,
            image,
            identity,
            freed: PhysSpan::EMPTY,
            awaited: 1,
            patching: None,
        };
        host.admitted()?;
        Ok(host)
    }

    fn mapper(&mut self) -> Mapper<'_, M, Live, Frames<M>> {
        Mapper::new(&mut self.protocol, &mut self.frames, &mut self.tables)
    }

    fn map(&mut self, request: Request) -> Result<(), Error> {
        self.mapper().map(request)?;
        self.notes.record.map(request.virt, request.output, request.attributes);
        Ok(())
    }

    fn clear(&mut self, virt: VirtSpan) -> Result<(), Error> {
        self.mapper().clear(virt)?;
        self.notes.record.unmap(virt);
        self.mapper().drain();
        Ok(())
    }

    /// All RAM is shown by the directmap: whatever frame Xen's allocator gives can be a table.
    pub(crate) fn use_allocator(&mut self, allocator: Allocator<M>) {
        self.frames.allocator = Some(allocator);
    }

    /// Frames for tables that are there without asking.
    #[cfg(test)]
    pub(crate) fn frames_left(&self) -> u64 {
        self.frames.available()
    }

    /// What TTBR0_EL2 takes.
    pub(crate) fn root(&self) -> PhysAddr {
        self.tables.root().start()
    }

    /// A CPU is about to turn its MMU on in these tables, and every later request counts with it.
    ///
    /// # Errors
    /// As for a request.
    pub(crate) fn admit(&mut self) -> Result<(), Error> {
        self.protocol.share(Errata::empty());
        if self.awaited == 0 {
            let Piece { virt, phys, attributes } = Piece::identity(self.identity);
            self.map(Request::new(virt, phys, attributes, Level::L3))?;
        }
        self.awaited += 1;
        Ok(())
    }

    /// That CPU has left the identity page. It goes, unless another is still awaited: one that did not come in time may
    /// come later.
    ///
    /// # Errors
    /// As for a request.
    pub(crate) fn admitted(&mut self) -> Result<(), Error> {
        self.awaited = self.awaited.saturating_sub(1);
        if self.awaited > 0 { Ok(()) } else { self.clear(Piece::identity(self.identity).virt) }
    }

    /// A CPU has come. It may stay if it has what requests use; what it gets wrong is made up for from here on.
    ///
    /// # Errors
    /// What it lacks.
    pub(crate) fn join(&mut self, cpu: &CpuFeatures) -> Result<(), Unsuited> {
        let used = self.protocol.features();
        if cpu.output_bits < self.protocol.output_bits() {
            return Err(Unsuited::OutputBits { has: cpu.output_bits, needed: self.protocol.output_bits() });
        }
        if !cpu.features.contains(used) {
            return Err(Unsuited::Features { missing: used - cpu.features });
        }
        self.protocol.note_errata(cpu.errata);
        Ok(())
    }

    /// Maps `ram` at `virt` in the directmap, but for the image's frames: what executes is writable nowhere.
    ///
    /// # Errors
    /// As for a request.
    pub(crate) fn map_ram(&mut self, virt: VirtAddr, ram: PhysSpan) -> Result<(), Error> {
        let image = self.image;
        let before = PhysSpan::new(ram.start(), ram.end_exclusive().min(image.start()).max(ram.start()));
        let after = PhysSpan::new(ram.start().max(image.end_exclusive()).min(ram.end_exclusive()), ram.end_exclusive());
        for part in [before, after].into_iter().flatten().filter(|part| !part.is_empty()) {
            let at = VirtAddr::at(virt.raw() + (part.start().raw() - ram.start().raw()));
            let beyond = Error::BeyondInput { virt: layout::DIRECTMAP };
            let span = VirtSpan::of(at, part.bytes()).ok_or(beyond)?;
            self.map(Request::new(span, part.start(), DATA, Level::L1).with_contiguous())?;
        }
        if let Some(place) = self.notes.ram.iter_mut().find(|bank| bank.is_empty()) {
            *place = ram;
        }
        Ok(())
    }

    /// Unmaps `init` of the image, and shows its frames as RAM from `virt` on.
    ///
    /// # Errors
    /// As for a request.
    pub(crate) fn free_init(&mut self, init: VirtSpan, virt: VirtAddr) -> Result<(), Error> {
        let span = VirtSpan::of(virt, init.bytes()).ok_or(Error::BeyondInput { virt: init })?;
        let first = self.mapper().query(init.start()).map(|(_, leaf)| leaf.output());
        self.mapper().unmap(init)?;
        self.notes.record.unmap(init);
        let Some(output) = first else { return Ok(()) }; // unmapped just now, so there was one
        self.freed = PhysSpan::of(output, init.bytes()).unwrap_or(PhysSpan::EMPTY);
        self.map(Request::new(span, output, DATA, Level::L3))
    }

    /// Xen is about to map `frames` of its image in vmap, to write what it executes elsewhere.
    ///
    /// # Errors
    /// It does so already; or some of them are not its image's.
    pub(crate) fn begin_patching(&mut self, frames: PhysSpan) -> Result<(), NoPatching> {
        if !self.image.covers(frames) || self.freed.intersection(frames).is_some() {
            return Err(NoPatching::OtherFrames(frames));
        }
        self.patching = Some(self.mapper().open_alias(layout::VMAP, frames).map_err(NoPatching::Refused)?);
        Ok(())
    }

    /// Xen has unmapped them.
    ///
    /// # Errors
    /// It has not.
    pub(crate) fn end_patching(&mut self) -> Result<(), Error> {
        let Some(alias) = self.patching.take() else { return Ok(()) };
        self.mapper().close_alias(alias).map_err(|(alias, error)| {
            self.patching = Some(alias);
            error
        })
    }

    /// Calls `each` with the walk for `virt`, step by step.
    pub(crate) fn walk(&mut self, virt: VirtAddr, each: impl FnMut(Visit)) {
        self.mapper().walk(virt).for_each(each);
    }

    /// One call of Xen's editor.
    ///
    /// # Errors
    /// As for a request; the tables are then as before.
    pub(crate) fn request(&mut self, virt: VirtSpan, output: PhysAddr, wish: Wish) -> Result<(), Error> {
        let done = match wish {
            Wish::Map { attributes, blocks } => {
                let largest = if blocks { Level::L1 } else { Level::L3 };
                self.map(Request { contiguous: blocks, ..Request::new(virt, output, attributes, largest) })
            }
            Wish::Modify(attributes) => {
                self.mapper().protect(virt, attributes).map(|_| self.notes.record.protect(virt, attributes))
            }
            Wish::Populate => self.mapper().populate(virt, Level::L3).map(drop),
            Wish::Destroy => self.clear(virt),
        };
        if done.is_err() {
            // What was asked for in vain goes back.
            self.mapper().drain();
        }
        done
    }

    /// The tables in force, held against all that was asked for.
    ///
    /// # Errors
    /// There is no telling what was.
    pub(crate) fn audit(&self, scratch: &mut [Scratch]) -> Result<(Audit, usize), NoAudit> {
        let banks = self.notes.ram.iter().position(|bank| bank.is_empty()).ok_or(NoAudit::Banks)?;
        let declared = self.notes.record.as_declared().map_err(NoAudit::Full)?;
        let reader = Tablewise(self.protocol.machine());
        Ok((audit(self.tables.root(), &reader, declared, &self.notes.ram[..banks], &[], scratch), declared.len()))
    }

    pub(crate) fn machine_mut(&mut self) -> &mut M {
        self.protocol.machine_mut()
    }

    pub(crate) fn machine(&self) -> &M {
        self.protocol.machine()
    }
}

/// The machine's memory, read by the audit.
struct Tablewise<'a, M>(&'a M);

impl<M: Machine> ReadTable for Tablewise<'_, M> {
    fn descriptor(&self, table: Frame, index: usize) -> u64 {
        let zero = M::Geometry::slot(table, Level::L3, VirtAddr::at(0));
        self.0.load(zero.step(index as u64))
    }
}
