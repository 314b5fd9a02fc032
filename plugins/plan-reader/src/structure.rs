//! Where the tasks of a plan stand, and in which notation. Stricter than the reading of a model's answer: a plan is written for
//! people and may hold examples of all kinds, so what is not plainly a task is none.

use cofferdam_sdk::fleet::Rejection as Kind;
use fleet_tasks::{
    Entry, Key, Rejection, blocks, is_fence,
    json::{self, Listed},
    markdown, names_task, plain,
};
use serde_json::Value;

use crate::yaml;

/// Longer texts are no plans of a handful of tasks.
const MAX_TEXT: usize = 256 << 10;
/// Of a fault that is told.
const FAULT_CHARS: usize = 200;

/// The entries of a text that are tasks; an error if it is meant to hold some and can't be read.
pub(crate) fn entries(text: &str) -> Result<Vec<Entry>, Rejection> {
    if text.len() > MAX_TEXT {
        return Err(unreadable(format!("a text of {} bytes, more than {MAX_TEXT}", text.len())));
    }
    let text = plain(text);
    let found = whole(&text);
    if !found.is_empty() {
        return Ok(found);
    }
    let (mut found, prose) = fenced(&text)?;
    found.extend(in_prose(&prose)?);
    if found.is_empty() && json::is_truncated(&text) {
        let detail = "the JSON breaks off: an array or object with a title is never closed".into();
        return Err(Rejection { kind: Kind::TruncatedJson, detail });
    }
    Ok(found)
}

fn unreadable(detail: String) -> Rejection {
    Rejection { kind: Kind::NoTasks, detail }
}

/// The text as one value, or as several documents of YAML.
fn whole(text: &str) -> Vec<Entry> {
    match json::whole(text) {
        Some(value) => tasks(value),
        // Prose is a scalar of YAML, or none at all.
        None => yaml::documents(text).unwrap_or_default().into_iter().flat_map(listed).collect(),
    }
}

/// What stands in fences and is data, and the text without them: other fences stay, for a plan may be wrapped in one as a whole,
/// but those of code go.
fn fenced(text: &str) -> Result<(Vec<Entry>, String), Rejection> {
    let mut found = Vec::new();
    let mut prose = String::with_capacity(text.len());
    let mut at = 0;
    for (begin, block) in json::fenced(text) {
        prose.push_str(&text[at..begin]);
        at = begin + block.len();
        let opening = text[..begin].trim_end_matches('\n').rsplit('\n').next().unwrap_or_default();
        let label = opening.trim().trim_start_matches(['`', '~']).trim().to_ascii_lowercase();
        match label.split([' ', '{', ',']).next().unwrap_or_default() {
            "json" | "json5" | "jsonc" => found.extend(json_block(block)?),
            "yaml" | "yml" => found.extend(yaml_block(block)?),
            "" => {
                let data = whole(block);
                if data.is_empty() {
                    prose.push_str(block);
                }
                found.extend(data);
            }
            "markdown" | "md" | "text" | "txt" | "plain" | "plan" | "tasks" => prose.push_str(block),
            _ => {}
        }
    }
    prose.push_str(&text[at..]);
    Ok((found, prose))
}

fn json_block(block: &str) -> Result<Vec<Entry>, Rejection> {
    match json::whole(block) {
        Some(value) => Ok(tasks(value)),
        // What breaks off is told in the end, unless there is more.
        None if json::is_truncated(block) => Ok(Vec::new()),
        // Comments, several values, keys without quotes.
        None => {
            let amid: Vec<Entry> = json::amid(block).flat_map(tasks).collect();
            if amid.is_empty() { yaml_block(block) } else { Ok(amid) }
        }
    }
}

fn yaml_block(block: &str) -> Result<Vec<Entry>, Rejection> {
    match yaml::documents(block) {
        Ok(documents) => Ok(documents.into_iter().flat_map(tasks).collect()),
        Err(fault) if block.lines().any(|line| opens_section(line.trim_start_matches([' ', '{', '"']))) => {
            Err(broken(&fault))
        }
        Err(_) => Ok(Vec::new()),
    }
}

fn broken(fault: &yaml::Fault) -> Rejection {
    let fault: String = fault.to_string().chars().take(FAULT_CHARS).collect();
    unreadable(format!("its list of tasks can't be read: {fault}"))
}

