//! The check `dryrun`: what is run, and what fails it.

use fleet_proto::orchestrator::v1::{DryRunResult, TaskConstraints};

use super::support::{checks, checks_with};

fn dry(content: &str) -> DryRunResult {
    checks(content).dryrun.unwrap()
}

#[track_caller]
fn passes(content: &str, words: &str) {
    let run = dry(content);
    assert!(run.passed && run.exit_code == 0 && run.output.contains(words), "{content:?}: {run:?}");
}

#[track_caller]
fn fails(content: &str, words: &str) {
    let run = dry(content);
    assert!(!run.passed && run.exit_code == 1 && run.output.contains(words), "{content:?}: {run:?}");
    assert!(!run.message.is_empty() && run.output.contains("failed: "), "{run:?}");
}

#[test]
fn where_nothing_can_be_run_it_says_so() {
    let run = dry("We add the login form, then the session.");
    assert_eq!((run.passed, run.output.as_str()), (true, "nothing in it can be run dry"));
}

#[test]
fn task_blocks_have_to_make_a_plan() {
    let task = |id: &str, title: &str, after: &str| {
        format!("TASK_ID: {id}\nTITLE: {title}\nDEPENDS_ON: {after}\n\n")
    };
    passes(&(task("T-1", "A", "none") + &task("T-2", "B", "T-1") + &task("T-3", "C", "A, T-9")), "3 tasks");
    fails(
        &(task("T-1", "A", "T-2") + &task("T-2", "B", "T-1") + &task("T-3", "C", "")),
        "wait for each other: T-1, T-2",
    );
    fails(&(task("T-1", "A", "") + &task("t-1", "B", "")), "is the id of \"A\" and of \"B\"");
    let many: String = (0..9).map(|n| task(&format!("T-{n}"), &format!("Title {n}"), "")).collect();
    fails(&many, "9 tasks, max_tasks is 8");
    fails("TASK_ID: T-1\nROLE: DEV\n", "no_tasks");
}

const FILE: &str = "`src/a.rs`:\n\n```rust\nfn a() {\n    one();\n    two();\n}\n```\n\n";

#[test]
fn diffs_are_applied_to_the_files_that_are_shown() {
    let diff = |old: &str| {
        format!(
            "```diff\n--- a/src/a.rs\n+++ b/src/a.rs\n@@ -2,2 +2,2 @@\n     one();\n-    {old};\n+    three();\n```\n"
        )
    };
    passes(&format!("{FILE}{}", diff("two()")), "1 hunks, applied to the file that is shown");
    fails(
        &format!("{FILE}{}", diff("four()")),
        "src/a.rs does not apply to the file that is shown: the lines of the hunk of line",
    );
    // Twice: the second meets what the first made of it.
    fails(&format!("{FILE}{}{}", diff("two()"), diff("two()")), "does not apply");
    // The line numbers may be somewhat wrong.
    passes(&format!("{FILE}{}", diff("two()").replace("@@ -2,2 +2,2", "@@ -1,2 +1,2")), "applied");
    // The proposal shows what comes of it.
    let shown = FILE.replace("two()", "three()");
    passes(&format!("{}{shown}", diff("two()")), "lead to the file that is shown");
    // Its first lines are all that is shown.
    passes(
        &format!("{FILE}{}", diff("two()").replace("@@ -2,2 +2,2", "@@ -90,2 +90,2")),
        "the file is not shown",
    );
    passes(&diff("anything"), "which go together; the file is not shown");
    // Named behind the fence.
    passes(&format!("```rust title=\"src/a.rs\"\n    one();\n    two();\n```\n{}", diff("two()")), "applied");
    passes(&format!("```rust:src/a.rs\n    one();\n    two();\n```\n{}", diff("two()")), "applied");
}

#[test]
fn hunks_have_to_go_together() {
    let hunks = |second: &str| {
        format!("```diff\n--- a/x\n+++ b/x\n@@ -10,2 +10,3 @@\n a\n+b\n c\n{second}\n-d\n+e\n```\n")
    };
    passes(&hunks("@@ -20 +21 @@"), "2 hunks, which go together");
    fails(&hunks("@@ -11 +30 @@"), "begins before the one of line 4 ends");
    fails(&hunks("@@ -20 +12 @@"), "begins before the one of line 4 ends");
    passes(&hunks("@@ -18446744073709551615 +18446744073709551615 @@"), "go together");
}

