//! The check `lint`: what is an error, and what is not.

use super::support::{checks, errors};

#[track_caller]
fn check(content: &str, words: &str) {
    let errors = errors(content);
    assert!(errors.len() == 1 && errors[0].contains(words), "{content:?}: {errors:?}");
}

#[test]
fn what_is_wrong_by_its_form() {
    check("", "empty");
    check(" \n\t", "empty");
    check("Do it.", "less than 10 characters");
    check("... !? --- ...", "no word");
    check("So we do:\n```rust\nfn a() {}\n", "code fence of line 2 is never closed");
    check("The whole plan:\n\n...\n", "line 3 has a placeholder");
    check("The whole plan:\n- TODO: write it\n", "line 2 has a placeholder");
    check(
        "So we do:\n```rust\nfn a() {\n    // ... rest of the code ...\n}\n```",
        "line 4 has a placeholder",
    );
    check("So we do:\n```py\nkey = \"<your key here>\"\n```", "line 3 has a placeholder");
    check("So we do:\n```json\n{\"a\": 1,}\n```", "json of line 2");
    check("So we do:\n```toml\na = \n```", "toml of line 2");
    check("So we do:\n```yaml\na: [1, 2\nb: 3\n```", "yaml of line 2");
    check("So we do:\n```jsonl\n{\"a\": 1}\n{\"a\": \n```", "jsonl of line 2");
    check("So we do:\n```diff\n@@ -1,2 +1,2 @@\n-a\n+b\n```", "hunks don't add up");
    check("So we do:\n```\nlet a = 1;\n<<<<<<< HEAD\nlet b = 2;\n```", "line 4 is a conflict marker");
    check(
        "So we do the tasks:\n\nTASK_ID: TASK-001\nDESCRIPTION: do it\nROLE: DEV\n",
        "TASK-001 has no TITLE",
    );
    check("TASK_ID: T-1\nTITLE: A\nESTIMATED_HOURS: 400\n", "ESTIMATED_HOURS of T-1");
    check("TASK_ID: T-1\nTITLE: A\nESTIMATED_HOURS: 99999999999999999999\n", "ESTIMATED_HOURS of T-1");
    check("- TASK_ID: T-1\n- TITLE: A\n- PRIORITY: soon\n", "PRIORITY of T-1");
}

#[test]
fn what_is_fine() {
    for content in [
        "We add the login form, then the session.",
        "A table:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nTitle\n=======\n",
        "We keep the TODO list in the issue, and go on...",
        "So:\n```json\n{\"a\": [1, 2]}\n```\nand\n```toml\n[a]\nb = \"c\"\n```\nand\n```yaml\na: &x [1]\nb: *x\n...\n```\n",
        "So:\n1. one\n   ```yaml\n   a:\n     - b\n   ```\n",
        "So:\n```jsonl\n{\"a\": 1}\n{\"a\": 2}\n```",
        "So:\n```jsonc\n{\"a\": 1, /* b */}\n```",
        "TASK_ID: TASK-001\nTITLE: A\nDESCRIPTION: x\nROLE: DEV\nESTIMATED_HOURS: 4h\nPRIORITY: P1\n---\nTASK_ID: TASK-002\nTITLE: B\nPRIORITY: high\n",
        "Role: developer\n\nTASK_ID: TASK-001\nTITLE: A\n",
        "Use `cat <<EOF` or ```x``` here, <b>bold</b> and <https://x.y>.",
        "So:\n```diff\n--- a/x\n+++ b/x\n@@ -1 +1,2 @@\n a\n+b\n```\n",
    ] {
        let errors = errors(content);
        assert!(errors.is_empty(), "{content:?}: {errors:?}");
    }
}

#[test]
fn warnings_are_counted_and_fail_nothing() {
    let lint =
        checks(&format!("We add the login form. \nThen\t\nthe session.  \n{}\n```\n```\n", "x".repeat(500)))
            .lint
            .unwrap();
    assert_eq!((lint.passed, lint.error_count, lint.warning_count), (true, 0, 4));
}

#[test]
fn many_errors_are_all_counted_and_few_told() {
    let lint = checks(&"TODO: this\n".repeat(2_000)).lint.unwrap();
    assert_eq!((lint.error_count, lint.errors.len()), (2_000, 51));
    assert_eq!(lint.errors[50], "and 1950 more");
}
