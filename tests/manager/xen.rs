//! What Xen asks of the core on its way up, through the same host module that its library is made of, under the oracle:
//! every request, the audit of what was asked for, refusals that change nothing.

#[path = "../xen/src/flags.rs"]
#[allow(dead_code, reason = "its numbers are for the C interface")]
mod flags;
#[path = "../xen/src/host.rs"]
#[allow(dead_code, reason = "what only a CPU can ask")]
mod host;

use super::judged::{self, Judged};
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, phys, virt};
use breakwater::addr::{Level, PhysAddr, VirtAddr, VirtSpan};
use breakwater::audit::{Finding, Scratch};
use breakwater::bbm::Protocol;
use breakwater::descriptor::Attributes;
use breakwater::errata::Errata;
use breakwater::features::{CpuFeatures, Features, IdRegisters, Unsuited};
use breakwater::frames::OwnedRam;
use breakwater::geometry::Granule4K;
use breakwater::layout;
use breakwater::mapper::Error;
use flags::Wish;
use host::{Allocator, Frames, Host, NoAudit, NoPatching, Notes, Piece};
use std::cell::RefCell;

type Xen = Host<Judged<Granule4K>>;

/// Where the image lies, and how much of it there is: text, constants, data, init text, the rest.
const IMAGE: u64 = 0x4020_0000;
const PARTS: [(u64, Attributes); 5] =
    [(0x8_0000, CODE), (0x2_0000, CONSTANTS), (0x1_0000, DATA), (0x2_0000, CODE), (0x6_0000, DATA)];
const IMAGE_BYTES: u64 = 0x13_0000;
/// Init: the last part but one, and as much of the last.
const INIT: (u64, u64) = (0xb_0000, 0x4_0000);
/// Its table frames.
const POOL: u64 = IMAGE + 0xf_0000;
/// 2 GiB of RAM, in which the image lies.
const RAM: u64 = GIB;
const RAM_BYTES: u64 = 2 * GIB;
const DIRECTMAP: u64 = layout::DIRECTMAP.start().raw();
const VMAP: u64 = layout::VMAP.start().raw();

const PAGES: Wish = Wish::Map { attributes: DATA, blocks: false };

fn link(offset: u64, bytes: u64) -> VirtSpan {
    virt(layout::LINK_ADDRESS + offset, bytes)
}

fn pieces() -> impl Iterator<Item = Piece> {
    PARTS.into_iter().scan(0, |start, (bytes, attributes)| {
        let offset = *start;
        *start += bytes;
        Some(Piece { virt: link(offset, bytes), phys: PhysAddr::at(IMAGE + offset), attributes })
    })
}

fn notes() -> &'static mut Notes {
    Box::leak(Box::new(Notes::none()))
}

/// Xen in its runtime tables, with `pool` frames in its image.
fn started_with(pool: u64) -> Result<Xen, Error> {
    let protocol = Protocol::simulated(Judged::new(Features::empty(), Errata::empty()), Errata::empty());
    let frames = Frames::new(OwnedRam::simulated(phys(POOL, pool * PAGE)));
    Host::start(protocol, frames, phys(IMAGE, IMAGE_BYTES), pieces(), None, notes())
}

fn started() -> Xen {
    started_with(64).expect("runtime tables")
}

/// The same with all RAM in its directmap.
fn with_ram() -> Xen {
    let mut xen = started();
    xen.map_ram(VirtAddr::at(DIRECTMAP), phys(RAM, RAM_BYTES)).expect("RAM");
    xen
}

fn ask(xen: &mut Xen, at: VirtSpan, output: u64, wish: Wish) -> Result<(), Error> {
    let answer = xen.request(at, PhysAddr::at(output), wish);
    is_clean(xen);
    answer
}

fn is_clean(xen: &Xen) {
    xen.machine().verdict().unwrap_or_else(|complaint| panic!("{complaint}"));
}

/// How many findings the audit has, and the first.
fn audited(xen: &Xen) -> (u32, Option<Finding>) {
    let (audit, _) = xen.audit(&mut vec![Scratch::EMPTY; 1024]).expect("all that was asked for is known");
    (audit.mismatches, audit.first)
}

