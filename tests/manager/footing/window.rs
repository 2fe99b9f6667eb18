//! The window to tables and to free frames, through the tables themselves.

use super::*;
use breakwater::addr::VirtAddr;
use breakwater::machine::Reached;

const NAME: &str = "the window to a table";
const FREE: &str = "the window to a free frame";

/// Tables that are reached through themselves: the pool by pages, or by blocks.
fn reached(largest: Level) -> Desk {
    let mut bench = with(Features::empty(), &[request(WINDOW + POOL, 8 * MIB, POOL, DATA, largest)]);
    bench.protocol.machine_mut().window = Some(WINDOW);
    bench
}

/// Takes frames of the pool until so many are left.
fn drain(bench: &mut Desk, left: u64) {
    while bench.frames.available() > left {
        let _kept = bench.frames.take().expect("a frame of the pool");
    }
}

/// The window of the table in which the leaf of `level` for `at` stands.
fn window_of(bench: &Desk, level: Level, at: u64) -> u64 {
    WINDOW + slot_in(bench.machine(), bench.tables.root(), level, at).table().start().raw()
}

#[test]
fn bad_breaking_the_window_to_a_table_on_the_way() {
    let mut bench = reached(Level::L3);
    for level in [Level::L0, Level::L1, Level::L2, Level::L3] {
        let page = virt(window_of(&bench, level, WINDOW + POOL), PAGE);
        assert_eq!(refuses(&mut bench, Ask::Unmap(page), NAME).virt, page, "{level:?}");
        refuses(&mut bench, Ask::Remap(page, 2 * OUT, DATA), NAME);
        bench.granted(Ask::Protect(page, DATA));
        refuses(&mut bench, Ask::Protect(page, CONSTANTS), NAME);
    }
}

#[test]
fn bad_the_window_to_all_tables_is_not_made_read_only() {
    let mut bench = reached(Level::L2);
    refuses(&mut bench, Ask::Protect(virt(WINDOW + POOL, 8 * MIB), CONSTANTS), NAME);
}

#[test]
fn bad_breaking_the_window_to_the_table_of_another_place() {
    // No table of it is on the way to the request: the next request that goes there would fault.
    for largest in [Level::L2, Level::L3] {
        let mut bench = reached(largest);
        bench.granted(map(AT, PAGE, OUT, CONSTANTS));
        drain(&mut bench, 1024); // what shows it is not what shows the supply
        for level in [Level::L1, Level::L2, Level::L3] {
            let page = virt(window_of(&bench, level, AT), PAGE);
            for ask in [Ask::Unmap(page), Ask::Protect(page, CONSTANTS), Ask::Remap(page, 2 * OUT, DATA)] {
                assert!(refuses(&mut bench, ask, NAME).virt.bytes() == PAGE, "{level:?}");
            }
        }
        let all = virt(WINDOW + POOL, 2 * MIB);
        for ask in [Ask::Unmap(all), Ask::Protect(all, CONSTANTS), Ask::Remap(all, 2 * OUT, DATA)] {
            refuses(&mut bench, ask, NAME);
        }
    }
}

#[test]
fn bad_breaking_the_window_to_a_table_behind_one_with_bits_of_somebody_else() {
    let mut bench = reached(Level::L3);
    for ahead in [0, 2 * MIB] {
        bench.granted(map(AT + ahead, PAGE, OUT + ahead, CONSTANTS));
    }
    drain(&mut bench, 1024);
    let page = virt(window_of(&bench, Level::L3, AT + 2 * MIB), PAGE);
    let before = slot_in(bench.machine(), bench.tables.root(), Level::L2, AT);
    let raw = bench.machine().load(before);
    bench.protocol.machine_mut().plant(before, raw | 1 << 61);
    refuses(&mut bench, Ask::Unmap(page), NAME);
}

#[test]
fn good_breaking_the_window_to_what_was_a_table_and_is_somebodys() {
    let mut bench = reached(Level::L3);
    let page = map(AT, PAGE, OUT, CONSTANTS);
    bench.granted(page);
    let window = virt(window_of(&bench, Level::L3, AT), PAGE);
    refuses(&mut bench, Ask::Unmap(window), NAME);
    bench.granted(Ask::Unmap(page.span()));
    refuses(&mut bench, Ask::Unmap(window), FREE);
    for _ in 0..3 {
        let _kept = bench.mapper().take().expect("a former table");
    }
    bench.granted(Ask::Unmap(window));
}

#[test]
fn good_the_window_gains_rights_and_keeps_them() {
    let mut bench = reached(Level::L3);
    bench.granted(Ask::Protect(virt(WINDOW + POOL, 8 * MIB), DATA));
    bench.granted(Ask::Merge(virt(WINDOW + POOL + 2 * MIB, 2 * MIB), Level::L3, false));
}

#[test]
fn good_breaking_the_window_to_what_nobody_needs() {
    let mut bench = reached(Level::L3);
    drain(&mut bench, 0);
    bench.granted(Ask::Unmap(virt(WINDOW + POOL + 6 * MIB, 16 * PAGE)));
}

