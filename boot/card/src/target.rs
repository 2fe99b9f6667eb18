//! Which device may be written: a whole disk that a person can take out, that holds a medium, and that nothing uses.
//!
//! What is asked is the kernel, by sysfs and /proc, and by device numbers, since a name may be a link or made by hand.
//! What it refuses: partitions; disks that are mounted, swapped to, or part of something else, by whatever layers; disks
//! that cannot be taken out; and what is no disk. What the kernel uses without saying so here, the open refuses.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where the kernel says what there is.
pub struct System {
    /// Its /sys.
    pub sys: PathBuf,
    /// Its /proc.
    pub proc: PathBuf,
    /// The number of a block device, as `8:16`; nothing for anything else.
    pub number: fn(&Path) -> Option<String>,
}

impl System {
    /// This machine.
    pub fn here() -> Self {
        let number = |path: &Path| {
            let metadata = fs::metadata(path).ok().filter(|metadata| metadata.file_type().is_block_device())?;
            let device = metadata.rdev();
            Some(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
        };
        Self { sys: "/sys".into(), proc: "/proc".into(), number }
    }
}

/// A disk that may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The node that is opened.
    pub path: PathBuf,
    /// As the kernel calls it.
    pub name: String,
    /// Of the device, as `8:16`.
    pub number: String,
    /// Its size.
    pub bytes: u64,
    /// Counts media: another card in the same reader has another.
    sequence: String,
    /// Whose it is and which; empty where the kernel does not know.
    pub model: String,
    /// Its partitions now, and their bytes.
    pub partitions: Vec<(String, u64)>,
}

/// A file of sysfs, without the line's end; empty where there is none.
fn value(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default().trim().to_owned()
}

fn name_of(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folders in `folder`.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.path().canonicalize().ok()).filter(|path| path.is_dir()).collect()
}

/// In bytes: sysfs counts sectors of 512 whatever the disk's are.
fn bytes_of(folder: &Path) -> u64 {
    value(folder, "size").parse::<u64>().unwrap_or_default() * 512
}

/// The disk at `path`, if it may be written.
///
/// # Errors
/// It may not: the reason.
pub fn find(system: &System, path: &Path) -> Result<Disk> {
    let shown = path.display();
    let metadata = fs::metadata(path).with_context(|| format!("there is no {shown}"))?;
    let Some(number) = (system.number)(path) else {
        ensure!(!metadata.is_file(), "{shown} is a file, not a device");
        bail!("{shown} is no disk");
    };
    let folder = system.sys.join("dev/block").join(&number);
    let folder = folder.canonicalize().with_context(|| format!("the kernel has no disk {number}, as {shown} is"))?;
    if folder.join("partition").is_file() {
        let disk = folder.parent().map(name_of).unwrap_or_default();
        bail!("{shown} is a partition: name the whole disk, {disk}");
    }
    let of_disk: Vec<PathBuf> = folders(&folder).into_iter().filter(|part| part.join("partition").is_file()).collect();
    unused(system, &folder, &of_disk).with_context(|| shown.to_string())?;
    let kind = value(&folder, "device/type");
    // SCSI's number of optical drives; and a card in a reader of its own, which the kernel does not call removable.
    ensure!(kind != "5", "{shown} is no disk");
    let is_removable = value(&folder, "removable") == "1" || kind == "SD";
    ensure!(is_removable, "{shown} cannot be taken out of this machine: only removable disks are written");
    ensure!(bytes_of(&folder) > 0, "{shown} has no card in it");
    ensure!(value(&folder, "ro") != "1", "{shown} is read-only: some cards have a lock");
    let words = ["vendor", "model", "name"].map(|word| value(&folder, &format!("device/{word}")));
    let mut partitions: Vec<_> = of_disk.iter().map(|part| (name_of(part), bytes_of(part))).collect();
    partitions.sort();
    Ok(Disk {
        path: path.to_owned(),
        name: name_of(&folder),
        number,
        bytes: bytes_of(&folder),
        sequence: value(&folder, "diskseq"),
        model: words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "),
        partitions,
    })
}

