//! A UART that an image is built to speak on before it knows of any: `KIND@ADDRESS[,shift,width]`.
//!
//! Why it exists: what happens before the device tree is read, or on a machine whose tree names no console, would be
//! said to nobody. The text is read when the image is compiled, so an image that is built without one has no trace of
//! it.
//!
//! What it refuses: what no driver of [`crate::uart`] can be, and registers that are not in one page, which is what
//! the first tables map.

#![forbid(unsafe_code)]

use crate::addr::{ADDRESS_BITS, Frame, PAGE_BYTES, PhysAddr, PhysSpan};
use crate::uart::{ConsoleKind, Uart};
use core::fmt;

/// The UART to speak on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Earlycon {
    /// How it sends.
    pub uart: Uart,
    /// Its first register.
    pub registers: PhysAddr,
}

/// Why a text names none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// It is not of that form.
    Form,
    /// No UART has that name here.
    Kind,
    /// The address is no number of at most 48 bits.
    Address,
    /// Shift and width go together with no UART of that kind.
    Spacing,
    /// The registers are not aligned, or lie in two pages.
    Registers,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("not KIND@ADDRESS or KIND@ADDRESS,shift,width, as pl011@0x9000000"),
            Self::Kind => {
                f.write_str("no such kind of UART; there are:")?;
                KINDS.iter().try_for_each(|(name, _)| write!(f, " {name}"))
            }
            Self::Address => f.write_str("the address is no number below 2^48, decimal or with 0x"),
            Self::Spacing => f.write_str(
                "no UART of that kind has this shift and width: 8250 takes shifts 0 to 3, width 1, width 2 from shift \
                 1 on and 4 from shift 2 on; other kinds take none",
            ),
            Self::Registers => f.write_str("its registers would not be aligned, or lie in two pages"),
        }
    }
}

impl core::error::Error for Error {}

const KINDS: [(&str, ConsoleKind); 11] = [
    ("pl011", ConsoleKind::Pl011),
    ("8250", ConsoleKind::Ns16550),
    ("ns16550", ConsoleKind::Ns16550),
    ("imx", ConsoleKind::Imx),
    ("cadence", ConsoleKind::Cadence),
    ("meson", ConsoleKind::Meson),
    ("geni", ConsoleKind::Geni),
    ("uartdm", ConsoleKind::Uartdm),
    ("lpuart", ConsoleKind::Lpuart),
    ("scif", ConsoleKind::Scif),
    ("armada3700", ConsoleKind::Armada3700),
];

impl Earlycon {
    /// Reads `KIND@ADDRESS[,shift,width]`: log2 of the distance between registers in bytes, and the bytes of an access,
    /// for 8250 alone, where they are 0 and 1 unless said.
    ///
    /// # Errors
    /// [`Error`].
    pub const fn parse(text: &str) -> Result<Self, Error> {
        let (kind, Some(rest)) = cut(text.as_bytes(), b'@') else { return Err(Error::Form) };
        let (address, spacing) = cut(rest, b',');
        let Some(kind) = kind_of(kind) else { return Err(Error::Kind) };
        let Some(registers) = at(address) else { return Err(Error::Address) };
        let (shift, width) = match spacing {
            None => (0, 1),
            Some(spacing) => {
                let (shift, Some(width)) = cut(spacing, b',') else { return Err(Error::Form) };
                match (number(shift), number(width)) {
                    (Some(shift @ 0..=3), Some(width @ 1..=4)) => (shift as u32, width as u32),
                    _ => return Err(Error::Spacing),
                }
            }
        };
        if spacing.is_some() && !matches!(kind, ConsoleKind::Ns16550) {
            return Err(Error::Spacing);
        }
        // Aligned to all there is, so what remains to be wrong is the spacing.
        if let Some(anywhere) = PhysSpan::of(PhysAddr::at(0), PAGE_BYTES)
            && Uart::of(kind, anywhere, shift, width).is_none()
        {
            return Err(Error::Spacing);
        }
        let Some(to_page_end) = PhysSpan::of(registers, PAGE_BYTES - registers.raw() % PAGE_BYTES) else {
            return Err(Error::Registers);
        };
        match Uart::of(kind, to_page_end, shift, width) {
            Some(uart) => Ok(Self { uart, registers }),
            None => Err(Error::Registers),
        }
    }

