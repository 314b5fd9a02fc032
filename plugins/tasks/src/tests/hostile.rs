//! Answers meant to break the reader: it must neither panic, nor blow its stack, nor take more than linear time.

use std::time::{Duration, Instant};

use cofferdam_sdk::fleet::Rejection as Kind;
use proptest::prelude::*;

use crate::{Settings, parse};

/// What the guest has.
const STACK: usize = 64 * 1024;

const PIECES: [&str; 56] = [
    "[",
    "]",
    "{",
    "}",
    "\"",
    ":",
    ",",
    "\\",
    "\n",
    "\r\n",
    " ",
    "    ",
    "\t",
    "-",
    "*",
    "**",
    "#",
    "### ",
    "- ",
    "1. ",
    "[ ] ",
    "```",
    "```json\n",
    "~~~",
    "---\n",
    "===\n",
    "TITLE",
    "TITLE: ",
    "title",
    "\"title\"",
    "\"title\": \"A\"",
    "TASK_ID: ",
    "TASK-001",
    "TASK-002: ",
    "Task 2: ",
    "DESCRIPTION: ",
    "ROLE: ",
    "DEV",
    "## QA Tasks\n",
    "PRIORITY: ",
    "DEPENDS_ON: ",
    "KEYWORDS:\n",
    "4-6 h",
    "1 day",
    "P3",
    "none",
    "<think>",
    "</think>",
    "\u{feff}",
    "é",
    "日本",
    "\u{1f600}",
    "\\u12",
    "\\ud800",
    "1e999",
    "：",
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(&PIECES[..]).prop_map(str::to_owned),
        1 => prop::collection::vec(any::<char>(), 0..6).prop_map(String::from_iter),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contract_4_parsing_any_text_gives_tasks_or_a_named_error(text in text()) {
        let settings = Settings::default();
        match parse(&text, &settings) {
            Ok(parsed) => {
                prop_assert!((1..=settings.max_tasks).contains(&parsed.tasks.len()));
                prop_assert_eq!(parsed.below_min, parsed.tasks.len() < settings.min_tasks);
                for task in parsed.tasks {
                    prop_assert!((1..=80).contains(&task.title.chars().count()));
                    prop_assert!(!task.description.is_empty() && !task.reference.is_empty());
                    prop_assert!((0..=40).contains(&task.estimated_hours) && (1..=10).contains(&task.priority));
                    prop_assert!(!task.role.is_empty() && task.role != "SYSTEM");
                }
            }
            Err(rejection) => {
                let named = [Kind::NoTasks, Kind::TruncatedJson, Kind::TooManyTasks];
                prop_assert!(named.contains(&rejection.kind) && !rejection.detail.is_empty(), "{}", rejection);
            }
        }
    }
}

#[test]
fn every_cut_of_an_answer_is_read_without_panic() {
    let answer = "\u{feff}Sure:\n```json\n[{\"title\": \"Aé\", \"depends_on\": [\"B\"],},\n{\"name\": \"B\\u00e9\", \"hours\": \"2-4 h\"}]\n```\n## DEV Tasks\n- [ ] TASK-001: x\n  - Priority: P2\nTITLE: y\nDESCRIPTION: z";
    for (end, _) in answer.char_indices() {
        drop(parse(&answer[..end], &Settings::default()));
        drop(parse(&answer[end..], &Settings::default()));
    }
}

#[test]
fn long_texts_of_anything_are_read_in_linear_time_on_a_small_stack() {
    let size = 1 << 15;
    let run = move || {
        let mut units: Vec<String> = PIECES.iter().map(|piece| (*piece).to_owned()).collect();
        for unit in [
            "[{",
            "{\"a\":",
            "[[",
            "[{\"title\":\"A\"},",
            "{\"title\":\"A\"}",
            "[\"",
            "\"\\",
            "[]",
            "{}",
            "[1,",
            "\",[],[\"",
            "a:",
            "TITLE: A\n",
            "TITLE: A, B\nDEPENDS_ON: A, A, A\n",
            "- a\n",
            "- TASK-1: a\n",
            "1. a\n  - Hours: 1\n",
            "# a\n",
            "  - a\n",
            "DESCRIPTION: a\n",
            "a, ",
            "\n\n",
            "</think>x",
            "<think>x</think>",
            "<",
            "`",
            "```\n",
            "[x](y) ",
            "Hours: 1\n",
            "\"title\"",
            "' ",
            "<think  ",
        ] {
            units.push(unit.to_owned());
        }
        for unit in &units {
            for (before, after) in [
                ("", ""),
                ("TITLE: A\nDEPENDS_ON: ", ""),
                ("[", "]"),
                ("[{\"title\":\"A\",\"keywords\":\"", "\"}]"),
            ] {
                let answer = format!("{before}{}{after}", unit.repeat(size / unit.len()));
                let started = Instant::now();
                drop(parse(&answer, &Settings::default()));
                // Unoptimised, and on a machine shared with others: quadratic time would be many seconds.
                let took = started.elapsed();
                assert!(took < Duration::from_secs(2), "{before}{unit}... took {took:?}");
            }
        }
    };
    // Twice the guest's stack: unoptimised frames are that much larger.
    std::thread::Builder::new().stack_size(2 * STACK).spawn(run).unwrap().join().unwrap();
}
