//! Dependencies that nobody declared: a task whose title speaks of another's keyword waits for it.

use fleet_tasks::titles::fold;

use crate::{analysis::Task, graph::Graph};

/// The graph that the keywords suggest; never a cycle.
pub(crate) fn infer(tasks: &[Task]) -> Graph {
    let titles: Vec<String> = tasks.iter().map(|task| fold(&task.title)).collect();
    let keywords: Vec<Vec<String>> =
        tasks.iter().map(|task| task.keywords.iter().map(|keyword| fold(keyword)).collect()).collect();
    let mut graph = Graph::default();
    let mut backward = Vec::new();
    for first in 0..tasks.len() {
        for second in first + 1..tasks.len() {
            let forward = keywords[first].iter().find(|keyword| has_word(&titles[second], keyword));
            if let Some(keyword) = forward {
                graph.add(second, first, reason(keyword));
                continue;
            }
            // A keyword that both share says nothing of which comes first.
            let own = |keyword: &&String| !keywords[first].contains(keyword);
            if let Some(keyword) =
                keywords[second].iter().filter(|keyword| has_word(&titles[first], keyword)).find(own)
            {
                backward.push((first, second, reason(keyword)));
            }
        }
    }
    for (dependent, prerequisite, reason) in backward {
        if !graph.waits_for(prerequisite, dependent) {
            graph.add(dependent, prerequisite, reason);
        }
    }
    graph
}

fn reason(keyword: &str) -> String {
    format!("its title speaks of {keyword:?}, a keyword of the other")
}

/// Whether `word` stands in `text` with no ASCII letter or digit beside it. Both are folded.
fn has_word(text: &str, word: &str) -> bool {
    if word.is_empty() {
        return false;
    }
    let bytes = text.as_bytes();
    let is_free =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_none_or(|b| !b.is_ascii_alphanumeric());
    let mut from = 0;
    while let Some(at) = text[from..].find(word).map(|at| from + at) {
        if is_free(at.checked_sub(1)) && is_free(Some(at + word.len())) {
            return true;
        }
        from = at + text[at..].chars().next().map_or(1, char::len_utf8);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tasks as (title, keywords); edges as (dependent, prerequisite).
    fn check(tasks: &[(&str, &str)], expect: &[(usize, usize)]) {
        let tasks: Vec<Task> = tasks
            .iter()
            .map(|(title, keywords)| Task {
                title: (*title).into(),
                keywords: keywords.split(',').map(|keyword| keyword.trim().to_owned()).collect(),
                ..Task::default()
            })
            .collect();
        let graph = infer(&tasks);
        assert!(graph.order(tasks.len()).is_ok());
        let edges: Vec<(usize, usize)> =
            graph.into_edges().iter().map(|edge| (edge.dependent, edge.prerequisite)).collect();
        assert_eq!(edges, expect);
    }

    #[test]
    fn contract_4_batch_e_words_are_whole_words() {
        let check = |text: &str, word: &str, expect: bool| {
            assert_eq!(has_word(text, word), expect, "{word} in {text}")
        };
        check("add the api", "api", true);
        check("rapid tests", "api", false);
        check("rapid api", "api", true);
        check("api2 and api_", "api", true);
        check("api2", "api", false);
        check("(api)", "api", true);
        check("éapié", "api", true);
        check("the c++ build", "c++", true);
        check("c++11", "c++", false);
        check("user login endpoint", "login endpoint", true);
        check("aaa aa", "aa", true);
        check("ééé", "é", true);
        check("anything", "", false);
    }

    #[test]
    fn contract_4_batch_e_a_later_title_that_speaks_of_an_earlier_keyword_waits() {
        check(
            &[("Design schema", "schema"), ("Build API", "api"), ("Test the API on the Schema", "tests")],
            &[(2, 0), (2, 1)],
        );
    }

    #[test]
    fn contract_4_batch_e_a_shared_keyword_makes_no_cycle() {
        check(&[("Add login form", "login"), ("Add login service", "login")], &[(1, 0)]);
        check(&[("Add form", "login"), ("Add service", "login")], &[]);
        check(&[("Add login form", "form, login"), ("Add service", "login")], &[]);
    }

    #[test]
    fn contract_4_batch_e_an_earlier_title_waits_for_a_later_keyword_if_nothing_says_otherwise() {
        check(&[("Deploy the service", "deploy"), ("Write it", "service")], &[(0, 1)]);
        // The forward edge of the pair goes first.
        check(&[("Deploy the service", "it"), ("Write it", "service")], &[(1, 0)]);
    }

    #[test]
    fn contract_4_batch_e_a_backward_edge_that_would_close_a_cycle_is_left_out() {
        // 1 waits for 0 and 2 for 1; that 0 speaks of 2's keyword must not close the ring.
        check(&[("Use c", "a"), ("Use a", "b"), ("Use b", "c")], &[(1, 0), (2, 1)]);
        // Forward edges all come first, so an early backward one can't push them out.
        check(&[("Use b", "x"), ("Use y", "b"), ("Use x", "y")], &[(2, 0), (0, 1)]);
    }

    #[test]
    fn a_dependency_says_which_keyword_it_comes_of() {
        assert!(reason("login form").contains("\"login form\""));
    }

    #[test]
    fn case_does_not_matter() {
        check(&[("Straße", "STRASSE"), ("Die straße bauen", "")], &[(1, 0)]);
    }
}
