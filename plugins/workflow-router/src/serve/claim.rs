//! `ClaimTask`: one agent takes a task, so that no other does. Where the machine has a claim for the role, the task moves by it.

use cofferdam_sdk::{
    fleet::{Cause, Timestamp},
    info,
    service::{Call, Status},
};
use fleet_proto::workflow::v1::{ClaimTaskRequest, ClaimTaskResponse};

use crate::{
    action::{self, Outcome},
    machine::Machine,
    settings,
    task::{Act, Task},
};

pub(super) fn claim(call: &Call, request: &ClaimTaskRequest) -> Result<ClaimTaskResponse, Status> {
    let agent = request.agent_id.trim();
    let mut task = super::task(&request.task_id)?;
    super::given("agent_id", agent)?;
    let machine = settings::machine()?;
    let role = super::role(&machine, &request.role)?;
    match take(&mut task, &machine, role, agent, Timestamp::from_nanos(call.timestamp))? {
        Claim::Taken => {
            info!("claimed"; task_id = task.task_id, agent_id = agent, role = role);
            let answer = answer(&task, true, format!("claimed for {agent}"));
            task.save(&machine, &Cause::of_call(call))?;
            Ok(answer)
        }
        Claim::Held => Ok(answer(&task, true, format!("{agent} has it already"))),
        Claim::Refused(why) => Ok(answer(&task, false, why)),
    }
}

enum Claim {
    Taken,
    /// By the same agent.
    Held,
    Refused(String),
}

fn take(task: &mut Task, machine: &Machine, role: &str, agent: &str, at: Timestamp) -> Result<Claim, Status> {
    let in_charge = machine.in_charge(&task.state) == Some(role);
    match &task.claimed_by {
        Some(holder) if in_charge && holder == agent => return Ok(Claim::Held),
        Some(holder) if in_charge => return Ok(Claim::Refused(format!("{holder} has it"))),
        _ => {}
    }
    let Some(row) = machine.claim(&task.state, role) else {
        if in_charge {
            task.claim(Some(agent));
            return Ok(Claim::Taken);
        }
        return Ok(Claim::Refused(format!("{role} has nothing to do in state {:?}", task.state)));
    };
    let act = Act { action: &row.action, role, agent: Some(agent), at: Some(at), ..Act::default() };
    Ok(match action::take(task, machine, &act)? {
        Outcome::Accepted => Claim::Taken,
        Outcome::Rejected(why) | Outcome::NotNow(why) => Claim::Refused(why),
        Outcome::Violation => Claim::Refused(format!("{role} may not do {}", row.action)),
    })
}

fn answer(task: &Task, claimed: bool, message: String) -> ClaimTaskResponse {
    let claimed_at = task.claimed_at.filter(|_| claimed).map_or(0, Timestamp::unix_seconds);
    ClaimTaskResponse { claimed, message, current_state: task.state.clone(), claimed_at }
}
