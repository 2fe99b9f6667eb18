//! Every kind of request that a mapper takes, one after the other, in an area of its own: each shape of break, invalidation and make that the
//! library has, on one CPU or among several. After each request every CPU that runs reads or looks where the pages are.
//!
//! What it is for besides: boot itself makes few kinds of request. `cargo xtask mutate` takes the barriers and TLBIs of the others
//! away here.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let free = booted.handover.frames().lock().available();
    let requests = every_request::all(&booted);
    booted.require_clean_audit(&[]);
    let after = booted.handover.frames().lock().available();
    say!("fact: {} frames stayed with the program, or are tables that were asked for", free - after);
    booted.holds(format_args!("{requests} requests, each seen by every CPU"))
});

#[cfg(target_os = "none")]
mod every_request {
    use breakwater::addr::Level;
    use breakwater::audit::Declared;
    use breakwater::bbm::Live;
    use breakwater::descriptor::{Access, Attributes};
    use breakwater::layout::XEN_BASE;
    use breakwater::mapper::{Error, Mapper, Request};
    use breakwater::regions::Failure;
    use breakwater_boot::el2::El2;
    use breakwater_boot_tests::prelude::*;
    use core::fmt::Display;
    use core::sync::atomic::{AtomicU64, Ordering};

    const DATA: Attributes = Attributes::Normal(Access::ReadWrite);
    const CONSTANTS: Attributes = Attributes::Normal(Access::ReadOnly);
    const MIB: u64 = 1 << 20;
    const BLOCK: u64 = 2 * MIB;
    const PAGES: u64 = 512;
    /// Nothing else is here, and no table leads here: the last 2 MiB before the end of a level 1 slot.
    const AREA: u64 = XEN_BASE + (9 << 30) - BLOCK;
    /// Physical memory: one block, and another for what is mapped elsewhere.
    const RAM_BYTES: u64 = 2 * BLOCK;

    /// What another CPU translates an address to; 0 for nowhere.
    static SEEN: AtomicU64 = AtomicU64::new(0);

