//! Plans meant to break the reader: it must neither panic, nor blow its stack, nor take more than linear time.

use std::time::{Duration, Instant};

use cofferdam_sdk::fleet::Rejection as Kind;
use fleet_tasks::{Settings, settle};
use proptest::prelude::*;

use crate::structure::entries;

/// What the guest has.
const STACK: usize = 64 * 1024;

const PIECES: [&str; 58] = [
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    ":",
    ": ",
    ",",
    "\\",
    "\n",
    "\n  ",
    "\n    ",
    " ",
    "\t",
    "- ",
    "? ",
    "-",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!t ",
    "%YAML 1.2\n",
    "| \n",
    ">-\n",
    "#",
    " # ",
    "~",
    "null",
    "...\n",
    "---\n",
    "```\n",
    "```yaml\n",
    "```json\n",
    "```py\n",
    "~~~\n",
    "tasks:\n",
    "tasks: ",
    "\"tasks\": ",
    "items:\n",
    "id: TASK-001\n",
    "  - id: TASK-001\n    title: A\n",
    "title: ",
    "\"title\": \"A\"",
    "description: b\n",
    "role: DEV\n",
    "depends_on: [a]\n",
    "## QA Tasks\n",
    "- [ ] TASK-002: ",
    "  - Priority: HIGH\n",
    "TASK_ID: TASK-003\nTITLE: C\n",
    "\u{feff}",
    "é",
    "日本",
    "\u{1f600}",
    "\u{85}",
    "\r",
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![6 => prop::sample::select(&PIECES[..]).prop_map(str::to_owned), 1 => ".{0,6}"];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contract_9_any_text_gives_tasks_or_a_named_error(text in text()) {
        let settings = Settings::default();
        let outcome = entries(&text).and_then(|found| settle(found, &settings));
        match outcome {
            Ok(parsed) => {
                prop_assert!((1..=settings.max_tasks).contains(&parsed.tasks.len()));
                for task in parsed.tasks {
                    prop_assert!((1..=80).contains(&task.title.chars().count()));
                    prop_assert!(!task.description.is_empty() && !task.reference.is_empty());
                    prop_assert!((0..=40).contains(&task.estimated_hours) && (1..=10).contains(&task.priority));
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
fn long_texts_of_anything_are_read_in_linear_time_on_a_small_stack() {
    let size = 1 << 15;
    let run = move || {
        for unit in PIECES.iter().copied().chain([
            "[a, ",
            "{a: ",
            "a: ",
            "? a\n",
            "- - ",
            "a: b\n",
            "\"a\": \"b\", ",
            "&a a ",
            "a\n",
            "- a\n",
            "tasks:\n- a\n",
            "```yaml\na: [\n```\n",
            "tasks:\n  - {id: TASK-1, title: A}\n",
            "x: {y: z}\n",
            "'a' ",
            "- 'a\n",
            "\"",
            "[[",
            "{{",
        ]) {
            for (before, after) in [("", ""), ("tasks:\n  - ", ""), ("```yaml\n", "\n```\n"), ("[", "]")] {
                let plan = format!("{before}{}{after}", unit.repeat(size / unit.len()));
                let started = Instant::now();
                drop(entries(&plan));
                // Unoptimised, and on a machine shared with others: quadratic time would be many seconds.
                let took = started.elapsed();
                assert!(took < Duration::from_secs(2), "{before}{unit}... took {took:?}");
            }
        }
    };
    // Twice the guest's stack: unoptimised frames are that much larger.
    std::thread::Builder::new().stack_size(2 * STACK).spawn(run).unwrap().join().unwrap();
}
