//! Durables: creating one that is missing, what differs in one that exists, and the identity of its events.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    jsapi::{CallError, ConsumerAnswer, ConsumerConfig, CreateConsumer, code, duration_ns},
    link::Link,
    streams, takeover,
};
use crate::{
    api::{ConsumerSpec, Origin},
    error::Error,
    names,
};

/// Finds or creates the durable. The second value is its time of creation.
pub(super) async fn ensure(link: &Link, spec: &ConsumerSpec) -> Result<(Arc<Origin>, u64), Error> {
    names::check_durable(spec)?;
    if !streams::is_name(&spec.stream) {
        return Err(streams::gone(&spec.stream));
    }
    let ours = config(spec);
    let create = CreateConsumer { stream_name: &spec.stream, config: &ours, action: "create" };
    // "create" also succeeds on one that exists and is the same. Its answer is not used: after a restart nats-server
    // 2.15.1 puts the time of the request there as the time of creation, and all events would change their identity.
    let path = format!("CONSUMER.CREATE.{}.{}", spec.stream, spec.durable);
    match link.call::<ConsumerAnswer>(&path, &create).await {
        Ok(_) => {}
        Err(e) if e.is(code::CONSUMER_EXISTS) => {}
        Err(e) if e.is(code::STREAM_NOT_FOUND) => return Err(streams::gone(&spec.stream)),
        Err(e) => return Err(e.into()),
    }
    let answer = info(link, &spec.stream, &spec.durable).await?;
    let differences = differences(&ours, &answer.config);
    if !differences.is_empty() {
        let name = format!("{}/{}", spec.stream, spec.durable);
        return Err(Error::Differs { what: "durable", name, difference: differences.join("; ") });
    }
    let stream = streams::existing(link, &spec.stream).await?;
    let origin = Origin {
        id: Origin::identity(&spec.stream, stream.created.0, &answer.name, answer.created.0),
        stream: spec.stream.clone(),
        stream_created: stream.created.0,
        durable: answer.name,
        durable_created: answer.created.0,
        filter: spec.filter.clone(),
        ack_wait: spec.ack_wait,
        ordered: spec.ordered,
    };
    Ok((Arc::new(origin), answer.created.0))
}

/// The durable as it is, if it is there.
pub(super) async fn find(link: &Link, stream: &str, durable: &str) -> Result<Option<Arc<Origin>>, Error> {
    if !streams::is_name(stream) || !streams::is_name(durable) {
        return Ok(None);
    }
    let answer = match info(link, stream, durable).await {
        Ok(answer) => answer,
        Err(e) if e.is(code::CONSUMER_NOT_FOUND) || e.is(code::STREAM_NOT_FOUND) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let found = streams::existing(link, stream).await?;
    let Some(filter) = answer.config.filter_subject else { return Ok(None) };
    Ok(Some(Arc::new(Origin {
        id: Origin::identity(stream, found.created.0, &answer.name, answer.created.0),
        stream: stream.to_owned(),
        stream_created: found.created.0,
        durable: answer.name,
        durable_created: answer.created.0,
        filter,
        ack_wait: Duration::from_nanos(answer.config.ack_wait),
        ordered: !answer.config.priority_groups.is_empty(),
    })))
}

pub(super) async fn delete(link: &Link, stream: &str, durable: &str) -> Result<(), Error> {
    let gone = || Error::Gone { what: "durable", name: format!("{stream}/{durable}") };
    if !streams::is_name(stream) {
        return Err(streams::gone(stream));
    }
    if !streams::is_name(durable) {
        return Err(gone());
    }
    match link.call::<Value>(&format!("CONSUMER.DELETE.{stream}.{durable}"), &json!({})).await {
        Ok(_) => Ok(()),
        Err(e) if e.is(code::CONSUMER_NOT_FOUND) => Err(gone()),
        Err(e) if e.is(code::STREAM_NOT_FOUND) => Err(streams::gone(stream)),
        Err(e) => Err(e.into()),
    }
}

pub(super) async fn info(link: &Link, stream: &str, durable: &str) -> Result<ConsumerAnswer, CallError> {
    let asked = tokio::time::Instant::now();
    let answer: ConsumerAnswer = link.call(&format!("CONSUMER.INFO.{stream}.{durable}"), &json!({})).await?;
    if let Some(ts) = answer.ts {
        link.heard_time(ts.0, asked);
    }
    Ok(answer)
}

fn config(spec: &ConsumerSpec) -> ConsumerConfig {
    let (priority_groups, priority_policy, priority_timeout) = match spec.ordered {
        // As long as the ack wait: what a silent host holds comes again no earlier, so nobody could begin before.
        true => (vec![takeover::GROUP.into()], Some(takeover::POLICY.into()), duration_ns(spec.ack_wait)),
        false => Default::default(),
    };
    ConsumerConfig {
        durable_name: Some(spec.durable.clone()),
        name: Some(spec.durable.clone()),
        deliver_policy: "all".into(),
        ack_policy: "explicit".into(),
        ack_wait: duration_ns(spec.ack_wait),
        max_deliver: spec.max_deliver.map_or(-1, i64::from),
        filter_subject: Some(spec.filter.clone()),
        replay_policy: "instant".into(),
        max_ack_pending: i64::from(spec.max_ack_pending),
        priority_groups,
        priority_policy,
        priority_timeout,
        ..ConsumerConfig::default()
    }
}

fn differences(ours: &ConsumerConfig, theirs: &ConsumerConfig) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            differences.push(format!("its {what} is {theirs}, ours is to be {ours}"));
        }
    };
    let filter = |c: &ConsumerConfig| match &c.filter_subject {
        Some(filter) => filter.clone(),
        None => c.filter_subjects.join(", "),
    };
    let wait = |c: &ConsumerConfig| format!("{:?}", std::time::Duration::from_nanos(c.ack_wait));
    let deliver = |c: &ConsumerConfig| match c.max_deliver {
        n if n > 0 => n.to_string(),
        _ => "unlimited".to_owned(),
    };
    let kind = |c: &ConsumerConfig| match &c.deliver_subject {
        Some(subject) => format!("push to {subject}"),
        None => "pull".to_owned(),
    };
    // What an ordered durable is made with.
    let policy = |c: &ConsumerConfig| c.priority_policy.clone().unwrap_or_else(|| "none".to_owned());
    let pin = |c: &ConsumerConfig| format!("{:?}", std::time::Duration::from_nanos(c.priority_timeout));
    compare("filter", filter(ours), filter(theirs));
    compare("kind", kind(ours), kind(theirs));
    compare("ack_policy", ours.ack_policy.clone(), theirs.ack_policy.clone());
    compare("ack_wait", wait(ours), wait(theirs));
    compare("max_deliver", deliver(ours), deliver(theirs));
    compare("max_ack_pending", ours.max_ack_pending.to_string(), theirs.max_ack_pending.to_string());
    compare("deliver_policy", ours.deliver_policy.clone(), theirs.deliver_policy.clone());
    compare("replay_policy", ours.replay_policy.clone(), theirs.replay_policy.clone());
    compare("backoff", format!("{:?}", ours.backoff), format!("{:?}", theirs.backoff));
    compare("headers_only", ours.headers_only.to_string(), theirs.headers_only.to_string());
    compare("priority_policy", policy(ours), policy(theirs));
    compare("priority_groups", ours.priority_groups.join(", "), theirs.priority_groups.join(", "));
    compare("priority_timeout", pin(ours), pin(theirs));
    differences
}
