//! Dead letters for an operator: `cofferdam dlq`, as a shell runs it, against a running daemon. Every test runs on both
//! buses.

mod redriving;

use std::process::Stdio;

use fleet_proto::{
    admin::v1::{ListRequest, RedriveRequest, ShowRequest, dead_letters_client::DeadLettersClient},
    bus::v1::PublishRequest,
};
use harness::{
    daemon::Daemon,
    nats::Server,
    plugin::Plugin,
    process::program,
    setup::Setup,
    wait::within,
    way_in::{request, text},
};
use serde_json::{Value, json};
use tokio::process::Command;
use tonic::{Code, transport::Channel};

use crate::both::{Begin, on_both_buses};

on_both_buses! {
    a_list_has_what_matches_and_says_how_many_there_are,
    a_dead_letter_is_shown_with_all_it_has,
    what_is_dropped_is_gone,
    nothing_is_done_to_many_unasked,
    the_service_refuses_what_cannot_be,
}

/// What the guests take, and where they tell of it.
const IN: &str = "context.asked";
const OUT: &str = "context.told";
const NONE: [u64; 0] = [];

/// `p` echoes what it is asked once it is told where to; until then it rejects everything.
struct Stage {
    setup: Setup,
    daemon: Daemon,
    _nats: Option<Server>,
}

/// Takes `IN` as a plugin of this name.
fn guest(fixture: &str, name: &str) -> Plugin {
    Plugin::fixture(fixture)
        .named(name)
        .on(IN, "max-attempts = 1\norder-key = [{ header = \"X-Key\" }]")
        .may("publish", &[OUT])
}

impl Begin for Stage {
    async fn on(setup: Setup, nats: Option<Server>) -> Stage {
        let setup = setup.plugin(guest("echo", "p"));
        let daemon = setup.start().await;
        Stage { setup, daemon, _nats: nats }
    }
}

impl Stage {
    /// Another daemon in its place, on the same data.
    async fn again(mut self, change: impl FnOnce(Setup) -> Setup) -> Stage {
        self.daemon.stop().await;
        self.setup = change(self.setup);
        self.daemon = self.setup.start().await;
        self
    }

    /// The operator has understood, and told `p` where to.
    async fn mended(self) -> Stage {
        self.again(|setup| setup.plugin(guest("echo", "p").set("to", OUT))).await
    }

    fn url(&self) -> String {
        format!("http://{}", self.daemon.admin())
    }

    async fn letters(&self) -> DeadLettersClient<Channel> {
        DeadLettersClient::connect(self.url()).await.expect("a daemon")
    }

    /// Dead letters, once there are so many; `id` and what `list --json` tells of them.
    async fn dead(&self, count: usize) -> Vec<Value> {
        self.daemon.wait_stored("cofferdam.dead.>", count).await;
        let (code, out, _) = self.dlq(&["list", "--json"]).await;
        assert_eq!(code, 0);
        let dead: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(dead.len(), count, "{out}");
        dead
    }

    /// Events that become dead letters; gives their ids.
    async fn failed(&self, data: &[&str]) -> Vec<u64> {
        let before = self.daemon.stored("cofferdam.dead.>").await.len();
        for (n, data) in data.iter().enumerate() {
            self.daemon.publish(IN, *data).await;
            self.daemon.wait_stored("cofferdam.dead.>", before + n + 1).await;
        }
        let all = self.dead(before + data.len()).await;
        all[before..].iter().map(|letter| letter["id"].as_u64().unwrap()).collect()
    }

    /// What was stored on `OUT`.
    async fn told(&self) -> Vec<String> {
        self.daemon.stored(OUT).await.iter().map(|told| text(told).to_owned()).collect()
    }

