//! The worlds in which PEs use different roots, or do not see memory alike: what one PE or one root settles says nothing of another.
//!
//! Beside the addresses of all worlds: a second root at 4000, and a table of level 3 of its own at 5000.

use crate::worlds_of::{World, cleared, identity, off, on, two_leaves, zeros};

/// The second root, with a table of its own that maps 200000 as the first root does.
fn second_root() -> String {
    zeros(0x4000, &[0x4000, 0x4008])
        + "word 4000 0\nword 4008 5003\n"
        + &zeros(0x5000, &[0x5000])
        + "word 5000 800007c3\n"
}

/// PEs on different roots, whose tables are their own: what is mapped in one root settles nothing in the other.
pub(crate) fn two_roots() -> World {
    World::new(
        "two roots",
        &(two_leaves() + &second_root() + &on(0, 0x1000) + &on(1, 0x4000)),
        "0 0 store 8 ffff000000002000 2000 0
0 0 store 8 ffff000000002000 2000 800007c3
0 0 store 8 ffff000000002000 2000 820007c3
0 0 store 8 ffff000000005000 5000 0
0 0 store 8 ffff000000005000 5000 800007c3
0 0 store 8 ffff000000005000 5000 820007c3
0 0 dsb ish
0 0 dsb nsh
0 0 isb
0 0 tlbi vae2is 200
0 0 tlbi alle2 0
0 0 msr ttbr0_el2 4000
0 0 msr ttbr0_el2 1000
0 0 load 8 200000 80000000 0
0 0 settled
1 0 tlbi vae2 200
1 0 dsb nsh
1 0 isb
1 200000 fetch 1
1 0 settled
end exit",
    )
}

/// PEs on different roots that lead to one table.
pub(crate) fn shared_table() -> World {
    let roots = zeros(0x4000, &[0x4000, 0x4008]) + "word 4000 0\nword 4008 2003\n";
    World::new(
        "shared table",
        &(two_leaves() + &roots + &on(0, 0x1000) + &on(1, 0x4000)),
        "0 0 store 8 ffff000000001008 1008 0
0 0 store 8 ffff000000001008 1008 2003
0 0 store 8 ffff000000004008 4008 0
0 0 store 8 ffff000000004008 4008 2003
0 0 store 8 ffff000000002000 2000 0
0 0 store 8 ffff000000002000 2000 800007c3
0 0 store 8 ffff000000002000 2000 820007c3
0 0 dsb ish
0 0 isb
0 0 tlbi vae2is 200
0 0 tlbi vale2is 200
0 0 tlbi vae2is 201
0 0 tlbi vae2 200
0 0 load 8 200000 80000000 0
0 0 settled
0 0 give 2000 4096
1 0 isb
1 200000 fetch 1
1 0 settled",
    )
}

/// A PE with its MMU off that stores to the tables of another, the lines being invalidated already.
pub(crate) fn stored_past_the_caches() -> World {
    let start = "0 9 0 dc ivac 2000\n0 9 0 dsb sy\n";
    World::new(
        "table in use, stored past the caches",
        &(two_leaves() + &identity() + &off(0, 0x1000) + &cleared(0) + start + &on(1, 0x1000)),
        "0 0 store 8 2000 2000 0
0 0 store 8 2000 2000 820007c3
0 0 store 8 2010 2010 830007c3
0 0 store 8 1010 1010 3003
0 0 dc ivac 2000
0 0 dc cvac 2000
0 0 dmb sy
0 0 dsb sy
0 0 dsb ishst
0 0 isb
0 0 tlbi vae2is 200
0 6000 msr sctlr_el2 30cd183d
0 0 settled
1 0 store 8 ffff000000002010 2010 830007c3
1 0 dsb ish
1 0 isb
1 0 load 8 202000 83000000 0
1 200000 fetch 1
1 0 settled",
    )
}

/// Walks that go past the caches (TCR_EL2 says Non-cacheable) through tables that are stored into them.
pub(crate) fn walked_past_the_caches() -> World {
    let past = |cpu, root| on(cpu, root).replace("80853522", "80853022");
    let aliases = "word 2018 40000000002743\nword 2020 40000000003743\n";
    World::new(
        "table in use, walked past the caches",
        &(two_leaves() + aliases + &past(0, 0x1000) + &on(1, 0x1000)),
        "0 0 store 8 ffff000000002000 2000 0
0 0 store 8 ffff000000002000 2000 820007c3
0 0 store 8 ffff000000002010 2010 830007c3
0 0 store 8 ffff000000003000 3000 840007c3
0 0 store 8 ffff000000001010 1010 3003
0 0 dc cvac 203000
1 0 dc cvac 204000
0 0 dsb sy
1 0 dsb sy
0 0 isb
0 0 tlbi vae2is 200
0 0 load 8 202000 83000000 0
0 0 settled
1 0 isb
1 0 settled",
    )
}

