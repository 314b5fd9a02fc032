//! Streams: which one stores a subject, creating one that is missing, and the stream of our own. Never changes a stream
//! that exists.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    jsapi::{CallError, StreamAnswer, StreamConfig, StreamPage, code, duration_ns, limit},
    link::{Link, Silence},
};
use crate::{
    api::{StreamInfo, StreamSpec},
    error::Error,
    names, subject,
};

/// Holds commits and state (docs: delivery). Subjects under [`OURS_PREFIX`] are nobody else's.
pub(super) const OURS: &str = "COFFERDAM";
pub(super) const OURS_PREFIX: &str = "cd.";

/// How long a stream that was found is taken to be still there and the same. A publish that finds nobody looks again
/// at once.
const FRESH: Duration = Duration::from_secs(5);

/// A stream, and what applying effects to it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) info: StreamInfo,
    /// Older messages of a subject go when there are more.
    pub(super) max_per_subject: Option<u64>,
    /// Messages go for age, count or size alone, not because somebody has consumed them.
    pub(super) keeps_consumed: bool,
}

impl From<&StreamAnswer> for Facts {
    fn from(answer: &StreamAnswer) -> Facts {
        let c = &answer.config;
        Facts {
            info: StreamInfo {
                name: c.name.clone(),
                subjects: c.subjects.clone(),
                created: answer.created.0,
                duplicate_window: Duration::from_nanos(c.duplicate_window),
                max_message_size: limit(c.max_msg_size),
            },
            max_per_subject: limit(c.max_msgs_per_subject),
            keeps_consumed: c.retention == "limits",
        }
    }
}

impl Facts {
    fn covers(&self, filter: &str) -> bool {
        self.info.subjects.iter().any(|s| subject::covers(s, filter))
    }
}

/// Streams seen lately, by name.
#[derive(Debug, Default)]
pub(super) struct Streams {
    seen: Mutex<HashMap<String, (Instant, Arc<Facts>)>>,
}