#[test]
fn good_from_the_first_tables_to_the_end_of_init() {
    let mut xen = with_ram();
    let mut asks = |at, output, wish| ask(&mut xen, at, output, wish).expect("granted");
    let tree = virt(layout::DEVICE_TREE.start().raw(), MIB);
    asks(tree, 0x4800_0000, Wish::Map { attributes: CONSTANTS, blocks: false });
    let frametable = virt(layout::FRAMETABLE.start().raw(), 32 * MIB);
    asks(frametable, 0x6000_0000, Wish::Map { attributes: DATA, blocks: true });
    asks(virt(VMAP, 4 * MIB), 0, Wish::Populate);
    asks(virt(VMAP + PAGE, 16 * PAGE), 0x800_0000, Wish::Map { attributes: DEVICE, blocks: false });
    for page in 0..4 {
        let slot = virt(layout::FIXMAP.start().raw() + PAGE, PAGE);
        asks(slot, 0x900_0000 + page * PAGE, Wish::Map { attributes: DEVICE, blocks: false });
        asks(slot, 0, Wish::Destroy);
    }
    asks(virt(tree.start().raw(), 4 * MIB), 0, Wish::Destroy); // more than there is

    xen.admit().expect("the identity page");
    let root = xen.root().raw();
    xen.machine_mut().start_second(root);
    xen.admitted().expect("nobody is in it");
    is_clean(&xen);

    let alias = virt(VMAP + MIB, IMAGE_BYTES);
    xen.begin_patching(phys(IMAGE, IMAGE_BYTES)).expect("declared");
    ask(&mut xen, alias, IMAGE, PAGES).expect("as declared");
    ask(&mut xen, alias, 0, Wish::Destroy).expect("granted");
    xen.end_patching().expect("nothing is left of it");

    xen.free_init(link(INIT.0, INIT.1), VirtAddr::at(DIRECTMAP + IMAGE - RAM + INIT.0)).expect("init goes");
    ask(&mut xen, link(0xa_0000, PAGE), 0, Wish::Modify(CONSTANTS)).expect("sealed");
    assert_eq!(audited(&xen), (0, None));
    is_clean(&xen);
}

#[test]
fn good_the_directmap_leaves_the_image_out_and_gets_init_back() {
    let mut xen = with_ram();
    let at = |phys: u64| VirtAddr::at(DIRECTMAP + phys - RAM);
    let mut shown = |phys| {
        let mut last = None;
        xen.walk(at(phys), |step| last = Some(step.descriptor & 1));
        last == Some(1)
    };
    assert!(shown(IMAGE - PAGE) && shown(IMAGE + IMAGE_BYTES) && shown(RAM + RAM_BYTES - PAGE));
    assert!(!shown(IMAGE) && !shown(IMAGE + IMAGE_BYTES - PAGE));
    xen.free_init(link(INIT.0, INIT.1), at(IMAGE + INIT.0)).expect("init goes");
    let again = xen.free_init(link(INIT.0, INIT.1), at(IMAGE + INIT.0));
    assert!(matches!(again, Err(Error::NotMapped { .. })), "it is gone");
    let mut shown = |phys| {
        let mut last = None;
        xen.walk(at(phys), |step| last = Some(step.descriptor & 1));
        last == Some(1)
    };
    assert!(shown(IMAGE + INIT.0) && shown(IMAGE + INIT.0 + INIT.1 - PAGE));
    assert!(!shown(IMAGE + INIT.0 - PAGE) && !shown(IMAGE + INIT.0 + INIT.1));
    assert_eq!(audited(&xen), (0, None));
}

#[test]
fn good_the_identity_page_stays_for_a_cpu_that_may_come_late() {
    let mut xen = with_ram();
    let is_mapped = |xen: &mut Xen| {
        let mut last = None;
        xen.walk(VirtAddr::at(IMAGE), |step| last = Some(step.descriptor & 1));
        last == Some(1)
    };
    assert!(!is_mapped(&mut xen), "the boot CPU is out of it");
    xen.admit().expect("the first");
    xen.admit().expect("the second, and the first has not come");
    xen.admitted().expect("the second is there");
    assert!(is_mapped(&mut xen));
    xen.admitted().expect("the first, late");
    assert!(!is_mapped(&mut xen));
    assert_eq!(audited(&xen), (0, None));
    is_clean(&xen);
}

