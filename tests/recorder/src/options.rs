//! The plugin's arguments: `-plugin libbreakwater_recorder.so,out=FILE,limit=N,...`.

use std::path::PathBuf;

/// Which loads are written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loads {
    /// None.
    Never,
    /// Those of a CPU whose SCTLR_EL2.M is 0.
    MmuOff,
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
    /// Whether every straight run of instructions is written down.
    pub(crate) fetches: bool,
    /// Which loads are.
    pub(crate) loads: Loads,
}

impl Options {
    /// Reads `key=value` arguments.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options =
            Self { out: PathBuf::new(), cap_bytes: 256 << 20, limit: None, fetches: false, loads: Loads::MmuOff };
        for argument in arguments {
            let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
            let number = || value.parse::<u64>().map_err(|_| format!("{key}={value}: not a number"));
            match (key, value) {
                ("out", path) if !path.is_empty() => options.out = path.into(),
                ("cap", _) => options.cap_bytes = number()?,
                ("limit", _) => options.limit = Some(number()?),
                ("fetches", "on" | "off") => options.fetches = value == "on",
                ("loads", "off") => options.loads = Loads::Never,
                ("loads", "mmu-off") => options.loads = Loads::MmuOff,
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
