//! What a request may not break, may not share and may not say, because of who else is there: CPUs and the manager itself stand on
//! mappings, frames are mapped at other addresses, and not every CPU knows every attribute.

use super::bench::{Ask, Bench, CODE, CONSTANTS, Cpus, DATA, DEVICE, GUARDED, POOL, TAGGED, virt};
use super::judged::slot_in;
use breakwater::addr::{Level, PhysAddr, PhysSpan};
use breakwater::bbm::Live;
use breakwater::descriptor::Attributes;
use breakwater::features::Features;
use breakwater::geometry::Granule4K;
use breakwater::machine::{Footing, Machine};
use breakwater::mapper::{Error, Request};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const AT: u64 = 4 * GIB;
const OUT: u64 = 64 * GIB;
/// Where the window to physical memory begins.
const WINDOW: u64 = 512 * GIB;

mod window;

type Desk = Bench<Granule4K, Live>;

fn request(start: u64, bytes: u64, output: u64, attributes: Attributes, largest: Level) -> Request {
    Request::new(virt(start, bytes), PhysAddr::at(output), attributes, largest)
}

fn map(start: u64, bytes: u64, output: u64, attributes: Attributes) -> Ask {
    Ask::Map(request(start, bytes, output, attributes, Level::L1))
}

fn with(features: Features, requests: &[Request]) -> Desk {
    Desk::live(Cpus { features, ..Cpus::PLAIN }, 2048, requests)
}

/// What is stood on is refused with the name and the place.
fn refuses(bench: &mut Desk, ask: Ask, name: &str) -> Footing {
    match bench.refused(ask) {
        Error::WouldBreakSelf { virt, footing } => {
            let said = Error::WouldBreakSelf { virt, footing }.to_string();
            let (page, place, rule) = (virt.to_string(), footing.to_string(), "nothing that a CPU stands on is broken");
            assert!([page.as_str(), name, &place, rule].iter().all(|part| said.contains(part)), "{said}");
            assert!(footing.name == name && virt.intersection(footing.virt).is_some(), "{ask:?}: {footing}");
            footing
        }
        other => panic!("{ask:?}: {other}"),
    }
}

mod standing {
    use super::*;

    fn text() -> Footing {
        Footing { name: "text", virt: virt(AT + MIB, PAGE) }
    }

    /// A block with text in it, pages with a stack among them.
    fn stood_on(features: Features) -> Desk {
        let block = request(AT, 2 * MIB, OUT, CONSTANTS, Level::L2);
        let pages = request(AT + 2 * MIB, 16 * PAGE, OUT + 2 * MIB, DATA, Level::L3).with_contiguous();
        let mut bench = with(features, &[block, pages]);
        let stack = Footing { name: "CPU stack", virt: virt(AT + 2 * MIB + 8 * PAGE, 2 * PAGE) };
        bench.protocol.machine_mut().footings = vec![text(), stack];
        bench
    }

    #[test]
    fn bad_breaking_text() {
        let mut bench = stood_on(Features::empty());
        let block = virt(AT, 2 * MIB);
        for ask in [
            Ask::Unmap(block),
            Ask::Unmap(virt(AT, PAGE)), // not the text, but its block
            Ask::Protect(virt(AT, PAGE), DATA),
            Ask::Protect(block, DEVICE),
            Ask::Remap(block, 2 * OUT, CONSTANTS),
            Ask::Split(block, Level::L3),
            Ask::Unmap(virt(AT, 2 * MIB + 16 * PAGE)),
        ] {
            assert_eq!(refuses(&mut bench, ask, "text"), text());
        }
    }

    #[test]
    fn bad_breaking_a_stack() {
        let mut bench = stood_on(Features::empty());
        let (run, page) = (AT + 2 * MIB, virt(AT + 2 * MIB, PAGE));
        for ask in [
            Ask::Unmap(page), // not the stack, but of its run
            Ask::Protect(page, CONSTANTS),
            Ask::Remap(virt(run, 16 * PAGE), 2 * OUT, DATA),
            Ask::Split(virt(run, 16 * PAGE), Level::L3),
        ] {
            refuses(&mut bench, ask, "CPU stack");
        }
    }

    #[test]
    fn good_what_is_stood_on_gains_rights_in_place() {
        let mut bench = stood_on(Features::empty());
        let cost = bench.granted(Ask::Protect(virt(AT, 2 * MIB), CODE));
        assert!(cost.tlbis > 0 && cost.frames == 0, "{cost:?}");
    }

    #[test]
    fn bad_what_is_stood_on_loses_rights() {
        let mut bench = stood_on(Features::empty());
        refuses(&mut bench, Ask::Protect(virt(AT + 2 * MIB, 16 * PAGE), CONSTANTS), "CPU stack");
        bench.granted(Ask::Protect(virt(AT, 2 * MIB), CODE));
        refuses(&mut bench, Ask::Protect(virt(AT, 2 * MIB), CONSTANTS), "text");
    }

