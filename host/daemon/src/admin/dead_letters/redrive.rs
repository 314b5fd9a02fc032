//! Redriving: what a dead letter stands for is stored again, and then the letter deleted. An event goes to its plugin's inbox
//! under a subject that follows from the event and its earlier lives, create-only: whoever comes second, and whoever comes
//! back after a crash between the two steps, stores nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cofferdam_bus::{Error, Headers, Message, Publish};
use fleet_proto::admin::v1::RedriveResponse;
use tonic::{Code, Status};

use super::{DeadLetters, MAX_REASON, failed, summary};
use crate::{
    dispatch::inbox::Envelope,
    letters::{Effect, Event, Letter},
};

/// Between reading the letter and storing what it stands for. The inbox remembers for much longer what came to it; who was
/// held up for longer looks again whether the letter is still there.
const SOON: Duration = Duration::from_secs(30);

pub(super) async fn redrive(desk: &DeadLetters, id: u64) -> Result<RedriveResponse, Status> {
    let began = Instant::now();
    let stream = desk.stream().await?;
    let letter = desk.letter(&stream, id).await?;
    let (message, how) = match (&letter.body.event, &letter.body.effect) {
        (Some(event), _) => of_event(desk, &letter, event).await?,
        (None, Some(effect)) => of_effect(&letter, effect)?,
        (None, None) => return Err(cannot(id, "it names neither an event nor an effect; drop it")),
    };
    if began.elapsed() > SOON {
        return Err(Status::unavailable(format!("dead letter {id}: the daemon was held up; try again")));
    }
    let stored_as = message.subject.clone();
    let already = match desk.bus.publish(message, how).await {
        Ok(ack) => ack.duplicate,
        Err(Error::WrongLastSequence { .. }) => true,
        Err(error) => return Err(refused(id, error)),
    };
    halt().await;
    desk.bus.delete_message(&stream, id).await.map_err(|error| {
        let answer = failed(id, error);
        let text = answer.message();
        Status::new(answer.code(), format!("{text}; it is redriven, and again would not redrive it twice"))
    })?;
    let (plugin, event) = (&letter.body.plugin, letter.event_id());
    tracing::info!(
        plugin,
        event,
        letter = id,
        already,
        subject = stored_as,
        "an operator redrove a dead letter"
    );
    Ok(RedriveResponse { summary: Some(summary(&letter, MAX_REASON)), already, stored_as })
}

/// What brings an event to its plugin again, with the attempts counted anew.
async fn of_event(desk: &DeadLetters, letter: &Letter, event: &Event) -> Result<(Message, Publish), Status> {
    let (id, body) = (letter.id(), &letter.body);
    let Some(durables) = desk.takes.get(&body.plugin) else {
        return Err(cannot(
            id,
            &format!(
                "its plugin {:?} is none of this daemon's; configure it, ask a daemon that has it (--admin), or drop the dead \
                 letter",
                body.plugin
            ),
        ));
    };
    // Another plugin's would be stored, and wait in this one's inbox for ever.
    if !durables.contains(&body.durable) {
        return Err(cannot(
            id,
            &format!(
                "its plugin {:?} takes nothing from the durable {:?} any more; bring that subscription back, or publish the \
                 event to another",
                body.plugin, body.durable
            ),
        ));
    }
    let named = event.id.split_once('.').is_some_and(|(origin, sequence)| {
        !origin.is_empty() && origin.bytes().all(|b| b.is_ascii_hexdigit()) && sequence.parse::<u64>().is_ok()
    });
    if !named {
        return Err(cannot(
            id,
            &format!("{:?} is no event's id; publish its payload anew, and drop it", event.id),
        ));
    }
    let (headers, data) = match (&event.headers, event.data.bytes()) {
        (Some(headers), Some(data)) => (headers.clone(), data),
        _ => original(desk, letter, event).await?,
    };
    let envelope = Envelope {
        root: event.id.clone(),
        subject: event.subject.clone(),
        data,
        timestamp: event.timestamp,
        durable: body.durable.clone(),
        attempt: 1,
        life: letter.next_life(),
        stream: body.stream.clone(),
        sequence: body.sequence,
        dead_letter: id,
        ..Envelope::new(&headers)
    };
    let how = Publish { message_id: None, expected_last_subject_sequence: Some(0) };
    Ok((envelope.message(&body.plugin), how))
}

/// What the letter left out, from where the event was first stored.
async fn original(desk: &DeadLetters, letter: &Letter, event: &Event) -> Result<(Headers, Bytes), Status> {
    let (id, stream, sequence) = (letter.id(), &letter.body.stream, letter.body.sequence);
    let left_out = "its payload was too large for the dead letter";
    let found = match desk.bus.message(stream, sequence).await {
        Ok(found) => found,
        Err(Error::Gone { .. }) => None,
        Err(error) => return Err(failed(id, error)),
    };
    let Some(found) = found else {
        return Err(cannot(
            id,
            &format!(
                "{left_out}, and the stream {stream:?} does not hold message {sequence} any more; publish the event anew from \
                 where it came, and drop the dead letter"
            ),
        ));
    };
    // A stream that was made anew has others under the same sequences.
    let size = event.data.omitted_bytes.unwrap_or(found.message.data.len() as u64);
    let same = found.message.subject == event.subject
        && found.timestamp == event.timestamp
        && found.message.data.len() as u64 == size;
    if !same {
        return Err(cannot(
            id,
            &format!(
                "{left_out}, and message {sequence} of the stream {stream:?} is another by now (the stream was made anew); \
                 publish the event anew from where it came, and drop the dead letter"
            ),
        ));
    }
    Ok((found.message.headers, found.message.data))
}

