//! Disks as firmware reads them: a GUID partition table with one partition, the EFI system partition, which is FAT.

use anyhow::{Context, Result};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use std::io::{Cursor, Seek, SeekFrom, Write};

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Room for an image, a tree and a loader, in a FAT of 16 bits.
const PARTITION_BYTES: u64 = 32 << 20;
/// The tables before and behind the partition, which begins at a MiB.
const TABLE_BYTES: u64 = 1 << 20;

/// A disk with these files, each by its path from the top of the system partition.
///
/// # Errors
/// They do not fit, or a path is no path.
pub(crate) fn with_files(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let volume = volume(files)?;
    let bytes = PARTITION_BYTES + 2 * TABLE_BYTES;
    let mut disk = Cursor::new(vec![0; usize::try_from(bytes)?]);
    ProtectiveMBR::with_lb_size(u32::try_from(bytes / SECTOR - 1)?).overwrite_lba0(&mut disk)?;
    let table = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut table = table.create_from_device(disk, None)?;
    let first = TABLE_BYTES / SECTOR;
    table.add_partition_at("EFI system", 1, first, PARTITION_BYTES / SECTOR, gpt::partition_types::EFI, 0)?;
    let mut disk = table.write()?;
    disk.seek(SeekFrom::Start(TABLE_BYTES))?;
    disk.write_all(&volume)?;
    Ok(disk.into_inner())
}

fn volume(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut volume = Cursor::new(vec![0; usize::try_from(PARTITION_BYTES)?]);
    fatfs::format_volume(&mut volume, FormatVolumeOptions::new().volume_label(*b"BREAKWATER "))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn good_what_was_written_is_read_back() {
        let image = vec![0x5a; 300 << 10];
        let files: [(&str, &[u8]); 2] = [("EFI/BOOT/BOOTAA64.EFI", &image), ("EFI/debian/grub.cfg", b"boot\n")];
        let disk = with_files(&files).expect("a disk");
        let table = GptConfig::new().open_from_device(Cursor::new(disk.clone())).expect("a table, whole");
        let partition = table.partitions().values().next().expect("a partition");
        assert_eq!(partition.part_type_guid, gpt::partition_types::EFI);
        let first = partition.bytes_start(LogicalBlockSize::Lb512).expect("where it starts") as usize;
        let mut volume = Cursor::new(disk[first..first + PARTITION_BYTES as usize].to_vec());
        let system = FileSystem::new(&mut volume, FsOptions::new()).expect("a FAT");
        for (path, contents) in files {
            let mut read = Vec::new();
            system.root_dir().open_file(path).expect(path).read_to_end(&mut read).expect(path);
            assert_eq!(read, contents, "{path}");
        }
    }

    #[test]
    fn bad_more_than_the_partition_holds() {
        let large = vec![0; PARTITION_BYTES as usize];
        let error = with_files(&[("large", &large)]).expect_err("no room");
        assert!(error.to_string().contains("large"), "{error:#}");
    }
}
