//! Requirements of a task that a machine can check. Those in other words are for the agents alone.

use crate::findings::{Findings, clip};

/// Each is looked for in the whole text.
const MOST: usize = 50;
const SHOWN: usize = 80;

enum Requirement {
    Mention(String),
    Avoid(String),
    Words(usize),
}

/// Returns how many requirements were too many to look at.
pub(crate) fn apply(content: &str, requirements: &[String], violations: &mut Findings) -> usize {
    let looked_at = &requirements[..requirements.len().min(MOST)];
    let known: Vec<Requirement> = looked_at.iter().filter_map(|text| read(text)).collect();
    if !known.is_empty() {
        let folded = content.to_lowercase();
        let words = content.split_whitespace().count();
        for requirement in &known {
            match requirement {
                Requirement::Mention(what) if !folded.contains(what) => {
                    violations.add(|| format!("it has to mention {:?}, and does not", clip(what, SHOWN)));
                }
                Requirement::Avoid(what) if folded.contains(what) => {
                    violations.add(|| format!("it must not mention {:?}, and does", clip(what, SHOWN)));
                }
                Requirement::Words(most) if words > *most => {
                    violations.add(|| format!("it may have {most} words at most, and has {words}"));
                }
                Requirement::Mention(_) | Requirement::Avoid(_) | Requirement::Words(_) => {}
            }
        }
    }
    requirements.len() - looked_at.len()
}

/// `must mention: X`, `must not mention: X` or `at most N words`, in any case, perhaps with a list marker before it.
fn read(text: &str) -> Option<Requirement> {
    let folded = text.trim().trim_start_matches(['-', '*']).trim().to_lowercase();
    let named = |rest: &str| {
        let what =
            rest.trim_start().strip_prefix(':')?.trim().trim_end_matches('.').trim_matches(['"', '\'', '`']);
        (!what.is_empty()).then(|| what.to_owned())
    };
    if let Some(rest) = folded.strip_prefix("must mention") {
        return named(rest).map(Requirement::Mention);
    }
    if let Some(rest) = folded.strip_prefix("must not mention") {
        return named(rest).map(Requirement::Avoid);
    }
    let (number, unit) = folded.strip_prefix("at most")?.trim_start().split_once(char::is_whitespace)?;
    let most = number.replace(',', "").parse().ok()?;
    matches!(unit.trim().trim_end_matches('.'), "word" | "words").then_some(Requirement::Words(most))
}
