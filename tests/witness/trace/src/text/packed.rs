//! The packed form: what makes up nearly all of a recording in bytes, the rest as text.
//!
//! Why it exists: of ten million records nearly all are stores, and to print and to parse their numbers takes longer
//! than to judge them. It is for a recorder and a judge that run together, not for people: files that are kept are
//! text. What must hold: a packed trace says what its text says, record by record and line by line.
//! [`Reader`](super::Reader) reads both.
//!
//! After the header each record begins with a byte that tells its kind. Numbers are little-endian.

use core::fmt::Write;
use std::io::{self, Read};

use super::fields::parse;
use crate::event::{Access, Barrier, Event, Record, Step};
use crate::names::{Encoding, Operation};

/// The first line of a packed trace.
pub const PACKED_HEADER: &str = "breakwater-trace 1 packed";

/// Kinds of records: a line of text after its length in two bytes, ...
pub(super) const TEXT: u8 = 0;
/// ... and events, after which CPU, instruction and PC follow.
const STORE: u8 = 1;
const LOAD: u8 = 2;
const FETCH: u8 = 3;
const ISB: u8 = 4;
const DSB: u8 = 5;
const DMB: u8 = 6;
const MAINTAIN: u8 = 7;

/// Of an access: it is a device's.
const DEVICE: u8 = 0x80;
/// ... it is a store-release.
const RELEASE: u8 = 0x40;
/// Of a barrier: it is nXS.
const WITHOUT_XS: u8 = 0x80;
/// Bytes of CPU, instruction and PC.
const PLACE_BYTES: usize = 17;
/// Bytes of an access of 16 bytes, and of others.
const PAIR_BYTES: usize = 33;
const ACCESS_BYTES: usize = 25;
/// The most bytes of a record that is no text.
pub(super) const MOST_BYTES: usize = 1 + PLACE_BYTES + PAIR_BYTES;

/// Appends `record` to `out`; `line` is kept for its memory.
pub fn pack(record: &Record, out: &mut Vec<u8>, line: &mut String) {
    let Record::Step(Step { cpu, instruction, pc, event }) = record else { return pack_text(record, out, line) };
    // Made as a whole and appended once: a recorder does this for every store of the machine.
    let mut made = [0; MOST_BYTES];
    made[1] = *cpu as u8;
    made[2..10].copy_from_slice(&instruction.to_le_bytes());
    made[10..18].copy_from_slice(&pc.to_le_bytes());
    let rest = &mut made[1 + PLACE_BYTES..];
    let (kind, bytes) = match event {
        Event::Store(access) => (STORE, pack_access(access, rest)),
        Event::Load(access) => (LOAD, pack_access(access, rest)),
        Event::Fetch { instructions } => (FETCH, put(rest, &instructions.to_le_bytes())),
        Event::Isb => (ISB, 0),
        Event::Dsb(barrier) => (DSB, put(rest, &[pack_barrier(*barrier)])),
        Event::Dmb(barrier) => (DMB, put(rest, &[pack_barrier(*barrier)])),
        Event::Maintain { operation: Operation(encoding), operand } => {
            let bytes = put(rest, &encoding.bits().to_le_bytes());
            (MAINTAIN, bytes + put(&mut rest[bytes..], &operand.to_le_bytes()))
        }
        _ => return pack_text(record, out, line),
    };
    made[0] = kind;
    out.extend_from_slice(&made[..1 + PLACE_BYTES + bytes]);
}

