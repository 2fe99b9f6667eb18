//! A trace without what no rule can need.
//!
//! Why it exists: of a hypervisor's boot nearly every line is a store to memory that is never a table, or an ISB of a loop that waits. Such
//! a trace is hundreds of megabytes, and nobody keeps it. What must hold: the oracle says of the thin trace what it says of the whole one, to
//! the last violation and how often it occurs. That is not hoped for: both are judged, and compared.
//!
//! Two passes. `scout` lets the oracle judge everything and notes what it looked at: which memory was ever a table, which was ever touched with
//! caches off, on which lines something was wrong. `sieve` goes through it again and keeps
//!
//! * every event that may change what an oracle knows: registers, TLBI, exceptions, calls, maintenance of lines that matter;
//! * stores to memory that is a table at any time, from the first one on, or whose contents decide whether a change is one;
//! * loads and stores with caches off; of the memory that they touch, the first cached store to a word between two such or maintenance;
//! * a barrier unless the same CPU had the same one and nothing of the above happened since, on any CPU;
//! * of the uses of an address, which change nothing and are judged only, the first of a CPU in a page since anything of the above;
//! * what shows in which order CPUs acted: a load of what another CPU stored, and all stores to that word;
//! * whatever the oracle objected to, and what stands directly before.
//!
//! Of the `word` declarations those of tables stay, and of memory whose contents are compared: no walk comes to any other. What a thin trace
//! cannot tell is how a core that replaces TLB entries at random would have fared: that depends on every access.

mod scout;
mod sieve;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use breakwater_oracle::obligations::{Obligations, Violation};
use breakwater_trace::{End, HEADER, Reader, Record};

use self::scout::Scout;
use self::sieve::Sieve;
use crate::ui;
use crate::watch::require_room;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// The oracle says something else of the thin trace than of the whole one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct JudgedOtherwise;

impl fmt::Display for JudgedOtherwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the thin trace would be judged otherwise than the whole one")
    }
}

impl std::error::Error for JudgedOtherwise {}

/// Time was up before the trace was thinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimeIsUp;

impl fmt::Display for TimeIsUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("time was up before the trace was thinned")
    }
}

impl std::error::Error for TimeIsUp {}

/// What became of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Thinned {
    /// Records of the whole trace, the declarations included.
    pub whole_records: u64,
    /// Of those, how many were kept.
    pub records: u64,
    /// Bytes of the thin trace.
    pub bytes: u64,
}

/// A trace in a file, and what it is to be taken for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    /// The file.
    pub(crate) file: &'a Path,
    /// What is declared in front.
    pub(crate) declared: &'a [Record],
    /// What its last record means, if not what it says: a machine that was made to end claims nothing.
    pub(crate) end: Option<End>,
    /// When it has to be done.
    pub(crate) until: Option<Instant>,
}

/// Records between two looks at clock and memory.
const BETWEEN_LOOKS: u64 = 1 << 13;

impl crate::watch::Testimony {
    /// [`thin`] of the trace in the file `raw`, which this was said of.
    ///
    /// # Errors
    /// As [`thin`].
    pub fn thin(&self, raw: &Path, out: &mut impl Write) -> Result<Thinned> {
        thin(&self.raw(raw, None), out)
    }

    fn raw<'a>(&'a self, file: &'a Path, until: Option<Instant>) -> Raw<'a> {
        Raw { file, declared: &self.declared, end: self.end, until }
    }

    /// Keeps the trace in the file `raw`, which this was said of, in the file `to`, which appears only when it is
    /// complete: thin, or whole where a thin one would be judged otherwise or is not done by `until`.
    ///
    /// # Errors
    /// As [`thin`], those cases aside.
    pub fn keep(&self, raw: &Path, to: &Path, until: Instant) -> Result<()> {
        keep(&self.raw(raw, Some(until)), to)
    }
}

/// Keeps `raw` in the file `to`, thin or whole.
///
/// # Errors
/// As [`thin`], but for the cases that it has an answer to.
fn keep(raw: &Raw<'_>, to: &Path) -> Result<()> {
    let name = || to.display().to_string();
    let partial = to.with_added_extension("partial");
    let create = || File::create(&partial).map(BufWriter::new).with_context(name);
    let mut out = create()?;
    let mut thinned = thin(raw, &mut out);
    if let Some(error) = thinned.as_ref().err().filter(|error| error.is::<JudgedOtherwise>() || error.is::<TimeIsUp>())
    {
        ui::failure(&format!("{error:#}: it is kept whole"));
        out = create()?;
        // A copy is soon done, and whoever looks for what takes so long needs it most.
        thinned = whole(&Raw { until: None, ..*raw }, &mut out);
    }
    let Thinned { whole_records, records, bytes } = thinned?;
    out.flush().with_context(name)?;
    std::fs::rename(&partial, to).with_context(name)?;
    ui::step("Kept", &format!("{}: {records} of {whole_records} records, {bytes} bytes", to.display()));
    Ok(())
}

