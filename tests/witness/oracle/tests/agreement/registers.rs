//! The worlds in which registers and data-cache lines are in question: the MMU turned on and off, roots, controls, what is written with caches off.

use crate::worlds_of::{World, cleared, off, on};
use crate::worlds_of::{identity, two_leaves, zeros};

/// A PE that starts with M = 0 and comes to M = 1; TCR, MAIR and TTBR0 are written already.
pub(crate) fn enable() -> World {
    let start = "0 1 0 start 2\n0 1 0 found hcr_el2 80000000\n0 1 0 found sctlr_el2 30c50838\n\
                 0 2 0 msr mair_el2 4404ff\n0 3 0 msr tcr_el2 80853522\n0 4 0 msr ttbr0_el2 1000\n";
    World::new(
        "enable",
        &(two_leaves() + &identity() + start),
        "0 6000 msr sctlr_el2 30cd0838 # WXN
0 6000 msr sctlr_el2 30cd183d # M, C, I, WXN
0 6000 msr sctlr_el2 30c5183d # M, C, I
0 0 msr tcr_el2 80853522   # the same again
0 0 msr tcr_el2 80843522   # another size of physical addresses
0 0 msr hcr_el2 80000000
0 0 isb
0 0 tlbi alle2 0
0 0 tlbi vmalle1 0
0 0 tlbi vae2 200
0 0 dsb nsh
0 0 dsb ishst
0 0 load 8 200000 80000000 0
0 200000 fetch 1
0 0 settled",
    )
}

/// A root switch: another root at 4000, which maps 200000 to another page of code.
pub(crate) fn switch() -> World {
    let other = zeros(0x4000, &[0x4000, 0x4008]) + &zeros(0x5000, &[0x5000]) + "word 4008 5003\nword 5000 820007c3\n";
    World::new(
        "switch",
        &(two_leaves() + &identity() + &other + &on(0, 0x1000)),
        "0 6000 msr sctlr_el2 30cd183c
0 6000 msr sctlr_el2 30cd183d
0 0 msr ttbr0_el2 4000
0 0 isb
0 0 tlbi alle2 0
0 0 tlbi vae2 200
0 0 dsb nsh
0 0 dsb ishst
0 0 load 8 201000 81000000 0
0 0 store 8 201000 81000000 0
0 200000 fetch 1
0 0 settled",
    )
}

/// A PE out of reset, all of whose controls are written: what its TLBs hold is unknown.
pub(crate) fn reset() -> World {
    World::new(
        "reset",
        &(two_leaves() + &identity() + &off(0, 0x1000)),
        "0 6000 msr sctlr_el2 30cd183d
0 0 msr hcr_el2 480000000
0 0 msr hcr_el2 80000000
0 0 tlbi alle2 0
0 0 tlbi alle2is 0
0 0 dsb nsh
0 0 dsb ishst
0 0 isb
0 0 dc zva 81000000
0 0 load 8 200000 80000000 0
0 200000 fetch 1
0 0 settled",
    )
}

/// The same with its TLBs cleared: HCR_EL2.E2H alone is in question.
pub(crate) fn host() -> World {
    World::new(
        "host",
        &(two_leaves() + &identity() + &off(0, 0x1000) + &cleared(0)),
        "0 6000 msr sctlr_el2 30cd183d
0 0 msr hcr_el2 480000000
0 0 msr hcr_el2 80000000
0 0 tlbi alle2 0
0 0 dsb nsh
0 0 isb
0 0 settled",
    )
}

/// Control registers with the MMU on, and what else a PE alone may do wrong.
/// A leaf that is broken, and MAIR_EL2 that changes its type, or that of nothing, while it may still be cached.
pub(crate) fn types() -> World {
    World::new(
        "types",
        &(two_leaves() + &on(0, 0x1000)),
        "0 0 store 8 ffff000000002008 2008 0
0 0 store 8 ffff000000002008 2008 40000081000743
0 0 store 8 ffff000000002008 2008 40000081000747 # of index 1
0 0 msr mair_el2 440444  # index 0 becomes Non-cacheable
0 0 msr mair_el2 4444ff  # index 1
0 0 dsb ish
0 0 isb
0 0 tlbi vae2is 201
0 0 tlbi alle2 0
0 0 settled",
    )
}

pub(crate) fn controls() -> World {
    World::new(
        "controls",
        &("feature all isb-before-mmu-off\nfeature all hcr-barriers\n".to_owned()
            + &two_leaves()
            + &identity()
            + &on(0, 0x1000)),
        "0 6000 msr sctlr_el2 30c5183d # WXN off
0 6000 msr sctlr_el2 30cd183d
0 6000 msr sctlr_el2 30cd183c # M off
0 200000 msr sctlr_el2 30cd183c # ... by code that is not at its physical address
0 0 msr mair_el2 4404ff
0 0 msr mair_el2 4404
0 0 msr hcr_el2 80000000
0 0 msr hcr_el2 480000000  # E2H
0 0 msr tcr2_el2 2         # PIE
0 0 msr ttbr0_el2 1001     # CnP
0 0 dsb sy
0 0 dsb nsh
0 0 isb
0 0 tlbi alle2 0
0 0 settled",
    )
}