    #[test]
    fn bad_rights_that_an_erratum_changes_by_a_break() {
        let mut bench = stood_on(Features::empty());
        bench.protocol.note_errata(breakwater::errata::Errata::BBM_ALWAYS);
        refuses(&mut bench, Ask::Protect(virt(AT, 2 * MIB), CODE), "text");
    }

    #[test]
    fn good_what_is_stood_on_is_split_in_place_where_every_cpu_allows_it() {
        let mut bench = stood_on(Features::RESIZE);
        bench.granted(Ask::Split(virt(AT, 2 * MIB), Level::L3));
        bench.granted(Ask::Split(virt(AT + 2 * MIB, 16 * PAGE), Level::L3));
        bench.granted(Ask::Unmap(virt(AT, PAGE)));
        refuses(&mut bench, Ask::Unmap(virt(AT + MIB, PAGE)), "text");
    }

    #[test]
    fn good_what_lies_beside_is_broken() {
        let mut bench = stood_on(Features::empty());
        bench.granted(map(AT + 4 * MIB, 2 * MIB, OUT + 4 * MIB, DATA));
        bench.granted(Ask::Unmap(virt(AT + 4 * MIB, PAGE)));
        bench.protocol.machine_mut().footings.clear();
        bench.granted(Ask::Unmap(virt(AT, PAGE)));
    }
}

mod aliases {
    use super::*;

    /// The other mapping, as the error shows it.
    fn aliased(bench: &mut Desk, ask: Ask, at: u64, frames: (u64, u64)) {
        let frames = PhysSpan::of(PhysAddr::at(frames.0), frames.1).expect("a span");
        match bench.refused(ask) {
            Error::Aliased { frames: shared, slot, descriptor, .. } => {
                assert_eq!((shared, slot.virt().raw()), (frames, at), "{ask:x?}");
                assert_eq!(bench.machine().load(slot), descriptor);
            }
            other => panic!("{ask:x?}: {other}"),
        }
    }

    #[test]
    fn bad_written_at_one_address_and_executed_at_another() {
        for (first, second) in [(DATA, CODE), (CODE, DATA), (GUARDED, DATA), (DATA, GUARDED), (DEVICE, CODE)] {
            let mut bench = with(Features::BTI, &[request(AT, 4 * PAGE, OUT, first, Level::L3)]);
            aliased(&mut bench, map(2 * AT, PAGE, OUT + 2 * PAGE, second), AT + 2 * PAGE, (OUT + 2 * PAGE, PAGE));
        }
    }

    #[test]
    fn bad_by_two_leaves_of_one_request() {
        // In place one after the other: between the two stores the frame would be executable here and writable there.
        let twice = [request(AT, PAGE, OUT, DATA, Level::L3), request(AT + PAGE, PAGE, OUT, DATA, Level::L3)];
        let mut bench = with(Features::empty(), &twice);
        aliased(&mut bench, Ask::Protect(virt(AT, 2 * PAGE), CODE), AT + PAGE, (OUT, PAGE));
        // A remap of both, of which the first stays where it is.
        let mut bench = with(Features::empty(), &twice);
        aliased(&mut bench, Ask::Remap(virt(AT, 2 * PAGE), OUT, CODE), AT + PAGE, (OUT, PAGE));
        let beside = [request(AT, PAGE, OUT, DATA, Level::L3), request(AT + PAGE, PAGE, 2 * OUT, DATA, Level::L3)];
        with(Features::empty(), &beside).granted(Ask::Protect(virt(AT, 2 * PAGE), CODE));
    }

    #[test]
    fn good_what_may_be_seen_twice() {
        for (first, second) in [(DATA, DATA), (CODE, CODE), (CONSTANTS, DATA), (CONSTANTS, CODE), (CODE, CONSTANTS)] {
            let mut bench = with(Features::empty(), &[request(AT, 4 * PAGE, OUT, first, Level::L3)]);
            bench.granted(map(2 * AT, PAGE, OUT + 2 * PAGE, second));
        }
    }

    #[test]
    fn bad_by_a_change_of_rights_or_of_the_output() {
        let both = [request(AT, PAGE, OUT, DATA, Level::L3), request(2 * AT, PAGE, OUT, CONSTANTS, Level::L3)];
        let mut bench = with(Features::empty(), &both);
        aliased(&mut bench, Ask::Protect(virt(2 * AT, PAGE), CODE), AT, (OUT, PAGE));
        bench.granted(map(3 * AT, PAGE, 2 * OUT, CODE));
        aliased(&mut bench, Ask::Remap(virt(3 * AT, PAGE), OUT, CODE), AT, (OUT, PAGE));
        aliased(&mut bench, Ask::Remap(virt(2 * AT, PAGE), 2 * OUT, DATA), 3 * AT, (2 * OUT, PAGE));
    }

