//! What a board's card holds and how it is written, whoever's image is on it.
//!
//! [`board`] says what is on it. [`disk`] makes a card's bytes: FAT in a partition table; [`uboot`] what U-Boot finds
//! there. [`target`] says which disk of this machine may be written, and [`flash`] writes it.
//!
//! What must hold: nothing is written that a person has not been shown and has not named again, and only to a disk that
//! [`target`] lets through, asked twice; what was written is read back from the card.

#![forbid(unsafe_code)]

pub mod board;
pub mod disk;
pub mod target;
pub mod uboot;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Advice, OFlags, fadvise};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use target::{Disk, System, find};

/// Written and compared at once, in bytes.
pub const CHUNK: usize = 1 << 20;

/// What is said where nobody can be asked.
pub const NO_TERMINAL: &str = "there is no terminal to ask on, and nothing is written unasked";

/// Gives the answer to a question.
pub type Ask<'a> = &'a mut dyn FnMut(&str) -> Result<String>;

/// Asks by `ask`, if there is anybody; writes the image and verifies it, and tells `progress` of each MiB, twice. What
/// comes is the disk's name.
///
/// # Errors
/// The disk is refused or too small, the answer is another than its name, or what is read back differs.
pub fn flash(
    system: &System,
    device: &Path,
    (name, image): (&str, &[u8]),
    ask: Option<Ask<'_>>,
    progress: &mut dyn FnMut(),
) -> Result<String> {
    let disk = find(system, device)?;
    let bytes = image.len() as u64;
    ensure!(bytes > 0, "{name} is empty");
    ensure!(bytes <= disk.bytes, "{} has {} bytes, fewer than the {bytes} of {name}", device.display(), disk.bytes);
    let question = format!(
        "{}\n{name}, {bytes} bytes, is to be written to it.\nAll that is on it will be lost. Type {} to write it: ",
        shown(&disk),
        disk.name
    );
    let answer = ask.context(NO_TERMINAL)?(&question)?;
    // A `y` would come too easily.
    ensure!(answer.trim() == disk.name, "nothing was written: the answer was not {}", disk.name);
    // People take their time.
    ensure!(find(system, device)? == disk, "{} has changed meanwhile: nothing was written", device.display());
    let flags = OFlags::EXCL.bits().cast_signed(); // refused by the kernel while anything uses the disk
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&disk.path);
    let mut file = file.with_context(|| format!("cannot open {} for this alone", device.display()))?;
    write(&mut file, image, progress).with_context(|| format!("{} is incomplete", device.display()))?;
    verify(&mut file, image, progress).with_context(|| format!("{} is not to be used", device.display()))?;
    Ok(disk.name)
}

/// What a person knows a disk by.
fn shown(disk: &Disk) -> String {
    let size = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let model = if disk.model.is_empty() { "no model" } else { &disk.model };
    let mut parts = disk.partitions.iter().map(|(name, bytes)| format!("{name} ({})", size(*bytes)));
    let parts = parts.next().map(|first| parts.fold(first, |all, part| format!("{all}, {part}")));
    let parts = parts.unwrap_or_else(|| "no partition".to_owned());
    format!("{} ({}), {}, {model}; on it now: {parts}", disk.path.display(), disk.name, size(disk.bytes))
}

fn write(file: &mut File, image: &[u8], progress: &mut dyn FnMut()) -> Result<()> {
    for chunk in image.chunks(CHUNK) {
        file.write_all(chunk).context("cannot write")?;
        // So that it is the card that makes progress, not the cache.
        file.sync_data().context("cannot write")?;
        progress();
    }
    file.sync_all().context("cannot write")
}