impl Streams {
    /// The stream that stores everything `filter` stands for.
    pub(super) async fn covering(&self, link: &Link, filter: &str) -> Result<Option<Arc<Facts>>, CallError> {
        let known = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.values().find(|(at, f)| f.covers(filter) && at.elapsed() < FRESH).map(|(_, f)| f.clone())
        };
        match known {
            Some(facts) => Ok(Some(facts)),
            // Seldom, so its room is not part of every commit.
            None => Box::pin(self.covering_now(link, filter)).await,
        }
    }

    /// The same, asking the server.
    pub(super) async fn covering_now(
        &self,
        link: &Link,
        filter: &str,
    ) -> Result<Option<Arc<Facts>>, CallError> {
        let found = overlapping(link, filter).await?;
        let facts: Vec<Arc<Facts>> = found.iter().map(|a| Arc::new(Facts::from(a))).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A stream that was to cover the filter and is not among the found has changed or gone.
        seen.retain(|_, (at, f)| at.elapsed() < FRESH && !f.covers(filter));
        for f in &facts {
            seen.insert(f.info.name.clone(), (Instant::now(), f.clone()));
        }
        Ok(facts.into_iter().find(|f| f.covers(filter)))
    }

    /// Deletes a stream.
    pub(super) async fn delete(&self, link: &Link, name: &str) -> Result<(), Error> {
        if !is_name(name) {
            return Err(gone(name));
        }
        if name == OURS {
            return Err(Error::Refused(format!("the stream {OURS} is the bus's own")));
        }
        let deleted = link.call::<Value>(&format!("STREAM.DELETE.{name}"), &json!({})).await;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        match deleted {
            Ok(_) => Ok(()),
            Err(e) if e.is(code::STREAM_NOT_FOUND) => Err(gone(name)),
            Err(e) => Err(e.into()),
        }
    }

    /// The stream that covers the subjects, or a new one.
    pub(super) async fn ensure(&self, link: &Link, spec: &StreamSpec) -> Result<StreamInfo, Error> {
        names::check_stream(spec)?;
        // Another host may create it between our look and our request, or another that overlaps.
        for _ in 0..4 {
            if let Some(facts) = self.existing(link, spec).await? {
                return Ok(facts.info.clone());
            }
            match create(link, &config(spec)).await {
                // Found by the next look, which asks for what is stored.
                Ok(_) => {}
                Err(e) if e.is(code::STREAM_NAME_IN_USE) || e.is(code::SUBJECTS_OVERLAP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(differs(
            &spec.name,
            format!("ours has the subjects {:?}; others keep taking them", spec.subjects),
        ))
    }

    async fn existing(&self, link: &Link, spec: &StreamSpec) -> Result<Option<Arc<Facts>>, Error> {
        let mut covering: Option<Arc<Facts>> = None;
        let mut uncovered = Vec::new();
        let mut overlaps = Vec::new();
        for filter in &spec.subjects {
            let found = self.covering_now(link, filter).await?;
            match (found, &covering) {
                (Some(f), None) => covering = Some(f),
                (Some(f), Some(first)) if f.info.name == first.info.name => {}
                (Some(f), Some(_)) => overlaps.push(f),
                (None, _) => {
                    uncovered.push(filter.as_str());
                    let partly = overlapping(link, filter).await?;
                    overlaps.extend(partly.iter().map(|a| Arc::new(Facts::from(a))));
                }
            }
        }
        match covering {
            Some(facts) if uncovered.is_empty() && overlaps.is_empty() => return Ok(Some(facts)),
            Some(facts) => overlaps.push(facts),
            None => {}
        }
        // Created since the first look.
        let covers_all = |f: &Arc<Facts>| spec.subjects.iter().all(|s| f.covers(s));
        if let Some(facts) = overlaps.iter().find(|f| covers_all(f)) {
            return Ok(Some(facts.clone()));
        }
        if let Some(other) = overlaps.first() {
            return Err(subjects_differ(spec, &other.info.subjects, &other.info.name));
        }
        match info(link, &spec.name).await.map(|answer| Arc::new(Facts::from(&answer))) {
            Ok(facts) if covers_all(&facts) => Ok(Some(facts)),
            Ok(facts) => Err(subjects_differ(spec, &facts.info.subjects, &spec.name)),
            Err(e) if e.is(code::STREAM_NOT_FOUND) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn subjects_differ(spec: &StreamSpec, has: &[String], name: &str) -> Error {
    differs(name, format!("it stores {}; ours is to store {}", has.join(", "), spec.subjects.join(", ")))
}

fn differs(name: &str, difference: String) -> Error {
    Error::Differs { what: "stream", name: name.to_owned(), difference }
}

fn config(spec: &StreamSpec) -> StreamConfig {
    let count = |n: Option<u64>| n.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    StreamConfig {
        max_age: spec.max_age.map_or(0, duration_ns),
        max_msgs: count(spec.max_messages),
        max_bytes: count(spec.max_bytes),
        duplicate_window: spec.duplicate_window.map_or(0, duration_ns),
        ..StreamConfig::new(&spec.name, spec.subjects.clone())
    }
}

/// The stream of commits and state; created if it is missing.
pub(super) async fn ensure_ours(link: &Link) -> Result<(), Error> {
    let ours = StreamConfig {
        max_msgs_per_subject: 1,
        allow_atomic: true,
        allow_msg_schedules: true,
        allow_rollup_hdrs: true,
        allow_msg_ttl: true,
        // Direct gets may be answered by a replica that lags behind; what has committed is the leader's word alone.
        allow_direct: false,
        ..StreamConfig::new(OURS, vec![format!("{OURS_PREFIX}>")])
    };
    let asked = Instant::now();
    let found = match create(link, &ours).await {
        Ok(answer) => {
            if let Some(ts) = answer.ts {
                link.heard_time(ts.0, asked);
            }
            answer
        }
        // The number of replicas is the operator's choice; the rest is compared.
        Err(e) if e.is(code::STREAM_NAME_IN_USE) => info(link, OURS).await?,
        Err(e) if e.is(code::SUBJECTS_OVERLAP) => {
            let taken = overlapping(link, &ours.subjects[0]).await?;
            let names: Vec<_> = taken.iter().map(|a| a.config.name.as_str()).collect();
            return Err(differs(
                &names.join(", "),
                format!("it stores subjects under {OURS_PREFIX:?}, which are ours"),
            ));
        }
        Err(e) => return Err(e.into()),
    };
    let differences = our_differences(&ours, &found.config);
    if differences.is_empty() { Ok(()) } else { Err(differs(OURS, differences.join("; "))) }
}

/// It is no more: somebody deleted it, or the server came back empty.
pub(super) async fn restore_ours(link: &Link) -> Result<(), Error> {
    tracing::error!(
        stream = OURS,
        "the stream of commits and state is gone, with all state; creating it anew"
    );
    match ensure_ours(link).await {
        Err(Error::Unavailable(reason)) => tracing::debug!(reason, "not created yet"),
        other => other?,
    }
    Ok(())
}

fn our_differences(ours: &StreamConfig, theirs: &StreamConfig) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            differences.push(format!("its {what} is {theirs}, ours is to be {ours}"));
        }
    };
    let count = |n: i64| limit(n).map_or("unlimited".to_owned(), |n| n.to_string());
    compare("subjects", ours.subjects.join(", "), theirs.subjects.join(", "));
    compare("retention", ours.retention.clone(), theirs.retention.clone());
    compare("storage", ours.storage.clone(), theirs.storage.clone());
    compare("max_age", ours.max_age.to_string(), theirs.max_age.to_string());
    compare("max_msgs", count(ours.max_msgs), count(theirs.max_msgs));
    compare("max_bytes", count(ours.max_bytes), count(theirs.max_bytes));
    compare("max_msg_size", count(ours.max_msg_size), count(theirs.max_msg_size));
    compare("max_msgs_per_subject", count(ours.max_msgs_per_subject), count(theirs.max_msgs_per_subject));
    compare("allow_atomic", ours.allow_atomic.to_string(), theirs.allow_atomic.to_string());
    compare(
        "allow_msg_schedules",
        ours.allow_msg_schedules.to_string(),
        theirs.allow_msg_schedules.to_string(),
    );
    compare("allow_rollup_hdrs", ours.allow_rollup_hdrs.to_string(), theirs.allow_rollup_hdrs.to_string());
    compare("allow_msg_ttl", ours.allow_msg_ttl.to_string(), theirs.allow_msg_ttl.to_string());
    compare("allow_direct", ours.allow_direct.to_string(), theirs.allow_direct.to_string());
    differences
}

pub(super) async fn create(link: &Link, config: &StreamConfig) -> Result<StreamAnswer, CallError> {
    let config = StreamConfig { num_replicas: link.replicas, ..config.clone() };
    link.call(&format!("STREAM.CREATE.{}", config.name), &config).await
}

pub(super) async fn info(link: &Link, name: &str) -> Result<StreamAnswer, CallError> {
    let asked = Instant::now();
    let answer: StreamAnswer = link.call(&format!("STREAM.INFO.{name}"), &json!({})).await?;
    if let Some(ts) = answer.ts {
        link.heard_time(ts.0, asked);
    }
    Ok(answer)
}

/// The same of one that is to be there.
pub(super) async fn existing(link: &Link, name: &str) -> Result<StreamAnswer, Error> {
    if !is_name(name) {
        return Err(gone(name));
    }
    match info(link, name).await {
        Err(e) if e.is(code::STREAM_NOT_FOUND) => Err(gone(name)),
        other => Ok(other?),
    }
}

/// Whether a stream or durable may be called so; a call with another name would be another call.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= subject::MAX_LEN
        && !name.chars().any(|c| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c))
}

