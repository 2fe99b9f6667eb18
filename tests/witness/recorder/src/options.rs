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

/// What the user asked for.
#[derive(Debug)]
pub(crate) struct Options {
    /// The trace file.
    pub(crate) out: PathBuf,
    /// Its largest size in bytes; the recording and the machine end there.
    pub(crate) cap_bytes: u64,
    /// Ends the recording and the machine once a CPU has executed this many instructions.
    pub(crate) limit: Option<u64>,
    /// Ends both once a CPU is about to execute the instruction at one of these virtual addresses.
    pub(crate) until: Vec<u64>,
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
            cap_bytes: 256 << 20,
            limit: None,
            until: Vec::new(),
            fetches: Runs::Never,
            loads: Loads::MmuOff,
        };
        for argument in arguments {
            let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
            let number = || value.parse::<u64>().map_err(|_| format!("{key}={value}: not a number"));
            match (key, value) {
                ("out", path) if !path.is_empty() => options.out = path.into(),
                ("cap", _) => options.cap_bytes = number()?,
                ("limit", _) => options.limit = Some(number()?),
                ("until", _) => options.until.push(address(key, value)?),
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