/// Data-cache lines: a PE that writes its own table with its MMU off and turns it on, and loads what another has stored through the cache.
pub(crate) fn lines(name: &'static str, features: &str) -> World {
    let start = "1 1 0 start 2\n1 1 0 found hcr_el2 80000000\n1 1 0 found sctlr_el2 30cd1838\n1 2 0 msr hcr_el2 80000000\n1 2 0 msr mair_el2 4404ff\n\
                 1 3 0 msr tcr_el2 80853522\n1 4 0 msr ttbr0_el2 4000\n1 5 0 msr sctlr_el2 30cd1838\n1 6 0 isb\n1 7 0 tlbi alle2 0\n\
                 1 8 0 dsb nsh\n1 9 0 isb\n";
    World::new(
        name,
        &(features.to_owned() + &two_leaves() + &zeros(0x4000, &[]) + &on(0, 0x1000) + start),
        "0 0 store 8 201000 81000000 7                   # the mailbox, through the cache
0 0 dc cvac 201000
0 0 dc civac 201000
0 0 dc ivac 201000
0 0 dsb sy
0 0 dmb sy
1 0 load 8 81000000 81000000 7                  # with its MMU off
1 0 store 8 4008 4008 92000781                  # a descriptor, past the cache
1 0 dc ivac 4008
1 0 dc cvac 4008
1 0 dmb sy
1 0 dsb sy
1 0 msr sctlr_el2 30cd183d
1 0 isb",
    )
}

/// A PE that sweeps its caches by set and way, of which one line is left, and turns its MMU on; `beside` it is another.
pub(crate) fn swept(name: &'static str, beside: &str) -> World {
    let start = off(1, 0x4000) + &cleared(1);
    let swept = "1 10 0 dc isw 40\n1 11 0 dc isw 80000000\n1 12 0 dc isw 80000040\n";
    World::new(
        name,
        &(two_leaves() + &zeros(0x4000, &[]) + beside + &start + swept),
        "1 0 dc isw 0                                    # the last line
1 0 dc isw 40                                   # one of them again
1 0 dc isw 80000000
1 0 dc isw 80000040
1 0 dc cisw 0
1 0 store 8 4008 4008 92000781                  # a descriptor, past the cache
1 0 dc ivac 4008
1 0 dmb sy
1 0 dsb sy
1 0 msr sctlr_el2 30cd183d
1 0 isb",
    )
}

/// Another endianness of the tables: nothing is left to map, but what is cached.
pub(crate) fn endianness() -> World {
    World::new(
        "endianness",
        &(two_leaves() + &identity() + &on(0, 0x1000)),
        "0 6000 msr sctlr_el2 32cd183d
0 0 isb
0 0 tlbi alle2 0
0 0 dsb nsh
0 0 settled",
    )
}

/// What a TLB holds out of reset goes only by the PE's own invalidation; what it caches of controls goes by another's as well.
pub(crate) fn enable_beside_another() -> World {
    let start = "1 1 0 start 2\n1 1 0 found hcr_el2 80000000\n1 1 0 found sctlr_el2 30c50838\n1 2 0 msr hcr_el2 80000000\n\
                 1 3 0 msr mair_el2 4404ff\n1 4 0 msr tcr_el2 80853522\n1 5 0 msr ttbr0_el2 1000\n1 6 0 isb\n";
    World::new(
        "enable beside another",
        &(two_leaves() + &identity() + &on(0, 0x1000) + start),
        "0 0 tlbi alle2is 0
0 0 dsb ish
1 0 tlbi alle2 0
1 0 dsb nsh
1 0 isb
1 6000 msr sctlr_el2 30c5183d",
    )
}

/// Controls that were found, but that nobody has written since reset; the TLB is clean.
pub(crate) fn unwritten() -> World {
    let start = "0 1 0 start 2\n0 1 0 found hcr_el2 80000000\n0 1 0 found sctlr_el2 30c50838\n0 1 0 found mair_el2 4404ff\n\
                 0 1 0 found tcr_el2 80853522\n0 1 0 found ttbr0_el2 1000\n0 2 0 tlbi alle2 0\n0 3 0 dsb nsh\n0 4 0 isb\n";
    World::new(
        "unwritten",
        &(two_leaves() + &identity() + start),
        "0 0 msr mair_el2 4404ff
0 0 msr tcr_el2 80853522
0 0 msr ttbr0_el2 1000
0 0 isb
0 0 tlbi alle2 0
0 0 dsb nsh
0 6000 msr sctlr_el2 30c5183d",
    )
}

