//! That the in-memory host answers inferences as the contract says.

use serde_json::json;

use super::{Host, call, event};
use crate::{
    Event, Failure,
    executor::{self, Agent, Completion, ExecutorError, Inference, Job, Priority, infer_all},
    publish, service,
};

const MANIFEST: &str = r#"
[plugin]
name = "sample"
[[subscriptions]]
subject = "in.*"
[asks]
executor = ["small"]
[[services]]
name = "pkg.Service"
descriptors = "sample.binpb"
[services.methods.Get]
kind = "read"
"#;

fn asked() -> Inference {
    Inference::new("What is it?")
}

fn texts(answers: Vec<Result<Completion, ExecutorError>>) -> Vec<String> {
    answers.into_iter().map(|answer| answer.map_or_else(|e| e.to_string(), |a| a.text)).collect()
}

#[test]
fn answers_come_in_order_and_by_what_is_asked() {
    let mut host = Host::new()
        .completes("one")
        .completes_nothing("empty", "no choices")
        .completes("the rest")
        .completes_prompt("two words", "by words")
        .completes_with(|asked| (asked.priority == Priority::High).then(|| Ok("by function".into())));
    let run = host.run(
        |_| {
            let questions = [
                asked(),
                asked().seed(1),
                Inference::new("has two words in it"),
                asked().priority(Priority::High),
                asked().seed(2),
                asked().seed(3),
            ];
            assert_eq!(
                texts(infer_all(&questions)),
                ["one", "failed, empty: no choices", "by words", "by function", "the rest", "the rest"]
            );
            assert!(infer_all(&[]).is_empty());
            Ok(())
        },
        event("in.a", "{}"),
    );
    assert_eq!((run.result, run.inferences.len()), (Ok(()), 6));
    let none = Host::new().run(|_| asked().infer().map(drop).map_err(Into::into), event("in.a", "{}"));
    assert!(matches!(none.result, Err(Failure::Retry { reason, .. }) if reason.contains("Host::completes")));
}

#[test]
fn another_run_of_the_event_pays_for_nothing_that_was_answered() {
    fn handle(event: Event) -> Result<(), Failure> {
        let questions = [asked(), asked(), asked().temperature(0.5)];
        let answers = infer_all(&questions).into_iter().collect::<Result<Vec<_>, _>>()?;
        let again = asked().infer()?;
        publish::emit("out.a", format!("{} {}", answers[1].text, again.text))?;
        if event.data == b"fail" { Err(Failure::retry("later")) } else { Ok(()) }
    }
    let mut host = Host::new()
        .completes("first")
        .completes_nothing("overloaded", "busy")
        .completes("third")
        .completes("fourth")
        .completes("fifth");
    let mut one = event("in.a", "{}");
    let run = host.run(handle, one.clone());
    assert_eq!(run.result, Err(Failure::retry("executor: failed, overloaded: busy")));
    assert_eq!(run.inferences.len(), 3);
    one.data = b"fail".to_vec();
    let run = host.run(handle, one.clone());
    assert_eq!(run.result, Err(Failure::retry("later")));
    assert_eq!(run.inferences, [asked(), asked()], "what failed, and what nobody had come to");
    one.data = Vec::new();
    let run = host.run(handle, one);
    assert_eq!((run.inferences.len(), run.published[0].data.as_slice()), (0, b"fourth fifth".as_slice()));
    assert_eq!(host.run(handle, event("in.a", "{}")).inferences.len(), 4, "another event asks for itself");
}