    /// The frame that its registers lie in.
    #[must_use]
    pub const fn page(&self) -> Frame {
        Frame::containing(self.registers)
    }
}

/// What stands before the first `mark`, and after it if there is one.
const fn cut(text: &[u8], mark: u8) -> (&[u8], Option<&[u8]>) {
    let mut index = 0;
    while index < text.len() {
        if text[index] == mark {
            let (before, rest) = text.split_at(index);
            return (before, Some(rest.split_at(1).1));
        }
        index += 1;
    }
    (text, None)
}

const fn kind_of(name: &[u8]) -> Option<ConsoleKind> {
    let mut index = 0;
    while index < KINDS.len() {
        if is(KINDS[index].0.as_bytes(), name) {
            return Some(KINDS[index].1);
        }
        index += 1;
    }
    None
}

const fn is(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

const fn at(text: &[u8]) -> Option<PhysAddr> {
    match number(text) {
        Some(number) if number >> ADDRESS_BITS == 0 => PhysAddr::new(number),
        _ => None,
    }
}

const fn number(text: &[u8]) -> Option<u64> {
    let (digits, radix) = match text {
        [b'0', b'x', digits @ ..] => (digits, 16),
        digits => (digits, 10),
    };
    if let [] | [b'+' | b'-', ..] = digits {
        return None;
    }
    let Ok(digits) = core::str::from_utf8(digits) else { return None };
    match u64::from_str_radix(digits, radix) {
        Ok(number) => Some(number),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64) -> PhysSpan {
        PhysSpan::of(PhysAddr::at(start), PAGE_BYTES - start % PAGE_BYTES).unwrap()
    }

    #[test]
    fn good_every_kind_by_its_name() {
        for (name, kind) in KINDS {
            let earlycon = Earlycon::parse(&format!("{name}@0x9000000")).unwrap();
            assert_eq!(Some(earlycon.uart), Uart::of(kind, span(0x900_0000), 0, 1), "{name}");
            assert_eq!(earlycon.page().start().raw(), 0x900_0000);
        }
    }

    #[test]
    fn good_an_8250_with_its_spacing() {
        let mini = Earlycon::parse("8250@0x3f215040,2,4").unwrap();
        assert_eq!(Some(mini.uart), Uart::of(ConsoleKind::Ns16550, span(0x3f21_5040), 2, 4));
        assert_eq!(mini.registers.raw(), 0x3f21_5040);
        assert_eq!(Earlycon::parse("ns16550@1016"), Earlycon::parse("8250@0x3f8,0,1"));
    }

    #[test]
    fn bad_texts_are_refused_by_what_is_wrong() {
        let wrong = [
            ("", Error::Form),
            ("pl011", Error::Form),
            ("8250@0x1000,2", Error::Form),
            ("pl012@0x9000000", Error::Kind),
            ("@0x9000000", Error::Kind),
            ("pl011@", Error::Address),
            ("pl011@0x", Error::Address),
            ("pl011@+5", Error::Address),
            ("pl011@9g", Error::Address),
            ("pl011@0x1000000000000", Error::Address),
            ("pl011@0x10000000000000000", Error::Address),
            ("pl011@0x9000000,0,4", Error::Spacing),
            ("8250@0x1000,4,1", Error::Spacing),
            ("8250@0x1000,0,2", Error::Spacing),
            ("8250@0x1000,2,3", Error::Spacing),
            ("8250@0x1000,2,4,1", Error::Spacing),
            ("8250@0x1000,,", Error::Spacing),
            ("pl011@0x9000002", Error::Registers),
            ("pl011@0x9000ff0", Error::Registers),
            ("8250@0x1002,2,4", Error::Registers),
        ];
        for (text, error) in wrong {
            assert_eq!(Earlycon::parse(text), Err(error), "{text}");
            assert!(error.to_string().lines().count() == 1 && !error.to_string().is_empty());
        }
    }
}
