//! What a member of a council says, by rules: a proposal, a review of another's, a revision. The first line of a council's prompt
//! tells which is wanted; the rest is read as a person in a hurry would. Plans are another matter (`plan.rs`).

use super::{HONEST, MODEL, dice::Dice, plan::sentence};

/// Of a task, that a proposal goes into.
const MOST_STEPS: usize = 5;
/// Of a review, that a revision goes into.
const MOST_POINTS: usize = 8;
/// Of each kind, that are looked at.
const MOST_REQUIREMENTS: usize = 64;
/// Nobody means a longer text to be mentioned.
const LONGEST_MENTION: usize = 1000;

const OPENINGS: [&str; 8] = [
    "The simplest thing that works comes first; what nobody asked for is left out.",
    "Every step can be undone alone, so that a mistake costs one step.",
    "What can be shown early is built early, and the rest follows what is learnt from it.",
    "It begins with how one can tell that it is done, and works back from there.",
    "What is there already is used before anything is added.",
    "The interfaces to others come first and stay as they are afterwards.",
    "The data comes first: its shape, where it is kept, and what must never be lost.",
    "It is divided into parts that two people can build at the same time.",
];
const MEANS: [&str; 4] = ["See to this: ", "Build it so that this holds: ", "Deliver this: ", ""];
const SHOWN: [&str; 4] = [
    "a test fails without it",
    "it is shown to whoever asked for it",
    "it is measured before and after",
    "it is read by somebody else",
];
const HOLDS: [&str; 4] = [
    "The steps follow the task, and their order makes sense.",
    "It stays with what the task asks for.",
    "Each step is small enough to be looked at alone.",
    "It says how one can tell that a step is done.",
];