/// A descriptor is stored past the cache, into a line that is invalidated already: what must be done about the line afterwards, and what not.
pub(crate) fn stored_past() -> World {
    let start = "1 1 0 start 2\n1 1 0 found hcr_el2 80000000\n1 1 0 found sctlr_el2 30cd1838\n1 2 0 msr hcr_el2 80000000\n1 2 0 msr mair_el2 4404ff\n\
                 1 3 0 msr tcr_el2 80853522\n1 4 0 msr ttbr0_el2 4000\n1 5 0 msr sctlr_el2 30cd1838\n1 6 0 isb\n1 7 0 tlbi alle2 0\n\
                 1 8 0 dsb nsh\n1 9 0 isb\n1 9 0 dc ivac 4008\n1 9 0 dsb sy\n1 9 0 store 8 4008 4008 92000781\n1 9 0 dmb sy\n";
    World::new(
        "stored past",
        &(two_leaves() + &zeros(0x4000, &[]) + &on(0, 0x1000) + start),
        "1 0 dc cvac 4008
1 0 dc civac 4008
1 0 dc ivac 4008
1 0 dsb sy
1 0 msr sctlr_el2 30cd183d",
    )
}

/// What the architecture reserves: bits of TTBR0_EL2, and an encoding of MAIR_EL2 that a leaf may name.
pub(crate) fn reserved() -> World {
    World::new(
        "reserved",
        &(two_leaves() + &identity() + &on(0, 0x1000).replace("4404ff", "4402ff")),
        "0 0 msr ttbr0_el2 1000
0 0 msr ttbr0_el2 1002
0 0 msr ttbr0_el2 1000000001000
0 0 store 8 ffff000000002010 2010 40000009000747 # of the reserved type
0 0 store 8 ffff000000002010 2010 40000082000743
0 0 store 8 ffff000000002010 2010 0
0 0 dsb ish
0 0 isb
0 0 tlbi alle2 0
0 0 settled",
    )
}

/// Two PEs that say, or do not, that they have their tables in common (CnP).
pub(crate) fn common(name: &'static str, features: &str) -> World {
    let other = zeros(0x4000, &[0x4000, 0x4008]) + "word 4000 0\nword 4008 2003\n";
    World::new(
        name,
        &(features.to_owned() + &two_leaves() + &other + &on(0, 0x1001) + &on(1, 0x4000)),
        "0 0 msr ttbr0_el2 1000
0 0 msr ttbr0_el2 1001
1 0 msr ttbr0_el2 4000
1 0 msr ttbr0_el2 4001
0 0 isb
1 0 isb",
    )
}

/// Between two times with M = 1: what must be complete before, what is left alone meanwhile, and where the code stands.
pub(crate) fn window() -> World {
    World::new(
        "window",
        &(two_leaves() + &identity() + &on(0, 0x1000) + "0 2 6000 fetch 1\n"),
        "0 6000 msr sctlr_el2 30cd183c
0 6000 msr sctlr_el2 30cd183d
0 6000 msr sctlr_el2 30cd1838
0 200000 msr sctlr_el2 30cd183c
0 200000 msr sctlr_el2 30cd183d
0 0 store 8 201000 81000000 7
0 0 isb
0 0 dsb ish
0 0 dsb nsh
0 0 tlbi alle2 0
0 6004 fetch 1
0 200000 fetch 1
0 0 settled
end exit",
    )
}

/// A PE with its MMU off that loads, stores, and calls the firmware, beside one that cleans, on cores where DC CVAC may not.
pub(crate) fn clean() -> World {
    let tables = two_leaves() + &zeros(0x4000, &[]);
    World::new(
        "clean",
        &("feature all clean-invalidates\n".to_owned() + &tables + &on(0, 0x1000) + &off(1, 0x4000) + &cleared(1)),
        "0 0 store 8 201000 81000000 7
0 0 dc cvac 201000
0 0 dc civac 201000
0 0 dsb sy
1 0 load 8 81000000 81000000 7
1 0 store 8 81000048 81000048 7
1 0 dsb ish
1 0 dsb sy
1 0 smc 0 84000000 0 0 0
1 0 dc zva 81000000",
    )
}

/// A broadcast pays what control writes owe, but not what reset does.
pub(crate) fn first() -> World {
    World::new(
        "first",
        &(two_leaves() + &identity() + &on(0, 0x1000) + &off(1, 0x1000)),
        "0 0 tlbi alle2is 0
0 0 dsb ish
1 0 tlbi alle2 0
1 0 dsb nsh
1 0 isb
1 6000 msr sctlr_el2 30cd183d
1 200000 fetch 1
1 0 settled",
    )
}
