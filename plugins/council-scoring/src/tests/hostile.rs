//! Proposals meant to break the checks: none may panic, blow the stack or take more than linear time.

use std::time::{Duration, Instant};

use fleet_proto::orchestrator::v1::{DryRunResult, LintResult, PolicyResult, TaskConstraints};
use proptest::prelude::*;

use super::support::{checks, checks_with, host, request, score};
use crate::{dryrun, lint, policy};

/// What the guest has.
const STACK: usize = 64 * 1024;

const PIECES: [&str; 72] = [
    "```",
    "~~~",
    "````\n",
    "```json\n",
    "```yaml\n",
    "```toml\n",
    "```diff\n",
    "```sh\n",
    "```console\n$ ",
    "```rust src/a.rs\n",
    "\n",
    "\r\n",
    " ",
    "\t",
    "\"",
    "'",
    "`",
    "\\",
    "$(",
    "${",
    ")",
    "}",
    "(",
    "<<EOF\n",
    "<<",
    "EOF\n",
    "#",
    "<",
    ">",
    "[",
    "]",
    "{",
    "...",
    "… ",
    "TODO",
    "TODO: ",
    "// TODO\n",
    "<your ",
    "[insert ",
    " here>",
    "--- a/src/a.rs\n",
    "+++ b/src/a.rs\n",
    "@@ -1 +1 @@\n",
    "@@ -1,99999999999999999999 +1 @@\n",
    "@@ -9,3 +8,2 @@\n",
    "@@",
    "-a\n",
    "+a\n",
    " a\n",
    "\\ No newline\n",
    "diff --git a b\n",
    "<<<<<<< \n",
    "TASK_ID: T-1\n",
    "TITLE: A\n",
    "DEPENDS_ON: T-1\n",
    "ESTIMATED_HOURS: 9\n",
    "DESCRIPTION: d\n",
    "a: ",
    "- ",
    "&a ",
    "*a",
    "a = ",
    "[a.b]\n",
    "[[a]]\n",
    "rm -rf ",
    "git push ",
    "--force ",
    "main ",
    "drop ",
    "password = \"",
    "é日",
    "\u{0}",
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![6 => prop::sample::select(&PIECES[..]).prop_map(str::to_owned), 1 => ".{0,6}"];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_judged(text in text()) {
        let (policy, lint, dryrun) = all(&text);
        prop_assert_eq!(policy.passed, policy.violations.is_empty());
        prop_assert_eq!(lint.passed, lint.errors.is_empty() && lint.error_count == 0);
        prop_assert_eq!(dryrun.exit_code == 0, dryrun.passed);
        prop_assert!(!dryrun.message.is_empty() && !dryrun.output.is_empty());
    }
}

/// All checks, with rules that are compiled once: unoptimised that takes longer than any check.
fn all(text: &str) -> (PolicyResult, LintResult, DryRunResult) {
    thread_local! {
        static RULES: policy::Rules = policy::Rules::compile(true, Vec::new()).expect("the plugin's own rules");
    }
    let policy = RULES.with(|rules| policy::check(text, "DEV", None, rules));
    (policy, lint::check(text, 10), dryrun::check(text, None, 8))
}

fn timed(what: &str, run: impl FnOnce()) {
    let started = Instant::now();
    run();
    // Unoptimised, and on a machine shared with others: quadratic time would be many seconds.
    let took = started.elapsed();
    assert!(took < Duration::from_secs(3), "{what} took {took:?}");
}

fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    // Unoptimised, the engine of regular expressions alone takes twice of it to begin; optimised, all of this runs on half of it.
    let size =
        std::env::var("COFFERDAM_TEST_STACK").ok().and_then(|size| size.parse().ok()).unwrap_or(4 * STACK);
    std::thread::Builder::new().stack_size(size).spawn(run).unwrap().join().unwrap();
}