pub(super) fn gone(name: &str) -> Error {
    Error::Gone { what: "stream", name: name.to_owned() }
}

/// All there are, by name, but for those that buckets are kept in.
pub(super) async fn all(link: &Link) -> Result<Vec<StreamInfo>, Error> {
    let mut infos: Vec<StreamInfo> =
        overlapping(link, "").await?.iter().map(|a| Facts::from(a).info).collect();
    infos
        .retain(|info| !info.name.starts_with("KV_") || !info.subjects.iter().all(|s| s.starts_with("$KV.")));
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    // One that was made while we turned the page comes twice.
    infos.dedup_by(|a, b| a.name == b.name);
    Ok(infos)
}

/// Streams that store something of what `filter` stands for; all with an empty filter.
async fn overlapping(link: &Link, filter: &str) -> Result<Vec<StreamAnswer>, CallError> {
    let mut all = Vec::new();
    loop {
        let body = json!({ "subject": filter, "offset": all.len() });
        let page: StreamPage = link.call("STREAM.LIST", &body).await?;
        // A stream without a leader is none the less there: a list that leaves it out says nothing.
        if let Some(missing) = page.missing.filter(|missing| !missing.is_empty()) {
            let reason = format!("no leader answers for the streams {}", missing.join(", "));
            return Err(CallError::Silence(Silence::Unknown(reason)));
        }
        let streams = page.streams.unwrap_or_default();
        let done = streams.is_empty();
        all.extend(streams);
        if done || all.len() as u64 >= page.total {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_token_of_a_call() {
        for fine in ["S", "KV_bucket", "a-b_1", "ü"] {
            assert!(is_name(fine), "{fine}");
        }
        for bad in ["", "a.b", "*", ">", "a b", "a/b", "a\r\nb"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
