//! Disks and cards as firmware reads them: one partition, which is FAT, in a GUID partition table as the EFI system
//! partition, or in a master boot record.

use anyhow::{Context, Result};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::{PartRecord, ProtectiveMBR};
use std::io::{Cursor, Read, Seek, SeekFrom, Write};

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Room for an image, a tree, a loader and firmware, in a FAT of 32 bits.
const PARTITION_BYTES: u64 = 62 << 20;
/// The tables before and behind the partition, which begins at a MiB. In all a power of two: QEMU's SD cards are.
const TABLE_BYTES: u64 = 1 << 20;
/// In a master boot record: FAT of 32 bits, by sector numbers; and what says that no other numbers are given.
const FAT32: u8 = 0x0c;
const NO_CYLINDERS: [u8; 3] = [0xfe, 0xff, 0xff];

/// What says where the partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// What UEFI reads.
    Gpt,
    /// What boot ROMs read.
    Mbr,
}

/// A disk with these files, each by its path from the top of the partition.
///
/// # Errors
/// They do not fit, or a path is no path.
pub fn with_files(table: Table, files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let bytes = PARTITION_BYTES + 2 * TABLE_BYTES;
    let disk = Cursor::new(vec![0; usize::try_from(bytes)?]);
    let mut disk = match table {
        Table::Gpt => with_gpt(disk)?,
        Table::Mbr => with_mbr(disk)?,
    };
    disk.seek(SeekFrom::Start(TABLE_BYTES))?;
    disk.write_all(&volume(files)?)?;
    Ok(disk.into_inner())
}

fn with_mbr(mut disk: Cursor<Vec<u8>>) -> Result<Cursor<Vec<u8>>> {
    let [start_head, start_sector, start_track] = NO_CYLINDERS;
    let [end_head, end_sector, end_track] = NO_CYLINDERS;
    let record = PartRecord {
        boot_indicator: 0x80,
        os_type: FAT32,
        lb_start: u32::try_from(TABLE_BYTES / SECTOR)?,
        lb_size: u32::try_from(PARTITION_BYTES / SECTOR)?,
        start_head,
        start_sector,
        start_track,
        end_head,
        end_sector,
        end_track,
    };
    let mut table = ProtectiveMBR::new();
    table.set_partition(0, record);
    table.overwrite_lba0(&mut disk)?;
    Ok(disk)
}

fn with_gpt(mut disk: Cursor<Vec<u8>>) -> Result<Cursor<Vec<u8>>> {
    ProtectiveMBR::with_lb_size(u32::try_from(disk.get_ref().len() as u64 / SECTOR - 1)?).overwrite_lba0(&mut disk)?;
    let table = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut table = table.create_from_device(disk, None)?;
    let first = TABLE_BYTES / SECTOR;
    table.add_partition_at("EFI system", 1, first, PARTITION_BYTES / SECTOR, gpt::partition_types::EFI, 0)?;
    Ok(table.write()?)
}

fn volume(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut volume = Cursor::new(vec![0; usize::try_from(PARTITION_BYTES)?]);
    let options = FormatVolumeOptions::new().volume_label(*b"BREAKWATER ").fat_type(FatType::Fat32);
    fatfs::format_volume(&mut volume, options.bytes_per_cluster(SECTOR as u32))?;
    let system = FileSystem::new(&mut volume, FsOptions::new())?;
    for (path, contents) in files {
        let write = || {
            let mut directory = system.root_dir();
            let mut parts = path.split('/').peekable();
            while let Some(part) = parts.next() {
                if parts.peek().is_some() {
                    directory = directory.create_dir(part)?;
                } else {
                    let mut file = directory.create_file(part)?;
                    file.truncate()?;
                    file.write_all(contents)?;
                }
            }
            std::io::Result::Ok(())
        };
        write().with_context(|| format!("cannot write {path} to a FAT of {PARTITION_BYTES:#x} bytes"))?;
    }
    system.unmount()?;
    Ok(volume.into_inner())
}

/// The contents of the file `path` on a disk, wherever its table says that the partition is.
///
/// # Errors
/// It has no such table, partition or file.
pub fn read(disk: &[u8], path: &str) -> Result<Vec<u8>> {
    let sector = disk.get(..SECTOR as usize).context("a disk has a first sector")?;
    let record = ProtectiveMBR::from_bytes(sector, LogicalBlockSize::Lb512)?.partition(0).context("a first record")?;
    let (first, bytes) = if record.os_type == FAT32 {
        (u64::from(record.lb_start) * SECTOR, u64::from(record.lb_size) * SECTOR)
    } else {
        let table = GptConfig::new().open_from_device(Cursor::new(disk.to_vec()))?;
        let partition = table.partitions().values().next().context("the table has no partition")?;
        let size = LogicalBlockSize::Lb512;
        (partition.bytes_start(size)?, partition.bytes_len(size)?)
    };
    let volume = disk.get(usize::try_from(first)?..).and_then(|from| from.get(..usize::try_from(bytes).ok()?));
    let mut volume = Cursor::new(volume.context("the partition is beyond the disk")?.to_vec());
    let system = FileSystem::new(&mut volume, FsOptions::new())?;
    let mut contents = Vec::new();
    system.root_dir().open_file(path).with_context(|| path.to_owned())?.read_to_end(&mut contents)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_what_was_written_is_read_back() {
        let image = vec![0x5a; 300 << 10];
        let files: [(&str, &[u8]); 2] = [("EFI/BOOT/BOOTAA64.EFI", &image), ("EFI/debian/grub.cfg", b"boot\n")];
        for table in [Table::Gpt, Table::Mbr] {
            let disk = with_files(table, &files).expect("a disk");
            assert!(disk.len().is_power_of_two());
            for (path, contents) in files {
                assert_eq!(read(&disk, path).expect(path), contents);
            }
            assert!(read(&disk, "EFI/other").is_err());
        }
    }

    #[test]
    fn bad_more_than_the_partition_holds() {
        let large = vec![0; PARTITION_BYTES as usize];
        let error = with_files(Table::Mbr, &[("large", &large)]).expect_err("no room");
        assert!(error.to_string().contains("large"), "{error:#}");
    }
}
