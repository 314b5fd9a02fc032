//! One side's way through a round on JetStream: its events are stored while its durable is paused, then let go all at once;
//! the round ends when every event is acked, and leaves nothing.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use crate::{
    compare::Round,
    feed::{Batch, feed},
    outputs::{self, Output},
    rig::{Rig, Route},
    work::Work,
};

/// Later than any round ends.
const LATER: &str = "2999-01-01T00:00:00Z";
/// Without an ack for so long, the rest is taken for lost.
const STUCK: Duration = Duration::from_secs(60);
/// Rarely enough to cost nothing.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Track<'a> {
    rig: &'a Rig,
    pub(crate) route: Route,
    work: Work,
    events: u64,
    durable: String,
    /// Number of the next event.
    next: u64,
}

impl<'a> Track<'a> {
    /// `durable`: that of the side, which exists.
    pub(crate) fn new(rig: &'a Rig, route: Route, durable: String, work: Work, events: u64) -> Track<'a> {
        Track { rig, route, work, events, durable, next: 0 }
    }

    /// Stores the events of the next round, and lets the side have them. Gives the publish-only rate.
    pub(crate) async fn load(&mut self) -> (Batch, f64) {
        let options = &self.rig.options;
        let batch = Batch { first: self.next, events: self.events, work: self.work, size: options.payload };
        self.next += self.events;
        self.pause(Some(LATER)).await;
        let (input, output) = (&self.route.input, &self.route.output);
        let fed = feed(&self.rig.jetstream, input, output, batch, options.in_flight).await;
        self.pause(None).await;
        (batch, fed)
    }

    /// The client has no function for it with the features that the workspace takes.
    async fn pause(&self, until: Option<&str>) {
        let subject = format!("$JS.API.CONSUMER.PAUSE.{}.{}", self.route.input_stream, self.durable);
        let body = until.map(|until| json!({ "pause_until": until }).to_string()).unwrap_or_default();
        let client = self.rig.jetstream.client();
        let answer = client.request(subject, body.into()).await.expect("an answer to a pause");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        assert_eq!(answer["paused"] == true, until.is_some(), "the durable {}: {answer}", self.durable);
    }

    /// Waits until every event is acked, and judges what came of them.
    pub(crate) async fn finish(&self, (batch, fed): (Batch, f64)) -> Result<Round, String> {
        let outputs = drain(self.rig, &self.route, &self.durable, batch).await?;
        Ok(Round { rate: outputs::rate(&outputs, batch)?, fed: Some(fed) })
    }

    /// The one durable that a daemon has on its input.
    pub(crate) async fn only_durable(rig: &Rig, route: &Route) -> String {
        let stream = rig.jetstream.get_stream(&route.input_stream).await.expect("the stream");
        let names: Vec<String> = stream.consumer_names().try_collect().await.expect("the stream's consumers");
        let [name] = names.as_slice() else { panic!("one durable was to be on {}: {names:?}", route.input) };
        name.clone()
    }
}

/// Waits until every event is acked, and empties the streams. Every output, if each is there once.
pub(crate) async fn drain(
    rig: &Rig,
    route: &Route,
    durable: &str,
    batch: Batch,
) -> Result<Vec<Output>, String> {
    let input = rig.jetstream.get_stream(&route.input_stream).await.expect("the stream");
    let (mut owed, mut moved) = (u64::MAX, Instant::now());
    while owed > 0 {
        let info = input.consumer_info(durable).await.expect("the durable");
        let now = info.num_pending + info.num_ack_pending as u64;
        if now < owed {
            (owed, moved) = (now, Instant::now());
        } else if moved.elapsed() > STUCK {
            return Err(format!("{owed} of {} events are not acked, and nothing moves", batch.events));
        }
        if owed > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }
    let outputs = outputs::read(&rig.jetstream, &route.output_stream).await;
    outputs::rate(&outputs, batch)?;
    for stream in [&route.input_stream, &route.output_stream] {
        let stream = rig.jetstream.get_stream(stream).await.expect("the stream");
        stream.purge().await.expect("a purge");
    }
    Ok(outputs)
}
