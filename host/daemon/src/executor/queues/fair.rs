//! Whose job is next. Between plugins by their weights, so that over any while in which two have jobs waiting they get work in
//! proportion (start-time fair queueing, counted in tokens); within a plugin the urgent strictly first; among equals, and
//! whatever else, in the order in which they were submitted. Pure: it knows neither the bus nor time.

use std::{cmp::Ordering, collections::HashMap};

use cofferdam_sandbox::Priority;

/// How much of what a job used goes into what is expected of the next.
const LEARNS: f64 = 0.25;

/// What each plugin has had, in tokens by weight.
#[derive(Debug)]
pub(in crate::executor) struct Fair {
    weights: HashMap<String, u32>,
    /// Where each plugin's next job begins, unless all others are further by now.
    finished: HashMap<String, f64>,
    /// Where the job begins that was begun last. Who had nothing waiting is not owed what lies before.
    now: f64,
    /// What a job of each plugin has used of late: a guess that is far too high, for several jobs that run together, would level
    /// the weights.
    usual: HashMap<String, f64>,
}

/// Jobs that might be begun.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::executor) struct Line<'a, K> {
    pub(in crate::executor) key: K,
    pub(in crate::executor) plugin: &'a str,
    pub(in crate::executor) priority: Priority,
    /// When the first of them was submitted. None: the queue was asked a moment ago, and has not answered.
    pub(in crate::executor) submitted: Option<u64>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) enum Next<K> {
    Begin(K),
    /// Somebody with a better claim was asked, and has not answered.
    Wait,
    Nothing,
}

impl<K> Line<'_, K> {
    /// The more urgent is less.
    fn compare_within(&self, other: &Self) -> Ordering {
        other.priority.cmp(&self.priority).then_with(|| self.age().cmp(&other.age()))
    }

    /// What is there comes before what may come, and the oldest first.
    fn age(&self) -> (bool, u64) {
        self.submitted.map_or((true, 0), |at| (false, at))
    }
}

impl Fair {
    /// Whoever has no weight has 1.
    pub(in crate::executor) fn new(weights: impl IntoIterator<Item = (String, u32)>) -> Self {
        Self {
            weights: weights.into_iter().collect(),
            finished: HashMap::new(),
            now: 0.0,
            usual: HashMap::new(),
        }
    }

