//! `cofferdam jobs show`: all that is known of one job.

use std::{io, time::SystemTime};

use anyhow::bail;
use fleet_proto::admin::v1::{JobPart, JobSummary, ShowJobRequest, ShowJobResponse, Waiting};
use serde_json::{Map, Value, json};

use super::{
    super::{
        door::Door,
        lines::{print, shown, time},
    },
    ANSWER, ShowArgs, as_json, brief, rfc3339, took,
};

pub(super) async fn show(mut door: Door, args: ShowArgs) -> anyhow::Result<()> {
    let asked = door.jobs.show(ShowJobRequest { id: args.id, text: args.text });
    let Ok(answer) = tokio::time::timeout(ANSWER, asked).await else {
        bail!("no answer within {ANSWER:?}; try again");
    };
    let found = answer.map_err(|status| door.told(&status))?.into_inner();
    let text = match args.json {
        true => document(&found).to_string(),
        false => text(&found, SystemTime::now(), args.text),
    };
    print(&mut io::stdout(), &text).map(drop)
}

fn parsed(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or(Value::Null)
}

fn document(found: &ShowJobResponse) -> Value {
    let summary = found.summary.clone().unwrap_or_default();
    let mut object = match as_json(&summary) {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    let parts: Vec<Value> = found.parts.iter().map(part).collect();
    let waiting = found.waiting.as_ref().map(|waiting| {
        json!({
            "queue": waiting.queue, "ahead": waiting.ahead, "at_least": waiting.at_least, "why": waiting.why,
        })
    });
    for (name, value) in [
        ("deadline", found.deadline_at.as_ref().map(|at| rfc3339(time(Some(at)))).into()),
        ("cancel_asked", found.cancel_asked.into()),
        ("waiting", waiting.unwrap_or_default()),
        ("parts", parts.into()),
        ("job", parsed(&found.job)),
        ("record", parsed(&found.record)),
    ] {
        object.insert(name.to_owned(), value);
    }
    Value::Object(object)
}

fn part(part: &JobPart) -> Value {
    let summary = part.summary.clone().unwrap_or_default();
    let mut object = as_json(&summary);
    object["agent"] = part.agent.clone().into();
    object["record"] = parsed(&part.record);
    object
}

fn text(found: &ShowJobResponse, now: SystemTime, with_text: bool) -> String {
    let job = found.summary.clone().unwrap_or_default();
    let (queued, record) = (parsed(&found.job), parsed(&found.record));
    let asked = &queued["job"];
    let mut lines = Lines::default();
    let submitted = job.submitted_at.as_ref().map(|at| format!(", submitted {}", rfc3339(time(Some(at)))));
    lines.add("job", &format!("{}{}", job.id, submitted.unwrap_or_default()));
    lines.add("state", &state(&job, now));
    let why = if job.error_type.is_empty() {
        job.error.clone()
    } else {
        format!("{}: {}", job.error_type, job.error)
    };
    lines.add("error", &why);
    if let Some(waiting) = &found.waiting {
        lines.add("waits", &waits(waiting));
    }
    if found.cancel_asked && matches!(job.state.as_str(), "queued" | "running") {
        lines.add("cancel", "asked for");
    }
    lines.add("plugin", &job.plugin);
    for (name, value) in
        [("task id", &job.task_id), ("role", &job.role), ("model", &job.model), ("priority", &job.priority)]
    {
        lines.add(name, value);
    }
    for (name, key) in [("story id", "story_id"), ("plan id", "plan_id")] {
        lines.add(name, asked[key].as_str().unwrap_or_default());
    }
    if let Some(at) = &found.deadline_at {
        let ended = !matches!(job.state.as_str(), "queued" | "running");
        let at = time(Some(at));
        lines.add("deadline", &if ended { rfc3339(at) } else { deadline(at, now) });
    }
    if job.tokens_in + job.tokens_out > 0 {
        lines.add("tokens", &format!("{} in, {} out", job.tokens_in, job.tokens_out));
    }
    lines.answer(&record);
    for (key, value) in asked["sampling"].as_object().into_iter().flatten() {
        let said = !value.is_null() && *value != json!([]) && *value != json!("text");
        if said {
            lines.add(&key.replace('_', " "), &value.to_string());
        }
    }
    for pair in asked["metadata"].as_array().into_iter().flatten() {
        let (name, value) = (pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default());
        lines.add("metadata", &format!("{name}: {value}"));
    }
    match found.parts.is_empty() {
        true => {
            for agent in asked["agents"].as_array().into_iter().flatten() {
                let text = |key: &str| agent[key].as_str().unwrap_or_default();
                lines.add("agent", &format!("{} ({})", text("id"), text("role")));
            }
        }
        false => {
            for part in &found.parts {
                lines.part(part, now);
            }
        }
    }
    let mut all = lines.text();
    if with_text {
        all.push_str(&texts(asked["prompt"].as_str(), &record, &found.parts));
    }
    all
}

fn state(job: &JobSummary, now: SystemTime) -> String {
    let mut state = job.state.clone();
    if let Some(took) = took(job, now) {
        state.push_str(if job.state == "running" { ", for " } else { ", after " });
        state.push_str(&brief(took));
    }
    if let Some(at) = &job.ended_at {
        state.push_str(&format!(", ended {}", rfc3339(time(Some(at)))));
    }
    if !job.worker.is_empty() {
        state.push_str(&format!(", worker {}", job.worker));
    }
    state
}

fn waits(waiting: &Waiting) -> String {
    let behind = match (waiting.ahead, waiting.at_least) {
        (0, false) => "first".to_owned(),
        (1, false) => "behind 1 job".to_owned(),
        (ahead, false) => format!("behind {ahead} jobs"),
        (ahead, true) => format!("behind more than {ahead} jobs"),
    };
    format!("{behind} of its queue ({}): {}", waiting.queue, waiting.why)
}

fn deadline(at: SystemTime, now: SystemTime) -> String {
    match at.duration_since(now) {
        Ok(left) => format!("{} (in {})", rfc3339(at), brief(left)),
        Err(_) => format!("{} (over)", rfc3339(at)),
    }
}

/// Names and values under each other.
#[derive(Default)]
struct Lines(Vec<(String, String)>);

impl Lines {
    fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.push((name.to_owned(), shown(value.as_bytes())));
        }
    }

    /// What is told of an answer beside its text.
    fn answer(&mut self, record: &Value) {
        let answer = &record["answer"];
        self.add("answered by", answer["model"].as_str().unwrap_or_default());
        self.add("finish", answer["finish"].as_str().unwrap_or_default());
        if answer["cached"] == true {
            self.add("cached", "it was another job's answer");
        }
        self.add("execution", record["execution_id"].as_str().unwrap_or_default());
    }

    fn part(&mut self, part: &JobPart, now: SystemTime) {
        let job = part.summary.clone().unwrap_or_default();
        let mut told = format!("{}: {}", part.agent, state(&job, now));
        if job.tokens_in + job.tokens_out > 0 {
            told.push_str(&format!(", {} + {} tokens", job.tokens_in, job.tokens_out));
        }
        if !job.error.is_empty() {
            told.push_str(&format!(", {}: {}", job.error_type, job.error));
        }
        self.add("part", &format!("{told}  {}", job.id));
    }

    fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
        lines.join("\n")
    }
}

