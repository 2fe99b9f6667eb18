//! `breakwater-image`: checks a linked image and flattens it.

#![forbid(unsafe_code)]

use breakwater_image::{Elf, Error, replace};
use clap::{Arg, ArgAction, Command, value_parser};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let matches = command().get_matches();
    let elf: &PathBuf = matches.get_one("ELF").expect("clap requires it");
    let output = match matches.get_one::<PathBuf>("output") {
        Some(output) => output.clone(),
        None => elf.with_extension("img"),
    };
    let same = |other: &Path| matches!((elf.canonicalize(), other.canonicalize()), (Ok(one), Ok(two)) if one == two);
    let check_only = matches.get_flag("check-only");
    if !check_only && same(&output) {
        return failed(&format!("{}: the flat image would replace the ELF file itself: use --output", elf.display()));
    }
    match run(elf, (!check_only).then_some(output.as_path())) {
        Ok(said) => {
            // A reader that has gone away is no failure of the image.
            let _ = writeln!(stdout(), "{said}");
            ExitCode::SUCCESS
        }
        Err(error @ Error::File { .. }) => failed(&error.to_string()),
        Err(error) => failed(&format!("{}: {error}", elf.display())),
    }
}

fn command() -> Command {
    let path = || value_parser!(PathBuf);
    Command::new("breakwater-image")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Checks an image that is linked on Breakwater, and flattens it into the file that boot loaders take")
        .after_help(
            "Refused (exit status 1, and no file is written): absolute addresses in what runs before the MMU is on, \
             references from what stays to what boot frees, and a file from which neither can be told.",
        )
        .arg(Arg::new("ELF").required(true).value_parser(path()).help("The linked image, with symbols and relocations"))
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("FILE")
                .value_parser(path())
                .conflicts_with("check-only")
                .help("Where the flat image goes [default: ELF with the extension img]"),
        )
        .arg(Arg::new("check-only").long("check-only").action(ArgAction::SetTrue).help("Check and write nothing"))
}

/// Checks, and flattens into `output` where there is one.
fn run(elf: &Path, output: Option<&Path>) -> Result<String, Error> {
    let image = Elf::read(elf)?;
    image.check()?;
    let flat = image.flatten()?;
    let Some(output) = output else { return Ok(format!("{}: nothing found", elf.display())) };
    replace(output, &flat)?;
    Ok(format!("{}: {} bytes", output.display(), flat.len()))
}

fn failed(why: &str) -> ExitCode {
    eprintln!("breakwater-image: {why}");
    ExitCode::FAILURE
}
