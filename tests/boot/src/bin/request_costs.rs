//! What each request costs on the target, one line a request: for `cargo xtask bench`, which runs it under a counter that counts
//! instructions exactly. Where nothing counts them, the line says so, and the other figures are the same.
//!
//! The spans lie where nothing else is mapped, and map to physical addresses where nothing is, as Device memory: no CPU looks there.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    costs::idle(&booted);
    costs::REQUESTS.iter().for_each(|request| costs::request(&booted, request));
    booted.require_clean_audit(&[]);
    booted.holds(format_args!("{} requests counted, and nothing is left of them", costs::REQUESTS.len()))
});

#[cfg(target_os = "none")]
mod costs {
    use breakwater::addr::{Level, PAGE_BYTES, PhysAddr, VirtAddr, VirtSpan};
    use breakwater::bbm::Counts;
    use breakwater::bringup::Editor;
    use breakwater::descriptor::{Attributes, DataAccess, DeviceKind};
    use breakwater::frames::FrameSupply;
    use breakwater::mapper::{Error, Request};
    use breakwater_boot::el2::{self, El2};
    use breakwater_boot_tests::{Booted, prelude::say};
    use core::fmt;

    const WRITABLE: Attributes = Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite);
    const READ_ONLY: Attributes = Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadOnly);
    /// An L0 slot that nothing uses.
    const START: u64 = 32 << 39;
    /// Above all of RAM and every device.
    const OUTPUT: u64 = 1 << 40;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// What is asked for.
    #[derive(Clone, Copy)]
    enum Verb {
        /// With leaves up to this.
        Map(Level),
        /// By pages, with the contiguous hint.
        MapContiguous,
        Unmap,
        Protect,
        Remap,
        /// Into leaves of at most this level.
        Split(Level),
        /// Into leaves of up to this level.
        Merge(Level),
        /// Map and unmap again.
        Churn,
    }

    /// One line of the output.
    pub(super) struct Asked {
        name: &'static str,
        verb: Verb,
        offset: u64,
        bytes: u64,
    }

    const fn of(name: &'static str, verb: Verb, offset: u64, bytes: u64) -> Asked {
        Asked { name, verb, offset, bytes }
    }

    const fn pages(name: &'static str, verb: Verb, first: u64, count: u64) -> Asked {
        of(name, verb, first * PAGE_BYTES, count * PAGE_BYTES)
    }

    /// In this order: each finds what those before it left. The last ones take everything away.
    pub(super) const REQUESTS: &[Asked] = &[
        pages("map-1-page-and-3-tables", Verb::Map(Level::L3), 0, 1),
        pages("map-1-page", Verb::Map(Level::L3), 1, 1),
        pages("map-16-pages", Verb::Map(Level::L3), 16, 16),
        pages("map-512-pages-and-table", Verb::Map(Level::L3), 512, 512),
        pages("map-512-pages-contiguous-and-table", Verb::MapContiguous, 1536, 512),
        of("map-2m-block", Verb::Map(Level::L2), 4 * MIB, 2 * MIB),
        of("map-1g-block", Verb::Map(Level::L1), GIB, GIB),
        of("map-1g-by-2m", Verb::Map(Level::L2), 2 * GIB, GIB),
        of("map-1g-by-4k", Verb::Map(Level::L3), 3 * GIB, GIB),
        pages("protect-1-page", Verb::Protect, 1, 1),
        pages("protect-16-pages", Verb::Protect, 16, 16),
        pages("protect-512-pages", Verb::Protect, 512, 512),
        of("protect-2m-block", Verb::Protect, 4 * MIB, 2 * MIB),
        of("protect-1g-block", Verb::Protect, GIB, GIB),
        pages("remap-1-page", Verb::Remap, 1, 1),
        pages("remap-16-pages", Verb::Remap, 16, 16),
        pages("remap-512-pages", Verb::Remap, 512, 512),
        of("remap-2m-block", Verb::Remap, 4 * MIB, 2 * MIB),
        of("split-2m-block", Verb::Split(Level::L3), 4 * MIB, 2 * MIB),
        of("merge-512-pages", Verb::Merge(Level::L2), 4 * MIB, 2 * MIB),
        pages("protect-1-page-of-2m-block", Verb::Protect, 1024, 1),
        pages("protect-1-page-of-contiguous-run", Verb::Protect, 1536, 1),
        pages("churn-1-page", Verb::Churn, 2, 1),
        pages("unmap-1-page", Verb::Unmap, 1, 1),
        pages("unmap-16-pages", Verb::Unmap, 16, 16),
        pages("unmap-512-pages", Verb::Unmap, 512, 512),
        of("unmap-2m-that-was-split", Verb::Unmap, 4 * MIB, 2 * MIB),
        of("unmap-512-pages-contiguous", Verb::Unmap, 6 * MIB, 2 * MIB),
        of("unmap-1g-block", Verb::Unmap, GIB, GIB),
        of("unmap-1g-by-2m", Verb::Unmap, 2 * GIB, GIB),
        of("unmap-1g-by-4k", Verb::Unmap, 3 * GIB, GIB),
        pages("unmap-the-last-page", Verb::Unmap, 0, 1),
    ];

    impl Asked {
        fn virt(&self) -> VirtSpan {
            VirtSpan::of(VirtAddr::at(START + self.offset), self.bytes).unwrap_or(breakwater::layout::NOWHERE)
        }

        /// Where it maps at first; `Remap` maps another 16 GiB further on.
        fn output(&self, beyond: u64) -> PhysAddr {
            PhysAddr::at(OUTPUT + self.offset + beyond)
        }

        fn map_request(&self, largest: Level) -> Request {
            Request::new(self.virt(), self.output(0), WRITABLE, largest)
        }

        fn ask(&self, editor: &mut Editor<El2>, frames: &mut FrameSupply<El2>) -> Result<(), Error> {
            let mut mapper = editor.mapper(frames);
            match self.verb {
                Verb::Map(largest) => mapper.map(self.map_request(largest)).map(drop),
                Verb::Unmap => mapper.unmap(self.virt()).map(drop),
                Verb::Protect => mapper.protect(self.virt(), READ_ONLY).map(drop),
                Verb::Remap => mapper.remap(self.virt(), self.output(16 * GIB), WRITABLE).map(drop),
                Verb::MapContiguous => mapper.map(self.map_request(Level::L3).with_contiguous()).map(drop),
                Verb::Split(largest) => mapper.split(self.virt(), largest).map(drop),
                Verb::Merge(largest) => mapper.merge(self.virt(), largest, false).map(drop),
                Verb::Churn => {
                    mapper.map(self.map_request(Level::L3))?;
                    mapper.unmap(self.virt()).map(drop)
                }
            }
        }
    }

    /// What counters say at a moment.
    struct Moment {
        counts: Counts,
        free: u64,
        instructions: Option<u32>,
    }

    impl Moment {
        fn now(editor: &Editor<El2>, frames: &FrameSupply<El2>) -> Self {
            // The instructions last: less of what is here is counted.
            let (counts, free) = (editor.counts(), frames.available());
            Self { counts, free, instructions: el2::instructions_retired() }
        }
    }

    /// What reading the counters costs, which each figure below contains.
    pub(super) fn idle(booted: &Booted) {
        count(booted, "idle", |_, _| Ok(()));
    }

    /// Makes one request and says what it cost.
    pub(super) fn request(booted: &Booted, asked: &Asked) {
        count(booted, asked.name, |editor, frames| asked.ask(editor, frames));
    }

    #[inline(never)]
    fn count(
        booted: &Booted,
        name: &str,
        ask: impl FnOnce(&mut Editor<El2>, &mut FrameSupply<El2>) -> Result<(), Error>,
    ) {
        let mut frames = booted.handover.frames().lock();
        let mut editor = booted.handover.tables().lock();
        let before = Moment::now(&editor, &frames);
        let answer = ask(&mut editor, &mut frames);
        let instructions = el2::instructions_retired();
        let after = Moment { instructions, ..Moment::now(&editor, &frames) };
        drop((editor, frames));
        if let Err(error) = answer {
            booted.failed(format_args!("{name} is refused: {error}"));
        }
        let (now, then) = (after.counts, before.counts);
        let instructions = after.instructions.zip(before.instructions).map(|(now, then)| now.wrapping_sub(then));
        say!(
            "bench {name} instructions={} stores={} tlbis={} dsbs={} isbs={} frames={}",
            Counted(instructions),
            now.stores - then.stores,
            now.maintenance.tlbis - then.maintenance.tlbis,
            now.maintenance.dsbs - then.maintenance.dsbs,
            now.maintenance.isbs - then.maintenance.isbs,
            before.free as i64 - after.free as i64,
        );
    }

    /// A number, or that there is none.
    struct Counted(Option<u32>);

    impl fmt::Display for Counted {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                Some(number) => write!(f, "{number}"),
                None => f.write_str("uncounted"),
            }
        }
    }
}
