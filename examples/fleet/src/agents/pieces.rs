//! The pieces of work there are: by whom each is, and what is told once it is done.

use crate::store::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Implement,
    /// The agent gives up.
    Fail,
    /// The system does not wait for the agent any longer.
    StartOver,
    Revise,
    ApproveDesign,
    RejectDesign,
    ApproveTests,
    RejectTests,
    ApproveStory,
}

impl Piece {
    const ALL: [Piece; 9] = [
        Piece::Implement,
        Piece::Fail,
        Piece::StartOver,
        Piece::Revise,
        Piece::ApproveDesign,
        Piece::RejectDesign,
        Piece::ApproveTests,
        Piece::RejectTests,
        Piece::ApproveStory,
    ];

    /// As it is stored.
    pub(super) fn name(self) -> &'static str {
        match self {
            Piece::Implement => "implement",
            Piece::Fail => "fail",
            Piece::StartOver => "start over",
            Piece::Revise => "revise",
            Piece::ApproveDesign => "approve design",
            Piece::RejectDesign => "reject design",
            Piece::ApproveTests => "approve tests",
            Piece::RejectTests => "reject tests",
            Piece::ApproveStory => Piece::WAITING,
        }
    }

    /// What waits for the sprint.
    pub(super) const WAITING: &'static str = "approve story";

    pub(super) fn named(name: &str) -> Result<Piece, Error> {
        let piece = Piece::ALL.into_iter().find(|piece| piece.name() == name);
        piece.ok_or_else(|| Error::Damaged(format!("no piece of work is called {name:?}")))
    }

    /// What it does to the task, and in which role. Nothing, if it is given up.
    pub(super) fn action(self) -> Option<(&'static str, &'static str)> {
        match self {
            Piece::Implement | Piece::Revise => Some(("commit_code", "developer")),
            Piece::Fail => None,
            Piece::StartOver => Some(("retry", "system")),
            Piece::ApproveDesign => Some(("approve_design", "architect")),
            Piece::RejectDesign => Some(("reject_design", "architect")),
            Piece::ApproveTests => Some(("approve_tests", "qa")),
            Piece::RejectTests => Some(("reject_tests", "qa")),
            Piece::ApproveStory => Some(("approve_story", "po")),
        }
    }

    /// What is said with it. A rejection says what is wrong.
    pub(super) fn feedback(self) -> Option<&'static str> {
        match self {
            Piece::RejectDesign => Some("The same state is kept in two places; keep it in one."),
            Piece::RejectTests => Some("No test shows what happens when it is called twice; add one."),
            Piece::StartOver => Some("The agent did not get anywhere; started over."),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_found_by_its_name_again() {
        for piece in Piece::ALL {
            assert_eq!(Piece::named(piece.name()).unwrap(), piece);
        }
        assert!(Piece::named("sleep").is_err());
    }

    #[test]
    fn rejections_say_enough_for_the_workflow_to_take_them() {
        for piece in [Piece::RejectDesign, Piece::RejectTests] {
            assert!(piece.feedback().unwrap().len() >= 10);
        }
    }
}
