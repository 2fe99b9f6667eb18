//! What must hold among the figures of any report.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Leaf sizes of the 4 KiB granule as powers of two, with the names that the report counts them under. Largest first.
const LEAVES: [(u32, &str); 3] = [(30, "blocks_1g"), (21, "blocks_2m"), (12, "pages")];

/// Leaves of a contiguous run.
const RUN_LEAVES: u64 = 16;

/// The directmap must be mapped with the fewest leaves that granule and alignment allow, and as many of them in contiguous runs as can be.
///
/// # Errors
/// Names the region that has more.
pub(super) fn fewest_leaves(report: &Value) -> Result<()> {
    let regions = report.pointer("/regions").and_then(Value::as_array).context("the report has no regions")?;
    let directmap = regions.iter().filter(|region| region["name"] == "directmap");
    for region in directmap {
        let number = |field: &str| region[field].as_u64().with_context(|| format!("a region without {field}"));
        let (va, pa, bytes) = (number("va")?, number("pa")?, number("bytes")?);
        let wanted = fewest(va, pa, bytes).into_iter().zip(contiguous(va, pa, bytes));
        for ((count, in_runs), (_, name)) in wanted.zip(LEAVES) {
            let there = number(name)?;
            ensure!(there == count, "directmap at {va:#x}, {bytes:#x} bytes: {there} {name} where {count} would do");
            let there = region["contiguous"][name].as_u64().context("a region without contiguous leaves")?;
            ensure!(there == in_runs, "directmap at {va:#x}, {bytes:#x} bytes: {there} {name} in runs, not {in_runs}");
        }
    }
    Ok(())
}

/// The greediest cover, which is the smallest because each size divides the next.
fn fewest(va: u64, pa: u64, bytes: u64) -> [u64; 3] {
    let (mut at, mut counts) = (0, [0; 3]);
    while at < bytes {
        let fits = |shift: u32| ((va + at) | (pa + at)).is_multiple_of(1 << shift) && bytes - at >= 1 << shift;
        let index = LEAVES.iter().position(|&(shift, _)| fits(shift)).unwrap_or(2);
        counts[index] += 1;
        at += 1 << LEAVES[index].0;
    }
    counts
}

/// How many of those leaves are of contiguous runs: sixteen of a size, aligned to all sixteen, of which none fits into a larger leaf.
fn contiguous(va: u64, pa: u64, bytes: u64) -> [u64; 3] {
    let larger = [None, Some(LEAVES[0].0), Some(LEAVES[1].0)];
    core::array::from_fn(|index| {
        let (leaf, run_bytes) = (1_u64 << LEAVES[index].0, RUN_LEAVES << LEAVES[index].0);
        if va % run_bytes != pa % run_bytes {
            return 0;
        }
        let whole = |unit: u64, from: u64, end: u64| (from.div_ceil(unit) * unit, (end / unit * unit));
        let (from, end) = whole(run_bytes, va, va + bytes);
        let in_larger = larger[index].filter(|&shift| va % (1 << shift) == pa % (1 << shift)).map_or(0, |shift| {
            let (from, end) = whole(1 << shift, va, va + bytes);
            end.saturating_sub(from) / leaf
        });
        (end.saturating_sub(from) / leaf).saturating_sub(in_larger)
    })
}

/// The phases must add up to the total, figure by figure; with `counted`, instructions too.
///
/// # Errors
/// Names the figure that does not.
pub(super) fn phases_add_up(report: &Value, counted: bool) -> Result<()> {
    let phases = report.pointer("/phases").and_then(Value::as_array).context("the report has no phases")?;
    let figures = ["stores", "tlbis", "dsbs", "isbs", "frames"].into_iter().chain(counted.then_some("instructions"));
    for figure in figures {
        let number = |phase: &Value| phase[figure].as_u64().with_context(|| format!("a phase without {figure}"));
        let sum: u64 = phases.iter().map(number).sum::<Result<u64>>()?;
        let total = number(&report["total"])?;
        ensure!(sum == total && total > 0, "{figure} of all phases are {sum}, and the total is {total}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GIB: u64 = 1 << 30;

    #[test]
    fn good_the_fewest_leaves_of_known_spans() {
        assert_eq!(fewest(0, 0, 2 * GIB), [2, 0, 0]);
        assert_eq!(fewest(0x1000, 0x1000, 0x20_0000), [0, 0, 512]);
        assert_eq!(fewest(0x1f_f000, GIB + 0x1f_f000, 0x20_2000), [0, 1, 2]);
    }

    #[test]
    fn good_contiguous_leaves_of_known_spans() {
        assert_eq!(contiguous(0, 0, 2 * GIB), [0, 0, 0], "two GiB are no run of sixteen");
        assert_eq!(contiguous(0, 0, 33 * GIB), [32, 0, 0]);
        assert_eq!(contiguous(0, GIB, 33 * GIB), [0, 0, 0], "apart by one GiB");
        assert_eq!(contiguous(0, GIB, 96 << 20), [0, 48, 0]);
        assert_eq!(contiguous(0x1000, 0x1000, 0x20_0000), [0, 0, 512 - 16]);
        // What is left of 2 GiB without the first 0x277 pages: 9 pages short of a 64 KiB boundary, then pages up to 4 MiB, then blocks.
        assert_eq!(contiguous(0x27_7000, GIB + 0x27_7000, 2 * GIB - 0x27_7000), [0, 512 - 16, 0x200 * 2 - 0x280]);
    }

    #[test]
    fn bad_blocks_that_could_be_a_run() {
        let region = |in_runs| {
            json!({"name": "directmap", "va": 0, "pa": 0, "bytes": 32 << 20, "pages": 0, "blocks_2m": 16, "blocks_1g": 0,
            "contiguous": {"pages": 0, "blocks_2m": in_runs, "blocks_1g": 0}})
        };
        assert!(fewest_leaves(&json!({"regions": [region(16)]})).is_ok());
        assert!(fewest_leaves(&json!({"regions": [region(0)]})).is_err());
    }

    #[test]
    fn bad_a_block_split_without_need() {
        let region = |pages, blocks| {
            json!({"name": "directmap", "va": 0, "pa": 0, "bytes": 2 << 20, "pages": pages,
            "blocks_2m": blocks, "blocks_1g": 0, "contiguous": {"pages": 0, "blocks_2m": 0, "blocks_1g": 0}})
        };
        assert!(fewest_leaves(&json!({"regions": [region(0, 1)]})).is_ok());
        assert!(fewest_leaves(&json!({"regions": [region(512, 0)]})).is_err());
    }

    #[test]
    fn bad_phases_that_do_not_add_up() {
        let figures = |n| json!({"stores": n, "tlbis": 1, "dsbs": 1, "isbs": 1, "frames": 1, "instructions": null});
        let report = |n| json!({"phases": [figures(3)], "total": figures(n)});
        assert!(phases_add_up(&report(3), false).is_ok());
        assert!(phases_add_up(&report(4), false).is_err());
        assert!(phases_add_up(&report(3), true).is_err());
    }
}