    async fn wait_told(&self, count: usize) -> Vec<String> {
        self.daemon.wait_stored(OUT, count).await;
        self.told().await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("cofferdam"));
        command
            .arg("dlq")
            .args(arguments)
            .env("COFFERDAM_ADMIN", self.url())
            .env_remove("COFFERDAM_TOKEN")
            .env_remove("COLUMNS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs `cofferdam dlq` to its end: code, what it printed, what it complained of.
    async fn dlq(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = within("the end of a command", self.command(arguments).output()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The ids that a list has.
    async fn ids(&self, filters: &[&str]) -> Vec<u64> {
        let (code, out, complaint) = self.dlq(&[&["list", "--json"], filters].concat()).await;
        assert_eq!(code, 0, "{complaint}");
        let ids =
            out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap());
        ids.collect()
    }

    /// Stores a dead letter of `p` as no daemon would.
    async fn forged(&self, body: &Value) -> u64 {
        self.daemon.publish("cofferdam.dead.p", body.to_string()).await
    }

    /// The same, under an id such as a daemon would give it.
    async fn forged_with(&self, id: &str, body: &Value) -> u64 {
        let request = request("cofferdam.dead.p", body.to_string());
        let request = PublishRequest { message_id: id.to_owned(), ..request };
        self.daemon.client().send(request).await.unwrap().sequence
    }

    /// The only letter, as it is stored.
    async fn body(&self, id: u64) -> Value {
        let found = self.letters().await.show(ShowRequest { id }).await.unwrap().into_inner();
        serde_json::from_slice(&found.letter).unwrap()
    }
}

fn strings(ids: &[u64]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

async fn a_list_has_what_matches_and_says_how_many_there_are(stage: Stage) {
    let (code, out, told) = stage.dlq(&["list"]).await;
    assert_eq!((code, out.as_str(), told.as_str()), (0, "", "cofferdam: there are no dead letters\n"));

    let stage = stage.again(|setup| setup.plugin(guest("trap", "q"))).await;
    stage.daemon.publish_with(IN, &[("X-Key", "k-1")], "first").await;
    stage.daemon.wait_stored("cofferdam.dead.>", 2).await;
    stage.daemon.publish_with(IN, &[("X-Key", "k-2")], "second\nline").await;
    let dead = stage.dead(4).await;
    let of = |plugin: &str| -> Vec<u64> {
        let of = dead.iter().filter(|l| l["plugin"] == plugin);
        of.map(|letter| letter["id"].as_u64().unwrap()).collect()
    };
    let (p, q) = (of("p"), of("q"));
    assert_eq!((p.len(), q.len()), (2, 2), "{dead:?}");
    let first = dead.iter().find(|letter| letter["plugin"] == "p").unwrap();
    assert_eq!(
        [&first["outcome"], &first["fault"], &first["attempts"], &first["subject"], &first["order_key"]],
        [&json!("rejected"), &json!("guest"), &json!(1), &json!(IN), &json!("k-1")]
    );
    assert!(first["time"].as_str().unwrap().ends_with('Z') && first["event"].is_string(), "{first}");
    assert!(first["reason"].as_str().unwrap().contains("nowhere to publish"), "{first}");

    assert_eq!(stage.ids(&["--plugin", "p"]).await, p);
    assert_eq!(stage.ids(&["--outcome", "trapped"]).await, q);
    assert_eq!(stage.ids(&["--fault", "guest", "--key", "k-1"]).await.len(), 2);
    assert_eq!(stage.ids(&["--plugin", "q", "--key", "k-2"]).await, q[1..]);
    assert_eq!(stage.ids(&["--fault", "operator"]).await, NONE);
    assert_eq!(stage.ids(&["--subject", "context.*"]).await.len(), 4);
    assert_eq!(stage.ids(&["--subject", "context.told"]).await, NONE);
    assert_eq!(stage.ids(&["--since", "1h"]).await.len(), 4);
    assert_eq!(stage.ids(&["--until", "1h"]).await, NONE);
    assert_eq!(stage.ids(&["--since", dead[2]["time"].as_str().unwrap()]).await.len(), 2);
    assert_eq!(stage.ids(&["--until", dead[2]["time"].as_str().unwrap()]).await.len(), 2);
    let newest: Vec<u64> = dead[2..].iter().map(|letter| letter["id"].as_u64().unwrap()).collect();
    assert_eq!(stage.ids(&["--limit", "2"]).await, newest);

    let (code, out, told) = stage.dlq(&["list", "--plugin", "p", "--key", "k-2"]).await;
    assert_eq!((code, told.as_str()), (0, "cofferdam: 1 of 2 dead letters of p match\n"));
    let lines: Vec<&str> = out.lines().collect();
    let [head, row] = lines.as_slice() else { panic!("{out}") };
    assert!(head.trim_start().starts_with("ID  STORED"), "{out}");
    let cells: Vec<&str> = row.split_ascii_whitespace().collect();
    assert_eq!(cells[0], p[1].to_string());
    assert_eq!(cells[2..7], ["p", "rejected", "guest", "1", IN]);
    let (_, out, told) = stage.dlq(&["list", "--limit", "3"]).await;
    assert_eq!(out.lines().count(), 4, "{out}");
    assert_eq!(told, "cofferdam: 4 dead letters; these are the newest 3 (--limit 0 shows all)\n");
}

async fn a_dead_letter_is_shown_with_all_it_has(stage: Stage) {
    stage.daemon.publish_with(IN, &[("X-Key", "k"), ("X-Other", "o")], r#"{"n":1}"#).await;
    let id = stage.dead(1).await[0]["id"].as_u64().unwrap().to_string();
    let (code, out, _) = stage.dlq(&["show", &id]).await;
    assert_eq!(code, 0);
    for expected in [
        &format!("dead letter      {id}, stored 2"),
        "plugin           p\n",
        "outcome          rejected\n",
        "fault            guest\n",
        "order key        k\n",
        "header           X-Other: o\n",
        "event subject    context.asked\n",
        "\n\npayload: 7 bytes, JSON\n{\n  \"n\": 1\n}\n",
    ] {
        let spaced =
            |text: &str| text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        assert!(spaced(&out).contains(&spaced(expected)), "{expected:?} in {out}");
    }
    let (code, out, _) = stage.dlq(&["show", &id, "--json"]).await;
    let letter: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, letter["id"].to_string()), (0, id.clone()));
    assert_eq!((&letter["plugin"], &letter["event"]["subject"]), (&json!("p"), &json!(IN)));
    assert!(letter["digest"].is_string() && letter["trace"].is_string(), "{letter}");

    stage.daemon.client().send(request(IN, [0, 159, 146])).await.unwrap();
    let second = stage.dead(2).await[1]["id"].to_string();
    let output = stage.command(&["show", &second, "--payload"]).output().await.unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(0), vec![0, 159, 146]));
    let (_, out, _) = stage.dlq(&["show", &second]).await;
    assert!(out.ends_with("payload: 3 bytes, in base64\nAJ+S\n"), "{out}");

