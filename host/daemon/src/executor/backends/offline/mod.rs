//! A stand-in for a model: it plans by rules, and sits in councils, so that the demo and the tests need no GPU. It is honest about being one: its
//! answers name the model `cofferdam-offline`, and say so wherever a text has a place for that.
//!
//! The same seed and the same job give the same answer. Told to, it answers as models do on a bad day, so that all that reads
//! answers is used to it.

mod council;
mod dice;
mod example;
mod messy;
mod plan;

use cofferdam_sandbox::Format;
use serde_json::{Value, json};

use self::{council::Wanted, dice::Dice};
use super::{Answered, Failed, Task, Worked};
use crate::config::OfflineConfig;

const MODEL: &str = "cofferdam-offline";
/// What it thought.
const HONEST: &str = "rule-based stand-in, no model";

pub(super) fn work(config: &OfflineConfig, task: &Task<'_>) -> Worked {
    let sampling = &task.queued.job.sampling;
    let asked = Asked { template: &task.agent.prompt_template, prompt: task.prompt, seed: sampling.seed };
    let said = match say(config, &asked, &sampling.format) {
        Ok(said) => said,
        Err(error) => return Worked::Failed(Failed::new("refused", error)),
    };
    let words = |text: &str| text.split_whitespace().count() as u64;
    Worked::Answered(Answered {
        model: MODEL.to_owned(),
        reasoning: HONEST.to_owned(),
        finish: Some(if said.cut { "length" } else { "stop" }.to_owned()),
        tokens_in: words(task.prompt),
        tokens_out: words(&said.text),
        text: said.text,
        ..Answered::default()
    })
}

struct Said {
    text: String,
    /// It ends in the middle.
    cut: bool,
}

/// What one agent is asked, and by which chance it is to answer.
struct Asked<'a> {
    /// What is said to the agent beside the prompt. Only in a council it matters: there it tells one from the other.
    template: &'a str,
    prompt: &'a str,
    seed: Option<i64>,
}

fn say(config: &OfflineConfig, asked: &Asked<'_>, format: &Format) -> Result<Said, String> {
    let Asked { prompt, seed, .. } = *asked;
    if let (Format::Text, Some(wanted)) = (format, Wanted::of(prompt)) {
        return Ok(in_council(config, asked, wanted));
    }
    let mut dice =
        Dice::new(&[&config.seed.to_be_bytes(), &seed.unwrap_or(0).to_be_bytes(), prompt.as_bytes()]);
    // Without a seed it has its usual words.
    let mut words = if config.seed == 0 && seed.is_none() { Dice::loaded() } else { dice.another() };
    let steps = plan::plan(prompt, &mut words);
    let whole = |value: Value| Ok(Said { text: value.to_string(), cut: false });
    match format {
        Format::Json => whole(json!({ "note": format!("{MODEL}: {HONEST}"), "tasks": plan::json(&steps) })),
        Format::Schema { name, schema, .. } => {
            let schema = serde_json::from_str(schema).map_err(|error| {
                format!("the schema {name:?} of the answer is no JSON ({error}); see the job")
            })?;
            whole(example::of(&schema, &steps))
        }
        Format::Text if dice.below(100) < u64::from(config.messy_percent) => {
            Ok(messy::answer(&steps, &messy::kinds(&messy::KINDS, &mut dice), &mut dice))
        }
        Format::Text => Ok(Said { text: plan::blocks(&steps, plan::Style::Plain, false), cut: false }),
    }
}

