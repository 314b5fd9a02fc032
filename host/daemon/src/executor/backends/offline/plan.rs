//! Planning by rules: it reads the prompt as a person in a hurry would: what is to be achieved, one task each; what they share,
//! as dependencies; something to begin with and a test at the end.

use std::collections::BTreeSet;

use serde_json::{Value, json as value};

use super::dice::Dice;

/// Where the prompt names no bounds.
const BOUNDS: (usize, usize) = (3, 8);

/// What it begins with, what there may be besides, and what it ends with: title and description, in several wordings.
const BEGIN: [(&str, &str); 3] = [
    ("Design", "Agree on interfaces, data and what is left out."),
    ("Sketch", "Draw the parts, name what passes between them, and say what is left out."),
    ("Outline", "Write interfaces and data down on one page, and have it read."),
];
const BESIDES: [(&str, &str); 3] = [
    ("Implement", "Build what was designed, in small reviewed steps."),
    ("Document", "Write down how it is used and operated."),
    ("Monitor", "Add the metrics and alerts that tell whether it works."),
];
const END: [(&str, &str, &str); 3] = [
    ("Verify", "end to end", "Walk through every acceptance criterion."),
    ("Try out", "as its users do", "Every acceptance criterion is met, or it is written down why not."),
    (
        "Prove",
        "in the place where it is to run",
        "Each acceptance criterion has a test that fails without it.",
    ),
];

pub(super) struct Step {
    pub(super) title: String,
    description: String,
    role: &'static str,
    hours: u32,
    words: Vec<String>,
    depends_on: Vec<usize>,
}

/// How labels are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Lower,
    Bold,
    Numbered,
}

/// What is to be done. Words and order are a matter of chance, what is in it is not.
pub(super) fn plan(prompt: &str, dice: &mut Dice) -> Vec<Step> {
    let roles = roles(prompt);
    let (min, max) = bounds(prompt);
    let mut goals = goals(prompt);
    // Room for the two tasks around them.
    goals.truncate(max.saturating_sub(2).max(1));
    dice.shuffle(&mut goals);
    let has = |role: &str| roles.is_empty() || roles.contains(role);
    let subject = title_of(prompt).unwrap_or_else(|| "the change".to_owned());
    let mut tasks = Vec::new();
    if goals.len() + 1 < max {
        let role = if has("ARCHITECT") { "ARCHITECT" } else { "DEVELOPER" };
        let (title, text) = dice.pick(&BEGIN);
        tasks.push(step(&format!("{title} {subject}"), text, role, 4));
    }
    for goal in &goals {
        tasks.push(step(
            &sentence(goal),
            &dice.pick(&["{}", "It is done when this holds: {}", "{} A test shows it."]).replace("{}", goal),
            role_for(goal, &roles),
            4 + 2 * (goal.split_whitespace().count() as u32 / 4) + dice.below(3) as u32,
        ));
    }
    while tasks.len() + 1 < min {
        let (title, text) = BESIDES[(tasks.len() - goals.len().min(tasks.len())) % 3];
        tasks.push(step(&format!("{title} {subject}"), text, "DEVELOPER", 6));
    }
    if tasks.len() < max {
        let role = if has("QA") { "QA" } else { "DEVELOPER" };
        let (title, how, text) = dice.pick(&END);
        tasks.push(step(&format!("{title} {subject} {how}"), text, role, 6));
    }
    link(&mut tasks);
    tasks
}

fn step(title: &str, description: &str, role: &'static str, hours: u32) -> Step {
    let title: String = title.chars().take(80).collect();
    Step {
        words: words(&title),
        title: title.trim().to_owned(),
        description: description.to_owned(),
        role,
        hours: hours.min(16),
        depends_on: Vec::new(),
    }
}

/// A task needs the nearest one before it that speaks of the same thing, else the first; the last needs all that
/// nobody needs yet.
fn link(tasks: &mut [Step]) {
    let count = tasks.len();
    let mut needed = vec![false; count];
    for i in 1..count.saturating_sub(1) {
        let shared = (1..i).rev().find(|j| tasks[*j].words.iter().any(|w| tasks[i].words.contains(w)));
        let on = shared.unwrap_or(0);
        needed[on] = true;
        tasks[i].depends_on.push(on);
    }
    if count > 1 {
        tasks[count - 1].depends_on = (0..count - 1).filter(|i| !needed[*i]).collect();
    }
}

