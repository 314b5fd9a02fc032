//! Two sides, round by round in turn, so that whatever else the machine does falls on both.

use crate::{
    outcome::{Goal, Outcome, median, spread},
    report::say,
};

/// The share of what is possible at most that a bare loop has to reach: a slow one proves nothing.
const LEAST: f64 = 0.25;

/// What one round came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// Events or jobs a second.
    pub(crate) rate: f64,
    /// What a bare loop is held against: messages a second that were stored while its events were, the publish-only rate of
    /// JetStream; or requests a second over bare sockets.
    pub(crate) fed: Option<f64>,
}

/// One of the two. A round that lost or repeated anything is an error that says what.
pub(crate) trait Side {
    async fn round(&mut self) -> Result<Round, String>;
}

/// The ratio of `ours` to `bare`, in `unit`. `writes`: messages that the bare loop has stored, or requests that it makes, for one
/// event; nothing where the other side is no bare loop.
pub(crate) async fn compare(
    (name, unit): (&str, &'static str),
    rounds: u64,
    goal: Option<Goal>,
    writes: Option<u64>,
    bare: &mut impl Side,
    ours: &mut impl Side,
) -> Outcome {
    let (mut ratios, mut baselines, mut values, mut fed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (bare, ours) = match both(bare, ours).await {
            Ok(both) => both,
            Err(why) => return Outcome::void(name, why),
        };
        let ratio = ours.rate / bare.rate;
        let place = if round == 0 { "warming up".to_owned() } else { format!("round {round} of {rounds}") };
        say(&format!("{name}: {place}: {:.0} {unit} against {:.0}: {ratio:.2}", ours.rate, bare.rate));
        if round > 0 {
            ratios.push(ratio);
            baselines.push(bare.rate);
            values.push(ours.rate);
            fed.extend(bare.fed);
        }
    }
    let share = writes.map(|writes| median(&baselines) * writes as f64 / median(&fed));
    let slow = share.filter(|share| *share < LEAST).map(|share| {
        format!(
            "the bare loop does {share:.2} of what is possible at most ({:.0}/s): under {LEAST}",
            median(&fed)
        )
    });
    Outcome {
        name: name.to_owned(),
        ratio: Some(median(&ratios)),
        value: Some(median(&values)),
        unit: Some(unit),
        baseline: Some(median(&baselines)),
        spread: spread(&ratios),
        goal,
        void: slow,
    }
}

async fn both(bare: &mut impl Side, ours: &mut impl Side) -> Result<(Round, Round), String> {
    let bare = bare.round().await.map_err(|why| format!("the bare side: {why}"))?;
    let ours = ours.round().await.map_err(|why| format!("our side: {why}"))?;
    Ok((bare, ours))
}
