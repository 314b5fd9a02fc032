//! `cofferdam pub` and `cofferdam sub`, as a shell runs them.

use std::{process::Stdio, time::Duration};

use harness::{process::program, wait::within};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command};

use super::{Place, ended};
use crate::both::on_both_buses;

on_both_buses! {
    the_commands_publish_and_show,
    the_commands_say_what_is_wrong,
    a_subject_that_is_stored_nowhere_is_shown_with_a_note,
}

async fn the_commands_publish_and_show(place: Place) {
    let _daemon = place.setup.start().await;
    let mut live = place.sub(&["context.>", "workflow.>", "--json"]);
    assert_eq!(live.json().await, json!({ "ready": true }));
    let mut plain = place.sub(&["context.b", "--last", "--count", "1"]);

    let arguments = ["pub", "context.a", r#"{"n":1}"#, "--id", "one", "--header", "trace=a=b"];
    assert_eq!(place.run(&arguments).await, (0, "stored in CONTEXT at 1\n".to_owned(), String::new()));
    let again = place.run(&arguments).await;
    assert_eq!(again, (0, "was stored already in CONTEXT at 1\n".to_owned(), String::new()));
    let file = place.setup.folder().join("message");
    std::fs::write(&file, [0, 159, 146]).unwrap();
    let (code, out, _) = place
        .run(&["pub", "context.b", "--file", file.to_str().unwrap(), "--json", "--expect-last", "0"])
        .await;
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, out), (0, json!({ "stream": "CONTEXT", "sequence": 2, "duplicate": false })));
    let mut piped = place.command(&["pub", "workflow.c", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"from a pipe").await.unwrap();
    let output = within("the end of pub", piped.wait_with_output()).await.unwrap();
    assert_eq!(output.stdout, b"stored in WORKFLOW_EVENTS at 1\n");

    let a = json!({ "subject": "context.a", "headers": { "trace": "a=b" }, "data": { "n": 1 } });
    assert_eq!(without_ours(&live.json().await), a);
    let mut second = live.json().await;
    if second["subject"] == "context.a" {
        // NATS tells whoever listens before it looks whether the stream has it already.
        second = live.json().await;
    }
    let b = json!({ "subject": "context.b", "headers": {}, "data_base64": "AJ+S" });
    assert_eq!(without_ours(&second), b);
    assert_eq!(live.json().await["data"], "from a pipe");

    let line = plain.line().await;
    let parts: Vec<&str> = line.split("  ").collect();
    assert!(parts[0].ends_with('Z') && parts[1] == "context.b", "{line}");
    assert_eq!(plain.end().await, (0, String::new()));

    let (code, out, complaint) = place
        .run(&["sub", "context.>", "workflow.*", "context.a", "--since", "1h", "--no-follow", "--json"])
        .await;
    assert_eq!((code, complaint.as_str()), (0, ""), "{out}");
    let mut stored: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    stored.sort_by_key(|m| (m["stream"].to_string(), m["sequence"].as_u64()));
    let places: Vec<_> =
        stored.iter().map(|m| (m["subject"].as_str().unwrap(), m["sequence"].as_u64().unwrap())).collect();
    assert_eq!(places, [("context.a", 1), ("context.b", 2), ("workflow.c", 1)]);
    assert!(stored.iter().all(|m| m["time"].as_str().unwrap().ends_with('Z')));
    let (_, out, _) = place.run(&["sub", "context.>", "--from", "2", "--no-follow", "--json"]).await;
    assert_eq!(out.lines().count(), 1, "{out}");

    // Whoever reads the output may leave at any time.
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{} sub 'context.>' --all --json | head -n 1", program("cofferdam").display()))
        .env("COFFERDAM_ADMIN", place.url())
        .kill_on_drop(true);
    let client = place.client();
    let publishing = async {
        loop {
            client.publish("context.more", "x").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (code, out, complaint) = tokio::select! {
        ended = ended(command) => ended,
        () = publishing => unreachable!(),
    };
    assert_eq!((code, out.lines().count(), complaint.as_str()), (0, 1, ""));
}

/// Without the headers in which the bus keeps a message's id and expectation.
fn without_ours(message: &Value) -> Value {
    let mut message = message.clone();
    message["headers"].as_object_mut().unwrap().retain(|name, _| !name.starts_with("Nats-"));
    message
}

async fn the_commands_say_what_is_wrong(place: Place) {
    let _daemon = place.setup.start().await;
    for (arguments, wrong) in [
        (&["pub", "nobody.here", "x"][..], "cofferdam: no stream stores the subject \"nobody.here\""),
        (&["pub", "cd.j.x", "x"], "the subject \"cd.j.x\" is the host's own"),
        (
            &["pub", "context.a", "x", "--expect-last", "7"],
            "\"context.a\" has moved on: it has no message, and 7",
        ),
        (&["pub", "context.a", "--file", "/no/such/file"], "/no/such/file can't be read"),
        (&["sub", "nobody.here", "--all"], "no stream stores \"nobody.here\""),
        (&["pub", "context.a", "x", "--admin", "127.0.0.1:1"], "no daemon answers at http://127.0.0.1:1: "),
        (
            &["sub", "context.a", "--admin", "http://127.0.0.1:1"],
            "start one with `cofferdam run`, or name another with --admin",
        ),
        (&["sub", "context.a", "--admin", "not a url"], "\"not a url\" is no URL of a daemon"),
        (&["pub", "context.a", "x", "--admin", "nats://a:4222"], "http is spoken there"),
    ] {
        let (code, out, complaint) = place.run(arguments).await;
        assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}: {complaint}");
        assert!(complaint.contains(wrong), "{arguments:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
    // Something answers there, but no daemon.
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap().to_string();
    let answering = async {
        loop {
            let (mut stream, _) = other.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    };
    let arguments = ["pub", "context.a", "x", "--admin", &address];
    let (code, _, complaint) = tokio::select! {
        ended = place.run(&arguments) => ended,
        () = answering => unreachable!(),
    };
    assert_eq!(code, 1);
    assert!(complaint.contains("or what answers there is no daemon"), "{complaint}");
    for (arguments, wrong) in [
        (&["pub", "context.a"][..], "--file <FILE>"),
        (&["pub", "context..a", "x"], "none of them empty"),
        (&["sub", "context..a"], "none of them empty"),
        (&["pub", "context.a", "x", "--header", "a b=c"], "is not a header's name"),
        (&["sub", "context.a*"], "\"a*\" is neither"),
        (&["sub", "context.*", "--last"], "--last wants subjects without wildcards"),
    ] {
        let (code, out, complaint) = place.run(arguments).await;
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?} is a mistake in the command: {complaint}");
        assert!(complaint.contains(wrong) && !complaint.contains("--admin"), "{complaint}");
    }
    let client = place.client();
    let sequence = client.publish("context.a", "x").await;
    let (_, _, complaint) = place.run(&["pub", "context.a", "x", "--expect-last", "0"]).await;
    assert!(complaint.contains(&format!("read it, and expect {sequence}")), "{complaint}");
}

async fn a_subject_that_is_stored_nowhere_is_shown_with_a_note(place: Place) {
    let _daemon = place.setup.start().await;
    let mut command = Command::new("sh");
    command
        .arg("-c")
        // The note is all that is waited for.
        .arg(format!("{} sub nobody.here context.a 2>&1 | grep -m 1 stores", program("cofferdam").display()))
        .env("COFFERDAM_ADMIN", place.url())
        .kill_on_drop(true);
    let publishing = place.client();
    let told = tokio::select! {
        ended = ended(command) => ended.1,
        () = async {
            loop {
                // Whoever has no reader any more notices when it writes.
                tokio::time::sleep(Duration::from_millis(300)).await;
                publishing.publish("context.a", "x").await;
            }
        } => unreachable!(),
    };
    assert!(
        told.starts_with(
            "cofferdam: no stream stores \"nobody.here\" now; only what is published while this runs"
        ),
        "{told}"
    );
}
