//! Redriving: once, whoever dies and however many ask for it; or not at all, and why.

use futures_util::future::join_all;
use harness::{
    daemon::message,
    proxy::{Act, Proxy},
    wait::wait_for,
    way_in::{content, header},
};

use super::*;

on_both_buses! {
    a_redriven_event_runs_once_more_and_its_dead_letter_is_gone,
    an_event_is_redriven_for_the_plugin_that_failed_alone,
    an_event_that_fails_again_is_a_dead_letter_of_its_next_life,
    two_operators_at_once_redrive_each_event_once,
    a_daemon_killed_between_the_steps_redrives_once,
    a_dead_letter_that_is_stored_again_is_not_redriven_again,
    a_payload_that_was_left_out_is_read_from_its_stream,
    what_cannot_be_redriven_says_why,
    an_effect_that_somebody_else_made_up_is_not_stored,
}

async fn a_redriven_event_runs_once_more_and_its_dead_letter_is_gone(stage: Stage) {
    stage.daemon.publish_with(IN, &[("X-Key", "k"), ("X-Other", "o")], "hello").await;
    let letter = stage.dead(1).await.remove(0);
    let (id, event) = (letter["id"].to_string(), letter["event"].as_str().unwrap().to_owned());
    let stage = stage.mended().await;
    let (code, out, told) = stage.dlq(&["redrive", &id, "--dry-run"]).await;
    assert_eq!(
        (code, told.as_str()),
        (0, "cofferdam: would redrive 1 dead letter; nothing is done\n"),
        "{out}"
    );
    assert_eq!(stage.dead(1).await.len(), 1);

    let (code, out, told) = stage.dlq(&["redrive", &id]).await;
    assert_eq!((code, told.as_str()), (0, ""));
    assert_eq!(out, format!("{id}  redriven  p  {IN}  {event}\n"));
    let told = stage.daemon.wait_stored(OUT, 1).await;
    assert_eq!(text(&told[0]), "hello");
    let headers = ["X-Other", "Cofferdam-Cause"].map(|name| header(&told[0], name));
    assert_eq!(headers, [Some("o"), Some(event.as_str())]);
    assert_eq!(stage.ids(&[]).await, NONE);

    let (code, out, told) = stage.dlq(&["redrive", &id]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(told.contains(&format!("there is no dead letter {id}: it has been redriven")), "{told}");
    let (code, out, _) = stage.dlq(&["redrive", "--all", "--yes"]).await;
    assert_eq!((code, out.as_str()), (0, ""));
    let in_inbox = stage.daemon.stored("cd.in.p.>").await;
    assert_eq!(in_inbox.len(), 1);
    assert_eq!(content(&in_inbox[0]).subject, format!("cd.in.p.{event}.1.1"));
    assert_eq!(stage.told().await, ["hello"]);
}

async fn an_event_is_redriven_for_the_plugin_that_failed_alone(stage: Stage) {
    let well = Plugin::fixture("echo").named("well").on(IN, "").reports_to("context.well");
    let stage = stage.again(|setup| setup.plugin(well)).await;
    let ids = stage.failed(&["one"]).await;
    stage.daemon.wait_stored("context.well", 1).await;
    let stage = stage.mended().await;
    assert_eq!(stage.dlq(&["redrive", &ids[0].to_string()]).await.0, 0);
    assert_eq!(stage.wait_told(1).await, ["one"]);
    stage.daemon.publish(IN, "two").await;
    stage.wait_told(2).await;
    let well = stage.daemon.wait_stored("context.well", 2).await;
    assert_eq!(well.iter().map(text).collect::<Vec<_>>(), ["one", "two"]);
}

async fn an_event_that_fails_again_is_a_dead_letter_of_its_next_life(stage: Stage) {
    let mut id = stage.failed(&["again and again"]).await[0];
    let event = stage.body(id).await["event"]["id"].clone();
    for life in 1..=3 {
        let (code, out, told) = stage.dlq(&["redrive", &id.to_string(), "--json"]).await;
        assert_eq!(code, 0, "{told}");
        let out: Value = serde_json::from_str(&out).unwrap();
        let stored_as = format!("cd.in.p.{}.{life}.1", event.as_str().unwrap());
        assert_eq!(out["result"], "redriven");
        assert_eq!(out["stored_as"], stored_as);
        let ids = wait_for("the next dead letter", async || {
            let ids = stage.ids(&[]).await;
            (!ids.is_empty() && !ids.contains(&id)).then_some(ids)
        })
        .await;
        let [next] = ids.as_slice() else { panic!("{ids:?}") };
        assert!(*next > id, "{next} after {id}");
        id = *next;
        let body = stage.body(id).await;
        assert_eq!((&body["event"]["id"], &body["attempts"]), (&event, &json!(1)));
        assert_eq!(body["event"]["data"], json!({ "text": "again and again" }));
    }
    let stage = stage.mended().await;
    assert_eq!(stage.dlq(&["redrive", "--all", "--yes"]).await.0, 0);
    assert_eq!(stage.wait_told(1).await, ["again and again"]);
    assert_eq!(stage.ids(&[]).await, NONE);
}

async fn two_operators_at_once_redrive_each_event_once(stage: Stage) {
    let data: Vec<String> = (0..12).map(|n| format!("event {n}")).collect();
    for data in &data {
        stage.daemon.publish(IN, data.as_str()).await;
    }
    let ids = stage.dead(data.len()).await;
    let stage = stage.mended().await;
    let all = async || stage.dlq(&["redrive", "--all", "--yes", "--json"]).await;
    let told = join_all([all(), all(), all()]).await;
    let results: Vec<Value> = told
        .iter()
        .flat_map(|(code, out, told)| {
            assert_eq!(*code, 0, "{told}");
            out.lines().map(|line| serde_json::from_str(line).unwrap())
        })
        .collect();
    let redriven: Vec<_> = results.iter().filter(|r| r["result"] == "redriven").collect();
    assert_eq!(redriven.len(), ids.len(), "{results:?}");
    assert!(
        results.iter().all(|r| matches!(r["result"].as_str(), Some("redriven" | "redriven-before" | "gone"))),
        "{results:?}"
    );
    let mut out = stage.wait_told(data.len()).await;
    out.sort_unstable();
    let mut expected = data;
    expected.sort_unstable();
    assert_eq!(out, expected);
    assert_eq!(stage.daemon.stored("cd.in.p.>").await.len(), ids.len());
    assert_eq!(stage.ids(&[]).await, NONE);
}

async fn a_daemon_killed_between_the_steps_redrives_once(stage: Stage) {
    let ids = strings(&stage.failed(&["1", "2"]).await);
    let mut stage = stage
        .again(|setup| setup.plugin(guest("echo", "p").set("to", OUT)).env("COFFERDAM_HALT", "redrive"))
        .await;
    let cut = tokio::spawn(stage.command(&["redrive", &ids[0]]).output());
    stage.daemon.logged("a halt", |line| message(line).contains("halted between")).await;
    assert_eq!(stage.daemon.stored("cd.in.p.>").await.len(), 1, "the first step is done");
    stage.daemon.kill().await;
    let cut = within("the end of a command", cut).await.unwrap().unwrap();
    assert_eq!(cut.status.code(), Some(1));
    let told = String::from_utf8(cut.stderr).unwrap();
    assert!(told.contains(&format!("stopped at dead letter {}, with 1 dead letter left", ids[0])), "{told}");

    stage.setup = stage.setup.env("COFFERDAM_HALT", "");
    stage.daemon = stage.setup.start().await;
    let (code, out, told) = stage.dlq(&["redrive", &ids[0]]).await;
    // Whoever takes the event from the inbox deletes its dead letter as well.
    let before = code == 0 && out.contains("had been redriven");
    assert!(before || (code == 1 && told.contains("it has been redriven or dropped")), "{code} {out} {told}");
    assert_eq!(stage.wait_told(1).await, ["1"]);
    let (code, ..) = stage.dlq(&["redrive", "--all", "--yes"]).await;
    assert_eq!(code, 0);
    assert_eq!(stage.wait_told(2).await, ["1", "2"]);
    assert_eq!(stage.ids(&[]).await, NONE);
    assert_eq!(stage.daemon.stored("cd.in.p.>").await.len(), 2);
    stage.daemon.publish(IN, "3").await;
    assert_eq!(stage.wait_told(3).await, ["1", "2", "3"]);
}

async fn a_dead_letter_that_is_stored_again_is_not_redriven_again(stage: Stage) {
    let id = stage.failed(&["once"]).await[0];
    let body = stage.body(id).await;
    let stage = stage.mended().await;
    assert_eq!(stage.dlq(&["redrive", &id.to_string()]).await.0, 0);
    assert_eq!(stage.wait_told(1).await, ["once"]);
    // As where whoever committed it died before it was acked, and the stream does not know the id any more.
    let copy = stage.forged(&body).await;
    let (code, out, _) = stage.dlq(&["redrive", &copy.to_string()]).await;
    assert_eq!(code, 0);
    assert!(out.contains("had been redriven; its dead letter is deleted"), "{out}");
    assert_eq!(stage.ids(&[]).await, NONE);
    assert_eq!(stage.daemon.stored("cd.in.p.>").await.len(), 1);
    stage.daemon.publish(IN, "later").await;
    assert_eq!(stage.wait_told(2).await, ["once", "later"]);
}

async fn a_payload_that_was_left_out_is_read_from_its_stream(stage: Stage) {
    // In JSON each takes two bytes, which is more than a commit may have.
    let large = "\"".repeat(600 << 10);
    stage.daemon.publish_with(IN, &[("X-Other", "o")], large.as_str()).await;
    let id = stage.dead(1).await[0]["id"].as_u64().unwrap();
    let body = stage.body(id).await;
    assert_eq!(body["event"]["data"], json!({ "omitted_bytes": large.len() }));
    let (code, _, told) = stage.dlq(&["show", &id.to_string(), "--payload"]).await;
    assert_eq!(code, 1);
    assert!(told.contains("has left its payload out"), "{told}");
    // Where another message is by now, or none.
    let small = stage.daemon.publish("context.other", "x").await;
    for (sequence, why) in [(small, "is another by now"), (4711, "does not hold message 4711 any more")] {
        let mut elsewhere = body.clone();
        elsewhere["sequence"] = sequence.into();
        let id = stage.forged(&elsewhere).await.to_string();
        let (code, _, told) = stage.dlq(&["redrive", &id]).await;
        assert_eq!(code, 1);
        assert!(
            told.contains("its payload was too large for the dead letter") && told.contains(why),
            "{told}"
        );
        assert_eq!(stage.dlq(&["drop", &id]).await.0, 0);
    }
    // As much as a message may have, so that it has no room in an envelope.
    stage.daemon.publish(IN, "x".repeat((1 << 20) - 100)).await;
    let largest = stage.dead(2).await[1]["id"].to_string();
    let stage = stage.mended().await;
    let (code, _, told) = stage.dlq(&["redrive", &largest]).await;
    assert_eq!(code, 1);
    assert!(told.contains("and 1048576 is the limit; raise max_payload"), "{told}");
    assert_eq!(stage.dlq(&["drop", &largest]).await.0, 0);
    let (code, _, told) = stage.dlq(&["redrive", &id.to_string()]).await;
    assert_eq!((code, told.as_str()), (0, ""));
    let told = stage.daemon.wait_stored(OUT, 1).await;
    assert!(text(&told[0]) == large && header(&told[0], "X-Other").is_some());
    assert_eq!(stage.ids(&[]).await, NONE);
}

async fn what_cannot_be_redriven_says_why(stage: Stage) {
    let id = stage.failed(&["x"]).await[0];
    let stage = stage.again(|setup| setup.plugin(guest("echo", "q").set("to", OUT))).await;
    let told = stage.wait_told(1).await;
    let body = stage.body(id).await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = body.clone();
        change(&mut body);
        body
    };
    for (body, why) in [
        (
            with(&|b| b["plugin"] = "gone".into()),
            "its plugin \"gone\" is none of this daemon's; configure it",
        ),
        (with(&|b| b["durable"] = "other".into()), "takes nothing from the durable \"other\" any more"),
        // Which `q` takes from.
        (
            with(&|b| b["durable"] = "cofferdam-q-context-asked".into()),
            "takes nothing from the durable \"cofferdam-q-context-asked\" any more",
        ),
        (with(&|b| b["event"]["id"] = "what?".into()), "\"what?\" is no event's id"),
        (json!({}), "it names neither an event nor an effect"),
        (json!({ "effect": { "subject": OUT, "data": { "text": "x" } } }), "somebody else stored it"),
    ] {
        let id = stage.forged(&body).await.to_string();
        let (code, out, told) = stage.dlq(&["redrive", &id]).await;
        assert_eq!((code, out.as_str()), (1, ""), "{told}");
        assert!(told.starts_with(&format!("cofferdam: dead letter {id} can't be redriven: ")), "{told}");
        assert!(told.contains(why), "{told}");
        let (_, out, _) = stage.dlq(&["redrive", &id, "--json"]).await;
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(out["result"], "failed");
        assert!(out["error"].as_str().unwrap().contains(why), "{out}");
        assert_eq!(stage.dlq(&["drop", &id]).await.0, 0);
    }
    assert_eq!(stage.ids(&[]).await, [id]);
    assert_eq!(stage.daemon.stored("cd.in.>").await.len(), 0);
    assert_eq!(stage.told().await, told);
}

