//! Streams: created, used as they are, and shown with both sides where they differ.

use std::time::Duration;

use cofferdam_bus::{Error, StreamSpec};

use super::*;

conformance![
    a_missing_stream_is_created_and_found_by_subject_and_filter,
    a_stream_that_covers_the_subjects_is_used_whatever_its_name,
    a_stream_that_covers_only_a_part_is_an_error_that_shows_both_sides,
    a_stream_of_the_name_with_other_subjects_is_an_error_that_shows_both_sides,
    subjects_of_two_streams_are_an_error,
    two_hosts_may_create_the_same_stream_at_once,
    malformed_subjects_and_names_are_refused,
    streams_are_listed_by_name_and_ours_among_them,
    a_bucket_is_not_listed_among_the_streams,
];

async fn a_missing_stream_is_created_and_found_by_subject_and_filter(world: World) {
    let bus = world.bus().await;
    assert_eq!(bus.covering("agent.response.completed").await.unwrap(), None);
    let spec = StreamSpec {
        duplicate_window: Some(Duration::from_secs(7)),
        ..stream_spec("AGENT", &["agent.>", "x.*"])
    };
    let made = bus.ensure_stream(&spec).await.unwrap();
    assert_eq!((made.name.as_str(), made.duplicate_window), ("AGENT", Duration::from_secs(7)));
    for covered in ["agent.response.completed", "agent.*.completed", "agent.>", "x.y", "x.*"] {
        assert_eq!(bus.covering(covered).await.unwrap().as_ref(), Some(&made), "{covered}");
    }
    for not in ["agent", "x.y.z", "x.>", ">", "*.y"] {
        assert_eq!(bus.covering(not).await.unwrap(), None, "{not}");
    }
}

async fn a_stream_that_covers_the_subjects_is_used_whatever_its_name(world: World) {
    let bus = world.bus().await;
    let theirs = StreamSpec { max_messages: Some(5), ..stream_spec("THEIRS", &["task.>"]) };
    let theirs = bus.ensure_stream(&theirs).await.unwrap();
    let used = bus.ensure_stream(&stream_spec("OURS", &["task.created", "task.derivation.*"])).await.unwrap();
    assert_eq!(used, theirs);
    assert_eq!(used.created, bus.ensure_stream(&stream_spec("THEIRS", &["task.>"])).await.unwrap().created);
}

async fn differs(bus: &Arc<dyn Bus>, spec: &StreamSpec) -> String {
    match bus.ensure_stream(spec).await {
        Err(e @ Error::Differs { what: "stream", .. }) => e.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn a_stream_that_covers_only_a_part_is_an_error_that_shows_both_sides(world: World) {
    let bus = world.bus().await;
    stream(&bus, "THEIRS", &["task.created"]).await;
    for subjects in [&["task.>"][..], &["task.created", "plan.approved"], &["task.*"]] {
        let e = differs(&bus, &stream_spec("OURS", subjects)).await;
        assert!(e.contains("\"THEIRS\"") && e.contains("task.created") && e.contains(subjects[0]), "{e}");
    }
    assert_eq!(bus.covering("plan.approved").await.unwrap(), None, "nothing was created");
}

async fn a_stream_of_the_name_with_other_subjects_is_an_error_that_shows_both_sides(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["a.b"]).await;
    let e = differs(&bus, &stream_spec("S", &["c.d"])).await;
    assert!(e.contains("\"S\"") && e.contains("a.b") && e.contains("c.d"), "{e}");
}

async fn subjects_of_two_streams_are_an_error(world: World) {
    let bus = world.bus().await;
    stream(&bus, "A", &["a"]).await;
    stream(&bus, "B", &["b"]).await;
    let e = differs(&bus, &stream_spec("C", &["a", "b"])).await;
    assert!(e.contains("a, b"), "{e}");
}

async fn two_hosts_may_create_the_same_stream_at_once(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    let spec = stream_spec("S", &["s.>"]);
    for _ in 0..10 {
        let (a, b) = tokio::join!(one.ensure_stream(&spec), two.ensure_stream(&spec));
        assert_eq!(a.unwrap(), b.unwrap());
    }
}

async fn malformed_subjects_and_names_are_refused(world: World) {
    let bus = world.bus().await;
    for bad in ["", "a..b", "a b", ".a", "a.>.b"] {
        let made = bus.ensure_stream(&stream_spec("S", &[bad])).await;
        assert_eq!(made, Err(Error::InvalidSubject(bad.to_owned())));
        assert_eq!(bus.covering(bad).await, Err(Error::InvalidSubject(bad.to_owned())));
    }
    for bad in ["", "a.b", "a b", "*"] {
        assert!(
            matches!(bus.ensure_stream(&stream_spec(bad, &["s"])).await, Err(Error::Refused(_))),
            "{bad:?}"
        );
    }
    assert!(matches!(bus.ensure_stream(&stream_spec("S", &[])).await, Err(Error::Refused(_))));
}

async fn streams_are_listed_by_name_and_ours_among_them(world: World) {
    let bus = world.bus().await;
    let names = async |bus: &Arc<dyn Bus>| {
        bus.streams().await.unwrap().into_iter().map(|s| s.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&bus).await, ["COFFERDAM"]);
    let mut made = Vec::new();
    for name in ["b", "D", "A"] {
        let subject = format!("{name}.>");
        let window = Some(Duration::from_secs(9));
        let spec = StreamSpec { duplicate_window: window, ..stream_spec(name, &[&subject]) };
        made.push(bus.ensure_stream(&spec).await.unwrap());
    }
    let listed = world.bus().await.streams().await.unwrap();
    assert_eq!(listed.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["A", "COFFERDAM", "D", "b"]);
    for stream in &made {
        assert!(listed.contains(stream), "{stream:?} as it was made, in {listed:?}");
    }
    assert!(listed.iter().all(|s| s.created > 0));
}

async fn a_bucket_is_not_listed_among_the_streams(world: World) {
    let bus = world.bus().await;
    bus.bucket("b").await.unwrap().put("k", Bytes::from("v"), None).await.unwrap();
    stream(&bus, "KV_S", &["s"]).await;
    let names: Vec<_> = bus.streams().await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["COFFERDAM", "KV_S"]);
}
