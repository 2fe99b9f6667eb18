//! The command line's options.
//!
//! Why it exists: a hypervisor that takes `exi=psci` for `exit=psci`, or `exit=pscii` for the default, does something that nobody
//! asked for. An option matches whole or not at all; one that is known but malformed is refused; one that is unknown is the
//! caller's to name in a warning, and otherwise ignored.
//!
//! The rules: words are separated by spaces (tabs and line ends count as such); double quotes keep spaces together, and are taken off
//! when they enclose a whole word or a whole value; of an option given twice the last counts; case counts; there is no `--`
//! (it is an unknown word like any other). Bytes that are no UTF-8 are no error: they are in no known word.

#![forbid(unsafe_code)]

use core::fmt;
use core::num::NonZeroU32;

/// What the image does after the audit when no payload takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Exit {
    /// Leave through the debugger with an exit status. A board without a debugger must not be told to.
    Semihosting,
    /// Switch the machine off by PSCI.
    Psci,
    /// Wait for ever.
    #[default]
    Park,
}

/// The options, each with its default when it is not given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// `exit=semihosting|psci|park`; `park` by default.
    pub exit: Exit,
    /// `maxcpus=N`: at most N CPUs are brought up, the boot CPU included; all by default. 0 is the boot CPU alone, as
    /// Linux has it.
    pub max_cpus: Option<NonZeroU32>,
    /// `cpu-timeout=N`: a CPU that was started may take N seconds to report; 1 by default.
    pub cpu_timeout_seconds: NonZeroU32,
    /// `livepatch=on|off`: whether the livepatch slot is configured; `on` by default.
    pub livepatch: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { exit: Exit::default(), max_cpus: None, cpu_timeout_seconds: NonZeroU32::MIN, livepatch: true }
    }
}

/// A known option without a value, or with one that it does not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error<'a> {
    /// The option.
    pub option: &'static str,
    /// What was given; `None` when there was no `=`.
    pub value: Option<&'a [u8]>,
    /// What the option takes.
    pub takes: &'static str,
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, value, takes } = self;
        match value {
            Some(value) => write!(f, "command line: {option}={} is malformed: {option} takes {takes}", Lossy(value)),
            None => write!(f, "command line: {option} without a value: {option} takes {takes}"),
        }
    }
}

impl core::error::Error for Error<'_> {}

/// Shows bytes from outside on one line: what is no printable text becomes `?`, and what is too long is cut.
#[derive(Clone, Copy, Debug)]
pub struct Lossy<'a>(pub &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES: usize = 64;
        let shown = self.0.get(..SHOWN_BYTES).unwrap_or(self.0);
        for &byte in shown {
            let printable = byte.is_ascii_graphic() || byte == b' ';
            fmt::Write::write_char(f, if printable { char::from(byte) } else { '?' })?;
        }
        if shown.len() < self.0.len() { f.write_str("...") } else { Ok(()) }
    }
}

/// Reads the options of `line`; calls `unknown` for each word that is none of them.
///
/// # Errors
/// [`Error`] for the first known option that is malformed.
#[inline(never)] // linker.ld keeps it with init, which boot frees
pub fn parse<'a>(line: &'a [u8], mut unknown: impl FnMut(&'a [u8])) -> Result<Options, Error<'a>> {
    let mut options = Options::default();
    let words = Words { rest: line };
    for word in words {
        let equals = word.iter().position(|&byte| byte == b'=');
        let (name, value) = match equals {
            Some(at) => (&word[..at], Some(unquoted(&word[at + 1..]))),
            None => (word, None),
        };
        match name {
            b"exit" => options.exit = exit(value)?,
            b"maxcpus" => {
                let count = number("maxcpus", value, "a decimal number")?;
                options.max_cpus = Some(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN));
            }
            b"cpu-timeout" => options.cpu_timeout_seconds = positive("cpu-timeout", value)?,
            b"livepatch" => options.livepatch = livepatch(value)?,
            _ => unknown(word),
        }
    }
    Ok(options)
}

fn exit(value: Option<&[u8]>) -> Result<Exit, Error<'_>> {
    match value {
        Some(b"semihosting") => Ok(Exit::Semihosting),
        Some(b"psci") => Ok(Exit::Psci),
        Some(b"park") => Ok(Exit::Park),
        _ => Err(Error { option: "exit", value, takes: "semihosting, psci or park" }),
    }
}

fn positive<'a>(option: &'static str, value: Option<&'a [u8]>) -> Result<NonZeroU32, Error<'a>> {
    const TAKES: &str = "a decimal number from 1";
    NonZeroU32::new(number(option, value, TAKES)?).ok_or(Error { option, value, takes: TAKES })
}

fn number<'a>(option: &'static str, value: Option<&'a [u8]>, takes: &'static str) -> Result<u32, Error<'a>> {
    // Digits only: the standard parser would take a sign as well.
    let digits = value.filter(|value| value.iter().all(u8::is_ascii_digit));
    let number = digits.and_then(|digits| str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
    number.ok_or(Error { option, value, takes })
}

fn livepatch(value: Option<&[u8]>) -> Result<bool, Error<'_>> {
    match value {
        Some(b"on") => Ok(true),
        Some(b"off") => Ok(false),
        _ => Err(Error { option: "livepatch", value, takes: "on or off" }),
    }
}

/// `bytes` without the double quotes that enclose all of it.
fn unquoted(bytes: &[u8]) -> &[u8] {
    match bytes {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'"') => inner,
        _ => bytes,
    }
}

/// The words of a command line.
struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.rest.trim_ascii_start();
        if line.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = line.iter().position(|&byte| {
            quoted ^= byte == b'"';
            byte.is_ascii_whitespace() && !quoted
        });
        let (word, rest) = line.split_at(end.unwrap_or(line.len()));
        self.rest = rest;
        Some(unquoted(word))
    }
}

#[cfg(test)]
mod tests;
