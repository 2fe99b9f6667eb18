//! The rules by name: one for each thing that can be judged, and switched off, by itself.

macro_rules! rules {
    ($($variant:ident, $name:literal, $says:literal;)+) => {
        /// A rule that a trace can break.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $says] $variant,)+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The architecture's names for it, the erratum's number, or a few words where it has no name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What it says, in one sentence.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self { $(Self::$variant => $says),+ }
            }
        }
    };
}

rules! {
    OutputChange, "RWHZWS", "An output address changes only by break-before-make, unless both sides are read-only with equal contents.";
    AttributeChange, "RWHZWS", "Memory type, cacheability and shareability change only by break-before-make.";
    SizeChange, "RKFLJB, RPVTFW, RMRRPW", "Below FEAT_BBM level 1, a block and a table replace each other only by break-before-make.";
    TableChange, "RDDMVT", "A table replaces another table only by break-before-make.";
    HierarchyChange, "IYQWJF", "APTable and XNTable of a table in use change only by break-before-make.";
    ContiguousChange, "RKHRBC, RFCPSG", "Below FEAT_BBM level 1, the contiguous bit changes only by break-before-make.";
    RunInvalidation, "RLQLSD, IJQPNP", "A contiguous run is invalidated entry by entry before anything else is made in it.";
    RunMisprogrammed, "IPGVGZ, RQTRPM", "The valid entries of a contiguous run all have the bit and agree, or none has it.";
    BbmAlways, "erratum 3683289", "Every change of a valid descriptor is by break-before-make.";
    BbmForXn, "erratum 2645198", "Execute becomes execute-never only by break-before-make.";
    RepeatTlbi, "errata 1286807, 2441007, 2441009, E1009, CVE-2025-10263", "A broadcast TLBI is complete after a second one and its DSB.";
    StaleLeaf, "RGPPYH, RFFWJK", "A change of a cached leaf is in force for every PE only after its TLBI is complete.";
    StaleTable, "RVMSWQ, RLQLSD", "What was linked through a table is gone only after each entry on its walks is invalidated.";
    NotVisible, "RSPVBD", "A store to a table is certainly visible to walks only after a DSB.";
    CompletionSync, "RBLDZX", "Without FEAT_ETS2 the PE that issued a TLBI needs a context synchronisation after its DSB.";
    FillSync, "IWZCBG", "A new mapping may be used only after a context synchronisation on the PE that uses it.";
    FetchSync, "ISB is not broadcast", "A PE that executes from a changed mapping needs its own context synchronisation.";
    BrokenUse, "RDDMVT, use", "Nothing is fetched or accessed through an entry between its break and its make.";
    ChildContents, "RTGRMW", "A table is linked only once its contents are known and visible.";
    FrameReuse, "RBKKRB, RTJQVP", "A frame leaves only after nothing stale leads to it or walks through it.";
    FrameInUse, "frame in use", "A frame that is a table in use does not leave.";
    RootSwitch, "RWHZWS, root switch", "With the old root's entries still cached, a new root may only map what agrees with them.";
    WindowAccess, "root switch, window", "No data access while the MMU is off between two roots.";
    WindowStores, "root switch, DSB", "Stores are complete before the MMU is turned off between two roots.";
    WindowCache, "root switch, C", "SCTLR_EL2.C does not change while the root does: it would change what walks see.";
    IdentityCode, "identity", "Code that turns the MMU on or off runs at its physical address, executable.";
    ControlUnknown, "reset values", "A control whose reset value is unknown is written before it matters.";
    CallStores, "call", "What was stored with the MMU off is complete before firmware is called.";
    ControlChange, "RVNRFW", "A change of TCR, MAIR, WXN, EE or CnP is followed by ISB, invalidation, DSB and ISB, even with M = 0.";
    ControlSync, "context synchronisation", "A control register is in force only after an ISB.";
    FirstEnable, "RXQBCL, RNDCMB", "Each PE invalidates its own TLBs, whose reset state is unknown, before its first M = 1.";
    CommonNotPrivate, "RQLGWZ", "PEs with CnP = 1 use the same tables.";
    HostChange, "RNWYRD", "A change of HCR_EL2.E2H is followed by ISB and ALLE2.";
    HostUnsupported, "FEAT_E2H0", "HCR_EL2.E2H = 1 with the MMU on is not supported by this judge.";
    PermissionIndirection, "FEAT_S1PIE", "TCR2_EL2.PIE gives AP and XN another meaning: it stays 0.";
    WriteExecute, "W^X", "No address is writable and executable, by its descriptors alone.";
    WriteExecuteAlias, "W^X, aliases", "After boot no physical page is writable through one address and executable through another.";
    DeviceExecute, "B2.10", "Device memory is execute-never.";
    MismatchedAttributes, "mismatched attributes", "No frame is mapped at once with two memory types, cacheabilities or shareabilities.";
    BeyondRam, "Normal beyond RAM", "Normal memory is mapped only over RAM, and never over no-map memory.";
    LineBefore, "first tables, DC IVAC before", "A line is invalidated before it is written with caches off: a dirty line may be evicted over it.";
    LineAfter, "first tables, DC IVAC after", "A line written with caches off is invalidated before it is read with caches on: a stale line may hide it.";
    LineCleaned, "first tables, no clean", "A line written with caches off is never cleaned: a stale line would be pushed over it.";
    NotCleaned, "mailbox", "What a PE with its MMU off loads, or with its instruction cache off too executes, is cleaned to the point of coherency first.";
    CleanInvalidates, "errata 819472, 824069, 826319, 827319", "On these parts DC CIVAC is what cleans.";
    ZeroMmuOff, "DC ZVA with M = 0", "DC ZVA faults while the MMU is off.";
    UnfinishedTlbi, "RPSMWS", "A TLBI is complete only after a DSB that covers loads and stores, as far as the TLBI reaches.";
    IsbBeforeMmuOff, "erratum E1041", "An ISB stands directly before M goes from 1 to 0.";
    HcrBarriers, "erratum AC04_CPU_23", "A DSB stands directly before a write of HCR_EL2, an ISB directly after.";
}
