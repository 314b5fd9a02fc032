//! `GetStatus`: whether councils can be asked, and what they did.

use cofferdam_sdk::{
    fleet::Timestamp,
    service::{Call, Status},
};
use fleet_proto::orchestrator::v1::{GetStatusRequest, GetStatusResponse, OrchestratorStats};

use crate::{councils, settings::Settings, totals::Totals};

/// The plugin has no life of its own between two events: it is up since the first thing that it ever kept.
pub(super) fn get(call: &Call, request: &GetStatusRequest) -> Result<GetStatusResponse, Status> {
    let all = councils::all(&Settings::read()?)?;
    let totals = Totals::read()?;
    let since = all.iter().filter_map(|council| council.created_at).chain(totals.since).min();
    let now = Timestamp::from_nanos(call.timestamp);
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let stats = OrchestratorStats {
        total_deliberations: number(totals.deliberations),
        total_orchestrations: number(totals.orchestrations),
        avg_deliberation_time_ms: totals.average_ms(),
        active_councils: i64::try_from(all.len()).unwrap_or(i64::MAX),
        role_counts: all.iter().map(|council| (council.role.clone(), council.agents.into())).collect(),
    };
    Ok(GetStatusResponse {
        status: "healthy".into(),
        uptime_seconds: number(since.map_or(0, |since| now.millis_since(since)) / 1_000),
        stats: request.include_stats.then_some(stats),
    })
}
