//! Jobs for an operator: `cofferdam jobs`, as a shell runs it, against whoever works them. Every test runs on both buses.

use std::process::Stdio;

use fleet_proto::{
    admin::v1::{
        CancelJobRequest, JobFilter, ListJobsRequest, ShowJobRequest, WatchJobsRequest,
        jobs_client::JobsClient,
    },
    ray_executor::v1::{ExecuteDeliberationRequest, TaskConstraints},
};
use harness::{
    process::program,
    wait::{wait_for, within},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};
use tonic::Code;

use crate::{
    both::on_both_buses,
    ray_service::{MODEL, Stage, asked},
};

on_both_buses! {
    a_list_has_the_newest_first_and_says_how_each_stands,
    a_job_is_shown_with_all_that_is_known,
    a_job_that_waits_says_behind_whom_and_why,
    what_is_cancelled_is_dropped_at_once,
    what_waits_is_cancelled_before_it_is_asked,
    what_has_not_ended_after_the_wait_is_no_success,
    what_cannot_be_cancelled_says_so,
    a_watch_tells_what_waits_what_is_worked_and_what_has_ended,
    the_service_says_what_it_does_not_take,
    whoever_has_a_token_wants_it_for_jobs,
}

impl Stage {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("cofferdam"));
        command
            .arg("jobs")
            .args(arguments)
            .env("COFFERDAM_ADMIN", format!("http://{}", self.executor.admin()))
            .env_remove("COFFERDAM_TOKEN")
            .env_remove("COLUMNS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs `cofferdam jobs` to its end: code, what it printed, what it complained of.
    async fn jobs(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = within("the end of a command", self.command(arguments).output()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let (code, out, complaint) = self.jobs(&[arguments, &["--json"]].concat()).await;
        assert_eq!(code, 0, "{complaint}");
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The ids that a list has.
    async fn ids(&self, filters: &[&str]) -> Vec<String> {
        let jobs = self.json(&[&["list"], filters].concat()).await;
        jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
    }

    async fn submit(&self, task_id: &str, prompt: &str) -> String {
        self.submit_for(task_id, prompt, &["a"]).await
    }

    async fn submit_for(&self, task_id: &str, prompt: &str, agents: &[&str]) -> String {
        self.client().execute(asked(task_id, prompt, agents)).await.unwrap().deliberation_id
    }

    /// Waits until a job stands so; gives all that is told of it.
    async fn stands(&self, id: &str, state: &str) -> Value {
        wait_for(&format!("{id} to be {state}"), async || {
            let job = self.json(&["show", id]).await.remove(0);
            (job["state"] == state).then_some(job)
        })
        .await
    }

    /// One place, so that what comes second waits.
    async fn with_one_place(&mut self) {
        self.executor.stop().await;
        self.again(|setup| setup.with("executor.concurrency", 1)).await;
    }

    async fn service(&self) -> JobsClient<tonic::transport::Channel> {
        JobsClient::connect(format!("http://{}", self.executor.admin())).await.unwrap()
    }
}

async fn a_list_has_the_newest_first_and_says_how_each_stands(stage: Stage) {
    let (code, out, told) = stage.jobs(&["list"]).await;
    assert_eq!((code, out.as_str(), told.as_str()), (0, "", "cofferdam: there are no jobs\n"));
    let done = stage.submit("t-done", "say it").await;
    let failed = stage.submit("t-failed", "!401").await;
    stage.stands(&done, "done").await;
    stage.stands(&failed, "failed").await;
    let running = stage.submit_for("t-running", "!hold", &["a", "b"]).await;
    stage.endpoint.sees("two requests", |seen| seen.open == 2).await;
    wait_for("both to be told", async || {
        (stage.ids(&["--state", "running"]).await == [running.clone()]).then_some(())
    })
    .await;

    let all = stage.json(&["list"]).await;
    let rows: Vec<(&Value, &Value)> = all.iter().map(|job| (&job["task_id"], &job["state"])).collect();
    assert_eq!(
        rows,
        [
            (&json!("t-running"), &json!("running")),
            (&json!("t-failed"), &json!("failed")),
            (&json!("t-done"), &json!("done")),
        ]
    );
    assert_eq!(
        [&all[0]["agents"], &all[0]["plugin"], &all[0]["model"]],
        [&json!(2), &json!("clients"), &json!(MODEL)]
    );
    assert_eq!([&all[1]["error_type"], &all[2]["tokens_out"]], [&json!("unauthorized"), &json!(7)]);
    assert!(
        all[2]["ended"].as_str().is_some_and(|at| at.ends_with('Z')) && all[2]["worker"].is_string(),
        "{}",
        all[2]
    );
    for (filters, expected) in [
        (&["--state", "done"][..], &[&done][..]),
        (&["--state", "failed"], &[&failed]),
        (&["--state", "queued"], &[]),
        (&["--plugin", "clients", "--limit", "2"], &[&running, &failed]),
        (&["--plugin", "nobody"], &[]),
        (&["--model", MODEL, "--state", "done"], &[&done]),
        (&["--model", "other"], &[]),
    ] {
        assert_eq!(stage.ids(filters).await.iter().collect::<Vec<_>>(), expected, "{filters:?}");
    }

    let (_, out, told) = stage.jobs(&["list", "--limit", "2"]).await;
    assert_eq!(told, "cofferdam: these are the newest 2 (--limit shows more)\n");
    let lines: Vec<&str> = out.lines().collect();
    let [head, first, second] = lines.as_slice() else { panic!("{out}") };
    assert!(head.starts_with("ID") && head.contains("STATE") && head.ends_with("WHY"), "{out}");
    assert!(first.starts_with(&running) && first.contains("  running  "), "{out}");
    assert!(second.starts_with(&failed) && second.contains("unauthorized: "), "{out}");
    let (_, _, told) = stage.jobs(&["list", "--state", "done"]).await;
    assert_eq!(told, "cofferdam: 1 job matches\n");
    stage.endpoint.release().await;
    stage.stands(&running, "done").await;
}

async fn a_job_is_shown_with_all_that_is_known(stage: Stage) {
    let constraints = TaskConstraints {
        story_id: "s-1".into(),
        metadata: [("attempt".to_owned(), "2".to_owned()), ("cofferdam-seed".to_owned(), "7".to_owned())]
            .into(),
        ..TaskConstraints::default()
    };
    let request =
        ExecuteDeliberationRequest { constraints: Some(constraints), ..asked("t-1", "say it", &["a", "b"]) };
    let id = stage.client().execute(request).await.unwrap().deliberation_id;
    let job = stage.stands(&id, "done").await;
    assert_eq!([&job["tokens_in"], &job["tokens_out"], &job["agents"]], [&json!(22), &json!(14), &json!(2)]);
    assert_eq!([&job["job"]["job"]["story_id"], &job["job"]["job"]["prompt"]], [&json!("s-1"), &Value::Null]);
    let parts = job["parts"].as_array().unwrap();
    let agents: Vec<(&Value, &Value)> = parts.iter().map(|part| (&part["agent"], &part["state"])).collect();
    assert_eq!(agents, [(&json!("a"), &json!("done")), (&json!("b"), &json!("done"))]);
    let answer = &parts[0]["record"]["answer"];
    assert_eq!([&answer["model"], &answer["text"]], [&json!("served"), &Value::Null]);
    assert!(job["deadline"].as_str() > job["submitted"].as_str() && job["waiting"].is_null(), "{job}");

    let (code, out, _) = stage.jobs(&["show", &id]).await;
    assert_eq!(code, 0);
    for expected in [
        &format!("job       {id}, submitted 2"),
        "state     done, after ",
        "story id  s-1\n",
        "tokens    22 in, 14 out\n",
        "seed      7\n",
        "metadata  attempt: 2\n",
        "part      a: done, after ",
    ] {
        assert!(out.contains(expected), "{expected:?} in {out}");
    }
    assert!(!out.contains("say it"), "{out}");
    let (_, out, _) = stage.jobs(&["show", &id, "--text"]).await;
    for expected in [
        "\n\nprompt: 6 bytes\nsay it\n",
        "\n\nanswer of a: 21 bytes\nThe answer to: say it",
        "\n\nanswer of b: ",
    ] {
        assert!(out.contains(expected), "{expected:?} in {out}");
    }
    // A part is a job of its own.
    let part = parts[1]["id"].as_str().unwrap();
    let (_, out, _) = stage.jobs(&["show", part, "--json", "--text"]).await;
    let part: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        [&part["record"]["answer"]["text"], &part["job"]["parent"]["id"]],
        [&json!("The answer to: say it"), &json!(id)]
    );

    for unknown in ["clients_normal_01234567_nobody", "nonsense", ""] {
        let (code, out, told) = stage.jobs(&["show", unknown]).await;
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(told.starts_with(&format!("cofferdam: there is no job {unknown:?}")), "{told}");
    }
    let (code, _, told) = stage.jobs(&["list", "--admin", "127.0.0.1:1"]).await;
    assert!(code == 1 && told.contains("no daemon answers at http://127.0.0.1:1"), "{told}");
    assert_eq!(stage.jobs(&["list", "--state", "asleep"]).await.0, 2);
}

async fn a_job_that_waits_says_behind_whom_and_why(mut stage: Stage) {
    stage.with_one_place().await;
    let first = stage.submit("t-1", "!hold").await;
    stage.endpoint.sees("the first", |seen| seen.open == 1).await;
    let second = stage.submit("t-2", "two").await;
    let third = stage.submit("t-3", "three").await;
    let job = wait_for("the reason", async || {
        let job = stage.stands(&third, "queued").await;
        (job["waiting"]["why"] == "all 1 places of one worker are taken").then_some(job)
    })
    .await;
    assert_eq!(job["waiting"]["ahead"], 2, "{job}");
    let (_, out, _) = stage.jobs(&["show", &third]).await;
    assert!(out.contains("waits     behind 2 jobs of its queue (cofferdam-jobs-clients-normal-"), "{out}");
    assert_eq!(stage.ids(&["--state", "queued"]).await, [third.clone(), second]);
    stage.endpoint.release().await;
    stage.stands(&first, "done").await;
    stage.stands(&third, "done").await;
    let mut nobodys = asked("t-4", "four", &["a"]);
    nobodys.vllm_model = "nobodys".into();
    let id = stage.client().execute(nobodys).await.unwrap().deliberation_id;
    let job = stage.stands(&id, "queued").await;
    let why = job["waiting"]["why"].as_str().unwrap();
    assert!(why.contains("no worker serves the model \"nobodys\"; they serve: m"), "{why}");
}

async fn what_is_cancelled_is_dropped_at_once(stage: Stage) {
    let one = stage.submit("t-1", "!hang").await;
    let whole = stage.submit_for("t-2", "!hang", &["a", "b"]).await;
    stage.endpoint.sees("three requests", |seen| seen.open == 3).await;
    let (code, out, told) = stage.jobs(&["cancel", &one, &whole]).await;
    assert_eq!((code, told.as_str()), (0, ""), "{out}");
    assert_eq!(out, format!("{one}  cancelled  t-1\n{whole}  cancelled  t-2\n"));
    stage.endpoint.sees("its clients gone", |seen| seen.gone == 3 && seen.open == 0).await;
    let job = stage.stands(&whole, "cancelled").await;
    assert_eq!((&job["error_type"], &job["cancel_asked"]), (&json!("cancelled"), &json!(true)), "{job}");
    let failed = stage.executor.wait_stored("agent.response.failed", 3).await;
    assert_eq!(failed.len(), 3);
    let status = stage.client().ended(&one).await;
    assert_eq!(status.status, "failed");
    assert!(status.error_message.starts_with("cancelled"), "{}", status.error_message);
    let (code, out, _) = stage.jobs(&["cancel", &one]).await;
    assert_eq!((code, out), (0, format!("{one}  had been cancelled  t-1\n")));
    assert_eq!(stage.ids(&["--state", "cancelled"]).await, [whole, one]);
}

async fn what_waits_is_cancelled_before_it_is_asked(mut stage: Stage) {
    stage.with_one_place().await;
    let first = stage.submit("t-1", "!hold").await;
    stage.endpoint.sees("the first", |seen| seen.open == 1).await;
    let second = stage.submit("t-2", "two").await;
    let (code, out, _) = stage.jobs(&["cancel", &second, "--wait", "0s", "--json"]).await;
    let told: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && (told["result"] == "asked" || told["result"] == "cancelled"), "{told}");
    stage.endpoint.release().await;
    stage.stands(&second, "cancelled").await;
    stage.stands(&first, "done").await;
    assert_eq!(stage.endpoint.seen().await.requests, 1);
}

