//! Tasks as a graph of who waits for whom: reachability, cycles, order. Knows tasks by number only.

/// One task waits for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The task that waits.
    pub dependent: usize,
    pub prerequisite: usize,
    pub reason: String,
}

/// Edges between tasks `0..len`, each pair at most once.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    edges: Vec<Edge>,
}

impl Graph {
    pub(crate) fn add(&mut self, dependent: usize, prerequisite: usize, reason: String) {
        if !self.has(dependent, prerequisite) {
            self.edges.push(Edge { dependent, prerequisite, reason });
        }
    }

    pub(crate) fn has(&self, dependent: usize, prerequisite: usize) -> bool {
        self.edges.iter().any(|edge| edge.dependent == dependent && edge.prerequisite == prerequisite)
    }

    pub(crate) fn into_edges(self) -> Vec<Edge> {
        self.edges
    }

    fn prerequisites(&self, task: usize) -> impl Iterator<Item = usize> {
        self.edges.iter().filter(move |edge| edge.dependent == task).map(|edge| edge.prerequisite)
    }

    /// Whether `task` waits for `other`, directly or through others.
    pub(crate) fn waits_for(&self, task: usize, other: usize) -> bool {
        let mut reached = vec![task];
        let mut next = 0;
        while let Some(at) = reached.get(next).copied() {
            if at == other {
                return true;
            }
            for prerequisite in self.prerequisites(at) {
                if !reached.contains(&prerequisite) {
                    reached.push(prerequisite);
                }
            }
            next += 1;
        }
        false
    }

    /// The tasks with prerequisites first, in their own order wherever that is open; or else a cycle, each member
    /// waiting for the next and the last for the first.
    pub(crate) fn order(&self, len: usize) -> Result<Vec<usize>, Vec<usize>> {
        let mut order: Vec<usize> = Vec::with_capacity(len);
        while order.len() < len {
            let ready = (0..len).find(|task| {
                !order.contains(task)
                    && self.prerequisites(*task).all(|prerequisite| order.contains(&prerequisite))
            });
            match ready {
                Some(task) => order.push(task),
                None => return Err(self.cycle(len, &order)),
            }
        }
        Ok(order)
    }

    /// Every task that is left waits for another that is left, so walking on must come back.
    fn cycle(&self, len: usize, done: &[usize]) -> Vec<usize> {
        let mut path: Vec<usize> = Vec::new();
        let mut at = (0..len).find(|task| !done.contains(task));
        while let Some(task) = at {
            if let Some(begin) = path.iter().position(|seen| *seen == task) {
                return path.split_off(begin);
            }
            path.push(task);
            at = self.prerequisites(task).find(|prerequisite| !done.contains(prerequisite));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(usize, usize)]) -> Graph {
        let mut graph = Graph::default();
        for (dependent, prerequisite) in edges {
            graph.add(*dependent, *prerequisite, String::new());
        }
        graph
    }

    fn check(len: usize, edges: &[(usize, usize)], expect: Result<&[usize], &[usize]>) {
        let order = graph(edges).order(len);
        assert_eq!(order.as_deref().map_err(Vec::as_slice), expect, "{edges:?}");
    }

    #[test]
    fn without_edges_the_order_stays() {
        check(0, &[], Ok(&[]));
        check(3, &[], Ok(&[0, 1, 2]));
    }

    #[test]
    fn contract_4_batch_f_prerequisites_come_first_and_ties_keep_the_order() {
        check(3, &[(0, 2)], Ok(&[1, 2, 0]));
        check(4, &[(0, 3), (1, 0)], Ok(&[2, 3, 0, 1]));
        check(4, &[(1, 0), (2, 0), (3, 1), (3, 2)], Ok(&[0, 1, 2, 3]));
    }

    #[test]
    fn a_cycle_is_named() {
        check(2, &[(0, 1), (1, 0)], Err(&[0, 1]));
        check(4, &[(1, 2), (2, 3), (3, 1), (0, 1)], Err(&[1, 2, 3]));
    }

    #[test]
    fn waiting_reaches_through_others() {
        let graph = graph(&[(2, 1), (1, 0), (0, 1)]);
        assert!(graph.waits_for(2, 0));
        assert!(!graph.waits_for(0, 2));
        assert!(graph.waits_for(1, 1));
    }

    #[test]
    fn a_pair_has_one_edge() {
        assert_eq!(graph(&[(1, 0), (1, 0)]).into_edges().len(), 1);
    }
}