/// The tasks of the first notation that has any.
fn in_prose(text: &str) -> Result<Vec<Entry>, Rejection> {
    let found: Vec<Entry> = json::amid(text).flat_map(tasks).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let found = sections(text)?;
    if !found.is_empty() {
        return Ok(found);
    }
    let found = markdown::entries(text);
    if !found.is_empty() {
        return Ok(found);
    }
    // A plan may have a title and a description of its own.
    let has_id = |entry: &Entry| !entry.get(Key::TaskId).is_null();
    Ok(blocks::entries(text).into_iter().filter(has_id).collect())
}

/// The lists of YAML below a line `tasks:` at the margin, up to the next line at the margin that belongs to no list.
fn sections(text: &str) -> Result<Vec<Entry>, Rejection> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        if !opens_section(line) {
            continue;
        }
        let mut section = format!("{}\n", line.trim_end());
        while let Some((_, line)) = lines.next_if(|(_, line)| continues_section(line)) {
            section.push_str(line);
            section.push('\n');
        }
        match yaml::documents(&section) {
            Ok(documents) => found.extend(documents.into_iter().flat_map(listed)),
            Err(fault) => return Err(broken(&yaml::Fault { line: at + fault.line, ..fault })),
        }
    }
    Ok(found)
}

fn opens_section(line: &str) -> bool {
    line.trim_end().strip_suffix(':').is_some_and(|name| json::lists_tasks(name.trim_end_matches('"')))
        && !line.starts_with(char::is_whitespace)
}

fn continues_section(line: &str) -> bool {
    (line.is_empty() || line.starts_with([' ', '\t', '-', '#'])) && !is_fence(line)
}

/// The tasks that a value lists, or that it is.
fn tasks(value: Value) -> Vec<Entry> {
    match Listed::of(value) {
        Listed::Lone(entry) if is_task(&entry) => vec![titled(entry)],
        listed => of_list(listed),
    }
}

/// The same without a lone object, which in YAML is any text of `key: value`.
fn listed(value: Value) -> Vec<Entry> {
    of_list(Listed::of(value))
}

fn of_list(listed: Listed) -> Vec<Entry> {
    match listed {
        Listed::Tasks(entries) => entries.into_iter().map(titled).collect(),
        Listed::Objects(entries) if entries.iter().any(is_task) => entries.into_iter().map(titled).collect(),
        _ => Vec::new(),
    }
}

/// What says no more than `title` or `name` may be anything: an example, a customer.
fn is_task(entry: &Entry) -> bool {
    let told = [Key::Role, Key::EstimatedHours, Key::Priority, Key::Keywords, Key::DependsOn];
    let named = matches!(entry.get(Key::TaskId), Value::String(id) if names_task(id));
    let described = entry.has_title() || matches!(entry.get(Key::Description), Value::String(_));
    described && (named || told.iter().any(|key| !entry.get(*key).is_null()))
}

