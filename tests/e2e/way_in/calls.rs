//! The calls, as a program makes them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use fleet_proto::{
    bus::v1::{
        Header, PublishRequest, PublishResponse, ReadRequest, StoredMessage, SubscribeRequest,
        read_request::Start,
    },
    context::v1::{GetContextRequest, context_service_client::ContextServiceClient},
};
use harness::{
    http,
    plugin::Plugin,
    wait::within,
    way_in::{content, request},
};
use tonic::{Code, Request, Status, Streaming};

use super::{Place, ended, from, next, refused, texts};
use crate::both::on_both_buses;

on_both_buses! {
    what_is_published_is_stored_once_and_in_its_place,
    what_cannot_be_published_is_refused_with_its_reason,
    a_subscription_hears_what_is_stored_and_what_is_not,
    stored_messages_are_read_from_any_place,
    a_token_is_wanted_where_one_is_configured,
    open_streams_do_not_hold_up_a_stop,
    a_web_page_and_a_lost_visitor_are_turned_away,
}

async fn what_is_published_is_stored_once_and_in_its_place(place: Place) {
    let _daemon = place.setup.start().await;
    let client = place.client();
    let with_id = PublishRequest { message_id: "id-1".to_owned(), ..request("context.a", "one") };
    let first = client.send(with_id.clone()).await.unwrap();
    assert_eq!((first.stream.as_str(), first.duplicate), ("CONTEXT", false));
    let again = client.send(with_id).await.unwrap();
    assert_eq!(again, PublishResponse { duplicate: true, ..first.clone() });

    let expecting = |expected| PublishRequest {
        expected_last_subject_sequence: Some(expected),
        ..request("context.a", "two")
    };
    let is = format!("its last message has the sequence {}", first.sequence);
    for (expected, was) in [(0, "none was expected"), (first.sequence + 7, "8 was expected")] {
        let told = format!("\"context.a\" has moved on: {is}, and {was}; read it, and expect 1");
        refused(client.send(expecting(expected)).await, Code::FailedPrecondition, &told);
    }
    let second = client.send(expecting(first.sequence)).await.unwrap();
    assert_eq!(second.sequence, first.sequence + 1);
    let fresh = PublishRequest { expected_last_subject_sequence: Some(0), ..request("context.b", "three") };
    client.send(fresh).await.unwrap();

    let mut full = request("context.c", [0_u8, 159, 255]);
    full.message.as_mut().unwrap().headers = [("b", "2"), ("a", "ü"), ("b", "1")]
        .map(|(name, value)| Header { name: name.to_owned(), value: value.to_owned() })
        .to_vec();
    client.send(full).await.unwrap();
    let all = client.read_all(from("context.>", None)).await.unwrap();
    assert_eq!(texts(&all[..3]), ["one", "two", "three"]);
    let message = content(&all[3]);
    let headers: Vec<_> = message.headers.iter().map(|h| (h.name.as_str(), h.value.as_str())).collect();
    assert_eq!(headers, [("a", "ü"), ("b", "2"), ("b", "1")]);
    assert_eq!(message.data.as_ref(), [0, 159, 255]);
}

async fn what_cannot_be_published_is_refused_with_its_reason(place: Place) {
    let _daemon = place.setup.start().await;
    let client = place.client();
    refused(client.send(request("nobody.here", "x")).await, Code::NotFound, "\"nobody.here\"");
    for megabytes in [2, 6] {
        let large = request("context.large", vec![b'x'; megabytes << 20]);
        refused(client.send(large).await, Code::ResourceExhausted, "over the limit of 1048576 bytes");
    }
    // The largest that fits does.
    client.send(request("context.large", vec![b'x'; 1 << 20])).await.unwrap();
    for ours in ["cd.j.forged", "cd.s.a.b", "$JS.API.INFO", "_INBOX.a", "cofferdam-advisory.p.done"] {
        refused(client.send(request(ours, "x")).await, Code::InvalidArgument, "the host's own");
    }
    for malformed in ["", "a b", "context.*", "context..a"] {
        refused(client.send(request(malformed, "x")).await, Code::InvalidArgument, "is not a subject");
    }
    let mut instructing = request("context.a", "x");
    let header = Header { name: "Nats-Rollup".to_owned(), value: "all".to_owned() };
    instructing.message.as_mut().unwrap().headers.push(header);
    refused(client.send(instructing).await, Code::InvalidArgument, "\"Nats-Rollup\"");
    refused(client.send(PublishRequest::default()).await, Code::InvalidArgument, "no message");
    let none = SubscribeRequest { subjects: Vec::new() };
    refused(client.0.clone().subscribe(none).await, Code::InvalidArgument, "0 subjects");
    let bad = SubscribeRequest { subjects: vec!["a..b".to_owned()] };
    refused(client.0.clone().subscribe(bad).await, Code::InvalidArgument, "\"a..b\"");
}