#[test]
fn tokens_come_in_pieces_once() {
    fn handle(event: Event) -> Result<(), Failure> {
        let mut tokens = asked().tokens()?;
        let mut pieces = Vec::new();
        for chunk in tokens.by_ref() {
            let chunk = chunk?;
            assert!(!chunk.anew);
            pieces.push(chunk.text);
        }
        assert!(tokens.next().is_none());
        let whole = tokens.finish()?;
        assert_eq!(whole.text, pieces.concat());
        publish::emit_json("out.a", &pieces)?;
        if event.data.is_empty() { Ok(()) } else { Err(Failure::retry("later")) }
    }
    let mut host = Host::new().completes_in_pieces(["On", "ce ", "upon"]).completes("other");
    let mut one = event("in.a", "x");
    assert_eq!(host.run(handle, one.clone()).inferences.len(), 1);
    one.data.clear();
    let run = host.run(handle, one);
    assert_eq!((run.inferences.len(), run.on("out.a")), (0, vec![json!(["Once upon"])]));

    let failing = Host::new().completes_nothing("timeout", "too long").run(
        |_| {
            let mut tokens = asked().tokens()?;
            let error = tokens.next().unwrap().unwrap_err();
            assert!(tokens.next().is_none());
            assert_eq!(tokens.finish(), Err(error.clone()));
            Err(error.into())
        },
        event("in.a", "{}"),
    );
    assert!(matches!(failing.result, Err(Failure::Retry { .. })));
}

#[test]
fn what_the_contract_refuses_is_a_typed_error() {
    let limit = |answer: Result<Completion, ExecutorError>| matches!(answer, Err(ExecutorError::Limit(_)));
    let invalid =
        |answer: Result<Completion, ExecutorError>| matches!(answer, Err(ExecutorError::Invalid(_)));
    let run = Host::new().completes("yes").run(
        |_| {
            assert!(infer_all(&vec![asked(); 17]).into_iter().all(limit));
            assert!(limit(Inference::new("x".repeat((256 << 10) + 1)).infer()));
            assert!(limit(asked().system("x".repeat((32 << 10) + 1)).infer()));
            assert!(limit((0..5).fold(asked(), |asked, n| asked.stop(n.to_string())).infer()));
            for wrong in [
                Inference::new(" "),
                asked().temperature(2.1),
                asked().temperature(f32::NAN),
                asked().max_tokens(0),
                asked().stop(""),
                asked().schema("a name", &json!({})),
                asked().schema("name", &json!([])),
                asked().timeout_seconds(86_401),
            ] {
                assert!(invalid(wrong.infer()), "{wrong:?}");
            }
            let job = Job::new("t", "r", "p").agent("a", "r").temperature(-0.1);
            assert!(matches!(job.submit(), Err(ExecutorError::Invalid(_))));
            let open = (0..16).map(|_| asked().tokens()).collect::<Result<Vec<_>, _>>()?;
            assert!(matches!(asked().tokens(), Err(ExecutorError::Limit(_))));
            drop(open);
            for _ in 0..240 {
                asked().json().infer()?;
            }
            assert!(limit(asked().infer()));
            Ok(())
        },
        event("in.a", "{}"),
    );
    assert_eq!((run.result, run.inferences.len()), (Ok(()), 256));
}

#[test]
fn grants_and_methods_that_read_hold_for_inferences() {
    let denied = |answer: Result<Completion, ExecutorError>| matches!(answer, Err(ExecutorError::Denied(_)));
    let mut host = Host::from_manifest(MANIFEST).completes("yes");
    let run = host.run(
        |_| {
            assert!(denied(asked().infer()), "the default model");
            assert!(denied(asked().model("large").infer()));
            assert_eq!(asked().model("small").infer()?.text, "yes");
            assert!(matches!(asked().tokens(), Err(ExecutorError::Denied(_))));
            Ok(())
        },
        event("in.a", "{}"),
    );
    assert_eq!(run.result, Ok(()));
    let served = host.serve(
        |_| {
            assert!(denied(asked().model("small").infer()));
            assert!(matches!(asked().model("small").tokens(), Err(ExecutorError::Denied(_))));
            assert!(matches!(executor::cancel("sample_low_aa_1"), Err(ExecutorError::Denied(_))));
            service::answer(&1_u64)
        },
        call("pkg.Service/Get", &()),
    );
    assert_eq!(served.read::<u64>(), 1);
}

