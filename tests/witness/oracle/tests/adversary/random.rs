//! Random traces: lawful ones do no harm, of lawful ones with an instruction missing most do, and no trace at all ends in a panic.

use breakwater_oracle::adversary::Adversary;
use breakwater_oracle::obligations::Obligations;
use breakwater_trace::text;
use proptest::prelude::*;

use crate::*;

/// What a manager is asked to do with one of six pages of the tables at 0x12000 and 0x13000.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// Makes the page what this says, or nothing.
    Page { slot: u64, to: Option<(u64, u64)> },
    /// Takes a table out of its place and puts the other one there.
    Exchange,
}

fn request() -> impl Strategy<Value = Request> {
    let rights = prop_oneof![Just(RW), Just(RX), Just(RO)];
    let to = prop_oneof![Just(None), (0..3_u64, rights).prop_map(Some)];
    prop_oneof![
        9 => (0..3_u64, to).prop_map(|(slot, to)| Request::Page { slot, to }),
        1 => Just(Request::Exchange),
    ]
}

/// A manager of one level 3 table in place and one in reserve.
struct Manager {
    features: &'static str,
    pages: [u64; 3],
    table: u64,
    events: String,
}

impl Manager {
    fn new(features: &'static str) -> Self {
        Self { features, pages: [0x5000_0000 | RW, 0x5000_1000 | RW, 0], table: 0x12000, events: String::new() }
    }

    fn invalidate(&mut self, vas: &[u64]) {
        self.events += "0 dsb ishst\n";
        for va in vas {
            self.events += &format!("0 tlbi vae2is {:x}\n", va >> 12);
        }
        self.events += "0 dsb ish\n";
        if self.features.contains("repeat-tlbi") {
            self.events += "0 tlbi vae2is 0\n0 dsb ish\n";
        }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Page { slot, to } => {
                let new = to.map_or(0, |(frame, attributes)| (0x5000_0000 + 4096 * frame) | attributes);
                self.set(slot, new);
            }
            Request::Exchange => self.exchange(),
        }
        self.events += SETTLE;
    }

    fn set(&mut self, slot: u64, new: u64) {
        let (pa, va) = (self.table + 8 * slot, 0x4020_0000 + 4096 * slot);
        let old = std::mem::replace(&mut self.pages[slot as usize], new);
        let same_frame = old & !0xfff & !(0xfff << 52) == new & !0xfff & !(0xfff << 52);
        if old == new {
            return;
        }
        if old != 0 && new != 0 && same_frame && !self.features.contains("bbm") {
            self.events += &store(pa, new);
            self.invalidate(&[va]);
            return;
        }
        if old != 0 {
            self.events += &store(pa, 0);
            self.invalidate(&[va]);
        }
        self.events += &store(pa, new);
    }

    fn exchange(&mut self) {
        let next = 0x25000 - self.table;
        self.events += &store(L2, 0);
        self.invalidate(&[0x4020_0000, 0x4020_1000, 0x4020_2000]);
        self.events += &format!("0 give {:x} 4096\n0 take {next:x} 4096\n", self.table);
        for slot in 0..3 {
            self.events += &store(next + 8 * slot, 0);
        }
        self.events += "0 dsb ish\n";
        self.events += &store(L2, next | 3);
        (self.table, self.pages) = (next, [0; 3]);
    }
}

const FEATURES: [&str; 6] = ["", "ets2", "ntlbpa ets2", "repeat-tlbi", "bbm-always", "bbm=2 hafdbs"];

fn trace(requests: &[Request], features: &'static str) -> String {
    let mut manager = Manager::new(features);
    requests.iter().for_each(|request| manager.obey(*request));
    manager.events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn good_lawful_requests_do_no_harm(requests in prop::collection::vec(request(), 1..20), features in 0..FEATURES.len()) {
        let features = FEATURES[features];
        let events = trace(&requests, features);
        let machine = run(&pair(features), &events);
        prop_assert!(machine.harms().is_empty(), "{events}{}", machine.harms()[0]);
    }

    #[test]
    fn good_every_state_is_forgotten_when_nothing_is_owed(requests in prop::collection::vec(request(), 1..10)) {
        // Whatever was asked, afterwards a TLB holds one translation of a page or none.
        let machine = run(&pair(""), &(trace(&requests, "") + "1 isb\n"));
        for page in 0..3 {
            prop_assert!(machine.holds(1, 0x4020_0000 + 4096 * page).len() <= 1);
        }
    }

    #[test]
    fn bad_a_break_without_its_tlbi(requests in prop::collection::vec(request(), 1..10), index in any::<prop::sample::Index>()) {
        let events = trace(&requests, "");
        let lines: Vec<&str> = events.lines().collect();
        let tlbis: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].contains("tlbi")).collect();
        prop_assume!(!tlbis.is_empty());
        let gone = tlbis[index.index(tlbis.len())];
        let unchanged = |events: &str| run(&pair(""), events).harms().is_empty();
        let without: String = lines.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, line)| format!("{line}\n")).collect();
        // A page of the table that was never valid owes nothing to the exchange; then some other TLBI covers this one's.
        let is_needed = lines[..gone].iter().rev().take_while(|line| !line.contains("settled")).all(|line| !line.contains("tlbi"))
            && !lines[gone + 1].contains("tlbi");
        prop_assert!(!is_needed || !unchanged(&without), "{without}");
    }

    #[test]
    fn good_uses_that_are_not_judged_again_hide_nothing(events in prop::collection::vec((0..2_u32, 0..USES.len()), 1..80)) {
        let lines = events.iter().map(|(pe, event)| format!("{pe} 1 40200000 {}\n", USES[*event]));
        let text: String = std::iter::once(format!("breakwater-trace 1\n{}", pair(""))).chain(lines).collect();
        // A clone has forgotten which uses found nothing.
        let (mut one, mut other) = (Obligations::new(), Obligations::new());
        for (line, record) in (2..).zip(breakwater_trace::Reader::new(text.as_bytes())) {
            let record = record.expect("well-formed");
            one.step(line, &record);
            other = other.clone();
            other.step(line, &record);
        }
        prop_assert_eq!(one.violations(), other.violations());
    }

    #[test]
    fn good_no_trace_panics(lines in prop::collection::vec(wild_line(), 1..60)) {
        let mut machine = Adversary::new();
        for (at, line) in lines.iter().enumerate() {
            if let Ok(Some(record)) = text::parse(at as u64, line) {
                machine.step(at as u64, &record);
            }
        }
    }
}

