//! What a reader may see of a page while others change it, and the verdict on what it saw. No machine in sight.
//!
//! Why it exists: a reader takes no lock, so the page may change under it. Its verdict is sound only if it knows what the page was before
//! the access and what it was after it, and that is one word: [`View`], which the editor stores before a request touches the
//! page and again after the request has returned. A reader loads the word, accesses the page, and loads the word again.
//!
//! What must hold: the first word of a request is stored before its first store to a table, the second after its last barrier, and each
//! word has a generation of its own. Then two equal words say that nothing but what they describe happened in between, and two
//! that follow each other that exactly one edge of a request did.

#![forbid(unsafe_code)]

use core::fmt;

/// A frame of those that the pages map to, by number.
pub type Frame = u16;

/// What is being done to a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing: every access sees what the page is.
    Settled,
    /// It changes without a break: where it is mapped before and after, it is mapped throughout.
    Changing,
    /// It lies in a leaf that is being broken: for a moment there may be nothing.
    Breaking,
}

/// What a page is, and what it is about to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// The frame it maps to before the request, or nothing.
    pub was: Option<Frame>,
    /// The frame it maps to after it. Of a settled page, the same.
    pub becomes: Option<Frame>,
    /// What is being done to it.
    pub phase: Phase,
    /// Whether it may be written before the request.
    pub was_writable: bool,
    /// Whether it may be after it.
    pub becomes_writable: bool,
    /// Counts the words that were stored for this page, modulo 2^28.
    pub generation: u32,
}

const GENERATIONS: u32 = 1 << 28;

impl View {
    /// A page that was never mapped.
    pub const UNMAPPED: Self = Self {
        was: None,
        becomes: None,
        phase: Phase::Settled,
        was_writable: false,
        becomes_writable: false,
        generation: 0,
    };

    /// The word that follows, of a request that is about to begin.
    #[must_use]
    pub const fn begin(self, becomes: Option<Frame>, becomes_writable: bool, phase: Phase) -> Self {
        Self { becomes, becomes_writable, phase, ..self.next() }
    }

    /// The word that follows, of a request that has returned and did what was announced.
    #[must_use]
    pub const fn end(self) -> Self {
        Self { was: self.becomes, was_writable: self.becomes_writable, phase: Phase::Settled, ..self.next() }
    }

    const fn next(self) -> Self {
        Self { generation: (self.generation + 1) % GENERATIONS, ..self }
    }

    /// As one word: frames in 15:0 and 31:16, 0xffff for nothing; phase 33:32; writable 34 and 35; generation 63:36.
    #[must_use]
    pub fn word(self) -> u64 {
        let frame = |frame: Option<Frame>| u64::from(frame.unwrap_or(Frame::MAX));
        let phase = match self.phase {
            Phase::Settled => 0,
            Phase::Changing => 1,
            Phase::Breaking => 2,
        };
        frame(self.was)
            | frame(self.becomes) << 16
            | phase << 32
            | u64::from(self.was_writable) << 34
            | u64::from(self.becomes_writable) << 35
            | u64::from(self.generation) << 36
    }

    /// The word's meaning.
    #[must_use]
    pub const fn of(word: u64) -> Self {
        const fn frame(bits: u64) -> Option<Frame> {
            match bits as u16 {
                Frame::MAX => None,
                frame => Some(frame),
            }
        }
        let phase = match word >> 32 & 3 {
            0 => Phase::Settled,
            1 => Phase::Changing,
            _ => Phase::Breaking,
        };
        Self {
            was: frame(word),
            becomes: frame(word >> 16),
            phase,
            was_writable: word >> 34 & 1 == 1,
            becomes_writable: word >> 35 & 1 == 1,
            generation: (word >> 36) as u32,
        }
    }

    fn is_followed_by(self, after: Self) -> bool {
        self.next().generation == after.generation
    }

    /// Whether an access that did reach a frame may have been as it was.
    fn may_show(self, seen: Seen) -> bool {
        let may = |frame: Option<Frame>, writable: bool| match seen {
            Seen::Frame(found) => frame == Some(found),
            Seen::Written => frame.is_some() && writable,
            Seen::Denied => frame.is_some() && !writable,
            Seen::Stranger(_) | Seen::Fault => false,
        };
        may(self.was, self.was_writable) || may(self.becomes, self.becomes_writable)
    }

    fn may_fault(self) -> bool {
        self.was.is_none() || self.becomes.is_none() || self.phase == Phase::Breaking
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |f: &mut fmt::Formatter<'_>, frame: Option<Frame>, writable: bool| match frame {
            Some(frame) => write!(f, "frame {frame} {}", if writable { "rw-" } else { "r--" }),
            None => f.write_str("nothing"),
        };
        name(f, self.was, self.was_writable)?;
        if self.phase != Phase::Settled {
            f.write_str(if self.phase == Phase::Breaking { ", being broken to become " } else { ", changing to " })?;
            name(f, self.becomes, self.becomes_writable)?;
        }
        write!(f, " (generation {})", self.generation)
    }
}

/// What an access saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// The word that this frame holds there.
    Frame(Frame),
    /// Something that no frame holds there.
    Stranger(u64),
    /// What was to be written was.
    Written,
    /// A permission fault of a write.
    Denied,
    /// A translation fault.
    Fault,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(frame) => write!(f, "the word of frame {frame}"),
            Self::Stranger(found) => write!(f, "{found:#x}, which no frame holds there"),
            Self::Written => f.write_str("a write that was done"),
            Self::Denied => f.write_str("a permission fault of a write"),
            Self::Fault => f.write_str("a translation fault"),
        }
    }
}

/// What there is to say of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The value, or the rights, of a frame that the page showed at that time.
    Right,
    /// A fault where nothing was mapped before, or nothing is after.
    NothingThere,
    /// A fault on a page that is mapped before and after, inside a span being broken: to be tried again.
    Broken,
    /// More than one edge of a request passed by: it proves nothing, but that the value is some frame's. To be tried again.
    Unknown,
    /// What the page never was.
    Wrong,
}

/// The verdict on what was `seen` by an access after `before` was loaded and before `after` was. `made`: some CPU had seen the new frame of
/// the request that `before` tells of, before this access began. Then nobody may see the old one any more: whatever is made is
/// made after every TLB has forgotten what it was.
#[must_use]
pub fn judge(before: View, seen: Seen, after: View, made: bool) -> Verdict {
    if before != after && !before.is_followed_by(after) {
        return if matches!(seen, Seen::Stranger(_)) { Verdict::Wrong } else { Verdict::Unknown };
    }
    match seen {
        Seen::Frame(frame) if made && before.becomes != Some(frame) && before.was == Some(frame) => Verdict::Wrong,
        _ if before.may_show(seen) || after.may_show(seen) => Verdict::Right,
        Seen::Fault if !before.may_fault() && !after.may_fault() => Verdict::Wrong,
        Seen::Fault if before.was.is_none() || after.becomes.is_none() => Verdict::NothingThere,
        Seen::Fault => Verdict::Broken,
        Seen::Frame(_) | Seen::Stranger(_) | Seen::Written | Seen::Denied => Verdict::Wrong,
    }
}
