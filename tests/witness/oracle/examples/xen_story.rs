//! The Xen story's tables: `cargo run --release -p breakwater-oracle --example xen_story [-- --details]`.
//!
//! With `--trace 411|fixed OFFSET` it writes that boot as a trace instead, for any judge of the format.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use breakwater_oracle::xen::{self, Rights, Story};

/// Boots of the random policy at each page offset.
const SEEDS: u64 = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let told = match words.as_slice() {
        [] => tables(false),
        ["--details"] => tables(true),
        ["--trace", story, offset] => trace(story, offset),
        _ => Err(io::Error::other("usage: xen_story [--details | --trace 411|fixed OFFSET]")),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that closed the pipe has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xen_story: {error}");
            ExitCode::from(2)
        }
    }
}

fn tables(details: bool) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let stories = [("(a) Xen 4.11", Story::Xen411), ("(b) after 00c96d77422a", Story::Xen00c96d77422a)];
    for (title, story) in stories {
        let records = |offset| xen::scenario_with(story, offset, Rights::AsWritten);
        let table = xen::table(title, SEEDS, records);
        if details {
            writeln!(out, "{}", table.details())?;
        } else {
            write!(out, "{table}")?;
        }
    }
    out.flush()
}

fn trace(story: &str, offset: &str) -> io::Result<()> {
    let story = match story {
        "411" => Story::Xen411,
        "fixed" => Story::Xen00c96d77422a,
        _ => return Err(io::Error::other("a story is 411 or fixed")),
    };
    let offset = offset.parse().ok().filter(|offset| *offset < xen::PAGES);
    let Some(offset) = offset else { return Err(io::Error::other("a page offset is 0 to 511")) };
    let mut out = BufWriter::new(io::stdout().lock());
    writeln!(out, "{}", breakwater_trace::HEADER)?;
    xen::scenario_with(story, offset, Rights::AsWritten).iter().try_for_each(|record| writeln!(out, "{record}"))?;
    out.flush()
}