#[test]
fn bad_breaking_the_window_to_what_the_supply_holds() {
    let mut bench = reached(Level::L3);
    for page in [virt(WINDOW + POOL + 6 * MIB, PAGE), virt(WINDOW + POOL + 4 * MIB, 2 * MIB)] {
        for ask in [Ask::Unmap(page), Ask::Protect(page, CONSTANTS), Ask::Remap(page, 2 * OUT, DATA)] {
            assert_eq!(refuses(&mut bench, ask, FREE).virt, page);
        }
    }
}

#[test]
fn bad_breaking_the_window_to_a_frame_about_to_be_taken() {
    let mut bench = reached(Level::L2);
    drain(&mut bench, 2048 - 1100); // the next one lies in the third block, the tables in the first
    let third = WINDOW + POOL + 4 * MIB;
    refuses(&mut bench, Ask::Unmap(virt(third, PAGE)), FREE); // not in the supply, but in its block
    refuses(&mut bench, Ask::Split(virt(third, 2 * MIB), Level::L3), FREE);
    bench.granted(Ask::Unmap(virt(third - 2 * MIB, PAGE)));
}

#[test]
fn bad_breaking_the_same_window_without_taking_a_frame() {
    let mut bench = reached(Level::L2);
    drain(&mut bench, 2048 - 1100);
    let third = virt(WINDOW + POOL + 4 * MIB, 2 * MIB);
    refuses(&mut bench, Ask::Remap(third, POOL + 4 * MIB, CONSTANTS), FREE);
    refuses(&mut bench, Ask::Remap(third, 2 * OUT, CONSTANTS), FREE);
    let second = virt(WINDOW + POOL + 2 * MIB, 2 * MIB);
    bench.granted(Ask::Remap(second, POOL + 2 * MIB, CONSTANTS)); // nobody needs it
    misdirects(&mut bench, Ask::Remap(second, 2 * OUT, CONSTANTS));
}

/// A page that goes from a block in place is never broken, and gone all the same.
#[test]
fn bad_taking_a_page_of_the_window_out_of_its_block() {
    let pool = request(WINDOW + POOL, 8 * MIB, POOL, DATA, Level::L2);
    let mut bench = with(Features::RESIZE, &[pool]);
    bench.protocol.machine_mut().window = Some(WINDOW);
    let page = virt(window_of(&bench, Level::L2, WINDOW + POOL), PAGE);
    refuses(&mut bench, Ask::Unmap(page), NAME);
    refuses(&mut bench, Ask::Unmap(virt(WINDOW + POOL + 6 * MIB, PAGE)), FREE);
    drain(&mut bench, 1);
    bench.granted(Ask::Unmap(virt(WINDOW + POOL + 4 * MIB, PAGE)));
}

/// Other frames are never shown in the window: what the manager stores there would hit them.
fn misdirects(bench: &mut Desk, ask: Ask) {
    match bench.refused(ask) {
        Error::Misdirected { virt, shows: (at, frames), .. } => {
            assert_eq!(at.raw(), WINDOW + frames.start().raw());
            assert!(virt.contains(at) && ask.span().contains(at), "{ask:?}");
        }
        other => panic!("{ask:?}: {other}"),
    }
}

#[test]
fn bad_showing_other_frames_in_the_window() {
    let mut bench = reached(Level::L3);
    drain(&mut bench, 8); // somebody owns the others, and no supply has them
    let page = WINDOW + POOL + 6 * MIB;
    misdirects(&mut bench, Ask::Remap(virt(page, PAGE), OUT, DATA));
    bench.granted(Ask::Unmap(virt(page, 2 * PAGE)));
    for (at, output) in [(page, OUT), (page, POOL), (page, POOL + 6 * MIB + PAGE), (page + PAGE, POOL + 6 * MIB)] {
        misdirects(&mut bench, map(at, PAGE, output, DATA));
    }
    misdirects(&mut bench, map(page, 2 * PAGE, POOL + 6 * MIB - PAGE, DATA));
    misdirects(&mut bench, map(WINDOW - PAGE, 3 * PAGE, OUT, DATA));
    bench.granted(map(page, PAGE, POOL + 6 * MIB, CONSTANTS));
    bench.granted(map(page + PAGE, PAGE, POOL + 6 * MIB + PAGE, DATA));
    bench.granted(map(AT, PAGE, POOL + 6 * MIB, DATA)); // elsewhere its frames are anyone's to map
}