    /// The job to begin, of these; all of them may be begun.
    pub(in crate::executor) fn next<'a, K>(&self, lines: impl IntoIterator<Item = Line<'a, K>>) -> Next<K> {
        // One of each plugin, the best: its claims against others are the same whichever it is.
        let mut best: Vec<Line<'a, K>> = Vec::new();
        for line in lines {
            match best.iter_mut().find(|other| other.plugin == line.plugin) {
                None => best.push(line),
                Some(other) if line.compare_within(other).is_lt() => *other = line,
                Some(_) => {}
            }
        }
        let claim = |line: &Line<'a, K>| self.begins(line.plugin);
        let first = best.into_iter().min_by(|a, b| {
            claim(a)
                .total_cmp(&claim(b))
                .then_with(|| a.age().cmp(&b.age()))
                .then_with(|| a.plugin.cmp(b.plugin))
        });
        match first {
            None => Next::Nothing,
            Some(Line { submitted: None, .. }) => Next::Wait,
            Some(line) => Next::Begin(line.key),
        }
    }

    fn begins(&self, plugin: &str) -> f64 {
        self.finished.get(plugin).map_or(self.now, |finished| finished.max(self.now))
    }

    fn weighed(&self, plugin: &str, tokens: f64) -> f64 {
        tokens / f64::from(self.weights.get(plugin).copied().unwrap_or(1).max(1))
    }

    /// A job of this plugin begins, and may use so many tokens, for all that can be told from it. What it is charged until it ends.
    pub(in crate::executor) fn begun(&mut self, plugin: &str, tokens: u64) -> f64 {
        let charged = self.usual.get(plugin).copied().unwrap_or(tokens as f64);
        self.now = self.begins(plugin);
        let finished = self.now + self.weighed(plugin, charged);
        self.finished.insert(plugin.to_owned(), finished);
        charged
    }

    /// It ended, and used so many instead; where nobody counts tokens, jobs count.
    pub(in crate::executor) fn ended(&mut self, plugin: &str, charged: f64, used: u64) {
        let used = used.max(1) as f64;
        let more = self.weighed(plugin, used - charged);
        if let Some(finished) = self.finished.get_mut(plugin) {
            *finished += more;
        }
        let usual = self.usual.entry(plugin.to_owned()).or_insert(used);
        *usual += (used - *usual) * LEARNS;
    }

    /// Nobody has anything to do: what was had so far does not count any more.
    pub(in crate::executor) fn rest(&mut self) {
        self.finished.clear();
        self.now = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line<'a>(plugin: &'a str, priority: Priority, at: u64) -> Line<'a, (&'a str, u64)> {
        Line { key: (plugin, at), plugin, priority, submitted: Some(at) }
    }

    /// Begins jobs one after another while all of these have some waiting; tokens of each plugin.
    fn shared(fair: &mut Fair, plugins: &[(&str, u64)], jobs: usize) -> HashMap<String, u64> {
        let mut had = HashMap::new();
        for at in 0..jobs {
            let lines = plugins.iter().map(|(plugin, _)| line(plugin, Priority::Normal, at as u64));
            let Next::Begin((plugin, _)) = fair.next(lines) else { panic!("somebody waits") };
            let tokens = plugins.iter().find(|(name, _)| *name == plugin).map_or(0, |(_, tokens)| *tokens);
            let charged = fair.begun(plugin, 512);
            fair.ended(plugin, charged, tokens);
            *had.entry(plugin.to_owned()).or_default() += tokens;
        }
        had
    }

    #[test]
    fn three_times_the_weight_is_three_times_the_tokens() {
        let mut fair = Fair::new([("a".into(), 1), ("b".into(), 3)]);
        let had = shared(&mut fair, &[("a", 100), ("b", 100)], 400);
        assert_eq!((had["a"], had["b"]), (10_000, 30_000));
        // Large jobs count as what they are.
        let mut fair = Fair::new([("a".into(), 1), ("b".into(), 3)]);
        let had = shared(&mut fair, &[("a", 100), ("b", 900)], 400);
        let ratio = had["b"] as f64 / had["a"] as f64;
        assert!((2.8..3.2).contains(&ratio), "{ratio}");
    }

    #[test]
    fn weights_hold_also_where_several_begin_and_end_together() {
        for places in [2, 4, 6, 12] {
            let mut fair = Fair::new([("b".into(), 3)]);
            let mut begun = HashMap::from([("a", 0), ("b", 0)]);
            for _ in 0..1200 / places {
                let mut together = Vec::new();
                for _ in 0..places {
                    let lines = ["a", "b"].map(|plugin| line(plugin, Priority::Normal, 0));
                    let Next::Begin((plugin, _)) = fair.next(lines) else { panic!("somebody waits") };
                    together.push((plugin, fair.begun(plugin, 512)));
                    *begun.entry(plugin).or_default() += 1;
                }
                for (plugin, charged) in together {
                    fair.ended(plugin, charged, 20);
                }
            }
            let ratio = f64::from(begun["b"]) / f64::from(begun["a"]);
            assert!((2.7..3.3).contains(&ratio), "{places} places: {begun:?}");
        }
    }

    #[test]
    fn the_urgent_come_first_within_their_plugin_and_not_beyond() {
        let mut fair = Fair::new([]);
        let lines =
            [line("a", Priority::Normal, 1), line("a", Priority::High, 3), line("a", Priority::Low, 0)];
        assert_eq!(fair.next(lines), Next::Begin(("a", 3)));
        fair.begun("a", 100);
        let lines = lines.into_iter().chain([line("b", Priority::Low, 9)]);
        assert_eq!(fair.next(lines), Next::Begin(("b", 9)));
    }

    #[test]
    fn among_equals_the_oldest_is_first() {
        let fair = Fair::new([]);
        let lines =
            [line("b", Priority::Normal, 2), line("a", Priority::High, 3), line("b", Priority::Normal, 1)];
        assert_eq!(fair.next(lines), Next::Begin(("b", 1)));
        assert_eq!(fair.next([] as [Line<'_, ()>; 0]), Next::Nothing);
    }

    #[test]
    fn whoever_has_the_better_claim_is_waited_for() {
        let mut fair = Fair::new([]);
        let asked = |plugin, priority| Line { submitted: None, ..line(plugin, priority, 0) };
        fair.begun("a", 100);
        assert_eq!(fair.next([line("a", Priority::High, 1), asked("b", Priority::Low)]), Next::Wait);
        assert_eq!(
            fair.next([line("b", Priority::Low, 1), asked("a", Priority::High)]),
            Next::Begin(("b", 1))
        );
        assert_eq!(fair.next([line("a", Priority::Low, 1), asked("a", Priority::High)]), Next::Wait);
        assert_eq!(
            fair.next([line("a", Priority::Low, 1), asked("a", Priority::Low)]),
            Next::Begin(("a", 1))
        );
    }

    #[test]
    fn who_was_away_is_owed_nothing_and_owes_nothing() {
        let mut fair = Fair::new([]);
        shared(&mut fair, &[("a", 1000)], 100);
        let had = shared(&mut fair, &[("a", 100), ("b", 100)], 100);
        assert!(had["a"] >= 4000 && had["b"] >= 5000, "{had:?}");
    }

    proptest! {
        /// Whatever the sizes of jobs and the numbers of them under way, two plugins that both always have jobs waiting stay
        /// within a few jobs of their shares.
        #[test]
        fn shares_follow_the_weights(
            weights in prop::collection::vec(1_u32..9, 2..5),
            jobs in prop::collection::vec((0_usize..5, 1_u64..4096), 200..400),
            places in 1_usize..9,
        ) {
            let names: Vec<String> = (0..weights.len()).map(|n| n.to_string()).collect();
            let mut fair = Fair::new(names.iter().cloned().zip(weights.iter().copied()));
            let mut under_way: Vec<(usize, f64, u64)> = Vec::new();
            let mut had = vec![0_u64; names.len()];
            for (at, (_, tokens)) in jobs.iter().enumerate() {
                if under_way.len() == places {
                    let (plugin, charged, tokens) = under_way.remove(at % places);
                    fair.ended(&names[plugin], charged, tokens);
                    had[plugin] += tokens;
                }
                let lines = names.iter().enumerate().map(|(n, plugin)| Line {
                    key: n, plugin, priority: Priority::Normal, submitted: Some(0),
                });
                let Next::Begin(plugin) = fair.next(lines) else { panic!("somebody waits") };
                let charged = fair.begun(&names[plugin], 512);
                under_way.push((plugin, charged, *tokens));
            }
            for (plugin, charged, tokens) in under_way {
                fair.ended(&names[plugin], charged, tokens);
                had[plugin] += tokens;
            }
            // By weight, nobody is further from another than what may be under way.
            let slack = 4096.0 * (places as f64 + 2.0);
            let by_weight: Vec<f64> = had.iter().zip(&weights).map(|(had, weight)| *had as f64 / f64::from(*weight)).collect();
            for a in &by_weight {
                for b in &by_weight {
                    prop_assert!((a - b).abs() <= slack, "{had:?} by {weights:?}: {a} and {b}");
                }
            }
        }

        /// Over any arrivals a job waits for no more than a bounded number of others: as many as fit into its plugin's share.
        #[test]
        fn nobody_starves(
            weight in 1_u32..100,
            arrivals in prop::collection::vec((0_usize..4, 1_u64..2048), 0..300),
        ) {
            let mut fair = Fair::new([("rich".into(), weight)]);
            // The rich always have jobs waiting, urgent ones; others come and go.
            fair.begun("rich", 1);
            for (others, tokens) in arrivals {
                let names = ["p", "q", "r"];
                let mut lines = vec![line("rich", Priority::High, 0)];
                lines.extend(names.iter().take(others).map(|name| line(name, Priority::Normal, 1)));
                let Next::Begin((plugin, _)) = fair.next(lines) else { panic!("somebody waits") };
                let plugin = plugin.to_owned();
                fair.begun(&plugin, tokens);
            }
            let mut before = 0;
            loop {
                let lines = [line("rich", Priority::High, 0), line("poor", Priority::Low, 1)];
                let Next::Begin((plugin, _)) = fair.next(lines) else { panic!("somebody waits") };
                if plugin == "poor" {
                    break;
                }
                fair.begun("rich", 512);
                before += 1;
                prop_assert!(before <= 1, "the poor come now, owing nothing");
            }
        }

        /// Within one plugin nothing urgent ever waits for what is less so.
        #[test]
        fn urgency_is_strict(lines in prop::collection::vec((0_usize..3, 0_usize..3, 0_u64..100), 1..20)) {
            let priorities = [Priority::Low, Priority::Normal, Priority::High];
            let names = ["a", "b", "c"];
            let fair = Fair::new([]);
            let lines: Vec<_> = lines.iter().map(|(plugin, urgent, at)| Line {
                key: (*plugin, *urgent, *at), plugin: names[*plugin], priority: priorities[*urgent], submitted: Some(*at),
            }).collect();
            let Next::Begin((plugin, urgent, at)) = fair.next(lines.iter().copied()) else { panic!("somebody waits") };
            for Line { key, .. } in lines {
                prop_assert!(key.0 != plugin || key.1 < urgent || (key.1 == urgent && key.2 >= at));
            }
        }
    }
}