#[test]
fn bad_what_executes_is_written_only_by_declaration() {
    let mut xen = with_ram();
    let alias = virt(VMAP, IMAGE_BYTES);
    assert!(matches!(ask(&mut xen, alias, IMAGE, PAGES), Err(Error::Aliased { .. })));
    xen.begin_patching(phys(IMAGE, IMAGE_BYTES)).expect("declared");
    assert!(xen.begin_patching(phys(IMAGE, IMAGE_BYTES)).is_err(), "it is being patched already");
    let beyond = virt(layout::LIVEPATCH.start().raw(), IMAGE_BYTES);
    assert!(matches!(ask(&mut xen, beyond, IMAGE, PAGES), Err(Error::Aliased { .. })), "not there");
    ask(&mut xen, alias, IMAGE, PAGES).expect("as declared");
    let (_, found) = audited(&xen);
    let is_told = matches!(found, Some(Finding::WritableExecutableAlias { .. }));
    assert!(is_told, "a declaration does not soften the audit: {found:?}");
    assert!(xen.end_patching().is_err(), "it is still mapped");
    ask(&mut xen, alias, 0, Wish::Destroy).expect("granted");
    xen.end_patching().expect("nothing is left of it");
    assert!(matches!(ask(&mut xen, alias, IMAGE, PAGES), Err(Error::Aliased { .. })));
}

#[test]
fn bad_only_the_image_is_patched() {
    let mut xen = with_ram();
    // A frame behind the image, which Xen's allocator gave to vmap: it stays, whoever patches.
    ask(&mut xen, virt(VMAP + 4 * MIB, PAGE), IMAGE + IMAGE_BYTES, PAGES).expect("data");
    let others = |xen: &mut Xen, frames| matches!(xen.begin_patching(frames), Err(NoPatching::OtherFrames(_)));
    assert!(others(&mut xen, phys(IMAGE, IMAGE_BYTES + PAGE)), "one frame behind it");
    assert!(others(&mut xen, phys(IMAGE - PAGE, IMAGE_BYTES)), "one before it");
    xen.begin_patching(phys(IMAGE, IMAGE_BYTES)).expect("declared");
    xen.end_patching().expect("nothing is left of it");

    xen.free_init(link(INIT.0, INIT.1), VirtAddr::at(DIRECTMAP + IMAGE - RAM + INIT.0)).expect("init goes");
    assert!(others(&mut xen, phys(IMAGE, INIT.0 + PAGE)), "init is RAM by now");
    xen.begin_patching(phys(IMAGE, INIT.0)).expect("what is before it");
    xen.end_patching().expect("nothing is left of it");
    is_clean(&xen);
}

#[test]
fn bad_requests_change_nothing() {
    let mut xen = with_ram();
    ask(&mut xen, virt(VMAP, 4 * PAGE), 0x5000_0000, PAGES).expect("granted");
    let before = (xen.machine().memory().clone(), audited(&xen));
    let over = ask(&mut xen, virt(VMAP + 3 * PAGE, 4 * PAGE), 0x5000_0000, PAGES);
    assert!(matches!(over, Err(Error::Occupied { .. })));
    let hole = ask(&mut xen, virt(VMAP, 8 * PAGE), 0, Wish::Modify(CONSTANTS));
    assert!(matches!(hole, Err(Error::NotMapped { .. })));
    assert_eq!((xen.machine().memory().clone(), audited(&xen)), before);
}