/// Appends a line of text, a comment perhaps, to `out`.
pub fn pack_line(line: &str, out: &mut Vec<u8>) {
    let bytes = &line.as_bytes()[..line.len().min(u16::MAX.into())];
    out.push(TEXT);
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn pack_text(record: &Record, out: &mut Vec<u8>, line: &mut String) {
    line.clear();
    // Writing to a string never fails.
    let _ = write!(line, "{record}");
    pack_line(line, out);
}

/// Puts `bytes` at the beginning of `to`: how many they are.
fn put(to: &mut [u8], bytes: &[u8]) -> usize {
    to[..bytes.len()].copy_from_slice(bytes);
    bytes.len()
}

fn pack_access(access: &Access, to: &mut [u8]) -> usize {
    to[0] = access.bytes | if access.device { DEVICE } else { 0 } | if access.release { RELEASE } else { 0 };
    for (place, value) in to[1..].chunks_exact_mut(8).zip([access.va, access.pa, access.value[0], access.value[1]]) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    if access.bytes == 16 { PAIR_BYTES } else { ACCESS_BYTES }
}

const fn pack_barrier(barrier: Barrier) -> u8 {
    barrier.crm | if barrier.without_xs { WITHOUT_XS } else { 0 }
}

/// Why a packed record cannot be read.
pub(super) enum Unpackable {
    /// The input fails, or ends within the record.
    Input(io::Error),
    /// It is none.
    Reason(String),
}

impl From<io::Error> for Unpackable {
    fn from(error: io::Error) -> Self {
        Self::Input(error)
    }
}

/// The next record of `input`, which stands on `line`; nothing for a comment.
#[inline]
pub(super) fn unpack(kind: u8, input: &mut impl Read, line: u64) -> Result<Option<Record>, Unpackable> {
    if kind == TEXT {
        let length = u16::from_le_bytes(taken(input)?);
        let mut text = vec![0; length.into()];
        input.read_exact(&mut text)?;
        let text = core::str::from_utf8(&text).map_err(|_| Unpackable::Reason("this is no text".into()))?;
        return parse(line, text).map_err(|malformed| Unpackable::Reason(malformed.reason));
    }
    let place: [u8; PLACE_BYTES] = taken(input)?;
    let (cpu, instruction, pc) = (place[0].into(), number(&place[1..]), number(&place[9..]));
    let event = match kind {
        STORE => Event::Store(unpack_access(input)?),
        LOAD => Event::Load(Access { release: false, ..unpack_access(input)? }),
        FETCH => Event::Fetch { instructions: u32::from_le_bytes(taken(input)?) },
        ISB => Event::Isb,
        DSB => Event::Dsb(unpack_barrier(input)?),
        DMB => Event::Dmb(unpack_barrier(input)?),
        MAINTAIN => unpack_maintenance(input)?,
        _ => return Err(Unpackable::Reason(format!("no packed record is of kind {kind}"))),
    };
    if cpu >= super::MOST_CPUS {
        return Err(Unpackable::Reason(format!("cpu {cpu}: a trace has at most {} CPUs", super::MOST_CPUS)));
    }
    Ok(Some(Record::Step(Step { cpu, instruction, pc, event })))
}

#[inline]
fn taken<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The number that `bytes` begin with.
fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline]
fn unpack_access(input: &mut impl Read) -> Result<Access, Unpackable> {
    let head: [u8; ACCESS_BYTES] = taken(input)?;
    let (device, release) = (head[0] & DEVICE != 0, head[0] & RELEASE != 0);
    let bytes = head[0] & !(DEVICE | RELEASE);
    if !matches!(bytes, 1 | 2 | 4 | 8 | 16) {
        return Err(Unpackable::Reason(format!("no access has {bytes} bytes")));
    }
    let high = if bytes == 16 { u64::from_le_bytes(taken(input)?) } else { 0 };
    let (va, pa, low) = (number(&head[1..]), number(&head[9..]), number(&head[17..]));
    Ok(Access { bytes, va, pa, value: [low, high], device, release })
}

#[inline]
fn unpack_barrier(input: &mut impl Read) -> Result<Barrier, Unpackable> {
    let [byte] = taken(input)?;
    Ok(Barrier { crm: byte & 15, without_xs: byte & WITHOUT_XS != 0 })
}

fn unpack_maintenance(input: &mut impl Read) -> Result<Event, Unpackable> {
    let operation = Operation(Encoding::of_bits(u16::from_le_bytes(taken(input)?)));
    if operation.family().is_none() {
        return Err(Unpackable::Reason(format!("{operation} is no TLBI, DC, IC or AT")));
    }
    Ok(Event::Maintain { operation, operand: u64::from_le_bytes(taken(input)?) })
}
