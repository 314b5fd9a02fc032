//! Who works what, as the workers tell it themselves.

use std::{collections::HashMap, sync::Arc};

use cofferdam_bus::{Bus, Error};

use crate::executor::report::{Report, Running, Totals, reports};

/// All workers that are alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Crew(pub(crate) Vec<Report>);

impl Crew {
    pub(crate) async fn now(bus: &Arc<dyn Bus>) -> Result<Self, Error> {
        reports(bus).await.map(Self)
    }

    /// What is worked now, with who works it.
    pub(crate) fn running(&self) -> impl Iterator<Item = (&Report, &Running)> {
        self.0.iter().flat_map(|report| report.running.iter().map(move |job| (report, job)))
    }

    /// The same by the job's id.
    pub(crate) fn by_job(&self) -> HashMap<&str, (&str, &Running)> {
        self.running().map(|(report, job)| (job.job.as_str(), (report.worker.as_str(), job))).collect()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.0.iter().fold(Totals::default(), |sum, Report { totals, .. }| Totals {
            done: sum.done + totals.done,
            failed: sum.failed + totals.failed,
            cancelled: sum.cancelled + totals.cancelled,
            worked_ms: sum.worked_ms + totals.worked_ms,
            tokens_in: sum.tokens_in + totals.tokens_in,
            tokens_out: sum.tokens_out + totals.tokens_out,
        })
    }

    /// Why a plugin's job of this model has not begun.
    pub(crate) fn why(&self, plugin: &str, model: &str) -> String {
        let at_work: Vec<&Report> = self.0.iter().filter(|report| !report.draining).collect();
        if at_work.is_empty() {
            return "no worker is there; start one with `cofferdam executor`".to_owned();
        }
        let serving: Vec<&&Report> = at_work
            .iter()
            .filter(|report| report.any || report.models.iter().any(|places| places.name == model))
            .collect();
        if serving.is_empty() {
            let mut models: Vec<&str> =
                at_work.iter().flat_map(|report| &report.models).map(|places| places.name.as_str()).collect();
            models.sort_unstable();
            models.dedup();
            return format!("no worker serves the model {model:?}; they serve: {}", models.join(", "));
        }
        if serving.iter().all(|report| report.used_up.iter().any(|name| name == plugin)) {
            return format!(
                "{plugin:?} has used up its tokens of this hour; it waits for the next, by the clock"
            );
        }
        let places = serving.iter().flat_map(|report| &report.models).filter(|places| places.name == model);
        let (all, taken) =
            places.fold((0, 0), |(all, taken), places| (all + places.concurrency, taken + places.running));
        if all > 0 && taken >= all {
            let of = match serving.len() {
                1 => "one worker".to_owned(),
                workers => format!("{workers} workers"),
            };
            return format!("all {all} places of {of} are taken");
        }
        "a worker takes it when its turn comes: others are before it, it waits for another try, or its plugin has used up its \
         tokens of this hour"
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::report::Model;

    fn report(any: bool, models: &[(&str, usize, usize)]) -> Report {
        let places = |(name, concurrency, running): &(&str, usize, usize)| Model {
            name: (*name).into(),
            concurrency: *concurrency,
            running: *running,
        };
        Report { any, models: models.iter().map(places).collect(), ..Report::default() }
    }

    #[test]
    fn it_is_said_why_a_job_waits() {
        let draining = Report { draining: true, ..report(true, &[]) };
        let used_up = || Report { used_up: vec!["p".into()], ..report(false, &[("m", 2, 2)]) };
        for (crew, why) in [
            (vec![], "no worker is there"),
            (vec![draining], "no worker is there"),
            (
                vec![report(false, &[("b", 1, 0)]), report(false, &[("a", 1, 0), ("b", 1, 0)])],
                "no worker serves the model \"m\"; they serve: a, b",
            ),
            (vec![report(false, &[("m", 2, 2)])], "all 2 places of one worker are taken"),
            (
                vec![report(false, &[("m", 2, 2)]), report(true, &[("m", 3, 3)])],
                "all 5 places of 2 workers are taken",
            ),
            (
                vec![used_up(), report(false, &[("b", 1, 0)])],
                "\"p\" has used up its tokens of this hour; it waits for the next",
            ),
            (vec![used_up(), report(false, &[("m", 2, 2)])], "all 4 places of 2 workers are taken"),
            (vec![report(false, &[("m", 2, 1)])], "when its turn comes"),
            (vec![report(true, &[])], "when its turn comes"),
        ] {
            let told = Crew(crew).why("p", "m");
            assert!(told.contains(why), "{told}");
        }
    }
}