/// TLBIs that reach the Outer Shareable domain, beside nearer ones.
pub(crate) fn outer(name: &'static str, features: &str) -> World {
    World::new(
        name,
        &(features.to_owned() + &two_leaves() + &on(0, 0x1000) + &on(1, 0x1000)),
        "0 0 store 8 ffff000000002000 2000 0
0 0 store 8 ffff000000002000 2000 820007c3
0 0 dsb ishst
0 0 dsb nsh
0 0 dsb ish
0 0 dsb osh
0 0 isb
0 0 tlbi vae2os 200
0 0 tlbi vae2is 200
0 0 tlbi vae2 200
0 0 tlbi alle2os 0
0 0 settled
1 0 isb
1 0 settled
end exit",
    )
}

/// Read-only leaves, and what stands in the frames that they lead to.
pub(crate) fn contents() -> World {
    let tables = zeros(0x1000, &[0x1008]) + &zeros(0x2000, &[0x2000, 0x2008]);
    let leaves = "word 1008 2003\nword 2000 400000810007c3\nword 2008 40000084000743\n";
    let frames = zeros(0x8100_0000, &[]) + &zeros(0x8400_0000, &[]);
    World::new(
        "contents",
        &(tables + leaves + &frames + &on(0, 0x1000)),
        "0 0 store 8 ffff000000002000 2000 400000810007c3
0 0 store 8 ffff000000002000 2000 400000840007c3
0 0 store 8 ffff000000002000 2000 40000084000743
0 0 store 8 201000 84000000 1
0 0 store 8 201000 84000000 0
0 0 store 4 201ffc 84000ffc 0
0 0 dsb ish
0 0 isb
0 0 tlbi vae2is 200
0 0 settled",
    )
}

/// Much together, too much for a search: two roots that share one table and have one each, and two PEs that change roots.
pub(crate) fn changed_at_random() -> World {
    at_random(
        "roots changed at random",
        &[
            "0 msr ttbr0_el2 1000",
            "0 msr ttbr0_el2 4000",
            "0 tlbi vae2os 200",
            "0 dsb osh",
            "0 take 3000 4096",
            "0 give 5000 4096",
        ],
    )
}

/// The same with two PEs that turn their MMUs off, and store past the caches meanwhile.
pub(crate) fn off_at_random() -> World {
    at_random(
        "MMUs off at random",
        &[
            "6000 msr sctlr_el2 30cd183c",
            "6000 msr sctlr_el2 30cd183d",
            "0 dc ivac 2000",
            "0 dc ivac 5000",
            "0 dc ivac 3000",
            "0 dmb sy",
        ],
    )
}

fn at_random(name: &'static str, more: &[&str]) -> World {
    let roots = "word 1000 7003\nword 4000 7003\nword 7030 67c3\nword 1008 2003\nword 1010 3003\nword 4008 5003\nword 4010 3003\n";
    let leaves = "word 2000 800007c3\nword 2008 40000081000743\nword 3000 40000082000743\nword 5000 800007c3\nword 5008 40000081000743\n";
    let tables = [
        zeros(0x1000, &[0x1000, 0x1008, 0x1010]),
        zeros(0x2000, &[0x2000, 0x2008]),
        zeros(0x3000, &[0x3000]),
        zeros(0x4000, &[0x4000, 0x4008, 0x4010]),
        zeros(0x5000, &[0x5000, 0x5008]),
        zeros(0x7000, &[0x7030]),
    ];
    let mut events = String::new();
    for cpu in 0..2 {
        for (slot, words) in [
            (0x1008, ["0", "2003", "5003"]),
            (0x1010, ["0", "3003", "40000082000741"]),
            (0x4008, ["0", "5003", "2003"]),
            (0x2000, ["0", "800007c3", "830007c3"]),
            (0x5000, ["0", "800007c3", "820007c3"]),
            (0x5008, ["0", "40000081000743", "40000083000743"]),
            (0x3000, ["0", "40000082000743", "400000820007c3"]),
        ] {
            for word in words {
                events += &format!("{cpu} 0 store 8 {:x} {slot:x} {word}\n", 0xffff_0000_0000_0000_u64 | slot);
            }
        }
        for event in [
            "0 dsb ish",
            "0 dsb ish",
            "0 dsb ish",
            "0 dsb nsh",
            "0 isb",
            "0 isb",
            "0 isb",
            "0 tlbi alle2 0",
            "0 tlbi alle2is 0",
            "0 tlbi vae2is 200",
            "0 tlbi vae2is 201",
            "0 tlbi vale2is 400",
            "0 tlbi vae2is 400",
            "0 tlbi vae2 200",
            "0 load 8 201000 81000000 0",
            "0 load 8 400000 82000000 0",
            "200000 fetch 1",
            "0 settled",
        ]
        .iter()
        .chain(more)
        {
            events += &format!("{cpu} {event}\n");
        }
    }
    World::new(name, &(tables.concat() + roots + leaves + &on(0, 0x1000) + &on(1, 0x4000)), events.trim_end())
}
