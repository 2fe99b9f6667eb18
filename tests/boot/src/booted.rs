//! A machine that has booted, as the programs see it.

use breakwater::addr::{PAGE_BYTES, PhysAddr, PhysSpan};
use breakwater::audit::{Audit, Declared, Scratch};
use breakwater::frames::OwnedRam;
use breakwater::layout::DIRECTMAP;
use breakwater_boot::Handover;
use breakwater_boot::el2::{self, El2, Start, Status};
use breakwater_boot::line;
use core::fmt::Display;
use core::hint::black_box;

/// Runs of leaves and tables that a second audit can note.
const AUDIT_RUNS: usize = 600;

/// A machine that has booted. The device tree's code is freed with init: what a fact wants to know of memory it takes from what is mapped,
/// or from the tree that it is run with.
#[derive(Debug)]
pub struct Booted {
    /// What assembly found and did before Rust.
    pub start: Start,
    /// What boot hands over.
    pub handover: Handover,
}

impl Booted {
    /// Boots.
    #[must_use]
    pub fn after_boot(start: Start) -> Self {
        let handover = breakwater_boot::boot(start);
        Self { start, handover }
    }

    /// Ends the run: the fact holds.
    pub fn holds(self, fact: impl Display) -> ! {
        line!("fact holds: {fact}");
        self.handover.leave()
    }

    /// Ends the run: the fact does not hold.
    pub fn failed(&self, why: impl Display) -> ! {
        line!("FACT FAILED: {why}");
        el2::leave(self.handover.exit(), Status::Panic)
    }

    /// Ends the run unless `condition` holds.
    pub fn require(&self, condition: bool, otherwise: impl Display) {
        if !condition {
            self.failed(otherwise);
        }
    }

    /// The number that the command line gives after `name=`, in hexadecimal with `0x`: how facts.toml tells a program about its tree. The
    /// image itself warns of an unknown option and ignores it.
    #[must_use]
    pub fn argument(&self, name: &str) -> u64 {
        let tree = self.handover.device_tree();
        let is_name = |window: &[u8]| window.strip_prefix(name.as_bytes()).is_some_and(|rest| rest == b"=0x");
        let at = tree.windows(name.len() + 3).position(is_name);
        let at = at.unwrap_or_else(|| self.failed(format_args!("the command line does not say {name}=0x...")));
        let digits = tree[at + name.len() + 3..].iter().map_while(|&byte| char::from(byte).to_digit(16));
        digits.fold(0, |number, digit| number << 4 | u64::from(digit))
    }

    /// The memory that the program's tree gives to someone else, by the arguments `claimed` and `claimed-bytes`.
    #[must_use]
    pub fn claimed(&self) -> PhysSpan {
        let start = PhysAddr::at(self.argument("claimed"));
        PhysSpan::of(start, self.argument("claimed-bytes")).unwrap_or_else(|| self.failed("nothing is claimed"))
    }

    /// Runs `work` on CPU `index` and waits for its end.
    pub fn on_cpu(&self, index: usize, work: fn(usize), argument: u64) {
        let online = self.handover.cpus().others().any(|other| other == index);
        self.require(online, format_args!("CPU {index} is not online"));
        self.handover.cpus().run(index, work, argument as usize);
        self.handover.cpus().wait(index);
    }

    /// The directmap's address of physical address 0, wrapping: what every part of the directmap agrees on.
    #[must_use]
    pub fn directmap_offset(&self) -> u64 {
        let regions = self.handover.regions().lock();
        let mut offsets = regions.iter().filter(|region| is_directmap(region)).filter_map(|region| {
            let output = region.output?;
            Some(region.virt.start().raw().wrapping_sub(output.raw()))
        });
        let first = offsets.next().unwrap_or_else(|| self.failed("there is no directmap"));
        self.require(offsets.all(|offset| offset == first), "parts of the directmap are at different distances");
        first
    }

    /// The directmap's address of `phys`, mapped or not.
    #[must_use]
    pub fn directmap(&self, phys: PhysAddr) -> u64 {
        phys.raw().wrapping_add(self.directmap_offset())
    }

    /// From the lowest byte of RAM to the highest, as far as anything maps it.
    #[must_use]
    pub fn ram(&self) -> PhysSpan {
        let regions = self.handover.regions().lock();
        let mapped = regions.iter().filter(|region| is_directmap(region));
        let mapped = mapped.filter_map(|region| PhysSpan::of(region.output?, region.virt.bytes()));
        mapped.fold(self.start.image(), |hull, span| {
            let start = hull.start().min(span.start());
            PhysSpan::new(start, hull.end_exclusive().max(span.end_exclusive())).unwrap_or(hull)
        })
    }

    /// The image's frames that no directmap address reaches: all of it but init, which is freed.
    #[must_use]
    pub fn image_without_init(&self) -> PhysSpan {
        let init = self.start.physical(self.start.map().init);
        PhysSpan::new(init.end_exclusive(), self.start.image().end_exclusive()).unwrap_or(init)
    }

    /// One frame of free RAM, taken for good, and its address in the directmap.
    pub fn take_ram(&self) -> (OwnedRam<El2>, u64) {
        let piece = self.handover.frames().lock().take_ram(PAGE_BYTES, PAGE_BYTES);
        let piece = piece.unwrap_or_else(|| self.failed("no free RAM"));
        let virt = self.directmap(piece.span().start());
        (piece, virt)
    }

    /// Audits the tables in force once more, against the declarations as they are now. Nothing may be mapped in `no_map`.
    #[must_use]
    pub fn audit(&self, no_map: &[PhysSpan]) -> Audit {
        let (ram, mut runs) = (self.ram(), [Scratch::EMPTY; AUDIT_RUNS]);
        let regions = self.handover.regions().lock();
        self.handover.audit(regions.as_slice(), &[ram], no_map, &mut runs)
    }

    /// The same against other declarations, with `runs` to note leaves and tables in.
    #[must_use]
    pub fn audit_of(&self, declared: &[Declared], no_map: &[PhysSpan], runs: &mut [Scratch]) -> Audit {
        self.handover.audit(declared, &[self.ram()], no_map, runs)
    }

    /// Ends the run unless a second audit finds what the first found: nothing.
    pub fn require_clean_audit(&self, no_map: &[PhysSpan]) {
        let audit = self.audit(no_map);
        if let Some(finding) = audit.first {
            self.failed(format_args!("{} mismatches, the first: {finding}", audit.mismatches));
        }
        self.require(audit.pages > 0 && audit.writable_executable == 0, "writable and executable");
        line!("audited again: {} pages, 0 mismatches", audit.pages);
    }
}

fn is_directmap(region: &Declared) -> bool {
    DIRECTMAP.covers(region.virt)
}

/// Recurses, in frames much smaller than a guard page, until the stack is at its end. The number is of no interest: it keeps the calls
/// from being turned into a loop.
#[inline(never)]
#[must_use]
pub fn overflow_stack(depth: u64) -> u64 {
    let block = black_box([depth; 32]);
    if black_box(depth) == u64::MAX {
        return 0;
    }
    overflow_stack(depth + 1) + block[(depth % 32) as usize]
}