    let (code, out, told) = stage.dlq(&["show", "4711"]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        told.starts_with("cofferdam: there is no dead letter 4711: it has been redriven or dropped"),
        "{told}"
    );
}

async fn what_is_dropped_is_gone(stage: Stage) {
    let ids = stage.failed(&["1", "2", "3", "4"]).await;
    let [one, two, three, four] = strings(&ids).try_into().unwrap();
    let (code, out, told) = stage.dlq(&["drop", &two]).await;
    assert_eq!((code, told.as_str()), (0, ""));
    assert!(out.starts_with(&format!("{two}  dropped  p  {IN}  ")), "{out}");
    assert_eq!(stage.ids(&[]).await, [ids[0], ids[2], ids[3]]);
    let (code, out, told) = stage.dlq(&["drop", &two, &one]).await;
    assert_eq!(code, 1);
    assert!(out.starts_with(&format!("{one}  dropped")) && out.lines().count() == 1, "{out}");
    assert!(told.contains(&format!("there is no dead letter {two}")), "{told}");
    let (code, out, _) = stage.dlq(&["drop", "--plugin", "p", "--yes", "--json"]).await;
    let results: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let results: Vec<_> = results.iter().map(|r| (r["id"].to_string(), r["result"].clone())).collect();
    assert_eq!((code, results), (0, vec![(three, json!("dropped")), (four, json!("dropped"))]));
    assert_eq!(stage.ids(&[]).await, NONE);
    // Nothing came back to life.
    let stage = stage.mended().await;
    stage.daemon.publish(IN, "later").await;
    assert_eq!(stage.wait_told(1).await, ["later"]);
    assert_eq!(stage.daemon.stored("cd.in.p.>").await.len(), 0);
}

