//! A job as a chat completion: what is said, and how the model is to answer.

use cofferdam_inference::{ChatRequest, Format, Message};
use cofferdam_sandbox as seam;

use super::Task;
use crate::executor::{job::AnswerTo, limits::PROMPT};

/// Of the metadata of a job: which try of its submitter's it is.
const ATTEMPT: &str = "attempt";

pub(super) fn request(task: &Task<'_>) -> Result<ChatRequest, String> {
    let sampling = &task.queued.job.sampling;
    Ok(ChatRequest {
        model: task.model.to_owned(),
        messages: messages(task.queued.answer, &task.agent.prompt_template, task.prompt),
        temperature: sampling
            .temperature
            .or_else(|| told(task, "temperature", |t: &f32| t.is_finite() && *t >= 0.0)),
        max_tokens: sampling.max_tokens.or_else(|| told(task, "max_tokens", |tokens| *tokens > 0)),
        stop: sampling.stop.clone(),
        seed: sampling.seed.or_else(|| told(task, "seed", |_| true)),
        format: format(&sampling.format)?,
        deadline: Some(task.deadline),
        ..ChatRequest::default()
    })
}

/// The template is put around the prompt, or before it as the system's message; what is in the prompt is never looked at. A
/// question's is the system's words, whatever they are.
fn messages(answer: AnswerTo, template: &str, prompt: &str) -> Vec<Message> {
    if answer != AnswerTo::Guest && template.contains(PROMPT) {
        return vec![Message::user(template.replacen(PROMPT, prompt, 1))];
    }
    let system = (!template.trim().is_empty()).then(|| Message::system(template));
    system.into_iter().chain([Message::user(prompt)]).collect()
}

/// As those say it who know of no sampling: plugins of older contracts, clients of gRPC.
fn told<T: std::str::FromStr>(task: &Task<'_>, key: &str, fits: impl Fn(&T) -> bool) -> Option<T> {
    let text = metadata(task, key)?;
    let value = text.trim().parse().ok().filter(fits);
    if value.is_none() {
        tracing::warn!(
            job = task.queued.id,
            key,
            text,
            "the job's metadata has a value that can't be used; it is left to the endpoint"
        );
    }
    value
}

fn metadata<'a>(task: &Task<'a>, key: &str) -> Option<&'a str> {
    let found = task.queued.job.metadata.iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value.as_str())
}

fn format(format: &seam::Format) -> Result<Format, String> {
    Ok(match format {
        seam::Format::Text => Format::Text,
        seam::Format::Json => Format::Json,
        seam::Format::Schema { name, schema, strict } => {
            let schema = serde_json::from_str(schema).map_err(|error| {
                format!("the schema {name:?} of the answer is no JSON ({error}); see the job")
            })?;
            Format::Schema { name: name.clone(), schema, strict: *strict }
        }
    })
}

/// Whether its submitter asks again because an answer was of no use.
pub(super) fn is_repeated(task: &Task<'_>) -> bool {
    let attempt = metadata(task, ATTEMPT).and_then(|attempt| attempt.parse::<u32>().ok());
    attempt.is_some_and(|attempt| attempt > 1)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::executor::{QueuedJob, testing};

    fn asked(change: impl FnOnce(&mut QueuedJob)) -> Result<ChatRequest, String> {
        let mut queued = testing::job(&["a"]);
        change(&mut queued);
        let agent = queued.job.agents[0].clone();
        request(&Task {
            queued: &queued,
            prompt: "do it",
            agent: &agent,
            model: "m",
            attempt: 1,
            deadline: Instant::now(),
            trace: "",
            cancelled: CancellationToken::new(),
        })
    }

    fn metadata_of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_prompt_is_put_into_the_template_or_behind_it() {
        for (template, expected) in [
            ("", vec![Message::user("a {prompt}")]),
            ("  \n", vec![Message::user("a {prompt}")]),
            ("be brief", vec![Message::system("be brief"), Message::user("a {prompt}")]),
            ("<{prompt}>", vec![Message::user("<a {prompt}>")]),
            ("{prompt}, {prompt}", vec![Message::user("a {prompt}, {prompt}")]),
        ] {
            for answer in [AnswerTo::Fleet, AnswerTo::Client] {
                assert_eq!(messages(answer, template, "a {prompt}"), expected, "{template:?}");
            }
        }
    }

    #[test]
    fn the_systems_words_of_a_question_are_no_template() {
        let asked = asked(|queued| {
            queued.answer = AnswerTo::Guest;
            queued.job.agents[0].prompt_template = "Never say {prompt}.".into();
        });
        let expected = [Message::system("Never say {prompt}."), Message::user("do it")];
        assert_eq!(asked.unwrap().messages, expected);
    }

    #[test]
    fn sampling_is_the_jobs_else_its_metadatas_else_the_endpoints() {
        let none = asked(|_| {}).unwrap();
        assert_eq!((none.temperature, none.max_tokens, none.seed, none.stop.len()), (None, None, None, 0));
        let said = [("temperature", "0.3"), ("max_tokens", " 2048 "), ("seed", "-7")];
        let told = asked(|queued| queued.job.metadata = metadata_of(&said)).unwrap();
        assert_eq!((told.temperature, told.max_tokens, told.seed), (Some(0.3), Some(2048), Some(-7)));
        let typed = asked(|queued| {
            queued.job.metadata = metadata_of(&said);
            queued.job.sampling = seam::Sampling {
                temperature: Some(1.0),
                max_tokens: Some(5),
                seed: Some(8),
                ..Default::default()
            };
        });
        let typed = typed.unwrap();
        assert_eq!((typed.temperature, typed.max_tokens, typed.seed), (Some(1.0), Some(5), Some(8)));
        for (key, value) in [
            ("temperature", "hot"),
            ("temperature", "-1"),
            ("temperature", "NaN"),
            ("temperature", "inf"),
            ("max_tokens", "0"),
            ("max_tokens", "-5"),
            ("max_tokens", "many"),
            ("seed", "1.5"),
        ] {
            let asked = asked(|queued| queued.job.metadata = metadata_of(&[(key, value)])).unwrap();
            assert_eq!(
                (asked.temperature, asked.max_tokens, asked.seed),
                (None, None, None),
                "{key} {value}"
            );
        }
    }

    #[test]
    fn a_schema_that_is_no_json_is_the_jobs_fault() {
        let schema =
            |text: &str| seam::Format::Schema { name: "s".into(), schema: text.into(), strict: true };
        let error = asked(|queued| queued.job.sampling.format = schema("{")).unwrap_err();
        assert!(error.starts_with("the schema \"s\" of the answer is no JSON ("), "{error}");
        assert!(asked(|queued| queued.job.sampling.format = schema("{}")).is_ok());
    }
}