/// Writes a trace without what no rule can need.
///
/// # Errors
/// The file cannot be read, is malformed or breaks off; `out` cannot be written; [`JudgedOtherwise`], in which case what was written
/// is of no use and the whole trace has to be kept; [`TimeIsUp`].
pub(crate) fn thin(raw: &Raw<'_>, out: &mut impl Write) -> Result<Thinned> {
    let mut scout = Scout::default();
    raw.each(|line, record| {
        scout.record(line, record);
        Ok(())
    })?;
    let (interest, whole) = scout.into_interest();
    let mut sieve = Sieve::new(interest);
    let (mut kept, mut whole_records) = (Written::new(out)?, 0);
    raw.each(|line, record| {
        whole_records += 1;
        if sieve.keeps(line, record) { kept.write(record) } else { Ok(()) }
    })?;
    ensure!(is_alike(&whole, &sieve.into_engine()), JudgedOtherwise);
    Ok(Thinned { whole_records, ..kept.so_far })
}

/// Writes all of it.
fn whole(raw: &Raw<'_>, out: &mut impl Write) -> Result<Thinned> {
    let mut written = Written::new(out)?;
    raw.each(|_, record| written.write(record))?;
    Ok(Thinned { whole_records: written.so_far.records, ..written.so_far })
}

/// A trace that is being written.
struct Written<'a, W> {
    out: &'a mut W,
    text: String,
    so_far: Thinned,
}

impl<'a, W: Write> Written<'a, W> {
    fn new(out: &'a mut W) -> Result<Self> {
        let mut written = Self { out, text: HEADER.to_owned(), so_far: Thinned::default() };
        written.line()?;
        Ok(written)
    }

    fn write(&mut self, record: &Record) -> Result<()> {
        self.text.clear();
        fmt::Write::write_fmt(&mut self.text, format_args!("{record}"))?;
        self.so_far.records += 1;
        self.line()
    }

    fn line(&mut self) -> Result<()> {
        self.text.push('\n');
        self.so_far.bytes += self.text.len() as u64;
        self.out.write_all(self.text.as_bytes()).context("the trace cannot be written")
    }
}

impl Raw<'_> {
    /// Every record with its line: what is declared, on line 0, then what the trace has.
    fn each(&self, mut step: impl FnMut(u64, &Record) -> Result<()>) -> Result<()> {
        let name = || self.file.display().to_string();
        self.declared.iter().try_for_each(|record| step(0, record))?;
        let file = File::open(self.file).with_context(name)?;
        let mut reader = Reader::new(BufReader::with_capacity(BUFFER_BYTES, file));
        while let Some(record) = reader.next_record().with_context(name)? {
            if reader.line().is_multiple_of(BETWEEN_LOOKS) {
                ensure!(self.until.is_none_or(|until| Instant::now() < until), TimeIsUp);
                require_room()?;
            }
            if let Record::End(end) = record {
                return step(reader.line(), &Record::End(self.end.unwrap_or(end)));
            }
            step(reader.line(), &record)?;
        }
        bail!("{}: the trace breaks off after line {}: it has no end record", name(), reader.line().saturating_sub(1))
    }
}

/// [`thin`] of records with their lines, in memory: for claims on small traces.
///
/// # Errors
/// The thin trace would be judged otherwise.
#[cfg(test)]
fn thin_records(records: &[(u64, Record)]) -> Result<Vec<(u64, Record)>> {
    let mut scout = Scout::default();
    records.iter().for_each(|(line, record)| scout.record(*line, record));
    let (interest, whole) = scout.into_interest();
    let mut sieve = Sieve::new(interest);
    let kept: Vec<_> = records.iter().filter(|(line, record)| sieve.keeps(*line, record)).cloned().collect();
    ensure!(is_alike(&whole, &sieve.into_engine()), JudgedOtherwise);
    Ok(kept)
}

/// Whether two judgements say the same, and as often.
fn is_alike(whole: &Obligations, thin: &Obligations) -> bool {
    let same = |one: &Violation, other: &Violation| {
        let place = |of: &Violation| (of.rule, of.line, of.pe, of.pc, of.va, of.pa, of.old, of.new, of.times);
        place(one) == place(other) && one.missing == other.missing
    };
    let (one, other) = (whole.violations(), thin.violations());
    whole.unknowns() == thin.unknowns()
        && whole.by_set_and_way() == thin.by_set_and_way()
        && one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| same(one, other))
}
