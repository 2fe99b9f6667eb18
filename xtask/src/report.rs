//! `cargo xtask report`: what an image said, read from a dump of its memory.

use anyhow::{Context, Result, bail};
use breakwater::log::{self, Kept};
use std::path::{Path, PathBuf};

/// Shown by `--help`.
pub(crate) const HOW_TO_DUMP: &str = "A dump is memory as it is, or an ELF core of it. QEMU's monitor: \
    `pmemsave ADDRESS BYTES FILE` or `dump-guest-memory FILE`. gdb with the image's .elf: \
    `dump binary memory FILE &breakwater_log &breakwater_log_end_exclusive`.";

/// `cargo xtask report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The dump
    #[arg(long, value_name = "FILE")]
    from_memory: PathBuf,
    /// Of several logs, the one at this offset of the file
    #[arg(long, value_name = "OFFSET", value_parser = crate::machine::address)]
    at: Option<u64>,
}

/// Prints what the image said.
///
/// # Errors
/// The dump cannot be read, or holds no log, several, or a torn one.
pub(crate) fn command(args: &Args) -> Result<()> {
    let said = read(&args.from_memory, args.at)?;
    if said.lost > 0 {
        anstream::eprintln!("the log ran over: its oldest {} bytes are lost", said.lost);
    }
    print!("{}", said.text);
    Ok(())
}

/// What an image said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) text: String,
    /// Bytes that were said before and are lost.
    pub(crate) lost: u64,
}

/// Reads the log in a file.
///
/// # Errors
/// As [`command`].
pub(crate) fn read(file: &Path, at: Option<u64>) -> Result<Said> {
    let dump = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    the_log(&dump, at).with_context(|| file.display().to_string())
}

/// The one log in `dump`. Copies of the image that never ran have empty ones.
fn the_log(dump: &[u8], at: Option<u64>) -> Result<Said> {
    let is_wanted = |offset: usize| at.is_none_or(|at| at == offset as u64);
    let (mut spoken, mut empty, mut torn) = (Vec::new(), 0, None);
    for found in log::find(dump) {
        match found {
            Ok(log) if !is_wanted(log.offset) => {}
            Ok(log) if log.is_empty() => empty += 1,
            Ok(log) => spoken.push(log),
            Err(error) => torn = torn.or(Some(error)),
        }
    }
    match (&spoken[..], torn) {
        ([log], _) => Ok(said(log)),
        ([], Some(torn)) => Err(torn.into()),
        ([], None) if empty > 0 => bail!("the image has said nothing"),
        ([], None) => bail!("there is no log here: is it the memory that the image ran in?"),
        (several, _) => {
            let offsets: Vec<String> = several.iter().map(|log| format!("{:#x}", log.offset)).collect();
            bail!("there are {} logs: choose one with --at {}", offsets.len(), offsets.join(", or "))
        }
    }
}

fn said(log: &Kept<'_>) -> Said {
    let bytes: Vec<u8> = log.bytes().collect();
    // The oldest line of a log that ran over is half of one.
    let from = if log.lost == 0 { 0 } else { bytes.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1) };
    let text = String::from_utf8_lossy(&bytes[from..]);
    let harmless = |c: char| if c == '\n' || c == '\t' || !c.is_control() { c } else { '\u{fffd}' };
    Said { text: text.chars().map(harmless).collect(), lost: log.lost + from as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(capacity: u64, said: u64, text: &[u8]) -> Vec<u8> {
        let header = [&log::MAGIC[..], &capacity.to_le_bytes(), &said.to_le_bytes(), &[0; 32]].concat();
        [header, text.to_vec(), vec![0; capacity as usize - text.len()]].concat()
    }

    fn refused(dump: &[u8]) -> String {
        the_log(dump, None).expect_err("no log").to_string()
    }

    #[test]
    fn good_what_was_said_is_read_beside_copies_that_never_ran() {
        let dump = [vec![7; 4096], memory(64, 0, &[]), memory(64, 9, b"hello\n\x1b[\xff")].concat();
        assert_eq!(the_log(&dump, None).ok(), Some(Said { text: "hello\n\u{fffd}[\u{fffd}".into(), lost: 0 }));
    }

    #[test]
    fn good_lines_that_are_cut_are_counted_as_lost() {
        let dump = memory(8, 19, b"89\n01\n67");
        assert_eq!(the_log(&dump, None).ok(), Some(Said { text: "6789\n".into(), lost: 14 }));
    }

    #[test]
    fn bad_two_logs_are_not_chosen_between() {
        let dump = [memory(8, 1, b"a"), memory(8, 1, b"b")].concat();
        assert_eq!(refused(&dump), "there are 2 logs: choose one with --at 0x0, or 0x48");
        assert_eq!(the_log(&dump, Some(0x48)).ok().map(|said| said.text), Some("b".into()));
        assert!(the_log(&dump, Some(8)).is_err());
    }

    #[test]
    fn bad_no_log_and_half_of_one_are_said() {
        assert!(refused(&[0; 100]).starts_with("there is no log here"));
        assert!(refused(&memory(8, 0, &[])).starts_with("the image has said nothing"));
        assert!(refused(&memory(8, 8, b"12345678")[..70]).contains("is torn"));
    }
}
