//! Answers meant to break the reader: it must neither panic, nor blow its stack, nor take more than linear time.

use std::time::{Duration, Instant};

use crate::{Settings, parse};

/// What the guest has.
const STACK: usize = 64 * 1024;

/// A small generator of numbers, so that the texts are the same on every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

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

fn text(numbers: &mut Numbers, pieces: usize) -> String {
    (0..pieces).map(|_| PIECES[numbers.below(PIECES.len())]).collect()
}

#[test]
fn arbitrary_text_never_panics_and_keeps_the_promises() {
    let settings = Settings::default();
    let mut numbers = Numbers(0x5eed);
    for _ in 0..20_000 {
        let pieces = 1 + numbers.below(60);
        let text = text(&mut numbers, pieces);
        if let Ok(parsed) = parse(&text, &settings) {
            assert!((1..=settings.max_tasks).contains(&parsed.tasks.len()), "{text:?}");
            for task in parsed.tasks {
                let title = task.title.chars().count();
                assert!((1..=80).contains(&title), "{text:?}");
                assert!(!task.description.is_empty() && !task.reference.is_empty(), "{text:?}");
                assert!(task.estimated_hours <= 40 && (1..=10).contains(&task.priority), "{text:?}");
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
