//! The plugin's arguments: `-plugin libbreakwater_recorder.so,out=FILE,limit=N,...`.

use std::path::PathBuf;

/// Which loads are written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loads {
    /// None.
    Never,
    /// Those of a CPU whose SCTLR_EL2.M is 0.
    MmuOff,
    /// Those, and with the MMU on those that say something about the order between CPUs.
    Shared,
    /// All.
    Always,
}

/// Which straight runs of instructions are written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Runs {
    /// None.
    Never,
    /// Those from another page than the one before, or after an event that may change what a fetch finds.
    Pages,
    /// All.
    Always,
}

/// An instruction at which what is to be judged is entered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// The one at this virtual address.
    At(u64),
    /// The one that these words begin with, wherever that is: an image of `bytes` bytes that its loader has put
    /// anywhere, `offset` bytes before, one to one.
    Code {
        /// From the image's first byte.
        offset: u64,
        /// Size of the image.
        bytes: u64,
        /// The instructions.
        words: Vec<u32>,
    },
}

impl Entry {
    /// `OFFSET:BYTES:CODE`, in hexadecimal; of the code each word of 32 bits as eight digits.
    fn code(value: &str) -> Result<Self, String> {
        let refused = || format!("entry={value}: not OFFSET:BYTES:CODE");
        let mut fields = value.split(':');
        let mut next = || fields.next().ok_or_else(refused);
        let (offset, bytes, code) = (address("entry", next()?)?, address("entry", next()?)?, next()?);
        let digits = |at: usize| code.get(at..at + 8).and_then(|word| u32::from_str_radix(word, 16).ok());
        let words: Option<Vec<u32>> = (0..code.len()).step_by(8).map(digits).collect();
        words.filter(|words| !words.is_empty()).map(|words| Self::Code { offset, bytes, words }).ok_or_else(refused)
    }

    /// Whether the code that begins at `pc` with this word may be it.
    pub(crate) fn may_be(&self, pc: u64, word: u32) -> bool {
        match self {
            Self::At(address) => *address == pc,
            Self::Code { words, .. } => words.first() == Some(&word),
        }
    }
}

/// What the user asked for.
#[derive(Debug)]
pub(crate) struct Options {
    /// The trace file.
    pub(crate) out: PathBuf,
    /// It is packed, for a reader that runs meanwhile, and no text.
    pub(crate) packed: bool,
    /// Its largest size in bytes; the recording and the machine end there.
    pub(crate) cap_bytes: u64,
    /// Ends the recording and the machine once a CPU has executed this many instructions.
    pub(crate) limit: Option<u64>,
    /// Ends both once a CPU is about to execute the instruction at one of these virtual addresses.
    pub(crate) until: Vec<u64>,
    /// Where what is to be judged begins; nowhere, if all is.
    pub(crate) entries: Vec<Entry>,
    /// Which straight runs of instructions are written down.
    pub(crate) fetches: Runs,
    /// Which loads are.
    pub(crate) loads: Loads,
}

impl Options {
    /// Reads `key=value` arguments.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            out: PathBuf::new(),
            packed: false,
            cap_bytes: 256 << 20,
            limit: None,
            until: Vec::new(),
            entries: Vec::new(),
            fetches: Runs::Never,
            loads: Loads::MmuOff,
        };
        for argument in arguments {
            let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
            let number = || value.parse::<u64>().map_err(|_| format!("{key}={value}: not a number"));
            match (key, value) {
                ("out", path) if !path.is_empty() => options.out = path.into(),
                ("form", "text") => options.packed = false,
                ("form", "packed") => options.packed = true,
                ("cap", _) => options.cap_bytes = number()?,
                ("limit", _) => options.limit = Some(number()?),
                ("until", _) => options.until.push(address(key, value)?),
                ("from", _) => options.entries.push(Entry::At(address(key, value)?)),
                ("entry", _) => options.entries.push(Entry::code(value)?),
                ("fetches", "off") => options.fetches = Runs::Never,
                ("fetches", "pages") => options.fetches = Runs::Pages,
                ("fetches", "on") => options.fetches = Runs::Always,
                ("loads", "off") => options.loads = Loads::Never,
                ("loads", "mmu-off") => options.loads = Loads::MmuOff,
                ("loads", "shared") => options.loads = Loads::Shared,
                ("loads", "all") => options.loads = Loads::Always,
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        if options.out.as_os_str().is_empty() {
            return Err("out=FILE is missing".into());
        }
        Ok(options)
    }
}

/// A hexadecimal address, with or without 0x.
fn address(key: &str, value: &str) -> Result<u64, String> {
    let digits = value.strip_prefix("0x").unwrap_or(value);
    let refused = || format!("{key}={value}: not a hexadecimal address");
    if digits.starts_with('+') {
        return Err(refused());
    }
    u64::from_str_radix(digits, 16).map_err(|_| refused())
}