fn in_council(config: &OfflineConfig, asked: &Asked<'_>, wanted: Wanted) -> Said {
    let seeds = [config.seed.to_be_bytes(), asked.seed.unwrap_or(0).to_be_bytes()];
    let mut dice = Dice::new(&[&seeds[0], &seeds[1], asked.template.as_bytes(), asked.prompt.as_bytes()]);
    let text = council::say(wanted, asked.prompt, &mut dice.another());
    if dice.below(100) >= u64::from(config.messy_percent) {
        return Said { text, cut: false };
    }
    let kinds = messy::kinds(messy::OF_PROSE, &mut dice);
    messy::prose(text, &kinds, &mut dice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str =
        "Title: Guest checkout\nAcceptance criteria:\n- The cart keeps its items\n- A receipt is mailed\n";

    fn asked<'a>(template: &'a str, prompt: &'a str) -> Asked<'a> {
        Asked { template, prompt, seed: None }
    }

    fn text(seed: u64, messy_percent: u32, format: &Format, prompt: &str) -> String {
        say(&OfflineConfig { seed, messy_percent }, &asked("", prompt), format).unwrap().text
    }

    #[test]
    fn the_same_seed_and_prompt_give_the_same_text_and_another_seed_another() {
        for messy in [0, 100] {
            let one = |seed| text(seed, messy, &Format::Text, PROMPT);
            let all: std::collections::BTreeSet<String> = (0..40).map(one).collect();
            assert!(all.len() > 10, "{} of 40 differ", all.len());
            assert!((0..40).all(|seed| one(seed) == one(seed)));
        }
    }

    #[test]
    fn every_seed_plans_for_each_criterion() {
        for seed in 0..100 {
            let text = text(seed, 0, &Format::Text, PROMPT);
            assert_eq!(text.matches("TITLE:").count(), 4, "{text}");
            for criterion in ["The cart keeps its items", "A receipt is mailed"] {
                assert!(text.contains(&format!("TITLE: {criterion}\n")), "{text}");
            }
        }
    }

    #[test]
    fn so_many_of_a_hundred_are_messy() {
        let messy = |percent: u32| {
            let one = |n: &u32| {
                let prompt = format!("{PROMPT}{n}");
                text(7, percent, &Format::Text, &prompt) != text(7, 0, &Format::Text, &prompt)
            };
            (0..1000).filter(one).count()
        };
        assert_eq!((messy(0), messy(100)), (0, 1000));
        assert!((230..370).contains(&messy(30)), "{}", messy(30));
    }

    #[test]
    fn the_longest_prompt_is_planned_for_at_once() {
        const LONGEST: usize = 256 << 10;
        for (what, head, body) in [
            ("bullets", "Tasks: 1 to 100\nAcceptance criteria:\n", "- a\n"),
            ("placeholders", "Acceptance criteria:\n- ", "{} "),
            ("one line", "Description: ", "x"),
            ("sentences", "Description: ", "a b c."),
            ("words", "Title: ", "word task 1 "),
            ("roles", "Roles: ", "QA,"),
            ("escapes", "Acceptance criteria:\n- ", "\u{1}"),
            ("labels", "", "a:b\n"),
            ("a proposal", "Wanted: a proposal\n--- task ---\n", "It is quick. "),
            ("a review", "Wanted: a review\n- must mention: x\n--- proposal ---\n", "## Risks\n"),
            ("a revision", "Wanted: a revision\n- must mention: x\n--- review ---\n", "- Step: TODO `...\n"),
            ("requirements", "Wanted: a proposal\n", "- must mention: x\n"),
            ("forbidden", "Wanted: a proposal\n", "- must not mention: x\n"),
        ] {
            let prompt = format!("{head}{}", body.repeat((LONGEST - head.len()) / body.len()));
            for (format, messy) in [(Format::Text, 0), (Format::Text, 100), (Format::Json, 0)] {
                let began = std::time::Instant::now();
                let text = text(3, messy, &format, &prompt);
                let took = began.elapsed();
                assert!(text.len() < 8 * LONGEST, "{what}: {} bytes", text.len());
                assert!(took < std::time::Duration::from_secs(5), "{what}: {took:?}");
            }
        }
    }

    #[test]
    fn json_is_answered_with_json_that_says_who_it_is() {
        let value: Value = serde_json::from_str(&text(0, 100, &Format::Json, PROMPT)).unwrap();
        assert_eq!(value["tasks"].as_array().map(Vec::len), Some(4), "{value}");
        assert!(value["note"].as_str().unwrap().contains(HONEST), "{value}");
        let broken = Format::Schema { name: "s".into(), schema: "{".into(), strict: true };
        assert!(say(&OfflineConfig::default(), &asked("", PROMPT), &broken).is_err());
    }

    #[test]
    fn members_of_a_council_differ_by_what_they_are_told_beside_the_prompt() {
        let prompt = "Wanted: a proposal\nTASK: T-1\n--- task ---\nKeep the cart for a day\n--- end ---\n";
        let one = |template: &str, messy_percent: u32| {
            let config = OfflineConfig { messy_percent, ..OfflineConfig::default() };
            say(&config, &asked(template, prompt), &Format::Text).unwrap().text
        };
        assert_eq!(one("simple", 0), one("simple", 0));
        let all: std::collections::BTreeSet<String> =
            ["simple", "safe", "fast", "kind"].map(|template| one(template, 0)).into();
        assert!(all.len() > 2, "{all:?}");
        let bad = |n: &u32| one(&n.to_string(), 100) != one(&n.to_string(), 0);
        assert_eq!((0..200).filter(bad).count(), 200);
        // Who plans hears the prompt alone.
        let plan =
            |template| say(&OfflineConfig::default(), &asked(template, PROMPT), &Format::Text).unwrap().text;
        assert_eq!(plan("simple"), plan("safe"));
    }
}
