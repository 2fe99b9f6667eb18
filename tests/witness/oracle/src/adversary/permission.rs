//! What the architecture permits hardware to do, one permission at a time.
//!
//! Why: the adversary is nothing but the exercise of these. Taking one away ([`super::Adversary::without`]) yields hardware that is
//! better than the architecture promises, and must make it miss something that the obligations still demand.

/// A thing that hardware may cache, retain, reorder or do by itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Permission {
    /// Leaf entries outlive their descriptors.
    CacheLeaf,
    /// Table entries, the walk caches, outlive theirs.
    CacheTable,
    /// Descriptors are cached by their own physical address (no FEAT_nTLBPA).
    CacheByPhysicalAddress,
    /// A store is seen by walks before its DSB.
    SeeStoreBeforeDsb,
    /// What a store replaced is seen by walks until its DSB.
    SeeOldValueUntilDsb,
    /// An entry that a TLBI names stays until the DSB that completes it.
    RetainUntilDsb,
    /// Without FEAT_ETS2, the issuer's accesses use an invalidated entry until its context synchronisation.
    RetainUntilIsb,
    /// Instructions fetched through an invalidated entry run until a context synchronisation.
    PrefetchedFetch,
    /// A fault that was found before a fill is taken until a context synchronisation.
    SeeFaultUntilIsb,
    /// Control registers act as before their write until a context synchronisation.
    OldControlsUntilIsb,
    /// Entries stay while the MMU is off.
    KeepWithMmuOff,
    /// Out of reset a TLB holds anything.
    ResetGarbage,
    /// Out of reset control registers have any value.
    ResetControls,
    /// Control registers are cached in TLBs.
    CacheControls,
    /// One descriptor of a contiguous run stands for all of it.
    CacheContiguousRun,
    /// A dirty line is written back over what was stored past the cache.
    EvictDirtyLine,
    /// A clean line hides what was stored past the cache.
    HideBehindLine,
    /// A clean by address pushes an older line over what was stored past the cache.
    PushByClean,
    /// What was stored into the cache is missed by accesses past it.
    MissDirtyLine,
    /// A store takes effect as late as its DSB.
    PutOffStore,
    /// PEs with CnP share entries.
    ShareCnp,
    /// Whatever is executable is fetched from.
    SpeculateFetch,
    /// Whatever is Normal is read.
    SpeculateRead,
    /// Aliases with different attributes lose coherency.
    MixAliases,
    /// Whatever is writable is written, and then executed.
    ExecuteWritten,
    /// A walk that reads memory nobody wrote takes what it finds.
    ReadUnknown,
    /// What is reserved, RES0 bits and encodings, is taken for anything.
    UseReserved,
    /// An affected core loses a broadcast TLBI (1286807 and its like).
    LoseBroadcast,
    /// An affected core fetches past the clearing of M (E1041).
    FetchPastMmuOff,
    /// An affected core runs HCR_EL2 writes together with its neighbours (AC04_CPU_23).
    OverlapHcrWrite,
    /// An affected core's DC CVAC cleans nothing (819472 and its like).
    SkipClean,
    /// An affected core keeps rights of an entry that was changed in place (3683289, 2645198).
    MixRights,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 32] = [
        Self::CacheLeaf,
        Self::CacheTable,
        Self::CacheByPhysicalAddress,
        Self::SeeStoreBeforeDsb,
        Self::SeeOldValueUntilDsb,
        Self::RetainUntilDsb,
        Self::RetainUntilIsb,
        Self::PrefetchedFetch,
        Self::SeeFaultUntilIsb,
        Self::OldControlsUntilIsb,
        Self::KeepWithMmuOff,
        Self::ResetGarbage,
        Self::ResetControls,
        Self::CacheControls,
        Self::CacheContiguousRun,
        Self::EvictDirtyLine,
        Self::HideBehindLine,
        Self::PushByClean,
        Self::MissDirtyLine,
        Self::PutOffStore,
        Self::ShareCnp,
        Self::SpeculateFetch,
        Self::SpeculateRead,
        Self::MixAliases,
        Self::ExecuteWritten,
        Self::ReadUnknown,
        Self::UseReserved,
        Self::LoseBroadcast,
        Self::FetchPastMmuOff,
        Self::OverlapHcrWrite,
        Self::SkipClean,
        Self::MixRights,
    ];

    /// What hardware may do, and by which rule.
    #[must_use]
    pub const fn says(self) -> &'static str {
        match self {
            Self::CacheLeaf => "RGPPYH: a TLB may hold a leaf that memory no longer says",
            Self::CacheTable => "RRVJDB, RZYZYK: a TLB may hold table entries, which are not coherent",
            Self::CacheByPhysicalAddress => "RBKKRB, RTJQVP: descriptors may be cached by their physical address",
            Self::SeeStoreBeforeDsb => "RTGRMW: a walk may see a store before its DSB",
            Self::SeeOldValueUntilDsb => "RSPVBD: only a DSB guarantees that walks see a store",
            Self::RetainUntilDsb => "RPSMWS: a TLBI is complete only at a DSB that covers loads and stores",
            Self::RetainUntilIsb => "RBLDZX: without FEAT_ETS2 the issuer needs context synchronisation as well",
            Self::PrefetchedFetch => "ISB is not broadcast: instructions already fetched may still run",
            Self::SeeFaultUntilIsb => "IWZCBG: a fault found before a fill may be taken until context synchronisation",
            Self::OldControlsUntilIsb => "a register write is in force for certain only after context synchronisation",
            Self::KeepWithMmuOff => "RNDCMB: turning the MMU off removes nothing from a TLB",
            Self::ResetGarbage => "RXQBCL: TLB contents out of reset are unknown",
            Self::ResetControls => "control registers that nobody wrote since reset have UNKNOWN values",
            Self::CacheControls => "RVNRFW: control registers may be cached in TLBs",
            Self::CacheContiguousRun => "RQTRPM: one descriptor of a contiguous run may be taken for all of it",
            Self::EvictDirtyLine => "a dirty line may be written back at any time",
            Self::HideBehindLine => "a cacheable read may hit a line from before the store",
            Self::PushByClean => "a clean writes back whatever the line holds",
            Self::MissDirtyLine => "an access with the MMU off does not look into the caches",
            Self::PutOffStore => "a store may be done no sooner than the DSB that waits for it",
            Self::ShareCnp => "RQLGWZ: PEs with CnP may use each other's entries",
            Self::SpeculateFetch => "B2.10: executable memory may be fetched from speculatively",
            Self::SpeculateRead => "Normal memory may be read speculatively",
            Self::MixAliases => "aliases with mismatched attributes are not coherent",
            Self::ExecuteWritten => "what is writable and executable can be written and then executed",
            Self::ReadUnknown => "a walk takes whatever memory holds for a descriptor",
            Self::UseReserved => "RES0 bits of TTBR0_EL2 and reserved encodings of MAIR_EL2 may mean anything",
            Self::LoseBroadcast => "1286807 and its like: a broadcast TLBI may be lost once",
            Self::FetchPastMmuOff => "E1041: a fetch may be translated past the clearing of M",
            Self::OverlapHcrWrite => "AC04_CPU_23: an HCR_EL2 write may overlap its neighbours",
            Self::SkipClean => "819472 and its like: DC CVAC may not clean",
            Self::MixRights => "3683289, 2645198: rights changed in place may be mixed",
        }
    }
}

/// The permissions that an exploration uses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Permissions {
    bits: u64,
}

impl Permissions {
    pub(super) const EVERY: Self = Self { bits: u64::MAX };

    pub(super) const fn without(self, permission: Permission) -> Self {
        Self { bits: self.bits & !(1 << permission as u32) }
    }

    pub(super) const fn has(self, permission: Permission) -> bool {
        self.bits >> permission as u32 & 1 != 0
    }
}