/// People name a task by its id and say the rest in its description, whose first line is then the title.
fn titled(mut entry: Entry) -> Entry {
    if !entry.has_title()
        && let Value::String(text) = entry.get(Key::Description)
        && let Some(first) = text.lines().map(str::trim).find(|line| !line.is_empty())
    {
        let title = Value::from(first);
        entry.set(Key::Title, title);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        let found = entries(text).unwrap_or_else(|rejection| panic!("{rejection}\ntext:\n{text}"));
        let titles: Vec<&str> = found.iter().map(|e| e.get(Key::Title).as_str().unwrap_or("-")).collect();
        assert_eq!(titles, expect, "text:\n{text}");
    }

    #[track_caller]
    fn check_fault(text: &str, kind: &Kind, what: &str) {
        let rejection = entries(text).unwrap_err();
        assert!(rejection.kind == *kind && rejection.detail.contains(what), "{rejection}\ntext:\n{text}");
    }

    const YAML: &str = "tasks:\n  - id: TASK-001\n    role: DEV\n    description: \"Implement login endpoint\"\n    dependencies: [TASK-000]\n  - id: TASK-002\n    role: QA\n    description: Test it\n";

    #[test]
    fn yaml_as_the_whole_text_in_a_fence_and_amid_prose() {
        let two = &["Implement login endpoint", "Test it"];
        check(YAML, two);
        check(&format!("---\n{YAML}...\n"), two);
        check(&format!("# The plan\n\nIn two steps.\n\n```yaml\n{YAML}```\nDone."), two);
        check(&format!("~~~ yml\n{YAML}"), two);
        check(&format!("```\n{YAML}```"), two);
        check(&format!("Why we do it: money.\n\n{YAML}\nWhat else: nothing."), two);
        check("- id: TASK-001\n  title: A\n- {id: TASK-002, title: B}\n", &["A", "B"]);
        check(
            &format!("{YAML}---\n{}", YAML.replace("00", "10").replace("it", "more")),
            &["Implement login endpoint", "Test it", "Implement login endpoint", "Test more"],
        );
    }

    #[test]
    fn json_as_the_whole_text_in_a_fence_and_amid_prose() {
        let json = r#"{"tasks": [{"id": "TASK-001", "title": "A"}, {"title": "B"}]}"#;
        check(json, &["A", "B"]);
        check(&format!("The plan:\n```json\n{json}\n```\n"), &["A", "B"]);
        check(&format!("The plan is {json}, no more."), &["A", "B"]);
        check(r#"[{"title": "A", "role": "DEV"}, {"title": "B"}]"#, &["A", "B"]);
        check("```json\n// the tasks\n[{\"id\": \"TASK-1\", \"title\": \"A\"},]\n```", &["A"]);
        check(r#"{"title": "A", "role": "DEV"}"#, &["A"]);
    }

    #[test]
    fn markdown_sections_with_their_check_lists() {
        let plan = "# Login\n\nSome prose.\n\n## DEV Tasks\n- [ ] TASK-001: Implement login endpoint\n  - Depends on: TASK-000\n  - Priority: HIGH\n\n## QA Tasks\n- [ ] TASK-002: Test it\n";
        check(plan, &["Implement login endpoint", "Test it"]);
        check(&format!("```markdown\n{plan}```"), &["Implement login endpoint", "Test it"]);
        check(&format!("```\n{plan}```"), &["Implement login endpoint", "Test it"]);
        check(
            &format!("{plan}\n```yaml\n{YAML}```\n"),
            &["Implement login endpoint", "Test it", "Implement login endpoint", "Test it"],
        );
    }

    #[test]
    fn a_heading_that_is_an_id_has_its_title_below() {
        check(
            "## Tasks\n\n### TASK-001\n- **Title**: A\n- **Role**: DEV\n\n### TASK-002\nTitle: B\nRole: QA\n",
            &["A", "B"],
        );
    }

    #[test]
    fn blocks_count_if_they_have_ids() {
        check("TASK_ID: TASK-001\nTITLE: A\nROLE: DEV\n\nTASK_ID: TASK-002\nTITLE: B\n", &["A", "B"]);
        check("Title: Checkout\nDescription: guests buy\n", &[]);
    }

    #[test]
    fn what_is_not_plainly_a_task_is_none() {
        for text in [
            "",
            "We build the login, then the logout.\n\n- one\n- two\n",
            "The body is\n```json\n{\"title\": \"Buy milk\"}\n```\nand the list\n```json\n[{\"id\": 1, \"name\": \"bob\"}]\n```",
            "```python\ntasks = [{\"title\": \"A\", \"role\": \"DEV\"}]\n```",
            "```ts\nTASK_ID: x\n```",
            "It answers {\"items\": [{\"name\": \"cart\"}]} as before.",
            "title: Checkout\nname: x\npriority: 3\n",
            "tasks:\n\nWe shall see.",
            "tasks: none yet",
            "The tasks:\n- one\n- two",
            "TASK-001 was a mistake: we know.",
        ] {
            check(text, &[]);
        }
    }

    #[test]
    fn a_list_that_can_t_be_read_is_told_rather_than_half_read() {
        let broken = "tasks:\n  - id: TASK-001\n    title: A\n   role: DEV\n";
        check_fault(&format!("Why: x.\n\n{broken}"), &Kind::NoTasks, "line 6");
        check_fault(&format!("```yaml\n{broken}```"), &Kind::NoTasks, "line 4");
        check_fault("tasks:\n  - &a {id: TASK-001, title: A}\n  - *a\n", &Kind::NoTasks, "alias");
        check_fault(&"x".repeat(MAX_TEXT + 1), &Kind::NoTasks, "bytes");
        check(&"x".repeat(MAX_TEXT), &[]);
        check_fault("```json\n[{\"title\": \"A\"}, {\"ti\n```", &Kind::TruncatedJson, "never closed");
        check_fault("[{\"title\": \"A\", \"role\": \"DEV\"}, {\"ti", &Kind::TruncatedJson, "never closed");
        // It would be broken YAML as well, which is not what is wrong with it.
        let lines = "```json\n{\"tasks\":\n  [{\"title\": \"A\", \"role\": \"DEV\"}, {\"ti\n```";
        check_fault(lines, &Kind::TruncatedJson, "never closed");
        check("```yaml\nimage: [a\n```\n- [ ] TASK-001: A", &["A"]);
    }
}
