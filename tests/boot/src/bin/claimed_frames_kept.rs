//! Memory that someone else has (memreserve, reserved-memory, a boot module, the device tree, the image, no-map) is never handed out: the
//! supply is emptied, every frame of it written to, and everything else is as it was.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    use breakwater_boot_tests::supply;

    let claimed = booted.claimed().page_cover();
    let tree_start = PhysAddr::at(booted.start.device_tree());
    let tree = PhysSpan::of(tree_start, booted.handover.device_tree().len() as u64).unwrap_or(claimed).page_cover();
    let map = booted.start.map();
    let part = |virt| map.physical(booted.start.image_start(), virt);
    let (image, pool) = (booted.start.image(), part(map.pool));
    let (init, old_tables) = (part(map.init), part(map.first_tables));

    for region in booted.handover.regions().lock().iter().filter(|region| region.name != "directmap") {
        let output = region.output.and_then(|start| PhysSpan::of(start, region.virt.bytes()));
        let hit = output.and_then(|output| output.intersection(claimed));
        booted.require(hit.is_none(), format_args!("{} takes {hit:?}, which is claimed", region.name));
    }
    let is_mapped = probe::translate(booted.directmap(claimed.start())).is_some();
    let sum_before = if is_mapped { supply::sum(&booted, claimed) } else { 0 };
    let tree_before = supply::sum(&booted, tree);
    let available = booted.handover.frames().lock().available();

    let drained = supply::drain(&booted, |frame| {
        let at = frame.start();
        let ours = pool.contains(at) || init.contains(at) || old_tables.contains(at);
        for (name, taken) in [("claimed memory", claimed), ("the device tree", tree), ("the image", image)] {
            let hit = taken.contains(at) && !(ours && taken == image);
            booted.require(!hit, format_args!("{at:?} was handed out of {name}, {taken:?}"));
        }
    });
    booted.require(drained.count == available, format_args!("{} frames, not {available}", drained.count));
    booted.require(drained.is_whole(), "a frame was handed out twice, or something wrote to it");
    booted.require(supply::sum(&booted, tree) == tree_before, "the device tree has changed");
    if is_mapped {
        booted.require(supply::sum(&booted, claimed) == sum_before, "claimed memory has changed");
    }
    booted.require_clean_audit(if is_mapped { &[] } else { core::slice::from_ref(&claimed) });
    let count = drained.count;
    booted.holds(format_args!("{count} frames handed out, all free"))
});
