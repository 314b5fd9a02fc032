//! What a side has published: is it all there, once, and how fast did it come?
//!
//! The rate is taken from the times at which the outputs were stored, without the first and the last twentieth. All events
//! of a round lie in the stream before either side may take the first, so nobody feeds while it is measured, and what a side
//! does to begin and to end stays out, for both alike. A round has to be many times what is in flight: else what is stored but not
//! yet acked at its end counts for much.

use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt as _;
use serde_json::Value;

use crate::{
    feed::Batch,
    work::{KEYS, Work},
};

/// A stored output.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// Nanoseconds since the epoch.
    pub(crate) at: i128,
    pub(crate) data: bytes::Bytes,
}

/// All that a stream has.
pub(crate) async fn read(jetstream: &jetstream::Context, stream: &str) -> Vec<Output> {
    let stream = jetstream.get_stream(stream).await.expect("the stream");
    let config = consumer::pull::Config {
        ack_policy: consumer::AckPolicy::None,
        memory_storage: true,
        ..Default::default()
    };
    let reader = stream.create_consumer(config).await.expect("a reader");
    let mut owed = usize::try_from(reader.cached_info().num_pending).expect("a number");
    let mut all = Vec::with_capacity(owed);
    while owed > 0 {
        let mut batch = reader.fetch().max_messages(owed.min(5000)).messages().await.expect("a batch");
        while let Some(message) = batch.next().await {
            let message = message.expect("a message");
            let at = message.info().expect("its place").published.unix_timestamp_nanos();
            all.push(Output { at, data: message.message.payload });
            owed -= 1;
        }
    }
    stream.delete_consumer(&reader.cached_info().name).await.expect("its end");
    all
}

/// Events a second, if there is each output of each event, once.
pub(crate) fn rate(outputs: &[Output], batch: Batch) -> Result<f64, String> {
    let per_event = batch.work.outputs();
    let all = usize::try_from(batch.events * per_event).expect("a number");
    let mut seen = vec![false; all];
    for output in outputs {
        let told = || String::from_utf8_lossy(&output.data).into_owned();
        let value: Value = serde_json::from_slice(&output.data).map_err(|e| format!("{}: {e}", told()))?;
        let of = |name: &str| value[name].as_u64().ok_or_else(|| format!("no {name} in {}", told()));
        let (id, part) = (of("id")?, of("part")?);
        let place = id.checked_sub(batch.first).filter(|n| *n < batch.events && part < per_event);
        let place = place.ok_or_else(|| format!("an output of no event of this round: {}", told()))?;
        let place = usize::try_from(place * per_event + part).expect("a number");
        if std::mem::replace(&mut seen[place], true) {
            return Err(format!("an output is there twice: {}", told()));
        }
        if batch.work == Work::Count && of("count")? != id / KEYS + 1 {
            return Err(format!("a key was not counted once for each event: {}", told()));
        }
    }
    let missing = seen.iter().filter(|seen| !**seen).count();
    if missing > 0 {
        return Err(format!("{missing} of {all} outputs are missing"));
    }
    let mut times: Vec<i128> = outputs.iter().map(|output| output.at).collect();
    times.sort_unstable();
    let (first, last) = (times.len() / 20, times.len() - 1 - times.len() / 20);
    let seconds = (times[last] - times[first]) as f64 / 1e9;
    Ok((last - first) as f64 / seconds / per_event as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(ids: impl Iterator<Item = u64>) -> Vec<Output> {
        let one = |(place, id)| Output {
            at: place as i128 * 1_000_000,
            data: format!(r#"{{"id":{id},"part":0,"count":0}}"#).into(),
        };
        ids.enumerate().map(one).collect()
    }

    const BATCH: Batch = Batch { first: 1000, events: 100, work: Work::Publish, size: 160 };

    #[test]
    fn a_thousandth_of_a_second_for_each_is_a_thousand_a_second() {
        assert_eq!(rate(&outputs(1000..1100), BATCH), Ok(1000.0));
    }

    #[test]
    fn what_is_missing_repeated_or_foreign_is_told() {
        assert!(rate(&outputs(1000..1099), BATCH).unwrap_err().contains("1 of 100 outputs are missing"));
        assert!(rate(&outputs((1000..1100).chain([1007])), BATCH).unwrap_err().contains("twice"));
        assert!(rate(&outputs(999..1100), BATCH).unwrap_err().contains("no event of this round"));
    }
}