    /// Requests, and what they did to the pages.
    struct Area<'a> {
        booted: &'a Booted,
        ram: PhysAddr,
        requests: u64,
    }

    fn span(first: u64, bytes: u64) -> VirtSpan {
        VirtSpan::of(VirtAddr::at(AREA + first), bytes).unwrap_or_else(|| unreachable!("the area is within 48 bits"))
    }

    /// Makes them all; how many there were.
    pub(super) fn all(booted: &Booted) -> u64 {
        let ram = booted.handover.frames().lock().take_ram(RAM_BYTES, BLOCK);
        let ram = ram.unwrap_or_else(|| booted.failed("no RAM in one piece"));
        let mut area = Area { booted, ram: ram.span().start(), requests: 0 };
        area.pages();
        area.tables();
        area.blocks();
        area.runs();
        area.declared();
        area.requests
    }

    impl Area<'_> {
        /// Memory of the program's own, `offset` bytes from its start.
        fn ram(&self, offset: u64) -> PhysAddr {
            PhysAddr::at(self.ram.raw() + offset)
        }

        fn granted<T, E: Display>(&mut self, answer: Result<T, E>) {
            probe::claim_settled();
            self.requests += 1;
            if let Err(error) = answer {
                self.booted.failed(format_args!("request {}: {error}", self.requests));
            }
        }

        fn ask<T>(&mut self, request: impl FnOnce(&mut Mapper<'_, El2, Live>) -> Result<T, Error>) {
            let answer = self.booted.handover.edit(|mut space| request(&mut space.mapper()).map(drop));
            self.granted(answer);
        }

        /// Every CPU translates `virt` to `phys` and reads there; first of all, it writes if it may.
        fn shows(&self, virt: VirtSpan, phys: PhysAddr, attributes: Attributes) {
            for offset in [0, virt.bytes() - PAGE_BYTES] {
                let at = virt.start().raw() + offset;
                self.on_each_cpu(at | u64::from(attributes == DATA), |word| {
                    let at = word as u64 & !1;
                    if word & 1 == 1 {
                        probe::write(at, at);
                    }
                    let _there = probe::read(at);
                    SEEN.store(probe::translate(at).map_or(0, PhysAddr::raw), Ordering::Relaxed);
                });
                let (seen, wanted) = (SEEN.load(Ordering::Relaxed), phys.raw() + offset);
                let what = format_args!("request {}: {at:#x} is at {seen:#x}, not {wanted:#x}", self.requests);
                self.booted.require(seen == wanted, what);
            }
        }

        /// No CPU translates `virt`.
        fn gone(&self, virt: VirtSpan) {
            for at in [virt.start().raw(), virt.end_exclusive().raw() - PAGE_BYTES] {
                self.on_each_cpu(at, |at| {
                    SEEN.store(probe::translate(at as u64).map_or(0, PhysAddr::raw), Ordering::Relaxed);
                });
                let seen = SEEN.load(Ordering::Relaxed);
                let what = format_args!("request {}: {at:#x} is at {seen:#x}, not gone", self.requests);
                self.booted.require(seen == 0, what);
            }
        }

        /// Runs `look` here, then on the last CPU, whose word counts.
        fn on_each_cpu(&self, at: u64, look: fn(usize)) {
            look(at as usize);
            let others = self.booted.handover.cpus().others();
            if let Some(last) = others.last() {
                self.booted.on_cpu(last, look, at);
            }
        }

        fn map(&mut self, virt: VirtSpan, offset: u64, attributes: Attributes, largest: Level) {
            let output = self.ram(offset);
            self.ask(|mapper| mapper.map(Request::new(virt, output, attributes, largest)));
            self.shows(virt, output, attributes);
        }

        fn map_contiguous(&mut self, virt: VirtSpan, offset: u64) {
            let output = self.ram(offset);
            self.ask(|mapper| mapper.map(Request::new(virt, output, DATA, Level::L3).with_contiguous()));
            self.shows(virt, output, DATA);
        }

        fn remap(&mut self, virt: VirtSpan, offset: u64) {
            let output = self.ram(offset);
            self.ask(|mapper| mapper.remap(virt, output, DATA));
            self.shows(virt, output, DATA);
        }

        fn protect(&mut self, virt: VirtSpan, offset: u64, attributes: Attributes) {
            self.ask(|mapper| mapper.protect(virt, attributes));
            self.shows(virt, self.ram(offset), attributes);
        }

        fn split(&mut self, virt: VirtSpan, offset: u64) {
            self.ask(|mapper| mapper.split(virt, Level::L3));
            self.shows(virt, self.ram(offset), CONSTANTS);
        }

        fn merge(&mut self, virt: VirtSpan, offset: u64, largest: Level) {
            self.ask(|mapper| mapper.merge(virt, largest, true));
            self.shows(virt, self.ram(offset), CONSTANTS);
        }

        fn unmap(&mut self, virt: VirtSpan) {
            self.ask(|mapper| mapper.unmap(virt));
            self.gone(virt);
        }

        /// Single pages, few and many; the last unmap frees their table.
        fn pages(&mut self) {
            let (one, some, many) = (span(0, PAGE_BYTES), span(0, 3 * PAGE_BYTES), span(0, 40 * PAGE_BYTES));
            self.map(some, 0, DATA, Level::L3);
            self.protect(some, 0, CONSTANTS);
            self.protect(one, 0, DATA);
            self.protect(some, 0, DATA);
            self.remap(some, BLOCK);
            self.remap(one, 0);
            self.unmap(one);
            self.map(one, 0, DATA, Level::L3);
            self.map(span(3 * PAGE_BYTES, 37 * PAGE_BYTES), 3 * PAGE_BYTES, DATA, Level::L3);
            self.remap(some, 0);
            self.protect(many, 0, CONSTANTS);
            self.remap(many, BLOCK);
            self.unmap(span(PAGE_BYTES, 38 * PAGE_BYTES));
            self.unmap(span(39 * PAGE_BYTES, PAGE_BYTES));
            self.unmap(one);
        }

        /// Several tables at once, across the end of a level 1 slot.
        fn tables(&mut self) {
            let across = span(BLOCK - PAGE_BYTES, 2 * PAGE_BYTES);
            self.map(across, 0, DATA, Level::L3);
            self.unmap(across);
            let whole = span(0, 2 * BLOCK);
            self.map(whole, 0, DATA, Level::L3);
            self.unmap(whole);
            let ragged = span(BLOCK / 2, BLOCK);
            self.map(ragged, 0, DATA, Level::L2);
            self.unmap(ragged);
            self.ask(|mapper| mapper.populate(span(0, 2 * BLOCK), Level::L3));
            self.map(across, 0, DATA, Level::L3);
            self.unmap(across);
        }

        /// Blocks, whole and in part. The tables of the first two are there from [`Self::tables`], so these have others.
        fn blocks(&mut self) {
            let (block, next) = (span(2 * BLOCK, BLOCK), span(3 * BLOCK, BLOCK));
            let page = |index: u64| span(2 * BLOCK + index * PAGE_BYTES, PAGE_BYTES);
            self.map(block, 0, DATA, Level::L2);
            self.protect(block, 0, CONSTANTS);
            self.remap(block, BLOCK);
            self.remap(block, 0);
            self.split(block, 0);
            self.merge(block, 0, Level::L2);
            self.protect(page(5), 5 * PAGE_BYTES, CONSTANTS);
            self.protect(page(5), 5 * PAGE_BYTES, DATA);
            self.merge(block, 0, Level::L2);
            self.remap(page(PAGES - 1), BLOCK);
            self.remap(page(PAGES - 1), (PAGES - 1) * PAGE_BYTES);
            self.merge(block, 0, Level::L2);
            self.unmap(page(7));
            self.map(page(7), 7 * PAGE_BYTES, DATA, Level::L3);
            self.merge(block, 0, Level::L2);
            self.map(next, BLOCK, DATA, Level::L2);
            self.unmap(span(2 * BLOCK + BLOCK / 2, BLOCK));
            self.unmap(span(2 * BLOCK, BLOCK / 2));
            self.unmap(span(3 * BLOCK + BLOCK / 2, BLOCK / 2));
            self.map(block, 0, DATA, Level::L2);
            self.unmap(block);
        }

        /// Contiguous runs, whole and in part.
        fn runs(&mut self) {
            let run = span(4 * BLOCK, 16 * PAGE_BYTES);
            let page = span(4 * BLOCK + 3 * PAGE_BYTES, PAGE_BYTES);
            self.map_contiguous(run, 0);
            self.protect(run, 0, CONSTANTS);
            self.protect(run, 0, DATA);
            self.protect(page, 3 * PAGE_BYTES, CONSTANTS);
            self.protect(page, 3 * PAGE_BYTES, DATA);
            self.merge(run, 0, Level::L3);
            self.split(run, 0);
            self.merge(run, 0, Level::L3);
            self.remap(run, BLOCK);
            self.unmap(page);
            self.unmap(span(4 * BLOCK, 3 * PAGE_BYTES));
            self.unmap(span(4 * BLOCK + 4 * PAGE_BYTES, 12 * PAGE_BYTES));
        }

        /// Through [`breakwater::regions::Space`], as boot does it: what is mapped is declared.
        fn declared(&mut self) {
            let (pages, part) = (span(5 * BLOCK, BLOCK), span(5 * BLOCK, 4 * PAGE_BYTES));
            let region = Declared { name: "requests", virt: pages, output: Some(self.ram(0)), attributes: DATA };
            self.with_space(|space| space.map(region, Level::L2));
            self.shows(pages, self.ram(0), DATA);
            self.with_space(|space| space.protect("requests", pages, CONSTANTS));
            let elsewhere = self.ram(BLOCK);
            self.with_space(|space| space.remap("requests", pages, elsewhere, DATA));
            self.shows(pages, elsewhere, DATA);
            // A part is no region: what is declared goes with the rest.
            self.with_space(|space| space.unmap("requests", part));
            self.gone(part);
            self.unmap(span(5 * BLOCK + 4 * PAGE_BYTES, BLOCK - 4 * PAGE_BYTES));
            self.booted.handover.edit(|mut space| space.regions().withdraw(pages));
        }

        fn with_space<T>(
            &mut self,
            request: impl FnOnce(&mut breakwater::regions::Space<'_, El2>) -> Result<T, Failure>,
        ) {
            let answer = self.booted.handover.edit(|mut space| request(&mut space).map(drop));
            self.granted(answer);
        }
    }
}