fn verify(file: &mut File, image: &[u8], progress: &mut dyn FnMut()) -> Result<()> {
    // What is read comes from the card, not from what the kernel remembers.
    fadvise(&*file, 0, None, Advice::DontNeed)?;
    file.seek(SeekFrom::Start(0))?;
    let mut read = vec![0; CHUNK];
    for (index, chunk) in image.chunks(CHUNK).enumerate() {
        let read = &mut read[..chunk.len()];
        file.read_exact(read).context("cannot read back")?;
        let differs = read.iter().zip(chunk).position(|(read, wanted)| read != wanted);
        if let Some(at) = differs {
            bail!("byte {} was written and another is read back", index * CHUNK + at);
        }
        progress();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::target::tests::Fake;
    use super::*;

    const BYTES: u64 = 5 << 20;

    fn image() -> Vec<u8> {
        (0..3 * CHUNK + 5).map(|at| (at % 251) as u8).collect()
    }

    fn answered(fake: &Fake, image: &[u8], answer: &str) -> Result<String> {
        flash(
            &fake.system,
            &fake.node("sdb"),
            ("card.img", image),
            Some(&mut |_: &str| Ok(answer.to_owned())),
            &mut || {},
        )
    }

    /// The refusal, one line; the disk is as it was.
    #[track_caller]
    fn refusal(fake: &Fake, outcome: Result<String>) -> String {
        let said = format!("{:#}", outcome.expect_err("it is refused"));
        assert!(!said.contains('\n'), "{said}");
        let disk = std::fs::read(fake.node("sdb")).expect("it is there");
        assert!(disk.len() as u64 == BYTES && disk.iter().all(|byte| *byte == 0), "it was written: {said}");
        said
    }

    #[test]
    fn good_written_once_its_name_is_typed() {
        let fake = Fake::with_card(BYTES);
        let mut told = String::new();
        let mut ask = |question: &str| {
            told = question.to_owned();
            Ok("sdb\n".to_owned())
        };
        let name = flash(&fake.system, &fake.node("sdb"), ("card.img", &image()), Some(&mut ask), &mut || {});
        assert_eq!(name.expect("it is written"), "sdb");
        let disk = std::fs::read(fake.node("sdb")).expect("it is there");
        assert!(disk.starts_with(&image()) && disk[image().len()..].iter().all(|byte| *byte == 0));
        assert!(
            told.contains("(sdb), 0.0 GiB, Acme Card; on it now: sdb1 (0.0 GiB)\ncard.img, 3145733 bytes"),
            "{told}"
        );
    }

    #[test]
    fn bad_any_other_answer() {
        for answer in ["", "\n", "y\n", "yes\n", "sdc\n", "sdb1\n", "SDB\n"] {
            let fake = Fake::with_card(BYTES);
            assert!(refusal(&fake, answered(&fake, &image(), answer)).contains("nothing was written"), "{answer:?}");
        }
    }

    #[test]
    fn bad_nobody_to_ask() {
        let fake = Fake::with_card(BYTES);
        let outcome = flash(&fake.system, &fake.node("sdb"), ("card.img", &image()), None, &mut || {});
        assert_eq!(refusal(&fake, outcome), NO_TERMINAL);
    }

    #[test]
    fn bad_too_small_a_disk_and_no_bytes() {
        let fake = Fake::with_card(BYTES);
        let large = vec![1; BYTES as usize + 1];
        assert!(refusal(&fake, answered(&fake, &large, "sdb\n")).contains("fewer than the 5242881"));
        assert!(refusal(&fake, answered(&fake, &[], "sdb\n")).contains("is empty"));
    }

    #[test]
    fn bad_another_card_or_a_mount_while_it_is_asked() {
        for (is_mounted, reason) in [(false, "has changed meanwhile"), (true, "mounted at /media/card")] {
            let fake = Fake::with_card(BYTES);
            let mut ask = |_: &str| {
                if is_mounted {
                    fake.mount("8:17", "/media/card", "x")
                } else {
                    fake.set("sdb", "diskseq", "8")
                }
                Ok("sdb\n".to_owned())
            };
            let outcome = flash(&fake.system, &fake.node("sdb"), ("card.img", &image()), Some(&mut ask), &mut || {});
            assert!(refusal(&fake, outcome).contains(reason), "{reason}");
        }
    }

    #[test]
    fn bad_what_is_read_back_differs_or_ends() {
        let mut kept = image();
        kept[CHUNK + 7] ^= 1;
        for (kept, reason) in [(kept, "byte 1048583 was written"), (image()[..CHUNK].to_vec(), "cannot read back")] {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&kept).expect("it can be written");
            let said = format!("{:#}", verify(&mut file, &image(), &mut || {}).expect_err(reason));
            assert!(said.starts_with(reason), "{said}");
        }
    }

    #[test]
    fn bad_a_card_that_takes_no_more() {
        let mut full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        assert!(write(&mut full, &image(), &mut || {}).is_err_and(|error| error.to_string() == "cannot write"));
    }
}
