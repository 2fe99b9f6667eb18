//! How many events a second one core judges: `cargo run --release -p breakwater-oracle --example speed [TRACE]`.
//!
//! Without a trace it makes one as a manager under load would: two PEs, 1024 pages, each moved again and again by break, invalidate, make,
//! with rights changed in place and fills between.

use std::env;
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;
use std::time::Instant;

use breakwater_oracle::adversary::Adversary;
use breakwater_oracle::obligations::Obligations;
use breakwater_trace::text::parse;
use breakwater_trace::{Reader, Record};

/// Level 3 tables, each of 512 pages.
const TABLES: u64 = 2;
/// Times that each page is changed.
const ROUNDS: u64 = 60;
/// The adversary explores what caches may hold: it gets fewer.
const FOR_THE_ADVERSARY: usize = 200_000;

const ROOT: u64 = 0x4020_1000;
const PAGES: u64 = 512 * TABLES;

/// The level 3 descriptor slot of page `index`.
const fn slot(index: u64) -> u64 {
    ROOT + 0x2000 + 8 * index
}

/// Two PEs with their MMUs on; the code's block, the tables' block, and [`PAGES`] pages from 0x8000_0000 on.
fn prelude(lines: &mut Vec<String>) {
    for index in 0..512 {
        let level_1 = match index {
            1 => (ROOT + 0x1000) | 3,
            _ => 0,
        };
        let level_2 = match index {
            0 => 0x4000_0781,
            1 => 0x40_0000_4020_0701,
            _ if (2..2 + TABLES).contains(&index) => (ROOT + 0x2000 + 0x1000 * (index - 2)) | 3,
            _ => 0,
        };
        lines.push(format!("word {:x} {level_1:x}", ROOT + 8 * index));
        lines.push(format!("word {:x} {level_2:x}", ROOT + 0x1000 + 8 * index));
    }
    lines.extend((0..PAGES).map(|index| format!("word {:x} 0", slot(index))));
    for cpu in 0..2 {
        lines.push(format!("{cpu} 1 40000000 start 2"));
        for register in ["mair_el2 ff", "tcr_el2 80803519", "ttbr0_el2 40201000", "sctlr_el2 30cd183d"] {
            lines.push(format!("{cpu} 1 40000000 found {register}"));
        }
    }
}

/// What is done to page `index` in a round: nine to eleven events.
fn change(lines: &mut Vec<String>, round: u64, index: u64) {
    let va = 0x4040_0000 + 0x1000 * index;
    let slot = slot(index);
    let page = |frame: u64, rights: u64| 0x40_0000_0000_0703 | rights | (0x5000_0000 + 0x1000 * frame);
    let mut push = |cpu: u64, event: String| lines.push(format!("{cpu} {} 40000100 {event}", lines.len()));
    let mut store = |value: u64| push(0, format!("store 8 {slot:x} {slot:x} {value:x}"));
    let (old, new) = ((index + round) % 4096, (index + round + 1) % 4096);
    let invalidate =
        ["dsb ishst".to_owned(), format!("tlbi vale2is {:x}", va >> 12), "dsb ish".to_owned(), "isb".to_owned()];
    if round % 3 == 1 {
        store(page(old, 0x80));
        invalidate.into_iter().for_each(|event| push(0, event));
    } else {
        if round > 0 {
            store(0);
            invalidate.into_iter().for_each(|event| push(0, event));
        }
        let mut store = |value: u64| push(0, format!("store 8 {slot:x} {slot:x} {value:x}"));
        store(page(new, 0));
        ["dsb ish", "isb", "settled"].into_iter().for_each(|event| push(0, event.to_owned()));
    }
    for cpu in 0..2 {
        push(cpu, "isb".to_owned());
        push(cpu, format!("load 8 {va:x} {va:x} 0"));
    }
}

fn made() -> Vec<Record> {
    let mut lines = Vec::new();
    prelude(&mut lines);
    for round in 0..ROUNDS {
        (0..PAGES).for_each(|index| change(&mut lines, round, index));
    }
    lines.push("end exit".to_owned());
    lines.iter().filter_map(|line| parse(1, line).expect("the lines are well-formed")).collect()
}

fn report(what: &str, events: usize, since: Instant, found: usize) {
    let seconds = since.elapsed().as_secs_f64();
    let millions = events as f64 / seconds / 1e6;
    println!("{what}: {events} events in {seconds:.2} s, {millions:.2} million a second; {found} found");
}

fn main() -> ExitCode {
    let since = Instant::now();
    let records: Vec<Record> = match env::args().nth(1) {
        None => made(),
        Some(path) => {
            let read = File::open(&path).map_err(|error| error.to_string()).and_then(|file| {
                let all: Result<Vec<_>, _> = Reader::new(BufReader::new(file)).collect();
                all.map_err(|error| error.to_string())
            });
            match read {
                Ok(records) => records,
                Err(error) => {
                    eprintln!("{path}: {error}");
                    return ExitCode::from(2);
                }
            }
        }
    };
    report("read", records.len(), since, 0);
    let (mut obligations, since) = (Obligations::new(), Instant::now());
    for (index, record) in records.iter().enumerate() {
        obligations.step(index as u64 + 2, record);
    }
    report("obligations", records.len(), since, obligations.violations().len());
    let (mut adversary, since) = (Adversary::new(), Instant::now());
    let some = &records[..records.len().min(FOR_THE_ADVERSARY)];
    for (index, record) in some.iter().enumerate() {
        adversary.step(index as u64 + 2, record);
    }
    report("adversary", some.len(), since, adversary.harms().len());
    ExitCode::SUCCESS
}
