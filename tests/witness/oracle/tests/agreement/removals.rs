//! Each rule taken from the obligations, and each permission from the adversary: the two must then differ somewhere.

use breakwater_oracle::adversary::{Adversary, Permission};
use breakwater_oracle::obligations::{Obligations, Rule};

use crate::explore::{Pair, explore_until};
use crate::random::draw;
use crate::world::World;
use crate::{worlds, worlds_of};

/// Events of the longest histories that are tried in every world.
const DEEPEST: usize = 5;

/// The shortest difference in any world, if there is one.
fn difference(obligations: &Obligations, adversary: &Adversary) -> Option<String> {
    let pair = |world: &World| Pair::new(world, obligations.clone(), adversary.clone());
    let worlds = worlds();
    let explored = |depth| {
        worlds.iter().find_map(move |world| {
            let explored = explore_until(world, pair(world), depth, |differences| !differences.is_empty());
            explored.differences.into_values().next()
        })
    };
    (1..=DEEPEST).find_map(explored).or_else(|| worlds.iter().find_map(|world| draw(world, &pair(world)).difference))
}

fn report(what: &str, found: Option<&String>, survivors: &mut Vec<String>) {
    match found {
        Some(trace) => {
            let events = trace.lines().filter(|line| !line.starts_with("word") && !line.contains(" found "));
            println!("without {what}:\n{}\n", events.collect::<Vec<_>>().join("\n"));
        }
        None => survivors.push(what.to_owned()),
    }
}

#[test]
fn bad_obligations_without_any_one_rule() {
    let mut survivors = Vec::new();
    for &rule in Rule::ALL {
        let found = difference(&Obligations::without(rule), &Adversary::new());
        report(&format!("{rule:?}"), found.as_ref(), &mut survivors);
    }
    assert_eq!(survivors, Vec::<String>::new());
}

/// Permissions that others cover, so that a verdict alone does not show that they are gone: what covers them, and why.
///
/// A cache by physical address forgets everything at *any* completed TLBI of the regime (RTJQVP), and every rule that it could break ends
/// in one. So it never is the only cache that holds something stale; but it alone carries on where a TLB is taken away.
const COVERED: [(Permission, Permission); 1] = [(Permission::CacheByPhysicalAddress, Permission::CacheLeaf)];

#[test]
fn bad_adversary_without_any_one_permission() {
    let mut survivors = Vec::new();
    let covered = |permission| COVERED.iter().any(|pair| pair.0 == permission);
    for permission in Permission::ALL.into_iter().filter(|&permission| !covered(permission)) {
        let found = difference(&Obligations::new(), &Adversary::without(permission));
        report(&format!("{permission:?}"), found.as_ref(), &mut survivors);
    }
    assert_eq!(survivors, Vec::<String>::new());
}

#[test]
fn bad_adversary_without_a_covered_permission_and_what_covers_it() {
    let world = worlds_of::small();
    for (permission, cover) in COVERED {
        let found = |adversary: Adversary| {
            let pair = Pair::new(&world, Obligations::new(), adversary);
            explore_until(&world, pair, 4, |differences| !differences.is_empty()).differences
        };
        assert!(found(Adversary::without(cover)).is_empty(), "{permission:?} carries on where {cover:?} is gone");
        assert!(!found(Adversary::without(cover).and_without(permission)).is_empty(), "{permission:?}");
    }
}