/// In the block format that the fleet's prompts ask for, or nearly.
pub(super) fn blocks(tasks: &[Step], style: Style, ruled: bool) -> String {
    let mut text = String::new();
    for (i, task) in tasks.iter().enumerate() {
        if ruled && i > 0 {
            text.push_str("---\n\n");
        }
        let depends = task.depends().join(", ");
        let depends = if depends.is_empty() { "none".to_owned() } else { depends };
        let keywords = if task.words.is_empty() { "task".to_owned() } else { task.words.join(", ") };
        let fields = [
            ("TASK_ID", id(i)),
            ("TITLE", task.title.clone()),
            ("DESCRIPTION", task.description.clone()),
            ("ROLE", task.role.to_owned()),
            ("ESTIMATED_HOURS", task.hours.to_string()),
            ("PRIORITY", (i + 1).min(10).to_string()),
            ("KEYWORDS", keywords),
            ("DEPENDS_ON", depends),
        ];
        for (n, (label, value)) in fields.into_iter().enumerate() {
            let line = match style {
                Style::Plain => format!("{label}: {value}\n"),
                Style::Lower => format!("{}: {value}\n", label.to_lowercase()),
                Style::Bold => format!("**{label}:** {value}\n"),
                Style::Numbered if n == 0 => format!("{}. {label}: {value}\n", i + 1),
                Style::Numbered => format!("   {label}: {value}\n"),
            };
            text.push_str(&line);
        }
        text.push('\n');
    }
    text
}

/// As an array of objects.
pub(super) fn json(tasks: &[Step]) -> Value {
    let one = |(i, task): (usize, &Step)| {
        value!({
            "task_id": id(i), "title": task.title, "description": task.description, "role": task.role,
            "estimated_hours": task.hours, "priority": (i + 1).min(10), "keywords": task.words,
            "depends_on": task.depends(),
        })
    };
    tasks.iter().enumerate().map(one).collect()
}

fn id(index: usize) -> String {
    format!("TASK-{:03}", index + 1)
}

impl Step {
    fn depends(&self) -> Vec<String> {
        self.depends_on.iter().map(|index| id(*index)).collect()
    }
}

/// What is to be achieved: the bullets under a heading that speaks of criteria; else the sentences of the description.
fn goals(prompt: &str) -> Vec<String> {
    let mut goals = Vec::new();
    let mut under = false;
    for line in prompt.lines() {
        match bullet(line) {
            Some(text) if under && !text.is_empty() => goals.push(text.to_owned()),
            _ if line.trim().is_empty() => {}
            _ => under = line.to_lowercase().contains("criteria"),
        }
    }
    if goals.is_empty() {
        let description = prompt.lines().find_map(|l| after(l, "description"));
        goals = description
            .iter()
            .flat_map(|d| d.split(['.', ';']))
            .map(str::trim)
            .filter(|s| s.split_whitespace().count() > 2)
            .map(str::to_owned)
            .collect();
    }
    goals
}

fn bullet(line: &str) -> Option<&str> {
    let line = line.trim_start();
    ["- [ ] ", "- ", "* ", "• "].iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim)
}

/// `Label: value`, whatever the case and decoration of the label.
fn after<'a>(line: &'a str, label: &str) -> Option<&'a str> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    (name == label && !value.trim().is_empty()).then(|| value.trim())
}

fn title_of(prompt: &str) -> Option<String> {
    let title = prompt.lines().find_map(|l| after(l, "title").or_else(|| after(l, "plan")))?;
    let short: String = title.chars().take(60).collect();
    let short = if short.len() < title.len() {
        short.rsplit_once(' ').map_or(short.clone(), |(a, _)| a.to_owned())
    } else {
        short
    };
    Some(short.trim_end_matches(['.', ',', ':']).to_owned())
}

/// `between 3 and 8`, `3 to 8`, `3-8` on a line that speaks of tasks.
fn bounds(prompt: &str) -> (usize, usize) {
    let line = prompt.lines().filter(|l| l.to_lowercase().contains("task")).find_map(|line| {
        let numbers: Vec<usize> = line
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok())
            .filter(|n| (1..=100).contains(n))
            .collect();
        numbers.windows(2).find(|w| w[0] < w[1]).map(|w| (w[0], w[1]))
    });
    line.unwrap_or(BOUNDS)
}