/// Nothing uses the disk at `folder`, nor a part of it, nor what is made of these.
fn unused(system: &System, folder: &Path, parts: &[PathBuf]) -> Result<()> {
    let mut reached: Vec<PathBuf> = [&[folder.to_owned()], parts].concat();
    let mut at = 0;
    while let Some(one) = reached.get(at) {
        let above = folders(&one.join("holders"));
        above.into_iter().for_each(|holder| {
            if !reached.contains(&holder) {
                reached.push(holder)
            }
        });
        at += 1;
    }
    let numbers: BTreeSet<String> = reached.iter().map(|one| value(one, "dev")).collect();
    let is_reached = |number: &str| numbers.contains(number);
    let by_name = |name: &str| (system.number)(Path::new(name)).is_some_and(|number| is_reached(&number));
    let read = |name: &str| {
        let path = system.proc.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot tell what is in use: {}", path.display()))
    };
    for line in read("self/mountinfo")?.lines() {
        // Number, root, place, options, any more fields, a hyphen, kind, source.
        let fields: Vec<&str> = line.split(' ').collect();
        let source = fields.iter().position(|field| *field == "-").and_then(|hyphen| fields.get(hyphen + 2));
        let (Some(number), Some(place)) = (fields.get(2), fields.get(4)) else { continue };
        if is_reached(number) || source.is_some_and(|source| by_name(source)) {
            let is_system = *place == "/" || ["/boot", "/usr", "/var"].iter().any(|of| place.starts_with(of));
            ensure!(!is_system, "this system runs from it: {place} is there");
            bail!("it is mounted at {place}: unmount it first");
        }
    }
    let swaps = read("swaps")?;
    let is_swap = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).any(by_name);
    ensure!(!is_swap, "this system swaps to it");
    for pool in folders(&system.sys.join("fs/btrfs")) {
        let is_member = folders(&pool.join("devices")).iter().any(|member| reached.contains(member));
        ensure!(!is_member, "it is part of the btrfs {}, which is mounted", name_of(&pool));
    }
    let above = reached.get(1 + parts.len()).map(|holder| name_of(holder));
    above.map_or(Ok(()), |holder| bail!("it is part of {holder}: take that apart first"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A machine that runs from the NVMe disk 259:0, in folders of a directory that goes with it.
    pub(crate) struct Fake {
        _whole: tempfile::TempDir,
        top: PathBuf,
        pub(crate) system: System,
    }

    impl Fake {
        pub(crate) fn new() -> Self {
            let whole = tempfile::tempdir().expect("a directory");
            let top = whole.path().canonicalize().expect("it is there");
            // Beside a node, a file says its number.
            let number = |path: &Path| {
                let path = path.canonicalize().ok()?;
                fs::read_to_string(path.with_extension("number")).ok()
            };
            let system = System { sys: top.join("sys"), proc: top.join("proc"), number };
            let fake = Self { _whole: whole, top, system };
            fake.put("proc/self/mountinfo", "22 1 0:21 / /proc rw - proc proc rw\n");
            fake.put("proc/swaps", "Filename Type Size Used Priority\n");
            fake.disk("nvme0n1", "259:0", 1 << 30);
            fake.part("nvme0n1", "nvme0n1p1", "259:1");
            fake.set("nvme0n1", "removable", "0");
            fake.mount("259:1", "/", "/dev/root");
            fake
        }

        /// And the card that is to be written.
        pub(crate) fn with_card(bytes: u64) -> Self {
            let fake = Self::new();
            fake.disk("sdb", "8:16", bytes);
            fake.part("sdb", "sdb1", "8:17");
            fake
        }

        pub(crate) fn node(&self, name: &str) -> PathBuf {
            self.top.join("dev").join(name)
        }

        fn put(&self, name: &str, text: &str) {
            let file = self.top.join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("it can be made");
            fs::write(file, text).expect("it can be written");
        }

        /// An attribute of a disk or partition (`sdb/sdb1`).
        pub(crate) fn set(&self, of: &str, name: &str, text: &str) {
            self.put(&format!("sys/devices/{of}/{name}"), &format!("{text}\n"));
        }

        fn block(&self, of: &str, number: &str) {
            let name = of.rsplit('/').next().expect("a name");
            self.put(&format!("dev/{name}.number"), number);
            self.put(&format!("dev/{name}"), "");
            self.set(of, "dev", number);
            fs::create_dir_all(self.system.sys.join("devices").join(of).join("holders")).expect("it can be made");
            let link = self.system.sys.join("dev/block").join(number);
            fs::create_dir_all(link.parent().expect("a folder")).expect("it can be made");
            symlink(self.system.sys.join("devices").join(of), link).expect("it can be linked");
        }

        fn disk(&self, name: &str, number: &str, bytes: u64) {
            self.block(name, number);
            let attributes = [("size", (bytes / 512).to_string()), ("diskseq", "7".to_owned())];
            attributes.iter().for_each(|(attribute, text)| self.set(name, attribute, text));
            let told = [("removable", "1"), ("ro", "0"), ("device/model", "Card  "), ("device/vendor", "Acme")];
            told.iter().chain(&[("device/type", "0")]).for_each(|(attribute, text)| self.set(name, attribute, text));
            fs::File::create(self.node(name)).and_then(|file| file.set_len(bytes)).expect("it can be made");
        }

        fn part(&self, disk: &str, name: &str, number: &str) {
            self.block(&format!("{disk}/{name}"), number);
            self.set(&format!("{disk}/{name}"), "partition", "1");
            self.set(&format!("{disk}/{name}"), "size", "2048");
        }

        /// `name` is made of `of`.
        fn hold(&self, of: &str, name: &str, number: &str) {
            self.disk(name, number, 1 << 20);
            let devices = self.system.sys.join("devices");
            symlink(devices.join(name), devices.join(of).join("holders").join(name)).expect("it can be linked");
        }

        fn add(&self, name: &str, line: &str) {
            let before = fs::read_to_string(self.top.join(name)).expect("it is there");
            self.put(name, &format!("{before}{line}\n"));
        }

        pub(crate) fn mount(&self, number: &str, place: &str, source: &str) {
            let line = format!("30 22 {number} / {place} rw,relatime shared:1 - ext4 {source} rw");
            self.add("proc/self/mountinfo", &line);
        }

        fn swap(&self, name: &str) {
            self.add("proc/swaps", &format!("{} partition 1024 0 -2", self.node(name).display()));
        }
    }

    /// Why `name` is refused after `setting`: one line.
    #[track_caller]
    fn refused(name: &str, reason: &str, setting: impl FnOnce(&Fake)) {
        let fake = Fake::with_card(1 << 20);
        setting(&fake);
        let said = format!("{:#}", find(&fake.system, &fake.node(name)).expect_err(reason));
        assert!(said.contains(reason) && !said.contains('\n'), "{said}");
    }

    #[test]
    fn good_a_removable_disk_that_nothing_uses() {
        let fake = Fake::with_card(1 << 20);
        let disk = find(&fake.system, &fake.node("sdb")).expect("it may be written");
        assert_eq!((disk.name.as_str(), disk.bytes, disk.model.as_str()), ("sdb", 1 << 20, "Acme Card"));
        assert_eq!(disk.partitions, [("sdb1".to_owned(), 1 << 20)]);
        let link = fake.node("by-id");
        symlink(fake.node("sdb"), &link).expect("it can be linked");
        assert_eq!(find(&fake.system, &link).expect("it may be written").name, "sdb");
    }

    #[test]
    fn good_a_card_in_a_reader_of_its_own() {
        let fake = Fake::with_card(1 << 20);
        fake.set("sdb", "removable", "0");
        fake.set("sdb", "device/type", "SD");
        assert!(find(&fake.system, &fake.node("sdb")).is_ok());
    }

    #[test]
    fn bad_what_is_mounted() {
        refused("sdb", "mounted at /media/card", |fake| fake.mount("8:17", "/media/card", "/dev/other"));
        refused("sdb", "mounted at /mnt", |fake| fake.mount("8:16", "/mnt", "/dev/other"));
        // Some file systems have numbers of their own.
        refused("sdb", "mounted at /mnt", |fake| {
            fake.mount("0:45", "/mnt", &fake.node("sdb1").display().to_string());
        });
        refused("sdb", "mounted at /mnt", |fake| {
            fake.hold("sdb/sdb1", "dm-0", "253:0");
            fake.mount("253:0", "/mnt", "/dev/mapper/volume");
        });
        refused("sdb", "part of the btrfs f00d", |fake| {
            let members = fake.system.sys.join("fs/btrfs/f00d/devices");
            fs::create_dir_all(&members).expect("it can be made");
            symlink(fake.system.sys.join("devices/sdb/sdb1"), members.join("sdb1")).expect("it can be linked");
        });
    }

    #[test]
    fn bad_what_the_system_runs_from() {
        refused("nvme0n1", "this system runs from it: / is there", |_| {});
        refused("sdb", "runs from it: / is there", |fake| fake.mount("8:17", "/", "/dev/root"));
        refused("sdb", "runs from it: /boot/efi", |fake| fake.mount("8:17", "/boot/efi", "/dev/sdb1"));
        refused("sdb", "this system swaps to it", |fake| fake.swap("sdb1"));
        refused("sdb", "this system swaps to it", |fake| fake.swap("sdb"));
        // LVM on an encrypted partition.
        for reason in ["runs from it: / is there", "this system swaps to it"] {
            refused("sdb", reason, |fake| {
                fake.hold("sdb/sdb1", "dm-0", "253:0");
                fake.hold("dm-0", "dm-1", "253:1");
                if reason.contains("swaps") { fake.swap("dm-1") } else { fake.mount("253:1", "/", "/dev/root") }
            });
        }
    }

    #[test]
    fn bad_what_is_part_of_something_else() {
        refused("sdb", "part of md0", |fake| fake.hold("sdb/sdb1", "md0", "9:0"));
        refused("sdb", "part of dm-3", |fake| fake.hold("sdb", "dm-3", "253:3"));
    }

    #[test]
    fn bad_what_is_no_whole_disk() {
        refused("sdb1", "name the whole disk, sdb", |_| {});
        refused("nvme0n1p1", "name the whole disk, nvme0n1", |_| {});
        refused("card.img", "is a file", |fake| fake.put("dev/card.img", "bytes"));
        refused("mapper", "is no disk", |fake| fake.put("dev/mapper/control", ""));
        refused("sdz", "there is no", |_| {});
        refused("sr0", "is no disk", |fake| {
            fake.disk("sr0", "11:0", 1 << 20);
            fake.set("sr0", "device/type", "5");
        });
        refused("odd", "the kernel has no disk 7:99", |fake| {
            fake.put("dev/odd", "");
            fake.put("dev/odd.number", "7:99");
        });
    }

    #[test]
    fn bad_what_stays_in_the_machine_or_cannot_be_written() {
        let taken_out = "cannot be taken out";
        refused("sdb", taken_out, |fake| fake.set("sdb", "removable", "0"));
        refused("mmcblk0", taken_out, |fake| {
            fake.disk("mmcblk0", "179:0", 1 << 20);
            fake.set("mmcblk0", "removable", "0");
            fake.set("mmcblk0", "device/type", "MMC");
        });
        refused("sdb", "has no card", |fake| fake.set("sdb", "size", "0"));
        refused("sdb", "read-only", |fake| fake.set("sdb", "ro", "1"));
    }

    #[test]
    fn bad_a_machine_that_does_not_say_what_is_in_use() {
        for file in ["self/mountinfo", "swaps"] {
            refused("sdb", "cannot tell what is in use", |fake| {
                fs::remove_file(fake.system.proc.join(file)).expect("it was there");
            });
        }
    }
}
