//! The benchmark is honest: everyone is given the same requests, does them, and ends with the same translations. Nothing here is timed.

use breakwater_bench::arena::Arena;
use breakwater_bench::request::{self, Leaf, Step, Verb, Work};
use breakwater_bench::rounds::{self, Extent, RUNNERS, Runner};
use std::collections::BTreeMap;

/// Writable Normal memory: attribute index 7, bit 6, Inner Shareable, accessed, execute-never.
const WRITABLE: u64 = 0x0040_0000_0000_075c;
const READ_ONLY: u64 = 1 << 7;
/// Who cannot do what, and says so.
const REFUSES: (&str, &str) = ("aarch64-paging, live", "remap-16");

/// What the steps say, one leaf at a time: its address, what it maps to, and its bits.
fn asked(work: &Work) -> Vec<Extent> {
    let mut leaves = BTreeMap::new();
    for step in work.before.iter().chain(&work.timed) {
        for index in 0..step.leaves() {
            let virt = step.virt + (index << step.leaf.shift());
            match step.verb {
                Verb::Map => assert_eq!(leaves.insert(virt, new(step, index, WRITABLE)), None, "mapped twice"),
                Verb::Unmap => assert!(leaves.remove(&virt).is_some(), "was mapped"),
                Verb::Remap => assert!(leaves.insert(virt, new(step, index, WRITABLE)).is_some(), "was mapped"),
                Verb::Protect => assert!(leaves.insert(virt, new(step, index, WRITABLE | READ_ONLY)).is_some()),
            }
        }
    }
    merged(leaves)
}

fn new(step: &Step, index: u64, bits: u64) -> (u64, u64, u32) {
    (step.output + (index << step.leaf.shift()), bits, step.leaf.shift())
}

fn merged(leaves: BTreeMap<u64, (u64, u64, u32)>) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for (virt, (output, bits, shift)) in leaves {
        match extents.last_mut() {
            Some(last)
                if last.virt + last.bytes == virt
                    && last.output + last.bytes == output
                    && (last.bits, last.shift) == (bits, shift) =>
            {
                last.bytes += 1 << shift;
            }
            _ => extents.push(Extent { virt, bytes: 1 << shift, output, bits, shift }),
        }
    }
    extents
}

fn candidates() -> impl Iterator<Item = &'static Runner> {
    RUNNERS.iter().filter(|runner| runner.name != "bare stores")
}

#[test]
fn good_everyone_ends_with_the_translations_that_were_asked_for() {
    let arena = Arena::lock();
    for work in request::all() {
        let asked = asked(&work);
        for runner in candidates() {
            match runner.end(&arena, &work) {
                Ok(extents) => {
                    assert!(extents.as_ref() == Some(&asked), "{} of {}: {extents:x?}", work.name, runner.name)
                }
                Err(refused) => assert_eq!((runner.name, work.name), REFUSES, "{refused:?}"),
            }
        }
    }
}

#[test]
fn bad_a_candidate_that_does_less_is_noticed() {
    let arena = Arena::lock();
    let mut work = request::all().into_iter().find(|work| work.name == "unmap-16").unwrap();
    let asked = asked(&work);
    work.timed.pop();
    for runner in candidates() {
        assert_ne!(runner.end(&arena, &work).unwrap(), Some(asked.clone()), "{}", runner.name);
    }
}

#[test]
fn good_a_round_of_everything_has_a_figure_or_a_refusal_for_everyone() {
    let arena = Arena::lock();
    for work in request::all() {
        let measured = rounds::measure(&arena, &work, 1);
        assert_eq!(measured.rows.len(), RUNNERS.len());
        for row in &measured.rows {
            let refuses = (row.candidate, work.name) == REFUSES;
            assert_eq!(row.refused.is_some(), refuses, "{} of {}", work.name, row.candidate);
            assert_eq!(row.nanoseconds.is_some(), !refuses);
            assert!(row.nanoseconds.is_none_or(|spread| spread.least > 0.0));
        }
    }
}

/// What is compared is like with like: who invalidates does so wherever the architecture wants it, and who does not, nowhere.
#[test]
fn good_maintenance_is_where_the_names_say() {
    let arena = Arena::lock();
    for work in request::all() {
        let takes_away = work.timed.iter().any(|step| step.verb != Verb::Map);
        for runner in RUNNERS {
            let Ok(run) = runner.run(&arena, &work) else { continue };
            let done = run.maintenance;
            match runner.name {
                "aarch64-paging" | "bare stores" => {
                    assert_eq!(done, Default::default(), "{}", runner.name)
                }
                _ => {
                    let requests = work.timed.len() as u64;
                    assert!(
                        done.dsbs >= requests && done.isbs >= requests,
                        "{} of {}: {done:?}",
                        work.name,
                        runner.name
                    );
                    assert!(!takes_away || done.tlbis >= requests / 2, "{} of {}: {done:?}", work.name, runner.name);
                }
            }
        }
    }
}

#[test]
fn good_every_request_is_made_of_leaves_of_one_size() {
    for work in request::all() {
        let leaf = work.timed[0].leaf;
        assert!(work.timed.iter().all(|step| step.leaf == leaf && step.bytes.is_multiple_of(1 << leaf.shift())));
        assert!(leaf == Leaf::Page || work.before.is_empty());
        assert!(work.leaves() > 0);
    }
}