/// The roles that the prompt asks for.
fn roles(prompt: &str) -> BTreeSet<String> {
    let line = prompt.lines().find_map(|l| after(l, "roles"));
    line.iter()
        .flat_map(|l| l.split([',', ' ']))
        .map(|r| r.trim().to_uppercase())
        .filter(|r| !r.is_empty())
        .collect()
}

fn role_for(goal: &str, roles: &BTreeSet<String>) -> &'static str {
    let goal = goal.to_lowercase();
    let says = |list: &[&str]| list.iter().any(|w| goal.contains(w));
    let fits = [
        ("QA", says(&["test", "verify", "regression"])),
        ("DEVOPS", says(&["deploy", "pipeline", "rollout", "monitor", "alert"])),
        ("DATA", says(&["migrat", "schema", "dataset", "report"])),
    ];
    fits.into_iter().find(|(role, fits)| *fits && roles.contains(*role)).map_or("DEVELOPER", |(role, _)| role)
}

/// Begins with a capital, ends without a full stop, is cut between clauses, else between words.
pub(super) fn sentence(text: &str) -> String {
    let whole = text.trim_end_matches(['.', ';', ',']);
    let mut short: String = whole.chars().take(72).collect();
    if short.len() < whole.len() {
        let clause =
            [", ", "; ", ": ", " and ", " when ", " before "].iter().filter_map(|at| short.rfind(at)).max();
        let end = clause.filter(|end| *end > 20).or_else(|| short.rfind(' ')).unwrap_or(short.len());
        short.truncate(end);
    }
    let mut chars = short.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Up to four words that carry meaning.
fn words(title: &str) -> Vec<String> {
    const EMPTY: [&str; 28] = [
        "with", "that", "this", "from", "into", "have", "their", "when", "each", "must", "should", "shall",
        "every", "after", "before", "design", "verify", "user", "users", "can", "will", "without", "sketch",
        "outline", "prove", "place", "does", "they",
    ];
    let mut found: Vec<String> = Vec::new();
    for word in title.to_lowercase().split(|c: char| !c.is_ascii_alphanumeric()) {
        if word.len() > 3 && !EMPTY.contains(&word) && !found.iter().any(|f| f == word) {
            found.push(word.to_owned());
        }
    }
    found.truncate(4);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(prompt: &str) -> String {
        blocks(&super::plan(prompt, &mut Dice::loaded()), Style::Plain, false)
    }

    const PROMPT: &str = "Title: Guest checkout\nRoles: DEVELOPER, QA\nDescription: People buy without an account.\n\n\
        Acceptance criteria:\n- The cart keeps its items for a day\n- Payment is taken once per cart\n- A receipt is mailed\n\n\
        Technical notes: none\n\nPropose between 3 and 8 tasks.";

    #[test]
    fn each_criterion_becomes_a_task_between_a_beginning_and_a_test() {
        let text = plan(PROMPT);
        assert_eq!(text.matches("TITLE:").count(), 5, "{text}");
        assert!(text.contains("TITLE: Payment is taken once per cart"), "{text}");
        assert!(text.contains("ROLE: QA"), "{text}");
    }

    #[test]
    fn a_shared_word_makes_a_dependency_and_the_last_task_needs_the_rest() {
        let text = plan(PROMPT);
        let depends: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("DEPENDS_ON: ")).collect();
        assert_eq!(depends, ["none", "TASK-001", "TASK-002", "TASK-001", "TASK-003, TASK-004"]);
    }

    #[test]
    fn a_prompt_without_criteria_still_yields_the_least_number() {
        for prompt in ["", "Description: x", "Please propose 4 to 6 tasks\n"] {
            let text = plan(prompt);
            let (min, max) = bounds(prompt);
            let count = text.matches("TITLE:").count();
            assert!((min..=max).contains(&count), "{prompt:?}: {text}");
        }
    }

    #[test]
    fn many_criteria_stay_within_the_bounds() {
        let bullets: String = (0..40).map(|i| format!("- Criterion number {i}\n")).collect();
        let text = plan(&format!("Acceptance criteria:\n{bullets}\nAt least 3 and at most 8 tasks"));
        assert_eq!(text.matches("TITLE:").count(), 8, "{text}");
    }
}