#[test]
fn bad_mapping_what_must_fault() {
    let mut bench = with(Features::empty(), &[]);
    let guard = Footing { name: "guard page", virt: virt(AT + 4 * PAGE, PAGE) };
    bench.protocol.machine_mut().guards = vec![guard];
    for (start, pages) in [(4, 1), (0, 8), (3, 2), (4, 4)] {
        let whole = virt(AT + start * PAGE, pages * PAGE);
        let error = bench.refused(map(whole.start().raw(), whole.bytes(), OUT, DATA));
        assert_eq!(error, Error::Guarded { virt: whole, guard });
        assert!(error.to_string().contains("guard page at"), "{error}");
    }
    bench.granted(map(AT, 4 * PAGE, OUT, DATA));
    bench.granted(map(AT + 5 * PAGE, 4 * PAGE, OUT, DATA));
    bench.granted(Ask::Populate(virt(AT, 16 * PAGE), Level::L3));
}

#[test]
fn bad_breaking_the_window_to_a_former_table_about_to_be_taken() {
    let mut bench = reached(Level::L2);
    drain(&mut bench, 2048 - 700);
    let page = map(AT, PAGE, OUT, CONSTANTS);
    bench.granted(page);
    bench.granted(Ask::Unmap(page.span())); // its tables were of the second block, and are the next to be taken
    drain(&mut bench, 3 + 2048 - 1600); // the pool goes on in the last
    refuses(&mut bench, Ask::Unmap(virt(WINDOW + POOL + 2 * MIB, PAGE)), FREE);
    bench.granted(Ask::Unmap(virt(WINDOW + POOL + 4 * MIB, PAGE)));
}

/// Where the quarters of the pool are reached, each by itself: apart, and in another order.
const QUARTERS: [u64; 4] =
    [3 * WINDOW, WINDOW + 64 * MIB, 2 * WINDOW + GIB - 2 * MIB, WINDOW + 64 * MIB - 2 * MIB - PAGE];

/// Tables that are reached through a window of four parts, two of which nearly touch.
fn in_quarters(features: Features) -> Desk {
    let part = |index: usize| Reached {
        virt: VirtAddr::at(QUARTERS[index]),
        phys: PhysSpan::of(PhysAddr::at(POOL + index as u64 * 2 * MIB), 2 * MIB).expect("a quarter"),
    };
    let parts = [0, 1, 2, 3].map(part);
    let shown = |part: Reached| request(part.virt.raw(), 2 * MIB, part.phys.start().raw(), DATA, Level::L3);
    let mut bench = with(features, &parts.map(shown));
    bench.protocol.machine_mut().parts = parts.to_vec();
    bench
}

#[test]
fn bad_breaking_any_part_of_a_window_in_parts() {
    for features in [Features::empty(), Features::RESIZE] {
        let mut bench = in_quarters(features);
        // The tables are in the first quarter, the rest of the pool in all four.
        for level in [Level::L0, Level::L1, Level::L2, Level::L3] {
            let table = slot_in(bench.machine(), bench.tables.root(), level, QUARTERS[2]).table();
            let page = virt(QUARTERS[0] + table.start().raw() - POOL, PAGE);
            assert_eq!(refuses(&mut bench, Ask::Unmap(page), NAME).virt, page, "{level:?}");
            refuses(&mut bench, Ask::Protect(page, CONSTANTS), NAME);
        }
        for quarter in QUARTERS {
            let last = virt(quarter + 2 * MIB - PAGE, PAGE);
            for ask in [Ask::Unmap(last), Ask::Clear(last), Ask::Remap(last, 2 * OUT, DATA)] {
                assert_eq!(refuses(&mut bench, ask, FREE).virt, last, "{quarter:#x}");
            }
        }
        refuses(&mut bench, Ask::Clear(virt(0, 1 << 48)), NAME);
        drain(&mut bench, 0);
        for quarter in &QUARTERS[1..] {
            bench.granted(Ask::Unmap(virt(*quarter, 2 * MIB))); // nobody needs them
        }
        refuses(&mut bench, Ask::Clear(virt(0, 1 << 48)), NAME);
    }
}

#[test]
fn bad_showing_other_frames_in_any_part_of_a_window_in_parts() {
    let mut bench = in_quarters(Features::empty());
    drain(&mut bench, 64);
    for (quarter, own) in QUARTERS.into_iter().zip((POOL..).step_by(2 << 20)).skip(1) {
        let (page, own) = (quarter + MIB, own + MIB);
        bench.granted(Ask::Unmap(virt(page, PAGE)));
        for output in [OUT, own + PAGE, POOL, own ^ (2 * MIB)] {
            let refused = bench.refused(map(page, PAGE, output, DATA));
            let Error::Misdirected { shows: (at, frames), .. } = refused else { panic!("{refused}") };
            assert_eq!((at.raw(), frames.start().raw(), frames.bytes()), (page, own, PAGE));
        }
        bench.granted(map(page, PAGE, own, DATA));
    }
    // The page between two parts is anybody's.
    bench.granted(map(QUARTERS[1] - PAGE, PAGE, OUT, DATA));
    let both = bench.refused(map(QUARTERS[1] - 2 * PAGE, 3 * PAGE, OUT, DATA));
    assert!(matches!(both, Error::Misdirected { .. } | Error::Occupied { .. }), "{both}");
}
