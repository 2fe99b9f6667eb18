//! Breakwater's witness: watches an image boot at EL2, ours or anyone's, and says where it breaks the rules of the
//! architecture.
//!
//! Why it exists: no emulator and hardly a board shows a missing barrier or TLBI. Whether one is missing can be seen
//! from outside, in what an image does to its tables, registers and TLBs; QEMU with the recorder plugin writes that
//! down, the oracle (`breakwater-oracle`) judges it.
//!
//! What must hold: nothing here knows the image that is watched, nor the repository that this command is developed in.
//! What an image is asked besides (its own house rules, more features, mutants of it) comes by arguments.
//!
//! * [`run`] is the command; [`watch`] boots an image under the recorder and judges it; [`order`] weighs what rests on the order between CPUs, [`thin`] keeps a
//!   trace, [`timeline`] draws it, [`xen`] fetches Debian's Xen.
//! * [`judge`] judges a trace that anybody wrote; [`measure`] takes figures; [`story`] tells the Xen story as a table.
//! * [`finding`] folds what was found, [`baseline`] knows what was found before. [`mutate`] asks whether each barrier
//!   of an image is missed when it is gone.
//! * [`recorded`] declares what the recorder cannot know.
//! * [`qemu`] finds the emulator and brings the recorder, [`machine`], [`loader`] and [`child`] run it; [`apt`] fetches packages.

#![forbid(unsafe_code)]

pub mod apt;
pub mod baseline;
pub mod child;
pub mod debian;
pub mod elf;
pub mod exec;
pub mod finding;
pub mod judge;
pub mod loader;
pub mod machine;
pub mod measure;
pub mod mutate;
pub mod names;
pub mod order;
pub mod paths;
pub mod pool;
pub mod qemu;
pub mod recorded;
pub mod run;
pub mod story;
pub mod thin;
pub mod timeline;
pub mod ui;
pub mod watch;
pub mod xen;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What every command that runs an image works with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// qemu-system-aarch64, 9.2 or later.
    pub qemu: qemu::Qemu,
    /// The recorder.
    pub plugin: PathBuf,
    /// A directory for the files of a run.
    pub scratch: PathBuf,
    /// A directory for what is fetched once.
    pub cache: PathBuf,
}

impl Tools {
    /// With this emulator, the recorder that is part of this command, and files in `scratch`, which is made.
    ///
    /// # Errors
    /// A file or directory cannot be made.
    pub fn new(qemu: qemu::Qemu, scratch: &Path, cache: &Path) -> Result<Self> {
        std::fs::create_dir_all(scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        let (scratch, cache) = (scratch.to_path_buf(), cache.to_path_buf());
        // Who has no directory that outlives a run, as a service has none, still gets the recorder.
        let plugin = qemu::recorder(&cache).or_else(|_| qemu::recorder(&scratch))?;
        Ok(Self { qemu, plugin, scratch, cache })
    }
}

/// The exit status that an error of a command stands for; 1 unless it has one of its own.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let of_judge = error.downcast_ref::<judge::Rejected>().map(judge::Rejected::exit_code);
    let of_watch = error.downcast_ref::<watch::Rejected>().map(|rejected| rejected.verdict.exit_code());
    of_judge.or(of_watch).unwrap_or(1)
}

/// True if a command has said all there is to say of `error`.
#[must_use]
pub fn is_said(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(judge::Rejected::Violations))
}