async fn nothing_is_done_to_many_unasked(stage: Stage) {
    let ids = stage.failed(&["1", "2"]).await;
    for verb in ["drop", "redrive"] {
        let (code, out, told) = stage.dlq(&[verb, "--all"]).await;
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(told.contains("2 dead letters match (p: 2 rejected)") && told.contains("--yes"), "{told}");
        let (code, out, told) = stage.dlq(&[verb, "--plugin", "p", "--dry-run"]).await;
        assert_eq!((code, out.lines().count()), (0, 3), "{out}");
        assert!(told.contains(&format!("would {verb} 2 dead letters; nothing is done")), "{told}");
        let (code, _, told) = stage.dlq(&[verb, "--plugin", "nobody", "--yes"]).await;
        assert_eq!(code, 0);
        assert!(told.contains(&format!("there is nothing to {verb}: no dead letter matches")), "{told}");
        let (code, _, told) = stage.dlq(&[verb]).await;
        assert_eq!(code, 2);
        assert!(told.contains("Give their ids, filters, or --all"), "{told}");
    }
    let (code, _, told) = stage.dlq(&["list", "--outcome", "reject"]).await;
    assert_eq!(code, 2);
    assert!(told.contains("rejected"), "{told}");
    let (code, _, told) = stage.dlq(&["list", "--admin", "127.0.0.1:1"]).await;
    assert_eq!(code, 1);
    assert!(told.contains("no daemon answers at http://127.0.0.1:1"), "{told}");
    assert_eq!(stage.ids(&[]).await, ids);
}

async fn the_service_refuses_what_cannot_be(stage: Stage) {
    let id = stage.failed(&["x"]).await[0];
    let mut letters = stage.letters().await;
    for missing in [0, 4711, u64::MAX] {
        assert_eq!(letters.redrive(RedriveRequest { id: missing }).await.unwrap_err().code(), Code::NotFound);
    }
    for (request, why) in [
        (ListRequest { newest: 10_001, ..ListRequest::default() }, "10000 at most"),
        (
            ListRequest {
                filter: Some(fleet_proto::admin::v1::Filter { plugin: "*".into(), ..Default::default() }),
                newest: 0,
            },
            "is no plugin's name",
        ),
        (
            ListRequest {
                filter: Some(fleet_proto::admin::v1::Filter { subject: "a..b".into(), ..Default::default() }),
                newest: 0,
            },
            "is no filter",
        ),
    ] {
        let status = letters.list(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(why), "{status}");
    }
    assert_eq!(stage.ids(&[]).await, [id]);
}

/// Where an older stream of the operator's stores all that is Cofferdam's.
#[tokio::test]
async fn what_lies_among_dead_letters_is_left_alone() {
    let nats = Server::start().await;
    let client = async_nats::jetstream::new(nats.client().await);
    let all = async_nats::jetstream::stream::Config {
        name: "OLD".to_owned(),
        subjects: vec!["cofferdam.>".to_owned()],
        ..Default::default()
    };
    client.create_stream(all).await.unwrap();
    let setup = Setup::new(&nats.url());
    let stage = Stage::on(setup, Some(nats)).await;
    let other = stage.daemon.publish("cofferdam.derivation.parsed", "x").await.to_string();
    let id = stage.failed(&["x"]).await[0];
    for verb in ["show", "drop", "redrive"] {
        let (code, _, told) = stage.dlq(&[verb, &other]).await;
        assert_eq!(code, 1);
        assert!(told.contains(&format!("there is no dead letter {other}")), "{told}");
    }
    assert_eq!(stage.ids(&[]).await, [id]);
    assert_eq!(stage.dlq(&["drop", "--all", "--yes"]).await.0, 0);
    assert_eq!(stage.daemon.stored("cofferdam.derivation.parsed").await.len(), 1);
    assert_eq!(stage.ids(&[]).await, NONE);
}