thread_local! {
    /// Frames that Xen's allocator has.
    static HEAP: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

const ALLOCATOR: Allocator<Judged<Granule4K>> = Allocator {
    ask: || HEAP.with_borrow_mut(Vec::pop).map(|frame| OwnedRam::simulated(phys(frame, PAGE))),
    take_back: |frame| HEAP.with_borrow_mut(|heap| heap.push(frame.span().start().raw())),
};

fn heap() -> Vec<u64> {
    let mut frames = HEAP.with_borrow(Clone::clone);
    frames.sort_unstable();
    frames
}

/// Tables for 8 MiB of pages far from all else: one each of levels 1 and 2, four of level 3.
const FAR: (u64, u64, usize) = (21 << 39, 8 * MIB, 6);

#[test]
fn bad_out_of_frames_at_each_point_leaves_all_as_it_was() {
    // The pool is good for the start and no more.
    let few = (1..64).find(|&frames| started_with(frames).is_ok()).expect("a pool");
    for count in 0..=FAR.2 {
        let mut xen = started_with(few).expect("runtime tables");
        let have: Vec<u64> = (0..count as u64).map(|index| 0x7000_0000 + index * PAGE).collect();
        HEAP.set(have.clone());
        xen.use_allocator(ALLOCATOR);
        // What the identity page's tables left is taken first.
        let spare = xen.frames_left() as usize;
        let before = xen.machine().memory().clone();
        let answer = ask(&mut xen, virt(FAR.0, FAR.1), 0x5000_0000, PAGES);
        if spare + count >= FAR.2 {
            answer.expect("frames enough");
            ask(&mut xen, virt(FAR.0, FAR.1), 0, Wish::Destroy).expect("granted");
        } else {
            assert!(matches!(answer, Err(Error::OutOfFrames { .. })), "{count}: {answer:?}");
            let kept = |memory: &std::collections::BTreeMap<u64, Vec<u64>>| {
                let tables = memory.iter().filter(|(frame, _)| **frame < 0x7000_0000);
                tables.map(|(frame, words)| (*frame, words.clone())).collect::<Vec<_>>()
            };
            assert_eq!(kept(xen.machine().memory()), kept(&before));
        }
        assert_eq!(heap(), have, "each frame is Xen's again");
    }
}

#[test]
fn bad_a_pool_that_is_too_small_is_told() {
    assert!(matches!(started_with(0), Err(Error::OutOfFrames { .. })));
    assert!(matches!(started_with(4), Err(Error::OutOfFrames { .. })));
}

#[test]
fn bad_what_changes_behind_its_back_is_found() {
    let mut xen = with_ram();
    ask(&mut xen, virt(VMAP, 4 * PAGE), 0x5000_0000, PAGES).expect("granted");
    let root = breakwater::addr::Frame::containing(xen.root());
    let slot = judged::slot_in(xen.machine(), root, Level::L3, VMAP);
    let moved = xen.machine().memory()[&slot.table().start().raw()][0] + PAGE;
    xen.machine_mut().plant(slot, moved);
    let found = audited(&xen);
    assert!(matches!(found, (1.., Some(Finding::WrongOutput { .. }))), "{found:?}");
}

#[test]
fn bad_more_than_the_record_holds_is_never_clean() {
    let mut xen = with_ram();
    for index in 0..300 {
        let page = virt(VMAP + 2 * index * PAGE, PAGE);
        ask(&mut xen, page, 0x5000_0000 + 3 * index * PAGE, PAGES).expect("granted");
    }
    assert!(matches!(xen.audit(&mut vec![Scratch::EMPTY; 1024]), Err(NoAudit::Full(_))));
}

#[test]
fn bad_a_cpu_that_lacks_what_requests_use_may_not_stay() {
    let cpu = |isar0: u64, mmfr0: u64| {
        CpuFeatures::decode(&IdRegisters { isar0, mmfr0, ..IdRegisters::default() }).expect("a CPU")
    };
    let (has, lacks) = (cpu(2 << 56, 5), cpu(0, 5));
    let judged = Judged::<Granule4K>::new(Features::TLBIRANGE, Errata::empty());
    let mut protocol = Protocol::simulated(judged, Errata::empty());
    protocol.use_features(has.features);
    protocol.limit_output(has.output_bits);
    let frames = Frames::new(OwnedRam::simulated(phys(POOL, 64 * PAGE)));
    let mut xen =
        Host::start(protocol, frames, phys(IMAGE, IMAGE_BYTES), pieces(), None, notes()).expect("runtime tables");
    assert_eq!(xen.join(&has), Ok(()));
    assert!(matches!(xen.join(&lacks), Err(Unsuited::Features { missing }) if missing.contains(Features::TLBIRANGE)));
    assert!(matches!(xen.join(&cpu(2 << 56, 0)), Err(Unsuited::OutputBits { .. })));
}