/// Uses of three pages, and what they may tell apart.
const USES: [&str; 23] = [
    "load 8 40200000 50000000 0",
    "load 8 40201008 50001008 0",
    "store 8 40200010 50000010 1",
    "store 8 40202000 50002000 1",
    "fetch 1",
    "store 8 12000 12000 0",
    "store 8 12000 12000 40000050000703",
    "store 8 12008 12008 40000050003703",
    "store 8 12010 12010 40000050002703",
    "store 8 11008 11008 13003",
    "dc zva 40200040",
    "dc zva 12000",
    "dc civac 12000",
    "dc ivac 12000",
    "dsb ishst",
    "tlbi vae2is 40200",
    "tlbi alle2is 0",
    "dsb ish",
    "dsb nshst",
    "isb",
    "msr ttbr0_el2 10000",
    "msr sctlr_el2 30cd183d",
    "msr sctlr_el2 30cd1838",
];

fn wild_value() -> impl Strategy<Value = u64> {
    let tables = prop::sample::select(vec![0, 0x10003, 0x11003, 0x12003, 0x10001, 0x703, u64::MAX, 1 << 52 | 0x703]);
    prop_oneof![tables, any::<u64>(), (0..64_u32).prop_map(|bit| 1 << bit)]
}

fn wild_address() -> impl Strategy<Value = u64> {
    prop_oneof![(0..0x800_u64).prop_map(|word| 0x10000 + 8 * word), (0..0xffff_fff0_u64), Just(u64::MAX - 63)]
}

fn wild_control() -> impl Strategy<Value = String> {
    let registers = ["sctlr_el2", "tcr_el2", "ttbr0_el2", "mair_el2", "hcr_el2", "tcr2_el2"];
    let known = prop::sample::select(vec![0x8080_3519, 0x8080_7519, 0x8080_b519, 0x10000, 0x30cd_183d, 0x30cd_1838]);
    let verb = prop_oneof![4 => Just("msr"), 1 => Just("found")];
    (verb, prop::sample::select(registers.to_vec()), prop_oneof![any::<u64>(), known])
        .prop_map(|(verb, register, value)| format!("{verb} {register} {value:x}"))
}

fn wild_event() -> impl Strategy<Value = String> {
    let operations =
        ["tlbi alle2", "tlbi vae2is", "tlbi rvae2is", "tlbi vale2", "dc ivac", "dc zva", "dc cvac", "ic iallu"];
    let plain = ["isb", "dsb sy", "dsb ishst", "dmb sy", "settled", "eret", "start 2", "start 3", "fetch 3", "dsb nsh"];
    let operations = prop::sample::select(operations.to_vec());
    prop_oneof![
        4 => (wild_address(), wild_value()).prop_map(|(pa, value)| format!("store 8 {pa:x} {pa:x} {value:x}")),
        1 => (wild_address(), wild_value()).prop_map(|(pa, value)| format!("load 8 {value:x} {pa:x} {value:x}")),
        4 => wild_control(),
        3 => (operations, wild_value()).prop_map(|(operation, value)| format!("{operation} {value:x}")),
        3 => prop::sample::select(plain.to_vec()).prop_map(str::to_owned),
        1 => (wild_address(), 1..1_u64 << 40).prop_map(|(pa, bytes)| format!("give {pa:x} {bytes}")),
    ]
}

fn wild_line() -> impl Strategy<Value = String> {
    let features =
        ["lpa2", "hafdbs", "pa-bits=52", "repeat-tlbi", "bbm=1", "hcr-barriers", "line=16", "tlbirange", "ntlbpa"];
    let features = prop::sample::select(features.to_vec());
    prop_oneof![
        8 => (0..3_u32, wild_event(), wild_value()).prop_map(|(pe, event, pc)| format!("{pe} 1 {pc:x} {event}")),
        1 => (wild_address(), wild_value()).prop_map(|(pa, value)| format!("word {:x} {value:x}", pa & !7)),
        1 => features.prop_map(|feature| format!("feature all {feature}")),
        1 => Just("end exit".to_owned()),
    ]
}