#[test]
fn long_texts_of_anything_are_judged_in_linear_time_on_a_small_stack() {
    on_a_small_stack(|| {
        let size = 20 << 10;
        for unit in PIECES.iter().copied().chain([
            "[1,",
            "{\"a\":",
            "a.",
            "a.b.c = 1\n",
            "[a]\n",
            "x = [\n",
            "{a = ",
            "- - ",
            "? ",
            "'a' ",
            "\"a\": \"b\",\n",
            "```\n```\n",
            "```json\n{\n```\n",
            "`src/a.rs`\n```\na\n```\n",
            "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
            "TASK_ID: T\nTITLE: A\n",
            "cat <<A\n",
            "cat <<A <<B <<C ",
            "$((",
            "\"$(",
            "git push origin ",
            "rm -r -r ",
            "-----BEGIN A B C ",
            "ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ",
            "curl x ",
            "password=",
            "must ",
            "TODO TODO ",
            "<a <b ",
        ]) {
            for (before, after) in [
                ("", ""),
                ("```json\n", "\n```"),
                ("```yaml\n", "\n```"),
                ("```toml\n", "\n```"),
                ("```sh\n", "\n```"),
                ("```diff\n@@ -1 +1 @@\n", "\n```"),
            ] {
                let text = format!("{before}{}{after}", unit.repeat(size / unit.len()));
                timed(&format!("{before}{unit}..."), || drop(all(&text)));
            }
        }
    });
}

/// A file of equal lines, and hunks that nearly fit everywhere.
#[test]
fn hunks_that_nearly_fit_are_searched_in_linear_time() {
    let file = format!("`x.rs`:\n```rust\n{}```\n", "a\n".repeat(14_000));
    let hunk = format!("@@ -1,7000 +1,6999 @@\n{}-b\n", " a\n".repeat(6_999));
    timed("one hunk", || {
        let text = format!("{file}```diff\n--- a/x.rs\n+++ b/x.rs\n{hunk}```");
        assert!(!checks(&text).dryrun.unwrap().passed);
    });
    let many: String = (0..800).map(|n| format!("@@ -{} +{} @@\n-a\n+b\n", n * 9 + 1, n * 9 + 1)).collect();
    timed("many hunks", || {
        let text = format!("{file}```diff\n--- a/x.rs\n+++ b/x.rs\n{many}```");
        let run = checks(&text).dryrun.unwrap();
        assert!(run.passed && run.output.contains("800 hunks, applied"), "{run:?}");
    });
    let patches = "--- a/x.rs\n+++ b/x.rs\n@@ -1,0 +1 @@\n+c\n".repeat(64);
    timed("many patches", || {
        let text = format!("{file}```diff\n{patches}```");
        assert!(checks(&text).dryrun.unwrap().output.contains("applied"));
    });
    let text = format!("{file}```diff\n{patches}{patches}```");
    assert!(checks(&text).dryrun.unwrap().message.contains("more than 64"));
}

#[test]
fn a_schema_and_a_value_that_are_each_huge_are_given_up() {
    on_a_small_stack(|| {
        let choices: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
        let schema = format!("{{\"items\": {{\"enum\": [{}]}}}}", choices.join(","));
        let value = format!("[{}]", vec!["4999"; 12_000].join(","));
        let metadata = [("schema".to_owned(), schema)].into();
        let constraints = TaskConstraints { metadata, ..TaskConstraints::default() };
        timed("enum", || {
            let run = checks_with(&value, Some(constraints)).dryrun.unwrap();
            assert!(!run.passed && run.message.contains("more than 200000 comparisons"), "{run:?}");
        });
        for (deep, passes) in [(30, true), (120, false)] {
            let value = format!("{}1{}", "[".repeat(deep), "]".repeat(deep));
            let schema = format!("{}{{}}{}", "{\"items\":".repeat(28), "}".repeat(28));
            let metadata = [("schema".to_owned(), schema)].into();
            let constraints = TaskConstraints { metadata, ..TaskConstraints::default() };
            let run = checks_with(&value, Some(constraints)).dryrun.unwrap();
            assert!(run.passed == passes, "{run:?}");
        }
    });
}

#[test]
fn sixteen_of_the_longest_are_judged_at_once() {
    let text = "We add the login form, then the session: a = {\"b\": [1, 2]} and rm -r x.\n".repeat(880);
    timed("sixteen", || {
        let judged = score(&mut host(), &request(&[text.as_str(); 16]));
        assert!(judged.iter().all(|judged| judged.score == 1.0));
    });
}

#[test]
fn a_hundred_requirements_against_a_long_text() {
    let requirements = (0..5_000).map(|n| format!("must mention: {}{n}", "a".repeat(200))).collect();
    let constraints = TaskConstraints { requirements, ..TaskConstraints::default() };
    timed("requirements", || {
        assert!(!checks_with(&"a".repeat(60 << 10), Some(constraints)).policy.unwrap().passed);
    });
}