/// The effect as it was to be stored, under the id that it had: stored twice at most where the stream's duplicate window is
/// over between two calls.
fn of_effect(letter: &Letter, effect: &Effect) -> Result<(Message, Publish), Status> {
    let id = letter.id();
    // Else whoever may publish beside dead letters could have the host write where only the host may.
    let (Some(message_id), Some(cause)) = (
        letter.header("Nats-Msg-Id").and_then(|id| id.strip_suffix(".dead")),
        letter.header("Cofferdam-Cause"),
    ) else {
        return Err(cannot(
            id,
            &format!(
                "it says that an effect on {:?} was refused, and has not the headers that the host gives such a dead letter \
                 (Cofferdam-Cause, and a Nats-Msg-Id that ends in \".dead\"): somebody else stored it, or a copy; publish its \
                 payload yourself if it is to be, and drop it",
                effect.subject
            ),
        ));
    };
    let Some(data) = effect.data.bytes() else {
        return Err(cannot(
            id,
            &format!("the payload of its effect on {:?} was too large to be kept; drop it", effect.subject),
        ));
    };
    if effect.headers_cut {
        return Err(cannot(
            id,
            &format!(
                "the headers of its effect on {:?} were too large to be kept; publish what `cofferdam dlq show {id}` has of it \
                 with `cofferdam pub`, and drop it",
                effect.subject
            ),
        ));
    }
    let mut headers = effect.headers.clone();
    // Ids, expectations: of a send that is over.
    let instruction = |name: &str| name.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case("nats-"));
    headers.retain(|(name, _)| name == "Nats-TTL" || !instruction(name));
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Cofferdam-Cause")) {
        headers.push(("Cofferdam-Cause".to_owned(), cause.to_owned()));
    }
    let message = Message { subject: effect.subject.clone(), headers, data };
    Ok((message, Publish { message_id: Some(message_id.to_owned()), expected_last_subject_sequence: None }))
}

fn cannot(id: u64, why: &str) -> Status {
    Status::failed_precondition(format!("dead letter {id} can't be redriven: {why}"))
}

/// Whether it is stored is unknown only where the bus is out of reach.
fn refused(id: u64, error: Error) -> Status {
    if let Error::TooLarge { size, max, .. } = error {
        return cannot(
            id,
            &format!(
                "with what is kept beside it, it has {size} bytes, and {max} is the limit; raise max_payload of the server, or \
                 publish it anew from where it came and drop the dead letter"
            ),
        );
    }
    let answer = failed(id, error);
    match answer.code() {
        Code::Unavailable => Status::unavailable(format!(
            "{}; whether it is redriven is not known, and again does not redrive it twice",
            answer.message()
        )),
        Code::Internal => answer,
        _ => cannot(id, answer.message().split_once(": ").map_or("", |(_, why)| why)),
    }
}

/// Between the two steps a test may stop the daemon for good. In no release build.
async fn halt() {
    #[cfg(debug_assertions)]
    if std::env::var_os("COFFERDAM_HALT").is_some_and(|at| at == "redrive") {
        tracing::warn!("halted between storing and deleting");
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_bus::Stored;
    use serde_json::json;

    use super::*;

    const MARKS: [(&str, &str); 2] = [("Nats-Msg-Id", "0a.9.3.dead"), ("Cofferdam-Cause", "0a.9")];

    fn letter(headers: &[(&str, &str)], effect: &serde_json::Value) -> Letter {
        let message = Message {
            subject: "cofferdam.dead.p".into(),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            data: json!({ "effect": effect }).to_string().into(),
        };
        Letter::read(Stored { message, sequence: 7, timestamp: 5 }).unwrap()
    }

    #[test]
    fn an_effect_keeps_its_id_its_cause_and_its_own_headers() {
        let effect = json!({
            "subject": "a.b", "data": { "text": "x" },
            "headers": [["X", "1"], ["Nats-TTL", "60s"], ["nats-msg-id", "other"]],
        });
        let letter = letter(&MARKS, &effect);
        let (message, how) = of_effect(&letter, letter.body.effect.as_ref().unwrap()).unwrap();
        assert_eq!(how.message_id.as_deref(), Some("0a.9.3"));
        let names: Vec<_> = message.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["X", "Nats-TTL", "Cofferdam-Cause"]);
        assert_eq!((message.subject.as_str(), &message.data[..]), ("a.b", &b"x"[..]));
    }

    #[test]
    fn an_effect_is_redriven_only_if_it_is_whole_and_the_host_stored_it() {
        let whole = json!({ "subject": "a.b", "data": { "text": "x" } });
        let omitted = json!({ "subject": "a.b", "data": { "omitted_bytes": 7 } });
        let cut = json!({ "subject": "a.b", "headers_cut": true, "data": { "text": "x" } });
        let [id, cause] = MARKS;
        for (headers, effect, why) in [
            (&[][..], &whole, "somebody else stored it"),
            (&[id], &whole, "somebody else stored it"),
            (&[cause], &whole, "somebody else stored it"),
            // What a guest publishes has a cause and an id as well.
            (&[("Nats-Msg-Id", "0a.9.3"), cause], &whole, "somebody else stored it"),
            (&MARKS, &omitted, "was too large to be kept; drop it"),
            (&MARKS, &cut, "headers of its effect on \"a.b\" were too large"),
        ] {
            let letter = letter(headers, effect);
            let refused = of_effect(&letter, letter.body.effect.as_ref().unwrap()).unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains(why), "{refused}");
        }
    }
}
