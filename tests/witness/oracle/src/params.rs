//! What each PE can do, and gets wrong: the parameters under which a trace is judged.

use std::collections::BTreeMap;
use std::mem;

use breakwater_trace::Feature;

/// One PE's features and errata. The default is the weakest PE that the architecture allows: it demands most of software.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Features {
    /// FEAT_BBM level 0 to 2; 3 for a part that is listed as never aborting.
    pub bbm: u8,
    /// FEAT_ETS2.
    pub ets2: bool,
    /// FEAT_nTLBPA: no cache is indexed by a descriptor's physical address.
    pub ntlbpa: bool,
    /// FEAT_TLBIRANGE.
    pub tlbi_range: bool,
    /// FEAT_TTL.
    pub ttl: bool,
    /// FEAT_HAFDBS.
    pub hafdbs: bool,
    /// FEAT_LPA2.
    pub lpa2: bool,
    /// Bits of a physical address.
    pub physical_bits: u8,
    /// Bytes in the smallest data-cache line.
    pub line_bytes: u16,
    /// The TLB may use the contiguous hint.
    pub contiguous: bool,
    /// FEAT_TTCNP: TTBR0_EL2.CnP means something.
    pub cnp: bool,
    /// Broadcast TLBI and DSB are done twice.
    pub repeat_tlbi: bool,
    /// Every change of a valid descriptor is by break-before-make.
    pub bbm_always: bool,
    /// Execute to execute-never is by break-before-make.
    pub bbm_for_xn: bool,
    /// An ISB stands before M goes from 1 to 0.
    pub isb_before_mmu_off: bool,
    /// A DSB stands before a write of HCR_EL2, an ISB after.
    pub hcr_barriers: bool,
    /// DC CVAC may not clean.
    pub clean_invalidates: bool,
    /// No feature: root switches are held to more than the architecture asks.
    pub strict_switch: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            bbm: 0,
            ets2: false,
            ntlbpa: false,
            tlbi_range: false,
            ttl: false,
            hafdbs: false,
            lpa2: false,
            physical_bits: 48,
            line_bytes: 64,
            contiguous: true,
            cnp: true,
            repeat_tlbi: false,
            bbm_always: false,
            bbm_for_xn: false,
            isb_before_mmu_off: false,
            hcr_barriers: false,
            clean_invalidates: false,
            strict_switch: false,
        }
    }
}

impl Features {
    /// Notes one.
    pub fn set(&mut self, feature: Feature) {
        match feature {
            Feature::Bbm(level) => self.bbm = level,
            Feature::Ets2 => self.ets2 = true,
            Feature::NTlbPa => self.ntlbpa = true,
            Feature::TlbiRange => self.tlbi_range = true,
            Feature::Ttl => self.ttl = true,
            Feature::Hafdbs => self.hafdbs = true,
            Feature::Lpa2 => self.lpa2 = true,
            Feature::PhysicalBits(bits) => self.physical_bits = bits,
            Feature::LineBytes(bytes) => self.line_bytes = bytes,
            Feature::NoContiguous => self.contiguous = false,
            Feature::NoCnp => self.cnp = false,
            Feature::RepeatTlbi => self.repeat_tlbi = true,
            Feature::BbmAlways => self.bbm_always = true,
            Feature::BbmForXn => self.bbm_for_xn = true,
            Feature::IsbBeforeMmuOff => self.isb_before_mmu_off = true,
            Feature::HcrBarriers => self.hcr_barriers = true,
            Feature::CleanInvalidates => self.clean_invalidates = true,
            Feature::StrictSwitch => self.strict_switch = true,
        }
    }
}

/// The features of every PE of a machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Params {
    all: Features,
    own: BTreeMap<u32, Features>,
    /// What was declared of each PE, and of all.
    said: BTreeMap<Option<u32>, Vec<Feature>>,
}

impl Params {
    /// Every PE has `features`.
    #[must_use]
    pub fn uniform(features: Features) -> Self {
        Self { all: features, own: BTreeMap::new(), said: BTreeMap::new() }
    }

    /// Notes a `feature` record: of one PE, or of all.
    pub fn set(&mut self, cpu: Option<u32>, feature: Feature) {
        self.said.entry(cpu).or_default().push(feature);
        match cpu {
            Some(cpu) => self.own.entry(cpu).or_insert(self.all).set(feature),
            None => {
                self.all.set(feature);
                for (cpu, features) in &mut self.own {
                    features.set(feature);
                    // An exception stays one, whichever of the two lines came first.
                    self.said.get(&Some(*cpu)).into_iter().flatten().for_each(|own| features.set(*own));
                }
            }
        }
    }

    /// What was said before of `cpu`, or of all, that `feature` contradicts. An exception to what was said of all is none.
    #[must_use]
    pub fn contradicts(&self, cpu: Option<u32>, feature: Feature) -> Option<Feature> {
        let of = |said: &BTreeMap<Option<u32>, Vec<Feature>>, cpu: &Option<u32>| {
            let all = said.get(cpu).into_iter().flatten();
            all.copied().find(|other| *other != feature && mem::discriminant(other) == mem::discriminant(&feature))
        };
        match cpu {
            Some(_) => of(&self.said, &cpu),
            None => self.said.keys().find_map(|cpu| of(&self.said, cpu)),
        }
    }

    /// The features of a PE.
    #[must_use]
    pub fn of(&self, pe: u32) -> &Features {
        self.own.get(&pe).unwrap_or(&self.all)
    }

    /// Whether any PE has what `has` asks for: an erratum of one obliges all (CVE-2025-10263, XSA-493).
    #[must_use]
    pub fn any(&self, has: impl Fn(&Features) -> bool) -> bool {
        has(&self.all) || self.own.values().any(has)
    }
}
