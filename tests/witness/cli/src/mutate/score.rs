//! The score: how many mutants were killed, by whom, and which were not.

use std::fmt;

use serde_json::{Value, json};

use super::change::Mutant;
use super::hear::Objection;
use super::trial::Fate;

/// All mutants with what became of them.
#[derive(Debug)]
pub struct Score {
    fates: Vec<(Mutant, Fate)>,
}

/// How many there are of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    by_rule: usize,
    by_house_rule: usize,
    by_boot: usize,
    in_twin: usize,
    pauses: usize,
    covered: usize,
    for_feature: usize,
    survived: usize,
    not_executed: usize,
    elsewhere: usize,
}

impl Counts {
    fn add(&mut self, fate: &Fate) {
        let count = match fate {
            Fate::Witness { objection: Objection::Rule { .. }, .. } => &mut self.by_rule,
            Fate::Witness { objection: Objection::House(_), .. } => &mut self.by_house_rule,
            Fate::Boot { .. } => &mut self.by_boot,
            Fate::Redundant { kind: "a pause", .. } => &mut self.pauses,
            Fate::Redundant { kind: "covered", .. } => &mut self.covered,
            Fate::Redundant { .. } => &mut self.for_feature,
            Fate::Survived(_) => &mut self.survived,
            Fate::NotExecuted => &mut self.not_executed,
            Fate::Elsewhere => &mut self.elsewhere,
            Fate::Twin { fate, .. } => {
                self.in_twin += 1;
                return self.add(fate);
            }
        };
        *count += 1;
    }

    const fn redundant(&self) -> usize {
        self.pauses + self.covered + self.for_feature
    }

    const fn killed(&self) -> usize {
        self.by_rule + self.by_house_rule + self.by_boot
    }
}

impl Score {
    pub(super) const fn new(fates: Vec<(Mutant, Fate)>) -> Self {
        Self { fates }
    }

    /// Each mutant with its fate.
    pub(super) fn mutants(&self) -> impl Iterator<Item = (&Mutant, &Fate)> {
        self.fates.iter().map(|(mutant, fate)| (mutant, fate))
    }

    /// Whether nothing survived.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.fates.iter().all(|(_, fate)| fate.is_good())
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.fates.iter().for_each(|(_, fate)| counts.add(fate));
        counts
    }

    /// One line.
    #[must_use]
    pub fn summary(&self) -> String {
        let counts = self.counts();
        let Counts { by_rule, by_house_rule, by_boot, in_twin, pauses, covered, for_feature, .. } = counts;
        let (killed, whole) = (counts.killed(), self.fates.len() - counts.redundant() - counts.elsewhere);
        let Counts { survived, not_executed, elsewhere, .. } = counts;
        let percent = if whole == 0 { 100.0 } else { 100.0 * killed as f64 / whole as f64 };
        format!(
            "{} mutants: {killed} of {whole} killed, {percent:.1} % ({by_rule} by a rule, {by_house_rule} by a house rule, \
             {by_boot} by the boot; {in_twin} of them in the twin), {} redundant ({pauses} pauses, {covered} covered, {for_feature} \
             for a feature), {survived} survived, {not_executed} not executed, {elsewhere} not in the first boot",
            self.fates.len(),
            counts.redundant(),
        )
    }

    /// The `MUTATION-REPORT` line.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let counts = self.counts();
        let site = |(mutant, fate): &(Mutant, Fate)| {
            let Mutant { site, change, .. } = mutant;
            json!({
                "function": site.function, "offset": site.offset, "instruction": site.instruction,
                "change": format!("{change:?}"),
                "good": fate.is_good(), "fate": fate.to_string(),
            })
        };
        json!({
            "version": 1,
            "mutants": self.fates.len(),
            "killed": counts.killed(),
            "by_rule": counts.by_rule,
            "by_house_rule": counts.by_house_rule,
            "by_boot": counts.by_boot,
            "in_twin": counts.in_twin,
            "redundant": { "pauses": counts.pauses, "covered": counts.covered, "for_feature": counts.for_feature },
            "survived": counts.survived,
            "not_executed": counts.not_executed,
            "not_in_the_first_boot": counts.elsewhere,
            "sites": self.fates.iter().map(site).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (site, fate) in self.fates.iter().filter(|(_, fate)| !fate.is_good()) {
            writeln!(f, "{site}: {fate}")?;
        }
        f.write_str(&self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::Mutation;
    use super::super::sites::{NOP, Site};
    use super::*;

    fn mutant() -> Mutant {
        Mutant { site: Site::lone(0, NOP), change: Mutation::Removed, words: vec![NOP] }
    }

    fn score(fates: Vec<Fate>) -> Score {
        Score::new(fates.into_iter().map(|fate| (mutant(), fate)).collect())
    }

    #[test]
    fn good_what_is_redundant_does_not_count() {
        let killed = Fate::Boot { boot: "b".into(), status: Some(3) };
        let pause = Fate::Redundant { kind: "a pause", reason: "a lock".into() };
        let score = score(vec![killed.clone(), Fate::Twin { place: "g".into(), fate: Box::new(killed) }, pause]);
        assert!(score.is_whole());
        assert!(score.summary().starts_with("3 mutants: 2 of 2 killed, 100.0 %"), "{}", score.summary());
        assert_eq!(score.to_json()["in_twin"], 1);
    }

    #[test]
    fn bad_a_survivor_and_what_nothing_executes() {
        for fate in
            [Fate::Survived(3), Fate::NotExecuted, Fate::Twin { place: "g".into(), fate: Box::new(Fate::Survived(1)) }]
        {
            let score = score(vec![fate, Fate::Boot { boot: "b".into(), status: None }]);
            assert!(!score.is_whole());
            assert!(score.summary().contains("1 of 2 killed, 50.0 %"), "{}", score.summary());
        }
    }
}