fn texts(prompt: Option<&str>, record: &Value, parts: &[JobPart]) -> String {
    let mut all = String::new();
    if let Some(prompt) = prompt {
        all.push_str(&format!("\n\nprompt: {} bytes\n{}", prompt.len(), plain(prompt)));
    }
    let parts: Vec<Value> = parts.iter().map(|part| parsed(&part.record)).collect();
    let answers: Vec<&Value> = std::iter::once(record)
        .chain(&parts)
        .map(|record| &record["answer"])
        .filter(|answer| answer.is_object())
        .collect();
    for answer in &answers {
        let of = |key: &str| answer[key].as_str().unwrap_or_default();
        let (agent, reasoning, text) = (of("agent"), of("reasoning"), of("text"));
        if !reasoning.is_empty() {
            all.push_str(&format!(
                "\n\nreasoning of {agent}: {} bytes\n{}",
                reasoning.len(),
                plain(reasoning)
            ));
        }
        if answer["dropped"] == true {
            all.push_str(&format!("\n\nanswer of {agent}: too large to be kept here; its event has it"));
            continue;
        }
        all.push_str(&format!("\n\nanswer of {agent}: {} bytes\n{}", text.len(), plain(text)));
    }
    if answers.is_empty() {
        all.push_str("\n\nanswer: none is kept here");
    }
    all
}

