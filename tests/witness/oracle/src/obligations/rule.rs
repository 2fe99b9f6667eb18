//! The rules by name: one for each thing that can be judged, and switched off, by itself. `RULES.md` explains each.

/// Whose a rule is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Origin {
    /// The architecture demands it, or promises nothing to software that does otherwise.
    Architecture,
    /// Some cores demand it, which do not do what the architecture says.
    Erratum,
    /// The architecture allows more: this image keeps to less, or this judge follows no more.
    Own,
}

impl Origin {
    /// In words.
    #[must_use]
    pub const fn says(self) -> &'static str {
        match self {
            Self::Architecture => "the architecture's",
            Self::Erratum => "an erratum's",
            Self::Own => "this image's own",
        }
    }
}

macro_rules! rules {
    ($($variant:ident, $origin:ident, $arm:literal, $says:literal;)+) => {
        /// A rule that a trace can break.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $says] $variant,)+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name, under which `RULES.md` explains it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }

            /// Arm's identifiers: of the rules in the Arm ARM (DDI 0487), or of the errata. Empty where Arm has none for it.
            #[must_use]
            pub const fn arm(self) -> &'static str {
                match self { $(Self::$variant => $arm),+ }
            }

            /// Whose it is.
            #[must_use]
            pub const fn origin(self) -> Origin {
                match self { $(Self::$variant => Origin::$origin),+ }
            }

            /// What it says, in one sentence.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self { $(Self::$variant => $says),+ }
            }
        }
    };
}

impl Rule {
    /// Arm's identifiers where it has some, or whose it is.
    #[must_use]
    pub const fn source(self) -> &'static str {
        if self.arm().is_empty() { self.origin().says() } else { self.arm() }
    }
}

rules! {
    OutputChange, Architecture, "RWHZWS", "An output address changes only by break-before-make, unless both sides are read-only with equal contents.";
    AttributeChange, Architecture, "RWHZWS", "Memory type, cacheability and shareability change only by break-before-make.";
    SizeChange, Architecture, "RKFLJB, RPVTFW, RMRRPW", "Below FEAT_BBM level 1, a block and a table replace each other only by break-before-make.";
    TableChange, Architecture, "RDDMVT", "A table replaces another table only by break-before-make.";
    HierarchyChange, Architecture, "IYQWJF", "APTable and XNTable of a table in use change only by break-before-make.";
    ContiguousChange, Architecture, "RKHRBC, RFCPSG", "Below FEAT_BBM level 1, the contiguous bit changes only by break-before-make.";
    RunInvalidation, Architecture, "RLQLSD, IJQPNP", "A contiguous run is invalidated entry by entry before anything else is made in it.";
    RunMisprogrammed, Architecture, "IPGVGZ, RQTRPM", "The valid entries of a contiguous run all have the bit and agree, or none has it.";
    BbmAlways, Erratum, "erratum 3683289", "Every change of a valid descriptor is by break-before-make.";
    BbmForXn, Erratum, "erratum 2645198", "Execute becomes execute-never only by break-before-make.";
    RepeatTlbi, Erratum, "errata 1286807, 2441007, 2441009, E1009, CVE-2025-10263", "A broadcast TLBI is complete after a second one and its DSB.";
    StaleLeaf, Architecture, "RGPPYH, RFFWJK", "A change of a cached leaf is in force for every PE only after its TLBI is complete.";
    StaleTable, Architecture, "RVMSWQ, RLQLSD", "What was linked through a table is gone only after each entry on its walks is invalidated.";
    NotVisible, Architecture, "RSPVBD", "A store to a table is certainly visible to walks only after a DSB.";
    CompletionSync, Architecture, "RBLDZX", "Without FEAT_ETS2 the PE that issued a TLBI needs a context synchronisation after its DSB.";
    FillSync, Architecture, "IWZCBG", "A new mapping may be used only after a context synchronisation on the PE that uses it.";
    FetchSync, Architecture, "", "A PE that executes from a changed mapping needs its own context synchronisation.";
    BrokenUse, Architecture, "RDDMVT", "Nothing is fetched or accessed through an entry between its break and its make.";
    ChildContents, Architecture, "RTGRMW", "A table is linked only once its contents are known and visible.";
    FrameReuse, Architecture, "RBKKRB, RTJQVP", "A frame leaves only after nothing stale leads to it or walks through it.";
    FrameInUse, Architecture, "", "A frame that is a table in use does not leave.";
    RootSwitch, Architecture, "RWHZWS", "With the old root's entries still cached, a new root may only map what agrees with them.";
    WindowAccess, Own, "", "No data access while the MMU is off between two roots.";
    WindowStores, Own, "", "Stores are complete before the MMU is turned off between two roots.";
    WindowCache, Own, "", "SCTLR_EL2.C does not change while the root does: it would change what walks see.";
    IdentityCode, Architecture, "", "Code that turns the MMU on or off runs at its physical address, executable.";
    ControlUnknown, Architecture, "", "A control whose reset value is unknown is written before it matters.";
    CallStores, Architecture, "", "What was stored with the MMU off is complete before firmware is called.";
    ControlChange, Architecture, "RVNRFW", "A change of TCR, MAIR, WXN, EE or CnP is followed by ISB, invalidation, DSB and ISB, even with M = 0.";
    ControlSync, Architecture, "", "A control register is in force only after an ISB.";
    FirstEnable, Architecture, "RXQBCL, RNDCMB", "Each PE invalidates its own TLBs, whose reset state is unknown, before its first M = 1.";
    CommonNotPrivate, Architecture, "RQLGWZ", "PEs with CnP = 1 use the same tables.";
    HostChange, Architecture, "RNWYRD", "A change of HCR_EL2.E2H is followed by ISB and ALLE2.";
    RootBits, Architecture, "", "RES0 bits of TTBR0_EL2 are 0.";
    TypeReserved, Architecture, "", "A leaf names no encoding of MAIR_EL2 that is reserved.";
    WriteExecute, Own, "", "No address is writable and executable, by its descriptors alone.";
    WriteExecuteAlias, Own, "", "After boot no physical page is writable through one address and executable through another.";
    DeviceExecute, Architecture, "", "Device memory is execute-never.";
    MismatchedAttributes, Architecture, "", "No frame is mapped at once with two memory types, cacheabilities or shareabilities.";
    BeyondRam, Architecture, "", "Normal memory is mapped only over RAM, and never over no-map memory.";
    LineBefore, Architecture, "", "A line is invalidated before it is written with caches off: a dirty line may be evicted over it.";
    LineAfter, Architecture, "", "A line written with caches off is invalidated before it is read with caches on: a stale line may hide it.";
    LineCleaned, Architecture, "", "A line written with caches off is never cleaned: a stale line would be pushed over it.";
    NotCleaned, Architecture, "", "What is loaded with the MMU off, executed with the instruction cache off too, or walked past the caches is cleaned to the point of coherency first.";
    CleanInvalidates, Erratum, "errata 819472, 824069, 826319, 827319", "On these parts DC CIVAC is what cleans.";
    ZeroMmuOff, Architecture, "", "DC ZVA faults while the MMU is off.";
    UnfinishedTlbi, Architecture, "RPSMWS", "A TLBI is complete only after a DSB that covers loads and stores, as far as the TLBI reaches.";
    IsbBeforeMmuOff, Erratum, "erratum E1041", "An ISB stands directly before M goes from 1 to 0.";
    HcrBarriers, Erratum, "erratum AC04_CPU_23", "A DSB stands directly before a write of HCR_EL2, an ISB directly after.";
}