/// Whoever may publish could have the host write its own subjects.
async fn an_effect_that_somebody_else_made_up_is_not_stored(stage: Stage) {
    for (n, subject) in ["cd.in.p.0a.9.0.2", "cd.j.forged", "cd.a.0a.9.forged", OUT].into_iter().enumerate() {
        let effect = json!({
            "plugin": "p", "outcome": "undeliverable", "fault": "operator", "reason": "no room",
            "effect": { "subject": subject, "data": { "text": "x" },
                        "headers": [["Nats-Msg-Id", "0a.9.0.dead"], ["Cofferdam-Cause", "0a.9"]] },
        });
        // The id can be asked for; the cause can't.
        let id = stage.forged_with(&format!("0a.9.{n}.dead"), &effect).await;
        assert_eq!(stage.ids(&["--outcome", "undeliverable", "--subject", subject]).await, [id]);
        let (code, out, told) = stage.dlq(&["redrive", &id.to_string()]).await;
        assert_eq!((code, out.as_str()), (1, ""), "{told}");
        assert!(told.contains("has not the headers that the host gives") && told.contains(subject), "{told}");
        assert_eq!(stage.daemon.stored(subject).await.len(), 0);
        assert_eq!(stage.ids(&[]).await, [id]);
        assert_eq!(stage.dlq(&["drop", &id.to_string()]).await.0, 0);
    }
}