async fn a_subscription_hears_what_is_stored_and_what_is_not(place: Place) {
    let plugin = Plugin::fixture("echo").named("p").on("context.in", "").reports_to("context.out");
    let place = place.with(|setup| setup.plugin(plugin).with("observe.advisories", true));
    let _daemon = place.setup.start().await;
    let client = place.client();
    let mut heard = client.subscribe(&["context.>", "cofferdam-advisory.>", "context.in", "*.out"]).await;
    let mut everything = client.subscribe(&[">"]).await;
    client.publish("context.in", "{}").await;
    // Several filters fit; each message is told once, on either subscription.
    for stream in [&mut heard, &mut everything] {
        let mut subjects = Vec::new();
        for _ in 0..3 {
            subjects.push(next(stream).await.subject);
        }
        subjects.sort();
        assert_eq!(subjects, ["cofferdam-advisory.p.done", "context.in", "context.out"]);
    }
    client.publish("context.end", "{}").await;
    for stream in [&mut heard, &mut everything] {
        assert_eq!(next(stream).await.subject, "context.end", "nothing was told twice, and no bookkeeping");
    }
}

async fn stored_messages_are_read_from_any_place(place: Place) {
    let _daemon = place.setup.start().await;
    let client = place.client();
    let mut sequences = Vec::new();
    for n in 0..200 {
        sequences.push(client.publish(&format!("context.n.{}", n % 2), n).await);
    }
    client.publish("workflow.other", "other").await;

    let all = client.read_all(from("context.n.*", None)).await.unwrap();
    let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(texts(&all), expected);
    assert_eq!(all.iter().map(|s| s.sequence).collect::<Vec<_>>(), sequences);
    assert!(all.iter().all(|s| s.stream == "CONTEXT"));

    let odd = client.read_all(from("context.n.1", Some(Start::Sequence(sequences[190])))).await.unwrap();
    assert_eq!(texts(&odd), ["191", "193", "195", "197", "199"]);
    let limited = ReadRequest { limit: 2, ..from("context.n.1", Some(Start::Sequence(sequences[190]))) };
    assert_eq!(texts(&client.read_all(limited).await.unwrap()), ["191", "193"]);

    let at = all[150].stored_at.unwrap();
    let since = client.read_all(from("context.n.*", Some(Start::Time(at)))).await.unwrap();
    assert!(texts(&since).contains(&"150") && since.len() <= 200);
    let key = |s: &StoredMessage| s.stored_at.map(|t| (t.seconds, t.nanos));
    assert!(since.iter().all(|s| key(s) >= key(&all[150])));
    assert_eq!(since.len(), all.iter().filter(|s| key(s) >= key(&all[150])).count());

    let last = client.read_all(from("context.n.1", Some(Start::Last(true)))).await.unwrap();
    assert_eq!(texts(&last), ["199"]);
    assert!(client.read_all(from("context.none", Some(Start::Last(true)))).await.unwrap().is_empty());
    refused(
        client.read_all(from("context.n.*", Some(Start::Last(true)))).await,
        Code::InvalidArgument,
        "without wildcards",
    );

    // Several streams: each in its order, and no sequence to begin with.
    let both = client.read_all(from("*.>", None)).await.unwrap();
    assert_eq!(
        both.iter().map(|s| s.stream.as_str()).collect::<BTreeSet<_>>(),
        ["CONTEXT", "WORKFLOW_EVENTS"].into()
    );
    assert_eq!(both.len(), 201);
    refused(
        client.read_all(from(">", Some(Start::Sequence(3)))).await,
        Code::InvalidArgument,
        "sequence 3 of which stream? \">\" is stored by ",
    );
    refused(client.read_all(from("nobody.here", None)).await, Code::NotFound, "\"nobody.here\"");
    refused(client.read_all(from("a..b", None)).await, Code::InvalidArgument, "\"a..b\"");

    let mut follow = client
        .read(ReadRequest { follow: true, ..from("context.n.1", Some(Start::Sequence(sequences[199]))) })
        .await
        .unwrap();
    assert_eq!(texts(&[next(&mut follow).await]), ["199"]);
    client.publish("context.n.0", "passed over").await;
    client.publish("context.n.1", "201").await;
    assert_eq!(texts(&[next(&mut follow).await]), ["201"]);
    let mut first_ever = client
        .read(ReadRequest { follow: true, ..from("context.new", Some(Start::Last(true))) })
        .await
        .unwrap();
    client.publish("context.new", "first").await;
    assert_eq!(texts(&[next(&mut first_ever).await]), ["first"]);
}