    #[test]
    fn bad_through_blocks() {
        for (bytes, largest) in [(2 * MIB, Level::L2), (GIB, Level::L1)] {
            let mut bench = with(Features::empty(), &[request(AT, bytes, OUT, DATA, largest)]);
            let page = OUT + bytes - PAGE;
            aliased(&mut bench, map(2 * AT, PAGE, page, CODE), AT, (page, PAGE));
            aliased(&mut bench, map(2 * AT, 2 * PAGE, page, CODE), AT, (page, PAGE));
            bench.granted(map(2 * AT, PAGE, page + PAGE, CODE));
            let block = map(3 * AT, 2 * MIB, OUT + bytes, DATA);
            aliased(&mut bench, block, 2 * AT, (OUT + bytes, PAGE));
        }
    }

    #[test]
    fn bad_through_a_contiguous_run() {
        let mut bench = with(Features::empty(), &[request(AT, 16 * PAGE, OUT, CODE, Level::L3).with_contiguous()]);
        aliased(&mut bench, map(2 * AT, PAGE, OUT + 15 * PAGE, DATA), AT + 15 * PAGE, (OUT + 15 * PAGE, PAGE));
        let run = Ask::Map(request(2 * AT, 16 * PAGE, OUT, DATA, Level::L3).with_contiguous());
        aliased(&mut bench, run, AT, (OUT, PAGE));
    }

    #[test]
    fn bad_by_a_part_of_a_block() {
        let both = [request(AT, 2 * MIB, OUT, CONSTANTS, Level::L2), request(2 * AT, PAGE, OUT + MIB, DATA, Level::L3)];
        let mut bench = with(Features::empty(), &both);
        aliased(&mut bench, Ask::Protect(virt(AT, 2 * MIB), CODE), 2 * AT, (OUT + MIB, PAGE));
        aliased(&mut bench, Ask::Protect(virt(AT + MIB, PAGE), CODE), 2 * AT, (OUT + MIB, PAGE));
        bench.granted(Ask::Protect(virt(AT, MIB), CODE));
    }

    #[test]
    fn good_once_the_other_is_gone_or_may_no_longer() {
        for away in [
            Ask::Unmap(virt(AT, PAGE)),
            Ask::Protect(virt(AT, PAGE), CONSTANTS),
            Ask::Remap(virt(AT, PAGE), 3 * OUT, DATA),
        ] {
            let mut bench = with(Features::empty(), &[request(AT, 2 * PAGE, OUT, DATA, Level::L3)]);
            let code = map(2 * AT, PAGE, OUT, CODE);
            aliased(&mut bench, code, AT, (OUT, PAGE));
            bench.granted(away);
            bench.granted(code);
        }
    }

    #[test]
    fn good_the_same_pages_change_from_data_to_code_and_back() {
        let mut bench = with(Features::empty(), &[request(AT, 2 * MIB, OUT, DATA, Level::L2)]);
        for attributes in [CODE, DATA, CODE] {
            bench.granted(Ask::Protect(virt(AT, 2 * MIB), attributes));
            bench.granted(Ask::Remap(virt(AT, 2 * MIB), OUT, attributes));
        }
    }

    #[test]
    fn good_frames_between_any_number_of_others() {
        let far = |index: u64| OUT + index * GIB;
        let data: Vec<Request> =
            (0..24).map(|index| request(AT + index * 2 * MIB, PAGE, far(index), DATA, Level::L3)).collect();
        let mut bench = with(Features::empty(), &data);
        for index in 0..24 {
            bench.granted(map(2 * AT + index * PAGE, PAGE, far(index) + PAGE, CODE));
            let at = AT + index * 2 * MIB;
            aliased(&mut bench, map(3 * AT, PAGE, far(index), CODE), at, (far(index), PAGE));
        }
    }
}

mod features {
    use super::*;

    fn asks(attributes: Attributes) -> [Ask; 3] {
        let span = virt(AT, PAGE);
        [
            map(2 * AT, PAGE, 2 * OUT, attributes),
            Ask::Protect(span, attributes),
            Ask::Remap(span, 2 * OUT + PAGE, attributes),
        ]
    }

    #[test]
    fn bad_attributes_that_not_every_cpu_has() {
        for (attributes, feature, others) in [
            (TAGGED, Features::MTE, Features::BTI | Features::RESIZE),
            (GUARDED, Features::BTI, Features::MTE | Features::TTL),
        ] {
            let mut bench = with(others, &[request(AT, PAGE, OUT, CONSTANTS, Level::L3)]);
            for ask in asks(attributes) {
                let error = bench.refused(ask);
                assert_eq!(error, Error::Unsupported { virt: ask.span(), attributes, feature });
            }
        }
    }

    #[test]
    fn good_attributes_that_every_cpu_has() {
        for (attributes, feature) in [(TAGGED, Features::MTE), (GUARDED, Features::BTI)] {
            let mut bench = with(feature, &[request(AT, PAGE, OUT, CONSTANTS, Level::L3)]);
            for ask in asks(attributes) {
                bench.granted(ask);
            }
        }
    }
}
