//! Judges what the walker noted.

use super::{Audit, Declared, Finding, Memory, Scratch, Seen};
use crate::addr::{Frame, PAGE_BYTES, PhysSpan, VirtAddr, VirtSpan};
use crate::descriptor::Rights;

/// Each declaration against the runs, which are in ascending virtual order, and each run against the declarations.
pub(super) fn against_declarations(audit: &mut Audit, runs: &[Scratch], declared: &[Declared]) {
    for declaration in declared {
        match declaration.output {
            Some(_) => is_mapped(audit, runs, declaration),
            None => is_hole(audit, runs, declaration),
        }
    }
    // Declarations follow each other much as the runs do: after the one that covers a run comes the next run's.
    let mut next = 0;
    for run in runs {
        let (behind, ahead) = declared.split_at(next);
        match ahead.iter().chain(behind).position(|declaration| declaration.virt.covers(run.virt)) {
            Some(after) => next = (next + after) % declared.len(),
            None => is_declared(audit, run, declared),
        }
    }
}

/// The runs, which are in ascending order, that have a part in `virt`, and which part.
fn parts(runs: &[Scratch], virt: VirtSpan) -> impl Iterator<Item = (&Scratch, VirtSpan)> {
    let first = runs.partition_point(|run| run.virt.end_exclusive() <= virt.start());
    runs.iter().skip(first).map_while(move |run| Some((run, run.virt.intersection(virt)?)))
}

fn is_hole(audit: &mut Audit, runs: &[Scratch], declaration: &Declared) {
    for (run, virt) in parts(runs, declaration.virt) {
        let phys = run.phys_of(virt.start());
        audit.report(Finding::HoleMapped { name: declaration.name, virt, phys, found: run.seen });
    }
}

fn is_mapped(audit: &mut Audit, runs: &[Scratch], declaration: &Declared) {
    let Declared { name, virt, .. } = *declaration;
    let mut position = virt.start();
    for (run, part) in parts(runs, virt) {
        report_gap(audit, name, position, part.start());
        is_as_declared(audit, run, part, declaration);
        position = part.end_exclusive();
    }
    report_gap(audit, name, position, virt.end_exclusive());
}

fn report_gap(audit: &mut Audit, name: &'static str, start: VirtAddr, end_exclusive: VirtAddr) {
    if let Some(virt) = VirtSpan::new(start, end_exclusive).filter(|gap| !gap.is_empty()) {
        audit.report(Finding::Unmapped { name, virt });
    }
}

fn is_as_declared(audit: &mut Audit, run: &Scratch, part: VirtSpan, declaration: &Declared) {
    let Declared { name, virt, output, attributes } = *declaration;
    let found = run.phys_of(part.start());
    let declared = output.and_then(|output| output.checked_add(part.start().raw() - virt.start().raw()));
    if declared != Some(found) {
        audit.report(Finding::WrongOutput { name, virt: part, declared, found });
    }
    let expected = Seen::expected(attributes);
    if run.seen != expected {
        audit.report(Finding::WrongAttributes { name, virt: part, declared: expected, found: run.seen });
    }
}

/// Reports each part of the run that no declaration covers.
fn is_declared(audit: &mut Audit, run: &Scratch, declared: &[Declared]) {
    let mut position = run.virt.start();
    while position < run.virt.end_exclusive() {
        let spans = || declared.iter().map(|declaration| declaration.virt);
        let covered_up_to = spans().filter(|span| span.contains(position)).map(VirtSpan::end_exclusive).max();
        position = match covered_up_to {
            Some(end_exclusive) => end_exclusive,
            None => {
                let later = spans().map(VirtSpan::start).filter(|start| *start > position);
                let end_exclusive = later.min().unwrap_or(run.virt.end_exclusive()).min(run.virt.end_exclusive());
                if let Some(virt) = VirtSpan::new(position, end_exclusive) {
                    audit.report(Finding::Undeclared { virt, phys: run.phys_of(position), found: run.seen });
                }
                end_exclusive
            }
        };
    }
}

/// What must hold of each run by itself.
pub(super) fn rights_and_memory(audit: &mut Audit, runs: &[Scratch], memory: Memory<'_>) {
    for run in runs {
        let Scratch { virt, phys, seen } = *run;
        let rights = seen.rights();
        if rights.contains(Rights::WRITE | Rights::EXECUTE) {
            audit.writable_executable += virt.bytes() / PAGE_BYTES;
            audit.report(Finding::WritableExecutable { virt, phys });
        }
        if seen.is_device() {
            if rights.contains(Rights::EXECUTE) {
                audit.report(Finding::ExecutableDevice { virt, phys });
            }
            continue;
        }
        if let Some(phys) = memory.outside_ram(run.phys()) {
            audit.report(Finding::OutsideRam { virt: run.virt_of(phys.start()), phys });
        }
        if let Some(phys) = memory.in_no_map(run.phys()) {
            audit.report(Finding::InNoMap { virt: run.virt_of(phys.start()), phys });
        }
    }
}

/// What must hold of each pair of runs that share frames. Leaves the runs in ascending physical order.
pub(super) fn aliases(audit: &mut Audit, runs: &mut [Scratch]) {
    runs.sort_unstable_by_key(|run| run.phys);
    for (index, one) in runs.iter().enumerate() {
        for (other, phys) in
            runs.iter().skip(index + 1).map_while(|other| Some((other, one.phys().intersection(other.phys())?)))
        {
            let (one, other) = if one.virt.start() < other.virt.start() { (one, other) } else { (other, one) };
            judge_alias(audit, phys, one, other);
        }
    }
}

fn judge_alias(audit: &mut Audit, phys: PhysSpan, one: &Scratch, other: &Scratch) {
    let at = |run: &Scratch| run.virt_of(phys.start());
    for (writer, runner) in [(one, other), (other, one)] {
        if writer.seen.rights().contains(Rights::WRITE) && runner.seen.rights().contains(Rights::EXECUTE) {
            audit.report(Finding::WritableExecutableAlias { phys, writable: at(writer), executable: at(runner) });
        }
    }
    if one.seen.memory() != other.seen.memory() {
        audit.report(Finding::MixedMemory { phys, one: (at(one), one.seen), other: (at(other), other.seen) });
    }
}

/// What must hold of the frames that the tables themselves lie in. The runs are in ascending physical order.
pub(super) fn tables(audit: &mut Audit, runs: &[Scratch], tables: &[Scratch]) {
    for table in tables {
        let frame = Frame::containing(table.phys);
        let reach = runs.iter().take_while(|run| run.phys <= table.phys);
        for run in reach.filter(|run| run.phys().contains(table.phys)) {
            let virt = run.virt_of(table.phys);
            if run.seen.rights().contains(Rights::EXECUTE) {
                audit.report(Finding::TableExecutable { table: frame, virt });
            }
            if !run.seen.is_for_tables() {
                audit.report(Finding::TableMixedMemory { table: frame, virt, found: run.seen });
            }
        }
    }
}
