//! The two ways of judging confirm each other: what the obligations call a violation, the adversary turns into harm, and nothing else.
//!
//! Why it exists: a judge that is wrong is worse than none. The two engines have different authors and share no rule; wherever they differ, one
//! of them is wrong, and the architecture says which.
//!
//! Each rule taken from the obligations, and each permission from the adversary: the two must then differ somewhere.

#[path = "agreement/explore.rs"]
mod explore;
#[path = "agreement/random.rs"]
mod random;
#[path = "agreement/registers.rs"]
mod registers;
#[path = "agreement/roots.rs"]
mod roots;
#[path = "agreement/worlds.rs"]
mod worlds_of;

use std::time::Instant;

use breakwater_oracle::adversary::{Adversary, Permission};
use breakwater_oracle::obligations::{Obligations, Rule};

use explore::{Explored, Pair, explore, explore_until};
use random::draw;
use worlds_of::World;

/// Events of the longest histories in the small world.
const DEPTH_OF_SMALL: usize = 9;
/// ... and in the others.
const DEPTH_OF_OTHERS: usize = 5;

/// Every world.
pub(crate) fn worlds() -> Vec<World> {
    vec![
        worlds_of::small(),
        worlds_of::featured("bbm level 2", "feature all bbm=2\nfeature all ets2\n"),
        worlds_of::featured("bbm always", "feature all bbm-always\nfeature all ttl\n"),
        worlds_of::featured("bbm for xn", "feature all bbm-for-xn\nfeature all tlbirange\n"),
        worlds_of::featured("repeated", "feature 1 repeat-tlbi\nfeature all ntlbpa\n"),
        registers::enable(),
        registers::switch(),
        worlds_of::replaced(),
        registers::reset(),
        registers::window(),
        registers::clean(),
        registers::first(),
        registers::host(),
        registers::common("common", ""),
        registers::endianness(),
        registers::reserved(),
        worlds_of::fetched(),
        worlds_of::levels(),
        registers::enable_beside_another(),
        registers::unwritten(),
        registers::stored_past(),
        registers::controls(),
        registers::types(),
        worlds_of::contiguous("contiguous", ""),
        worlds_of::contiguous("contiguous, level 2", "feature all bbm=2\n"),
        worlds_of::frames("frames", ""),
        worlds_of::frames("frames, no caches by address", "feature all ntlbpa\n"),
        registers::lines("lines", ""),
        registers::lines("lines, 819472", "feature all clean-invalidates\n"),
        registers::swept("swept", ""),
        registers::swept("swept, beside another", &worlds_of::on(0, 0x1000)),
        worlds_of::mappings(),
        roots::two_roots(),
        roots::shared_table(),
        roots::stored_past_the_caches(),
        roots::walked_past_the_caches(),
        roots::outer("outer", ""),
        roots::outer("outer, repeated", "feature 1 repeat-tlbi\n"),
        roots::contents(),
        worlds_of::ordered(),
    ]
}

fn whole(world: &World) -> Pair {
    Pair::new(world, Obligations::new(), Adversary::new())
}

fn show(world: &World, explored: &Explored, since: Instant) {
    let per_depth: Vec<String> = explored.states.iter().map(ToString::to_string).collect();
    println!("{}: {} events", world.name, world.alphabet.len());
    println!("  states by length of the shortest history: {}", per_depth.join(" "));
    println!(
        "  {} states, {} histories judged bad, {:.1} s",
        explored.total(),
        explored.judged_bad,
        since.elapsed().as_secs_f64()
    );
    println!("  rules tripped: {:?}", explored.rules);
    println!("  harms found: {:?}", explored.harms);
}

#[test]
fn good_the_two_agree_on_every_history_of_the_small_world() {
    let (world, since) = (worlds_of::small(), Instant::now());
    assert!(world.alphabet.len() >= 24);
    let explored = explore(&world, whole(&world), DEPTH_OF_SMALL);
    show(&world, &explored, since);
    assert!(explored.differences.is_empty(), "{}", explored.shown());
    assert_eq!(
        explored.rules.into_keys().collect::<Vec<_>>(),
        EXPRESSIBLE,
        "each rule that the small world can express is tripped"
    );
}

/// The rules that the small world can express.
const EXPRESSIBLE: [Rule; 11] = [
    Rule::OutputChange,
    Rule::SizeChange,
    Rule::StaleLeaf,
    Rule::StaleTable,
    Rule::NotVisible,
    Rule::CompletionSync,
    Rule::FillSync,
    Rule::FetchSync,
    Rule::BrokenUse,
    Rule::FrameReuse,
    Rule::FrameInUse,
];

/// Break, DSB, broadcast TLBI, DSB, make, DSB, ISB, and the claim that nothing is owed: letters of the small world's alphabet.
const FULL_BREAK_BEFORE_MAKE: [&str; 8] = [
    "0 9 0 store 8 ffff000000002000 2000 0",
    "0 9 0 dsb ishst",
    "0 9 0 tlbi vae2is 200",
    "0 9 0 dsb ish",
    "0 9 0 store 8 ffff000000002000 2000 820007c3",
    "0 9 0 dsb ish",
    "0 9 0 isb",
    "0 9 0 settled",
];

#[test]
fn good_the_small_world_holds_an_accepted_break_before_make() {
    let world = worlds_of::small();
    let mut pair = whole(&world);
    assert!(FULL_BREAK_BEFORE_MAKE.len() <= DEPTH_OF_SMALL);
    for (line, event) in (100..).zip(FULL_BREAK_BEFORE_MAKE) {
        let letter = world.alphabet.iter().position(|record| record.to_string() == event).expect(event);
        pair.step(line, &world, letter);
    }
    assert_eq!(pair.verdicts(), (false, false), "{}", pair.said());
    let history = pair.adversary.holds(1, 0x20_0000);
    assert!(history.iter().all(|held| held.output == 0x8200_0000), "the old translation is gone: {history:?}");
}

#[test]
fn good_the_two_agree_on_every_short_history_of_the_other_worlds() {
    let mut differences = String::new();
    for world in &worlds()[1..] {
        let since = Instant::now();
        let explored = explore(world, whole(world), DEPTH_OF_OTHERS);
        show(world, &explored, since);
        differences += &explored.shown();
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn good_the_two_agree_on_histories_drawn_at_random() {
    let mut differences = String::new();
    for world in worlds().into_iter().chain([roots::changed_at_random(), roots::off_at_random()]) {
        let drawn = draw(&world, &whole(&world));
        println!("{}: {} steps, {} of them judged bad", world.name, drawn.steps, drawn.judged_bad);
        assert!(drawn.judged_bad > 0);
        differences += &drawn.difference.unwrap_or_default();
    }
    assert!(differences.is_empty(), "{differences}");
}

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
