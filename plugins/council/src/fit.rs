//! What a deliberation may keep: proposals are made to fit, the oldest earlier texts going first. Nothing here knows of state.

use fleet_proto::orchestrator::v1::{CheckSuite, DeliberationResult, Proposal};
use prost::Message;

use crate::text;

/// Of the texts of a record. With its answer and its events it commits as one message, of 960 KiB at most.
pub(crate) const RECORD: usize = 128 << 10;
/// Of a record with all that its checks say.
pub(crate) const RESULTS: usize = 224 << 10;

/// What had to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fitted {
    /// Earlier texts that were dropped.
    pub(crate) dropped: usize,
    /// Proposals that were cut.
    pub(crate) cut: usize,
}

/// Drops earlier texts, the oldest first, then cuts the longest proposals, until all texts together have at most `most` bytes.
pub(crate) fn proposals<'a>(proposals: impl IntoIterator<Item = &'a mut Proposal>, most: usize) -> Fitted {
    let mut proposals: Vec<&mut Proposal> = proposals.into_iter().collect();
    let mut fitted = Fitted::default();
    let contents: Vec<usize> = proposals.iter().map(|proposal| text::size(&proposal.content)).collect();
    let earlier = |proposal: &Proposal| proposal.revisions.iter().map(|text| text::size(text)).sum::<usize>();
    let mut all = contents.iter().sum::<usize>() + proposals.iter().map(|p| earlier(p)).sum::<usize>();
    while all > most {
        // Whoever was revised most often has the oldest.
        let oldest = proposals.iter_mut().rev().max_by_key(|proposal| proposal.revisions.len());
        let Some(proposal) = oldest.filter(|proposal| !proposal.revisions.is_empty()) else { break };
        all -= text::size(&proposal.revisions.remove(0));
        fitted.dropped += 1;
    }
    if all > most {
        let level = level(&contents, most);
        fitted.cut =
            proposals.iter_mut().filter_map(|p| text::cut(&mut p.content, level).then_some(())).count();
    }
    fitted
}

/// The greatest size to which all may be cut so that together they have at most `most`; what is smaller stays as it is.
pub(crate) fn level(sizes: &[usize], most: usize) -> usize {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    let mut left = most;
    for (at, size) in sizes.iter().enumerate() {
        let share = left / (sizes.len() - at);
        if *size > share {
            return share;
        }
        left -= size;
    }
    usize::MAX
}

/// Takes the words of the checks, then the last of the results, until all have at most `most` bytes. The words only explain: what was passed
/// stays.
pub(crate) fn results(results: &mut Vec<DeliberationResult>, most: usize) {
    let size = |results: &[DeliberationResult]| results.iter().map(|r| r.encoded_len() + 8).sum::<usize>();
    if size(results) <= most {
        return;
    }
    for checks in results.iter_mut().filter_map(|result| result.checks.as_mut()) {
        without_words(checks);
    }
    while size(results) > most {
        results.pop();
    }
}

fn without_words(checks: &mut CheckSuite) {
    if let Some(policy) = &mut checks.policy {
        policy.violations.clear();
        policy.message.clear();
    }
    if let Some(lint) = &mut checks.lint {
        lint.errors.clear();
    }
    if let Some(dryrun) = &mut checks.dryrun {
        dryrun.output.clear();
        dryrun.message.clear();
    }
    checks.additional_checks.clear();
}

#[cfg(test)]
mod tests {
    use fleet_proto::orchestrator::v1::LintResult;

    use super::*;

    fn proposal(content: usize, revisions: &[usize]) -> Proposal {
        Proposal {
            content: "c".repeat(content),
            revisions: revisions.iter().map(|len| "r".repeat(*len)).collect(),
            ..Proposal::default()
        }
    }

    fn sizes(proposals: &[Proposal]) -> Vec<(usize, usize)> {
        proposals.iter().map(|p| (p.content.len(), p.revisions.iter().map(String::len).sum())).collect()
    }

    #[test]
    fn what_fits_stays() {
        let mut all = [proposal(40, &[30]), proposal(30, &[])];
        assert_eq!(proposals(&mut all, 100), Fitted::default());
        assert_eq!(sizes(&all), [(40, 30), (30, 0)]);
    }

    #[test]
    fn the_oldest_texts_go_first() {
        let mut all = [proposal(40, &[30, 20]), proposal(30, &[10, 5])];
        assert_eq!(proposals(&mut all, 100), Fitted { dropped: 2, cut: 0 });
        assert_eq!(sizes(&all), [(40, 20), (30, 5)]);
    }

    #[test]
    fn then_the_longest_are_cut() {
        let mut all = [proposal(1000, &[30]), proposal(30, &[]), proposal(500, &[])];
        assert_eq!(proposals(&mut all, 100), Fitted { dropped: 1, cut: 2 });
        // The line end of the mark takes two bytes in JSON.
        assert_eq!(sizes(&all), [(34, 0), (30, 0), (34, 0)]);
        assert_eq!(proposals(&mut [proposal(10, &[])], 0), Fitted { dropped: 0, cut: 1 });
    }

    #[test]
    fn words_of_checks_go_before_results() {
        let result = |words: usize| DeliberationResult {
            proposal: Some(proposal(10, &[])),
            checks: Some(CheckSuite {
                lint: Some(LintResult {
                    errors: vec!["e".repeat(words)],
                    error_count: 7,
                    ..LintResult::default()
                }),
                ..CheckSuite::default()
            }),
            ..DeliberationResult::default()
        };
        let mut all = vec![result(10), result(10)];
        results(&mut all, 200);
        assert_eq!(all, [result(10), result(10)]);
        let mut all = vec![result(100), result(100)];
        results(&mut all, 200);
        let kept = all[1].checks.as_ref().unwrap().lint.as_ref().unwrap();
        assert_eq!((all.len(), kept.error_count, kept.errors.len()), (2, 7, 0));
        let mut all = vec![result(0); 20];
        results(&mut all, 200);
        assert!((1..20).contains(&all.len()));
    }

    #[test]
    fn a_level_leaves_what_is_below_it() {
        assert_eq!(level(&[], 10), usize::MAX);
        assert_eq!(level(&[3, 7], 10), usize::MAX);
        assert_eq!(level(&[3, 8], 10), 7);
        assert_eq!(level(&[9, 9, 1], 10), 4);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn whatever_was_said_fits_and_nothing_goes_without_need(
            texts in proptest::collection::vec(proptest::collection::vec("[a\"\n\u{1}é€𝄞]{0,60}", 1..6), 1..6),
            most in 60_usize..600,
        ) {
            let mut all: Vec<Proposal> = texts
                .iter()
                .map(|texts| Proposal {
                    content: texts[0].clone(),
                    revisions: texts[1..].to_vec(),
                    ..Proposal::default()
                })
                .collect();
            let whole = all.clone();
            let of = |all: &[Proposal]| -> usize {
                all.iter().flat_map(|p| p.revisions.iter().chain([&p.content])).map(|text| text::size(text)).sum()
            };
            let fitted = proposals(&mut all, most);
            assert!(of(&all) <= most, "{} of {most}", of(&all));
            assert_eq!(fitted == Fitted::default(), of(&whole) <= most);
            for (kept, said) in all.iter().zip(&whole) {
                // What is left are the newest.
                assert!(said.revisions.ends_with(&kept.revisions));
                assert!(fitted.cut > 0 || kept.content == said.content);
            }
        }
    }
}
