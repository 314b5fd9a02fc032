//! Answers as models give them on a bad day: packed, talked around, labelled in their own way, or broken off.

use super::{
    HONEST, MODEL, Said,
    dice::Dice,
    plan::{Step, Style, blocks, json},
};

/// One thing that is not as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Json,
    LowerCase,
    Bold,
    Numbered,
    /// Lines between tasks.
    Ruled,
    Fenced,
    Introduced,
    Explained,
    /// Thoughts, with what looks like a task in them.
    Thinking,
    /// Thoughts of which only the end is marked.
    HalfThinking,
    /// Lines end as on Windows.
    Returns,
    Truncated,
}

pub(super) const KINDS: [Kind; 12] = [
    Kind::Json,
    Kind::LowerCase,
    Kind::Bold,
    Kind::Numbered,
    Kind::Ruled,
    Kind::Fenced,
    Kind::Introduced,
    Kind::Explained,
    Kind::Thinking,
    Kind::HalfThinking,
    Kind::Returns,
    Kind::Truncated,
];

/// Those that have nothing to do with plans.
pub(super) const OF_PROSE: &[Kind] = KINDS.split_at(5).1;

/// What is said around an answer.
struct Around {
    hello: [&'static str; 3],
    bye: [&'static str; 3],
    thought: &'static str,
}

const OF_A_PLAN: Around = Around {
    hello: ["Sure! Here is the plan", "Of course, I would go about it like this", "**Task breakdown**"],
    bye: ["Let me know if you want fewer tasks.", "I hope this helps!", "The order is a proposal."],
    thought: "I am to plan. A task could be:\nTITLE: A thought that is no task\nROLE: QA\nBut that is not all.",
};

const OF_A_COUNCIL: Around = Around {
    hello: ["Sure! Here is what I think", "Good question, I would say this", "**My answer**"],
    bye: ["Let me know what the others think.", "I hope this helps!", "I can go into more detail."],
    thought: "I am to answer as one of several. One could also leave it as it is:\n- nothing to be done\nBut that is no answer.",
};

/// One to four of `all`.
pub(super) fn kinds(all: &[Kind], dice: &mut Dice) -> Vec<Kind> {
    let many = 1 + dice.below(4);
    let mut kinds: Vec<Kind> = (0..many).map(|_| *dice.pick(all)).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

pub(super) fn answer(steps: &[Step], kinds: &[Kind], dice: &mut Dice) -> Said {
    let has = |kind: Kind| kinds.contains(&kind);
    let styles =
        [(Kind::LowerCase, Style::Lower), (Kind::Bold, Style::Bold), (Kind::Numbered, Style::Numbered)];
    let style = styles.into_iter().find(|(kind, _)| has(*kind)).map_or(Style::Plain, |(_, style)| style);
    let text =
        if has(Kind::Json) { format!("{:#}\n", json(steps)) } else { blocks(steps, style, has(Kind::Ruled)) };
    let languages: &[&str] = if has(Kind::Json) { &["json"] } else { &["", "text", "yaml"] };
    packed(text, kinds, &OF_A_PLAN, languages, dice)
}

/// The same of an answer that is no plan.
pub(super) fn prose(text: String, kinds: &[Kind], dice: &mut Dice) -> Said {
    packed(text, kinds, &OF_A_COUNCIL, &["", "markdown", "text"], dice)
}

fn packed(text: String, kinds: &[Kind], around: &Around, languages: &[&str], dice: &mut Dice) -> Said {
    let has = |kind: Kind| kinds.contains(&kind);
    let mut text = text;
    if has(Kind::Fenced) {
        let language = if let [only] = languages { only } else { *dice.pick(languages) };
        text = format!("```{language}\n{}\n```\n", text.trim_end());
    }
    if has(Kind::Introduced) {
        let hello = dice.pick(&around.hello);
        text = format!("{hello} ({MODEL}, {HONEST}).\n\n{text}");
    }
    if has(Kind::Explained) {
        let bye = dice.pick(&around.bye);
        text = format!("{text}\n{bye} (This is {MODEL}, a {HONEST}.)\n");
    }
    if has(Kind::Thinking) || has(Kind::HalfThinking) {
        let begin = if has(Kind::HalfThinking) { "" } else { "<think>\n" };
        text = format!("{begin}{thought} ({HONEST})\n</think>\n\n{text}", thought = around.thought);
    }
    if has(Kind::Returns) {
        text = text.replace('\n', "\r\n");
    }
    if has(Kind::Truncated) {
        let end = text.len() * (20 + dice.below(70) as usize) / 100;
        text.truncate(text.floor_char_boundary(end));
    }
    Said { text, cut: has(Kind::Truncated) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::backends::offline::plan::plan;

    fn said(kinds: &[Kind]) -> Said {
        let steps = plan("Title: Checkout\nAcceptance criteria:\n- It is quick\n", &mut Dice::loaded());
        answer(&steps, kinds, &mut Dice::new(&[b"x"]))
    }

    #[test]
    fn each_kind_is_reached_alone_and_with_others() {
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for seed in 0..2000_u32 {
            let kinds = kinds(&KINDS, &mut Dice::new(&[&seed.to_be_bytes()]));
            if kinds.len() == 1 { alone.extend(kinds) } else { together.extend(kinds) }
        }
        for kinds in [&mut alone, &mut together] {
            kinds.sort();
            kinds.dedup();
            assert_eq!(kinds.as_slice(), KINDS);
        }
    }

    #[test]
    fn a_council_is_answered_in_prose() {
        assert_eq!(OF_PROSE.first(), Some(&Kind::Fenced));
        let text = |kinds: &[Kind]| prose("A text.\n".to_owned(), kinds, &mut Dice::new(&[b"x"])).text;
        assert!(text(&[Kind::Fenced]).ends_with("\nA text.\n```\n"));
        assert!(text(&[Kind::Thinking]).ends_with("</think>\n\nA text.\n"));
        assert!(
            text(&[Kind::Introduced])
                .ends_with("(cofferdam-offline, rule-based stand-in, no model).\n\nA text.\n")
        );
    }

    #[test]
    fn each_kind_shows() {
        for (kind, shows) in [
            (Kind::Json, "    \"title\": \"It is quick\""),
            (Kind::LowerCase, "title: It is quick"),
            (Kind::Bold, "**TITLE:** It is quick"),
            (Kind::Numbered, "2. TASK_ID: TASK-002\n   TITLE: It is quick"),
            (Kind::Ruled, "DEPENDS_ON: none\n\n---\n\nTASK_ID: TASK-002"),
            (Kind::Fenced, "\n```\n"),
            (Kind::Introduced, "(cofferdam-offline, rule-based stand-in, no model).\n\nTASK_ID"),
            (Kind::Explained, "(This is cofferdam-offline, a rule-based stand-in, no model.)"),
            (Kind::Thinking, "<think>\nI am"),
            (Kind::HalfThinking, "\n</think>\n\nTASK_ID"),
            (Kind::Returns, "\r\nTITLE: It is quick"),
        ] {
            let said = said(&[kind]);
            assert!(said.text.contains(shows) && !said.cut, "{kind:?}: {}", said.text);
        }
        let (cut, whole) = (said(&[Kind::Truncated]), said(&[]));
        assert!(cut.cut && whole.text.starts_with(&cut.text) && cut.text.len() < whole.text.len());
    }
}
