//! The check `policy`: what a proposal may not hold or has to, by rules that the operator can change, and by those of the
//! task's requirements that a machine can check.

mod requirements;
mod rules;

use fleet_proto::orchestrator::v1::{PolicyResult, TaskConstraints};
pub(crate) use rules::Rules;

use crate::findings::Findings;

pub(crate) fn check(
    content: &str,
    role: &str,
    constraints: Option<&TaskConstraints>,
    rules: &Rules,
) -> PolicyResult {
    let mut violations = Findings::default();
    rules.apply(content, role, &mut violations);
    let told = constraints.map(|constraints| constraints.requirements.as_slice()).unwrap_or_default();
    let unread = requirements::apply(content, told, &mut violations);
    let mut message = match violations.count() {
        0 => "nothing is against the policy".to_owned(),
        1 => "one violation".to_owned(),
        count => format!("{count} violations"),
    };
    if unread > 0 {
        message.push_str(&format!("; {unread} further requirements were not looked at"));
    }
    PolicyResult { passed: violations.is_empty(), violations: violations.finish(), message }
}