/// What a proposal may go into besides its steps. None goes into everything, so that there is something to review.
struct Aspect {
    heading: &'static str,
    asked: &'static str,
    said: [&'static str; 2],
}

const ASPECTS: [Aspect; 6] = [
    Aspect {
        heading: "Risks",
        asked: "say what can go wrong, and how it is noticed.",
        said: [
            "What is called may be away: calls have a time-out, and the caller says so when it is over.",
            "Inputs may be empty or huge: both are refused with words that name them.",
        ],
    },
    Aspect {
        heading: "Tests",
        asked: "name the cases that are tested, the bad ones among them.",
        said: [
            "One case for each step, and one that goes through all of them.",
            "The bad cases: nothing there, twice the same, cut off in the middle.",
        ],
    },
    Aspect {
        heading: "Way back",
        asked: "say how it is undone once it is in use.",
        said: [
            "Until it has proved itself it can be switched off by configuration.",
            "What it stores can be read by the version before it.",
        ],
    },
    Aspect {
        heading: "Observation",
        asked: "say which numbers and log lines tell whether it works.",
        said: [
            "One counter for what succeeded, one for what failed, by reason.",
            "A failure is logged once, with the ids that find it again.",
        ],
    },
    Aspect {
        heading: "Documentation",
        asked: "say where its users read how it is used.",
        said: [
            "A page for whoever uses it, with one example that can be copied.",
            "A line among the changes of the release.",
        ],
    },
    Aspect {
        heading: "Bounds",
        asked: "say how much it takes at most, and what happens above that.",
        said: [
            "Sizes and counts have a limit from the configuration.",
            "What is over a limit is refused at once, not cut in silence.",
        ],
    },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Proposal,
    Review,
    Revision,
}

impl Wanted {
    pub(super) fn of(prompt: &str) -> Option<Self> {
        match prompt.lines().next()?.trim() {
            "Wanted: a proposal" => Some(Self::Proposal),
            "Wanted: a review" => Some(Self::Review),
            "Wanted: a revision" => Some(Self::Revision),
            _ => None,
        }
    }
}

pub(super) fn say(wanted: Wanted, prompt: &str, dice: &mut Dice) -> String {
    let asked = Asked::read(prompt);
    match wanted {
        Wanted::Proposal => asked.keep(&propose(&asked, dice)),
        Wanted::Review => review(&asked, dice),
        Wanted::Revision => asked.keep(&revise(&asked)),
    }
}

/// A prompt of a council, as far as it is understood here.
#[derive(Debug, Default)]
struct Asked {
    task_id: String,
    /// In a few words.
    title: String,
    goals: Vec<String>,
    mention: Vec<String>,
    /// In lower case.
    never_mention: Vec<String>,
    words: Option<usize>,
    /// Requirements that only a person understands.
    others: Vec<String>,
    proposal: String,
    review: String,
}

impl Asked {
    fn read(prompt: &str) -> Self {
        let (mut asked, mut task) = (Self::default(), String::new());
        let (mut inside, mut skipped) = ("", String::new());
        for line in prompt.lines() {
            let name = line.trim_end().strip_prefix("--- ").and_then(|rest| rest.strip_suffix(" ---"));
            match name {
                Some("end") => inside = "",
                Some(name) if inside.is_empty() => inside = name,
                _ if inside.is_empty() => asked.outside(line),
                _ => {
                    let text = match inside {
                        "task" => &mut task,
                        "proposal" => &mut asked.proposal,
                        "review" => &mut asked.review,
                        _ => &mut skipped,
                    };
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        let mut said = task.split(['\n', '.', ';']).map(plain).filter(|text| !text.is_empty());
        asked.title = said.next().unwrap_or_else(|| "the task".to_owned());
        asked.goals = said.filter(|text| text.split_whitespace().count() > 2).take(MOST_STEPS).collect();
        asked
    }

    fn outside(&mut self, line: &str) {
        if let Some(id) = line.strip_prefix("TASK:").filter(|_| self.task_id.is_empty()) {
            self.task_id = id.trim().to_owned();
        }
        let Some(requirement) = line.strip_prefix("- ").map(str::trim) else { return };
        let low = requirement.to_lowercase();
        // The lower case of a word may be longer than the word.
        let rest = |start: &str| {
            low.starts_with(start).then(|| requirement.get(start.len()..).unwrap_or_default().trim())
        };
        if let Some(word) = rest("must mention:") {
            if self.mention.len() == MOST_REQUIREMENTS {
                return;
            }
            self.mention.push(first(word, LONGEST_MENTION).to_owned());
        } else if let Some(word) = rest("must not mention:") {
            if self.never_mention.len() == MOST_REQUIREMENTS {
                return;
            }
            self.never_mention.push(word.to_lowercase());
        } else if let Some(most) = rest("at most").and_then(|text| text.strip_suffix("words")) {
            self.words = most.trim().parse().ok();
        } else if self.others.len() < MOST_REQUIREMENTS {
            self.others.push(plain(requirement));
        }
    }

    /// The text within what was required of it: without the lines that say what is not to be said, and not too long.
    fn keep(&self, text: &str) -> String {
        let fits = |line: &&str| {
            let low = line.to_lowercase();
            !self.never_mention.iter().any(|word| !word.is_empty() && low.contains(word))
        };
        let mut lines: Vec<&str> = text.lines().filter(fits).collect();
        let Some(most) = self.words else { return lines.join("\n") + "\n" };
        let count = |line: &&str| line.split_whitespace().count();
        let mut words: usize = lines.iter().map(count).sum();
        while words > most && lines.len() > 1 {
            words -= lines.pop().as_ref().map_or(0, count);
        }
        let text = lines.join("\n");
        if words <= most {
            return text.trim_end().to_owned() + "\n";
        }
        text.split_whitespace().take(most).collect::<Vec<_>>().join(" ") + "\n"
    }
}

fn propose(asked: &Asked, dice: &mut Dice) -> String {
    let mut text = format!(
        "# {} ({})\n\nA proposal by {MODEL}, a {HONEST}. {}\n\n",
        asked.title,
        asked.task_id,
        dice.pick(&OPENINGS)
    );
    // What is required comes first, so that a limit of words does not take it away.
    if !asked.mention.is_empty() || !asked.others.is_empty() {
        text.push_str("## Requirements\n");
        for word in &asked.mention {
            text.push_str(&format!("- It goes into {word}.\n"));
        }
        for other in &asked.others {
            text.push_str(&format!("- {other}: {}.\n", dice.pick(&SHOWN)));
        }
        text.push('\n');
    }
    text.push_str("## Steps\n");
    let mut goals = asked.goals.clone();
    if goals.is_empty() {
        goals = ["Agree on interfaces and data", "Build it in small steps", "Try it as its users do"]
            .map(str::to_owned)
            .into();
    }
    for (n, goal) in goals.iter().enumerate() {
        text.push_str(&format!("{}. {}{goal}; {}.\n", n + 1, dice.pick(&MEANS), dice.pick(&SHOWN)));
    }
    let mut aspects: Vec<&Aspect> = ASPECTS.iter().collect();
    dice.shuffle(&mut aspects);
    let many = 2 + dice.below(2) as usize;
    for aspect in aspects.into_iter().take(many) {
        section(&mut text, aspect);
    }
    text
}

fn section(text: &mut String, aspect: &Aspect) {
    text.push_str(&format!("\n{}\n- {}\n- {}\n", heading(aspect), aspect.said[0], aspect.said[1]));
}

fn heading(aspect: &Aspect) -> String {
    format!("## {}", aspect.heading)
}

fn has(text: &str, aspect: &Aspect) -> bool {
    text.lines().any(|line| line.trim_end() == heading(aspect))
}

fn review(asked: &Asked, dice: &mut Dice) -> String {
    let mut missing: Vec<&Aspect> = ASPECTS.iter().filter(|aspect| !has(&asked.proposal, aspect)).collect();
    dice.shuffle(&mut missing);
    let low = asked.proposal.to_lowercase();
    let mut points: Vec<String> = asked
        .mention
        .iter()
        .filter(|word| !low.contains(&word.to_lowercase()))
        .map(|word| format!("Requirement: it does not mention {word}."))
        .collect();
    points.extend(missing.iter().take(2).map(|aspect| format!("{}: {}", aspect.heading, aspect.asked)));
    if points.is_empty() {
        let step = 1 + dice.below(asked.goals.len().max(1) as u64);
        points.push(format!("Step {step}: it is coarse; say who does it, and what it leaves behind."));
    }
    let mut text = format!(
        "A review of the proposal for {} ({}), by {MODEL}, a {HONEST}.\n\nGood: {}\n\nTo be improved:\n",
        asked.title,
        asked.task_id,
        dice.pick(&HOLDS)
    );
    for point in points {
        text.push_str(&format!("- {point}\n"));
    }
    text
}

const CHANGED: &str = "## Changed after the review";

fn revise(asked: &Asked) -> String {
    // What a bad day of its author left of it.
    let earlier = asked.proposal.rsplit("</think>").next().unwrap_or_default().trim();
    let mut text = earlier.to_owned();
    if earlier.lines().filter(|line| line.trim_start().starts_with("```")).count() % 2 == 1 {
        text.push_str("\n```");
    }
    text.push('\n');
    if text.trim().is_empty() {
        text = format!("# {} ({})\n\nA proposal by {MODEL}, a {HONEST}.\n", asked.title, asked.task_id);
    }
    let mut taken = Vec::new();
    let points = asked.review.lines().filter_map(|line| line.trim_start().strip_prefix("- "));
    for point in points.map(str::trim).filter(|point| !point.is_empty()).take(MOST_POINTS) {
        let named = point.split_once(':').map_or(point, |(name, _)| name).trim();
        let aspect = ASPECTS.iter().find(|aspect| aspect.heading.eq_ignore_ascii_case(named));
        match aspect.filter(|aspect| !has(&text, aspect)) {
            Some(aspect) => {
                section(&mut text, aspect);
                taken.push(format!("{}: there is a section now.", aspect.heading));
            }
            None => taken.push(format!("{}: taken up.", plain(point))),
        }
    }
    for word in &asked.mention {
        if !text.to_lowercase().contains(&word.to_lowercase()) {
            taken.push(format!("It goes into {word}."));
        }
    }
    if taken.is_empty() {
        taken.push("Nothing: the review names nothing that could be mended.".to_owned());
    }
    text.push_str(&format!("\n{CHANGED}, by {MODEL}, a {HONEST}\n"));
    for line in taken {
        text.push_str(&format!("- {line}\n"));
    }
    text
}

/// A few words that say nothing to whoever checks a text: no code, no place for something to be filled in.
fn plain(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let bare: String = word.chars().filter(|c| !"`<>*_#|~…{}[]".contains(*c)).collect();
        let letters = bare.trim_matches(|c: char| !c.is_alphanumeric());
        match letters {
            "TODO" | "FIXME" | "XXX" | "TBD" => "open".to_owned(),
            _ => bare.replace("...", ""),
        }
    });
    let text = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    sentence(text.trim_start_matches(|c: char| !c.is_alphanumeric())).trim_end_matches([':', ',']).to_owned()
}

fn first(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes.min(text.len()))]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const TASK: &str = "TASK: T-7\nROLE: DEV\n--- task ---\nKeep the cart for a day. The cart outlives a restart. Nobody sees \
        another's cart\n--- end ---\nREQUIREMENTS:\n- must mention: Session Store\n- must not mention: Redis\n- It is quick\n";