/// Where dead letters can't be deleted, what is redriven runs all the same.
#[tokio::test]
async fn an_event_whose_dead_letter_cannot_be_deleted_runs_once_it_is_redriven() {
    let nats = Server::start().await;
    let dead = async_nats::jetstream::stream::Config {
        name: "COFFERDAM_DEAD".to_owned(),
        subjects: vec!["cofferdam.dead.>".to_owned()],
        deny_delete: true,
        ..Default::default()
    };
    async_nats::jetstream::new(nats.client().await).create_stream(dead).await.unwrap();
    let stage = Stage::on(Setup::new(&nats.url()), Some(nats)).await;
    let id = stage.failed(&["hello"]).await[0];
    let stage = stage.mended().await;
    let (code, _, told) = stage.dlq(&["redrive", &id.to_string()]).await;
    assert_eq!(code, 1);
    assert!(told.contains("it is redriven, and again would not redrive it twice"), "{told}");
    assert_eq!(stage.wait_told(1).await, ["hello"]);
    stage.daemon.logged("a warning", |line| message(line).contains("its dead letter can't be deleted")).await;
    assert_eq!(stage.ids(&[]).await, [id]);
}

/// An effect whose stream went between its commit and the second host's try.
#[tokio::test]
async fn an_effect_that_its_stream_refused_is_stored_once_that_is_back() {
    let nats = Server::start().await;
    let streams = async_nats::jetstream::new(nats.client().await);
    let target = || async_nats::jetstream::stream::Config {
        name: "TARGET".to_owned(),
        subjects: vec!["target.>".to_owned()],
        ..Default::default()
    };
    streams.create_stream(target()).await.unwrap();
    let mut proxy = Proxy::before(nats.port()).await;
    let talks = Plugin::fixture("echo").named("p").on(IN, "ack-wait = \"2s\"").reports_to("target.told");
    let setup = Setup::new(&proxy.url()).plugin(talks);
    let daemon = setup.start().await;
    let mut stage = Stage { setup, daemon, _nats: Some(nats) };
    proxy.once("target.told", 0, Act::Hold);
    stage.daemon.publish_with(IN, &[("X-Other", "o")], "hello").await;
    proxy.acted(1).await;
    stage.daemon.kill().await;
    streams.delete_stream("TARGET").await.unwrap();
    stage.daemon = stage.setup.start().await;
    let letter = stage.dead(1).await.remove(0);
    let id = letter["id"].to_string();
    assert_eq!(
        [&letter["outcome"], &letter["fault"], &letter["subject"]],
        [&json!("undeliverable"), &json!("operator"), &json!("target.told")]
    );
    let (code, _, told) = stage.dlq(&["redrive", &id]).await;
    assert_eq!(code, 1);
    assert!(told.contains("no stream stores the subject \"target.told\"; create one"), "{told}");
    streams.create_stream(target()).await.unwrap();
    let redriven = async || stage.dlq(&["redrive", &id]).await;
    // What is known of streams holds for some seconds.
    wait_for("the effect to be stored", async || (redriven().await.0 == 0).then_some(())).await;
    let told = stage.daemon.stored("target.told").await;
    let [told] = told.as_slice() else { panic!("{told:?}") };
    let cause = header(told, "Cofferdam-Cause").unwrap();
    assert_eq!((text(told), header(told, "X-Other")), ("hello", Some("o")));
    assert_eq!(header(told, "Nats-Msg-Id"), Some(format!("{cause}.0").as_str()));
    assert_eq!(stage.ids(&[]).await, NONE);
}