#[test]
fn a_plugin_cancels_its_own_jobs_when_it_succeeds() {
    fn handle(event: Event) -> Result<(), Failure> {
        let job = Job::new("t", "r", "p").agent("a", "r").model("small").priority(Priority::Low);
        let id = job.submit()?;
        assert!(id.starts_with("sample_low_"), "{id}");
        executor::cancel(&id)?;
        executor::cancel(&id)?;
        assert!(matches!(executor::cancel("other_low_aa_1"), Err(ExecutorError::Denied(_))));
        for wrong in ["", "1", "sample_soon_aa_1", "_low_aa_1", "sample_low_aa_"] {
            assert!(matches!(executor::cancel(wrong), Err(ExecutorError::Invalid(_))), "{wrong:?}");
        }
        if event.data.is_empty() { Ok(()) } else { Err(Failure::reject("no")) }
    }
    let mut host = Host::from_manifest(MANIFEST);
    let run = host.run(handle, event("in.a", ""));
    assert_eq!(run.cancelled_jobs, [run.jobs[0].id.clone()]);
    assert!(!run.acked_without_effect());
    assert!(host.run(handle, event("in.a", "x")).cancelled_jobs.is_empty());
}

#[test]
fn agents_of_a_job_may_have_models_and_templates_of_their_own() {
    let run = Host::new().run(
        |_| {
            let brief = Agent::new("b", "QA").model("small").template("Briefly: {prompt}");
            Job::new("t", "DEV", "p").agent("a", "DEV").with_agent(brief).submit()?;
            Ok(())
        },
        event("in.a", ""),
    );
    let agents: Vec<_> = run.jobs[0]
        .job
        .agents
        .iter()
        .map(|a| (a.id.as_str(), a.role.as_str(), a.model.as_str(), a.prompt_template.as_str()))
        .collect();
    assert_eq!(agents, [("a", "DEV", "", ""), ("b", "QA", "small", "Briefly: {prompt}")]);
}

#[test]
fn what_may_pass_is_tried_again() {
    let failed = |kind: &str| ExecutorError::Failed { kind: kind.into(), message: String::new() };
    for (error, passes) in [
        (failed("overloaded"), true),
        (failed("timeout"), true),
        (failed("budget_exhausted"), true),
        (failed("unknown_model"), false),
        (failed("cancelled"), false),
        (ExecutorError::Unavailable(String::new()), true),
        (ExecutorError::NotConfigured(String::new()), false),
    ] {
        let retried = matches!(Failure::from(error.clone()), Failure::Retry { .. });
        assert_eq!((error.is_transient(), retried), (passes, passes), "{error}");
    }
}

#[test]
fn an_answer_is_read_as_json_or_rejected() {
    let mut host = Host::new().completes(r#"{"accepted": true}"#).completes("Well, ...");
    let run = host.run(
        |_| {
            let read = asked().json().infer()?.read::<serde_json::Value>()?;
            assert_eq!(read, json!({ "accepted": true }));
            asked().infer()?.read::<serde_json::Value>().map(drop)
        },
        event("in.a", "{}"),
    );
    assert!(matches!(run.result, Err(Failure::Reject(why)) if why.contains("can't be read")));
}
#[test]
fn the_example_of_the_readme_works() {
    fn handle(event: Event) -> Result<(), Failure> {
        let change = String::from_utf8_lossy(&event.data);
        let asked = ["security", "speed", "style"].map(|of| {
            Inference::new(format!("Review this change:\n{change}"))
                .system(format!("You review {of}."))
                .temperature(0.2)
        });
        let reviews = infer_all(&asked).into_iter().collect::<Result<Vec<_>, _>>()?;
        let reviews: Vec<_> = reviews.into_iter().map(|review| review.text).collect();

        let verdict = json!({"type": "object", "properties": {"accepted": {"type": "boolean"}}, "required": ["accepted"]});
        let sum = Inference::new(format!("Is the change to be accepted?\n{}", reviews.join("\n\n")))
            .schema("verdict", &verdict)
            .priority(Priority::High)
            .max_tokens(200)
            .infer()?;
        crate::info!("reviewed"; tokens = sum.tokens_out, cached = sum.cached);
        let sum: serde_json::Value = sum.read()?;
        publish::emit_json("changes.reviewed", &sum)?;
        Ok(())
    }
    let mut host = Host::new()
        .completes_prompt("Is the change to be accepted?", r#"{"accepted": true}"#)
        .completes_prompt("Review this change", "It is fine.");
    let run = host.run(handle, event("changes.proposed", "-1 +1"));
    assert_eq!((run.result.clone(), run.inferences.len()), (Ok(()), 4));
    assert_eq!(run.on("changes.reviewed"), [json!({ "accepted": true })]);
}