    fn prompt(wanted: &str, rest: &str) -> String {
        format!("Wanted: a {wanted}\n{TASK}{rest}")
    }

    fn said(prompt: &str, seed: u32) -> String {
        say(Wanted::of(prompt).unwrap(), prompt, &mut Dice::new(&[&seed.to_be_bytes(), prompt.as_bytes()]))
    }

    #[test]
    fn a_proposal_goes_into_the_task_and_what_is_required() {
        for seed in 0..100 {
            let text = said(&prompt("proposal", ""), seed);
            for part in [
                "# Keep the cart for a day (T-7)\n",
                "The cart outlives a restart",
                "Session Store",
                "It is quick",
                HONEST,
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(!text.to_lowercase().contains("redis"), "{text}");
            assert!((2..=3).contains(&ASPECTS.iter().filter(|aspect| has(&text, aspect)).count()), "{text}");
        }
    }

    #[test]
    fn agents_differ_and_each_says_the_same_again() {
        let text = |seed| said(&prompt("proposal", ""), seed);
        let all: BTreeSet<String> = (0..16).map(text).collect();
        assert!(all.len() >= 15, "{} of 16 differ", all.len());
        assert!((0..16).all(|seed| text(seed) == text(seed)));
    }

    #[test]
    fn a_review_names_what_is_missing_and_a_revision_takes_it_up() {
        for seed in 0..100 {
            let proposal = said(&prompt("proposal", ""), seed);
            let proposed = format!("--- proposal ---\n{proposal}--- end ---\n");
            let review = said(&prompt("review", &proposed), seed);
            let named: Vec<&Aspect> =
                ASPECTS.iter().filter(|a| review.contains(&format!("\n- {}: ", a.heading))).collect();
            assert_eq!(named.len(), 2, "{review}");
            assert!(
                named.iter().all(|aspect| !has(&proposal, aspect)) && review.contains(HONEST),
                "{review}"
            );
            let reviewed = format!("{proposed}--- review ---\n{review}--- end ---\n");
            let revision = said(&prompt("revision", &reviewed), seed);
            assert!(revision.starts_with(proposal.trim_end()), "{revision}");
            assert!(named.iter().all(|aspect| has(&revision, aspect)), "{revision}");
            assert!(revision.contains(CHANGED) && !revision.to_lowercase().contains("redis"), "{revision}");
        }
    }

    #[test]
    fn round_after_round_there_is_something_to_improve() {
        let mut proposal = said(&prompt("proposal", ""), 1);
        for _ in 0..6 {
            let proposed = format!("--- proposal ---\n{proposal}--- end ---\n");
            let review = said(&prompt("review", &proposed), 1);
            assert!(review.contains("To be improved:\n- "), "{review}");
            let reviewed = format!("{proposed}--- review ---\n{review}--- end ---\n");
            let revision = said(&prompt("revision", &reviewed), 1);
            assert_ne!(revision, proposal);
            proposal = revision;
        }
        assert!(ASPECTS.iter().all(|aspect| has(&proposal, aspect)));
    }

    #[test]
    fn what_a_task_says_does_not_look_like_something_left_open() {
        let task = "Wanted: a proposal\nTASK: T\n--- task ---\nTODO: remove `<your code here>` and ...\n``` \nFIXME it is here now\n\
            --- end ---\n";
        let text = said(task, 3);
        for part in ["TODO", "FIXME", "<", "```", "..."] {
            assert!(!text.contains(part), "{part}: {text}");
        }
        let revision = said(
            "Wanted: a revision\n--- proposal ---\n<think>\nno\n</think>\n```sh\nmake\n--- end ---\n--- review ---\n- TODO: say why\n--- end ---\n",
            3,
        );
        assert!(revision.starts_with("```sh\nmake\n```\n") && !revision.contains("TODO"), "{revision}");
    }

    #[test]
    fn no_more_words_than_are_wanted() {
        for most in [1, 20, 60] {
            let text = said(&prompt("proposal", &format!("- At most {most} words\n")), 1);
            assert!((1..=most).contains(&text.split_whitespace().count()), "{most}: {text}");
        }
    }

    #[test]
    fn whatever_the_prompt_says_there_is_an_answer() {
        for rest in [
            "",
            "\n--- end ---\n",
            "\n--- task ---\n",
            "\n- must mention:\n- at most words\n- ﬁ\n",
            "\n--- proposal ---\n…",
        ] {
            for wanted in ["proposal", "review", "revision"] {
                let text = said(&format!("Wanted: a {wanted}{rest}"), 1);
                assert!(text.contains(HONEST), "{wanted} {rest:?}: {text}");
            }
        }
        assert_eq!(Wanted::of("wanted: a proposal"), None);
        assert_eq!(Wanted::of(""), None);
    }
}