async fn a_token_is_wanted_where_one_is_configured(place: Place) {
    let place = place.with(|setup| {
        let file = setup.folder().join("token");
        std::fs::write(&file, "open sesame".replace(' ', "-")).unwrap();
        setup.with("admin.token-file", file.to_str().unwrap())
    });
    let daemon = place.setup.start().await;
    let mut client = place.client().0;
    let mut call = async |token: Option<&str>| {
        let mut request = Request::new(request("context.a", "x"));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        client.publish(request).await
    };
    refused(call(None).await, Code::Unauthenticated, "a token is wanted");
    refused(call(Some("open-barley")).await, Code::Unauthenticated, "is not this daemon's");
    call(Some("open-sesame")).await.unwrap();
    // Probes and scrapers hold none.
    assert_eq!(daemon.health("/health/ready").await.0, 200);
    assert_eq!(daemon.health("/metrics").await.0, 200);

    for (arguments, wrong) in [
        (&["pub", "context.a", "x"][..], "wants a token; give it with COFFERDAM_TOKEN or --token"),
        (&["sub", "context.a"], "wants a token"),
        (&["sub", "context.a", "--all"], "wants a token"),
        (&["pub", "context.a", "x", "--token", "open-barley"], "does not take this token"),
    ] {
        let (code, out, complaint) = place.run(arguments).await;
        assert_eq!((code, out.as_str()), (1, ""), "{complaint}");
        assert!(complaint.contains(wrong) && complaint.contains(&place.url()), "{complaint}");
        assert!(!complaint.contains("open-"), "{complaint}");
    }
    let mut command = place.command(&["sub", "context.a", "--all", "--no-follow"]);
    command.env("COFFERDAM_TOKEN", "open-sesame");
    let (code, out, complaint) = ended(command).await;
    assert_eq!((code, out.lines().count()), (0, 1), "{out}{complaint}");
}

async fn open_streams_do_not_hold_up_a_stop(place: Place) {
    let mut daemon = place.setup.start().await;
    let client = place.client();
    let mut live = client.subscribe(&["workflow.>"]).await;
    let follow = |subject| ReadRequest { follow: true, ..from(subject, None) };
    let mut read = client.read(follow("workflow.>")).await.unwrap();
    // One that takes nothing, with more to take than fits on the way.
    for _ in 0..24 {
        client.publish("context.large", "x".repeat(1_000_000)).await;
    }
    let _stuck = place.client().read(follow("context.>")).await.unwrap();
    let _watching = place.sub(&["context.>"]);
    let began = Instant::now();
    daemon.stop().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    refused::<()>(Err(last_word(&mut live).await), Code::Unavailable, "the daemon stops");
    assert_eq!(last_word(&mut read).await.code(), Code::Unavailable);
}

/// How a stream without an end ends.
async fn last_word<T>(stream: &mut Streaming<T>) -> Status {
    loop {
        match within("the end of a stream", stream.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if all were told"),
            Err(status) => return status,
        }
    }
}

async fn a_web_page_and_a_lost_visitor_are_turned_away(place: Place) {
    let daemon = place.setup.start().await;
    let (status, body) = http::get(&place.admin, "/cofferdam.bus.v1.BusService/Publish").await;
    assert_eq!(status, 415, "{body}");
    let (status, body) = daemon.health("/helth").await;
    assert_eq!(status, 404);
    assert!(body.contains("/helth is not served here; /health and /metrics are"), "{body}");
    let mut elsewhere = ContextServiceClient::connect(place.url()).await.unwrap();
    let asked = elsewhere.get_context(GetContextRequest::default());
    refused(within("an answer", asked).await, Code::Unimplemented, "cofferdam.bus.v1.BusService is");
}
