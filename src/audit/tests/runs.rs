//! Contiguous runs: what is one, and what only says so.

use super::*;

/// Marks `count` slots from `first` on as contiguous.
fn mark(world: &mut World, table: usize, first: usize, count: usize) {
    for index in first..first + count {
        world.set(table, index, world.get(table, index) | 1 << 52);
    }
}

#[test]
fn good_contiguous_run() {
    let mut world = World::good();
    mark(&mut world, world::DIRECTMAP_L2, 32, 32);
    let audit = world.audit();
    assert_eq!(audit.first, None);
    assert_eq!(audit.leaves, World::good().audit().leaves, "each leaf of a run is one");
}

#[test]
fn bad_contiguous_run_with_a_leaf_of_another_kind() {
    let torn = |change: &dyn Fn(u64) -> u64, at: usize| {
        let mut world = World::good();
        mark(&mut world, world::DIRECTMAP_L2, 16, 16);
        world.set(world::DIRECTMAP_L2, at, change(world.get(world::DIRECTMAP_L2, at)));
        world.lines().into_iter().find(|line| line.contains("of a contiguous run"))
    };
    for at in 16..32 {
        assert!(torn(&|raw| raw, at).is_none());
        let gone = torn(&|_| 0, at).expect("one is missing");
        assert!(gone.ends_with(&std::format!("its slot {at} holds 0x0000000000000000")), "{gone}");
        assert!(torn(&|raw| raw & !(1 << 52), at).is_some(), "one is not marked");
        assert!(torn(&|raw| raw ^ 1 << 7, at).is_some(), "one has other rights");
        assert!(torn(&|raw| raw + (32 << 21), at).is_some(), "one maps elsewhere");
    }
}

#[test]
fn bad_contiguous_run_that_is_not_aligned() {
    // Sixteen blocks side by side whose first output address is a multiple of 2 MiB alone.
    let mut world = World::good();
    for index in 16..32 {
        world.set(world::DIRECTMAP_L2, index, world.get(world::DIRECTMAP_L2, index) + (1 << 21));
    }
    mark(&mut world, world::DIRECTMAP_L2, 16, 16);
    assert!(world.lines().iter().any(|line| line.contains("level 2 slot 16") && line.contains("its slot 16 holds")));
    let mut world = World::good();
    mark(&mut world, world::IMAGE_L3, 1, 16);
    assert!(world.audit().mismatches > 0, "sixteen side by side, yet no run");
}