async fn what_has_not_ended_after_the_wait_is_no_success(stage: Stage) {
    let mut nobodys = asked("t-1", "one", &["a"]);
    nobodys.vllm_model = "nobodys".into();
    let id = stage.client().execute(nobodys).await.unwrap().deliberation_id;
    for (wait, expected) in [("200ms", 1), ("0s", 0)] {
        let (code, out, told) = stage.jobs(&["cancel", &id, "--wait", wait]).await;
        assert_eq!((code, told.as_str()), (expected, ""), "{out}");
        assert!(out.starts_with(&format!("{id}  asked to end; after ")), "{out}");
        assert!(out.ends_with("it is queued, and ends when a worker takes it  t-1\n"), "{out}");
        let (code, out, _) = stage.jobs(&["cancel", &id, "--wait", wait, "--json"]).await;
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &told["result"], &told["state"]), (expected, &json!("asked"), &json!("queued")));
    }
}

async fn what_cannot_be_cancelled_says_so(stage: Stage) {
    let done = stage.submit("t-1", "say it").await;
    stage.stands(&done, "done").await;
    let nobody = "clients_normal_01234567_nobody";
    let (code, out, told) = stage.jobs(&["cancel", nobody, &done]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    let lines: Vec<&str> = told.lines().collect();
    let [unknown, late] = lines.as_slice() else { panic!("{told}") };
    assert!(unknown.starts_with(&format!("cofferdam: there is no job {nobody:?}")), "{told}");
    assert_eq!(
        *late,
        format!("cofferdam: job {done} has ended as it is (done), and can't be cancelled any more")
    );
    let (code, out, _) = stage.jobs(&["cancel", nobody, &done, "--json"]).await;
    let results: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let results: Vec<&Value> = results.iter().map(|told| &told["result"]).collect();
    assert_eq!((code, results), (1, vec![&json!("failed"), &json!("late")]));
    stage.stands(&done, "done").await;
    assert_eq!(stage.executor.stored("cd.x.*").await.len(), 0);
}

async fn a_watch_tells_what_waits_what_is_worked_and_what_has_ended(mut stage: Stage) {
    stage.with_one_place().await;
    let mut watch = stage.command(&["watch", "--interval", "200ms", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut until = async |what: &str, fits: &dyn Fn(&Value) -> bool| {
        within(what, async {
            loop {
                let line = lines.next_line().await.unwrap().expect("a line");
                let told: Value = serde_json::from_str(&line).unwrap();
                if fits(&told) {
                    return told;
                }
            }
        })
        .await
    };
    until("an idle worker", &|told| told["workers"] == 1 && told["running"] == 0).await;
    let first = stage.submit("t-1", "!hold").await;
    stage.endpoint.sees("the first", |seen| seen.open == 1).await;
    stage.submit("t-2", "two").await;
    let told = until("one that waits", &|told| told["running"] == 1 && told["queued"] == 1).await;
    assert_eq!([&told["done"], &told["failed"]], [&json!(0), &json!(0)], "{told}");
    stage.endpoint.release().await;
    stage.stands(&first, "done").await;
    let told = until("both to be done", &|told| told["done"] == 2 && told["queued"] == 0).await;
    assert_eq!([&told["tokens_in"], &told["tokens_out"]], [&json!(22), &json!(14)], "{told}");
    assert!(
        told["jobs_per_second"].as_f64() > Some(0.0) && told["tokens_per_second"].as_f64() > Some(0.0),
        "{told}"
    );
    watch.kill().await.unwrap();

    // For people, and whoever has seen enough leaves.
    let mut watch = stage.command(&["watch", "--interval", "200ms"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let line = within("a line", lines.next_line()).await.unwrap().unwrap();
    assert!(line.contains("1 worker") && line.contains("0 queued, 0 running  0 done, 0 failed"), "{line}");
    drop(lines);
    assert!(within("its end", watch.wait()).await.unwrap().success());
    // Whoever is told no more says so.
    let mut watch = stage.command(&["watch", "--interval", "200ms"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    within("a line", lines.next_line()).await.unwrap().unwrap();
    stage.executor.stop().await;
    within("the last line", async { while lines.next_line().await.unwrap().is_some() {} }).await;
    let output = within("its end", watch.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("cofferdam: nothing more is told: "), "{told}");
}

async fn the_service_says_what_it_does_not_take(stage: Stage) {
    let mut service = stage.service().await;
    let filter = |state: &str, plugin: &str| {
        Some(JobFilter { state: state.into(), plugin: plugin.into(), ..JobFilter::default() })
    };
    for (request, why) in [
        (ListJobsRequest { newest: 10_001, ..Default::default() }, "10000 at most"),
        (ListJobsRequest { filter: filter("asleep", ""), newest: 0 }, "they are queued, running"),
        (ListJobsRequest { filter: filter("", "a.*"), newest: 0 }, "is no plugin's name"),
    ] {
        let status = service.list(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(why), "{status}");
    }
    let status = service.watch(WatchJobsRequest { interval_ms: 1 }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    for id in ["", "x", "cd.j.>", "p_normal_aa_x\n"] {
        let status = service.show(ShowJobRequest { id: id.into(), text: false }).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{id:?}: {status}");
        let status = service.cancel(CancelJobRequest { id: id.into(), wait_ms: 0 }).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{id:?}: {status}");
    }
    let status = service.cancel(CancelJobRequest { id: "x".into(), wait_ms: 30_001 }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

async fn whoever_has_a_token_wants_it_for_jobs(mut stage: Stage) {
    stage.executor.stop().await;
    stage.again(|setup| setup.with("admin.token-env", "THE_TOKEN").env("THE_TOKEN", "hunter2")).await;
    stage.submit("t-1", "say it").await;
    for arguments in [&["list"][..], &["show", "x"], &["cancel", "x"], &["watch"]] {
        let (code, out, told) = stage.jobs(arguments).await;
        assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}");
        assert!(told.contains("wants a token; give it with COFFERDAM_TOKEN"), "{arguments:?}: {told}");
        let (code, _, told) = stage.jobs(&[arguments, &["--token", "hunter3"]].concat()).await;
        assert!(code == 1 && told.contains("does not take this token"), "{arguments:?}: {told}");
    }
    let (code, out, _) = stage.jobs(&["list", "--token", "hunter2"]).await;
    assert!(code == 0 && out.contains("t-1"), "{out}");
}