#[test]
fn a_file_that_is_new_or_deleted() {
    passes("```diff\n--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1,2 @@\n+a\n+b\n```", "new.txt, 1 hunks");
    let gone = "```diff\n--- a/src/a.rs\n+++ /dev/null\n@@ -1,4 +0,0 @@\n-fn a() {\n-    one();\n-    two();\n-}\n```";
    passes(&format!("{FILE}{gone}"), "applied");
    fails(&format!("{FILE}{}", gone.replace("two", "ten")), "does not apply");
    let put = "```diff\n--- a/src/a.rs\n+++ b/src/a.rs\n@@ -4,0 +5 @@\n+// end\n```";
    passes(&format!("{FILE}{put}"), "applied");
    fails(&format!("{FILE}{}", put.replace("-4,0", "-5,0")), "does not apply");
}

#[test]
fn shell_has_to_close_what_it_opens() {
    passes("```sh\ncargo test && echo \"it's done\"\n```", "shell");
    fails("```bash\necho 'a\n```", "the shell of line 2 opens a single quotation");
    fails("```console\n$ echo \"a\nit's output\n```", "opens a double quotation");
    passes("```console\n$ ls\nit's output\n```", "shell");
}

fn against(schema: &str, content: &str) -> DryRunResult {
    let metadata = [("schema".to_owned(), schema.to_owned())].into();
    let constraints = TaskConstraints { metadata, ..TaskConstraints::default() };
    checks_with(content, Some(constraints)).dryrun.unwrap()
}

#[test]
fn json_is_held_against_the_schema_of_the_task() {
    let schema = r#"{"type": "object", "required": ["name", "steps"], "additionalProperties": false, "oneOf": [],
        "properties": {"name": {"type": "string", "minLength": 2}, "hours": {"type": "integer", "minimum": 1, "maximum": 40},
        "steps": {"type": "array", "minItems": 1, "items": {"enum": ["build", "test"]}}, "kind": {"const": "plan"}}}"#;
    let run = |json: &str| against(schema, &format!("Here:\n```json\n{json}\n```\n"));
    for json in [
        r#"{"name": "ab", "steps": ["test"]}"#,
        r#"{"name": "ab", "steps": ["build"], "hours": 4.0, "kind": "plan"}"#,
    ] {
        let run = run(json);
        assert!(run.passed && run.output.contains("not checked: oneOf"), "{json}: {run:?}");
    }
    for (json, words) in [
        ("[]", "$ is not object"),
        (r#"{"name": "ab"}"#, "$ has no \"steps\""),
        (r#"{"name": "a", "steps": ["test"]}"#, "$.name is 1, less than 2"),
        (r#"{"name": "ab", "steps": []}"#, "$.steps is 0, less than 1"),
        (r#"{"name": "ab", "steps": ["ship"]}"#, "$.steps.0 is none of the 2 values"),
        (r#"{"name": "ab", "steps": ["test"], "hours": 41}"#, "$.hours is 41, more than 40"),
        (r#"{"name": "ab", "steps": ["test"], "hours": 1.5}"#, "$.hours is not integer"),
        (r#"{"name": "ab", "steps": ["test"], "kind": "x"}"#, "$.kind is not the value"),
        (r#"{"name": "ab", "steps": ["test"], "more": 1}"#, "$.more may not be there"),
    ] {
        let run = run(json);
        assert!(!run.passed && run.message.contains(words), "{json}: {run:?}");
    }
    assert!(against(schema, r#"{"name": "ab", "steps": ["test"]}"#).passed, "the whole text");
    assert!(against(schema, "Only words.").message.contains("no JSON"));
}

#[test]
fn a_schema_that_can_t_be_read_is_not_the_proposals_fault() {
    let run = against("{", "Only words, no JSON.");
    assert!(run.passed && run.output.contains("can't be read"), "{run:?}");
}

#[test]
fn a_rubric_may_be_a_schema_and_most_are_none() {
    let with_rubric = |rubric: &str| {
        let constraints = TaskConstraints { rubric: rubric.into(), ..TaskConstraints::default() };
        checks_with("```json\n{\"a\": 1}\n```", Some(constraints)).dryrun.unwrap().passed
    };
    assert!(!with_rubric(r#"{"required": ["b"]}"#));
    assert!(!with_rubric(r#"{"k": 3, "schema": {"required": ["b"]}}"#));
    assert!(with_rubric(r#"{"schema": {"required": ["a"]}}"#));
    assert!(with_rubric("It is safe.") && with_rubric(r#"{"k": 3}"#) && with_rubric("{"));
}
