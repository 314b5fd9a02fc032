//! What may go wrong, and how often. Each fault takes one from its budget, so a run has finitely many.

/// Budgets, each counted down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A host is killed, at any step.
    pub crashes: u8,
    /// A killed server forgets the ack of one event, and delivers it again.
    pub forgotten: u8,
    /// A request is done, its answer is lost; or an ack never comes to the server.
    pub lost: u8,
    /// A request that its host has given up, or died over, is still under way and arrives later.
    pub ghosts: u8,
    /// An event is delivered to a second host while the first still holds it.
    pub again: u8,
    /// Half a duplicate window passes.
    pub windows: u8,
    /// A lease passes.
    pub leases: u8,
}

impl Faults {
    pub const NONE: Faults =
        Faults { crashes: 0, forgotten: 0, lost: 0, ghosts: 0, again: 0, windows: 0, leases: 0 };
}

/// Takes one from a budget; `None` when it is used up.
pub(crate) fn spend(budget: &mut u8) -> Option<()> {
    *budget = budget.checked_sub(1)?;
    Some(())
}