/// In its lines, each as no terminal takes it for a command.
fn plain(text: &str) -> String {
    // Tabs are part of how a text is laid out.
    let plain =
        |line: &str| line.split('\t').map(|text| shown(text.as_bytes())).collect::<Vec<_>>().join("\t");
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost_types::Timestamp;

    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn summary(state: &str) -> JobSummary {
        JobSummary {
            id: "p_normal_aa_1".into(),
            state: state.into(),
            plugin: "p".into(),
            task_id: "t\u{1b}".into(),
            model: "m".into(),
            submitted_at: at(1),
            agents: 1,
            ..JobSummary::default()
        }
    }

    fn json(value: Value) -> Bytes {
        Bytes::from(value.to_string())
    }

    #[test]
    fn a_job_that_waits_says_where_and_for_what() {
        let found = ShowJobResponse {
            summary: Some(summary("queued")),
            job: json(json!({ "job": {
                "prompt": "do\u{1b} it\n\tnow", "story_id": "s-1", "plan_id": null, "metadata": [["k", "v"]],
                "agents": [{ "id": "a", "role": "DEV" }], "sampling": { "seed": 7, "stop": [], "format": "text", "max_tokens": null },
            } })),
            waiting: Some(Waiting {
                queue: "q".into(),
                ahead: 2,
                at_least: false,
                why: "all 2 places are taken".into(),
            }),
            deadline_at: at(301),
            cancel_asked: true,
            ..ShowJobResponse::default()
        };
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(61);
        assert_eq!(
            text(&found, now, true),
            "job       p_normal_aa_1, submitted 1970-01-01T00:00:01.000Z\n\
             state     queued\n\
             waits     behind 2 jobs of its queue (q): all 2 places are taken\n\
             cancel    asked for\n\
             plugin    p\n\
             task id   t\\u{1b}\n\
             model     m\n\
             story id  s-1\n\
             deadline  1970-01-01T00:05:01.000Z (in 4m)\n\
             seed      7\n\
             metadata  k: v\n\
             agent     a (DEV)\n\
             \n\
             prompt: 11 bytes\n\
             do\\u{1b} it\n\
             \tnow\n\
             \n\
             answer: none is kept here"
        );
        let told = document(&found);
        assert_eq!(
            (&told["state"], &told["waiting"]["ahead"], &told["record"]),
            (&json!("queued"), &json!(2), &Value::Null)
        );
        assert_eq!(told["job"]["job"]["story_id"], "s-1");
    }

    #[test]
    fn a_job_that_has_ended_says_how_and_each_part_for_itself() {
        let ended = JobSummary {
            started_at: at(2),
            ended_at: at(4),
            worker: "w".into(),
            tokens_in: 5,
            tokens_out: 6,
            ..summary("done")
        };
        let failed = JobSummary {
            error: "no".into(),
            error_type: "refused".into(),
            ended_at: at(4),
            ..summary("failed")
        };
        let record = json(
            json!({ "answer": { "agent": "a", "text": "TITLE", "model": "m-1", "finish": "stop", "cached": true } }),
        );
        let found = ShowJobResponse {
            summary: Some(ended.clone()),
            parts: vec![
                JobPart { summary: Some(ended), agent: "a".into(), record },
                JobPart { summary: Some(failed), agent: "b".into(), record: Bytes::new() },
            ],
            deadline_at: at(301),
            ..ShowJobResponse::default()
        };
        let told = text(&found, SystemTime::UNIX_EPOCH, true);
        for expected in [
            "state     done, after 2.0s, ended 1970-01-01T00:00:04.000Z, worker w\n",
            "deadline  1970-01-01T00:05:01.000Z\n",
            "tokens    5 in, 6 out\n",
            "part      a: done, after 2.0s, ended 1970-01-01T00:00:04.000Z, worker w, 5 + 6 tokens  p_normal_aa_1\n",
            "part      b: failed, ended 1970-01-01T00:00:04.000Z, refused: no  p_normal_aa_1",
            "\n\nanswer of a: 5 bytes\nTITLE",
        ] {
            assert!(told.contains(expected), "{expected:?} in {told}");
        }
        let told = document(&found);
        assert_eq!(
            (&told["parts"][0]["agent"], &told["parts"][1]["error_type"]),
            (&json!("a"), &json!("refused"))
        );
    }
}
