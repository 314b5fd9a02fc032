//! Councils are created, listed and taken back.

use std::collections::BTreeMap;

use cofferdam_sdk::{
    fleet::Timestamp,
    info,
    service::{Call, Status},
};
use fleet_proto::orchestrator::v1::{
    AgentInfo, CouncilConfig, CouncilInfo, CreateCouncilRequest, CreateCouncilResponse, DeleteCouncilRequest,
    DeleteCouncilResponse, ListCouncilsRequest, ListCouncilsResponse,
};

use super::{given, number};
use crate::{
    councils::{self, Council, Created, Kind},
    settings::Settings,
};

/// As many as a request that says 0 asks for.
const AGENTS: u32 = 3;
const MOST_OF_A_MODEL: usize = 512;
const MOST_TOKENS: u32 = 1 << 20;
const HOTTEST: f32 = 2.0;

pub(super) fn create(call: &Call, request: CreateCouncilRequest) -> Result<CreateCouncilResponse, Status> {
    let role = councils::canonical(given("role", &request.role)?);
    if let Some(fault) = councils::fault_of_name(&role) {
        return Err(Status::invalid_argument(fault));
    }
    let settings = Settings::read()?;
    let mut created = match &request.config {
        Some(config) => configured(config)?,
        None => Created::default(),
    };
    created.agents = match number("num_agents", request.num_agents)? {
        0 => AGENTS,
        agents => agents,
    };
    created.at = Timestamp::from_nanos(call.timestamp);
    if let Some(fault) = councils::fault_of_size(created.agents, created.rounds.unwrap_or(settings.rounds)) {
        return Err(Status::invalid_argument(fault));
    }
    if councils::load(&role)?.is_some() {
        return Err(Status::already_exists(format!(
            "there is a council for {role} that was created already; DeleteCouncil takes it back"
        )));
    }
    councils::save(&role, &created)?;
    info!("a council was created"; role = role, agents = created.agents);
    let agent_ids = match councils::find(&role, &settings)? {
        Some(council) => council.agent_ids(),
        None => Vec::new(),
    };
    Ok(CreateCouncilResponse {
        council_id: format!("council-{}", crate::agents::slug(&role)),
        agents_created: i32::try_from(agent_ids.len()).unwrap_or(i32::MAX),
        agent_ids,
    })
}

/// What a request says of its council besides its size.
fn configured(config: &CouncilConfig) -> Result<Created, Status> {
    let kind = match config.agent_type.trim().to_ascii_uppercase().as_str() {
        "MOCK" => Kind::Mock,
        "" | "VLLM" | "RAY_VLLM" => Kind::Model,
        other => {
            return Err(Status::invalid_argument(format!(
                "config.agent_type is {other:?}; it is one of MOCK, VLLM and RAY_VLLM"
            )));
        }
    };
    // Where the message says nothing, it can't be told from a no: then the number is that of all councils.
    let rounds = match number("config.deliberation_rounds", config.deliberation_rounds)? {
        0 if config.enable_peer_review => Some(1),
        0 => None,
        rounds => Some(rounds),
    };
    let model = config.model_profile.trim();
    if model.len() > MOST_OF_A_MODEL {
        return Err(Status::invalid_argument(format!(
            "config.model_profile has {} bytes, at most {MOST_OF_A_MODEL}",
            model.len()
        )));
    }
    let temperature = param(&config.custom_params, "temperature", |t: f32| (0.0..=HOTTEST).contains(&t))?;
    let max_tokens = param(&config.custom_params, "max_tokens", |n: u32| (1..=MOST_TOKENS).contains(&n))?;
    Ok(Created {
        rounds,
        model: Some(model.to_owned()).filter(|model| !model.is_empty()),
        temperature,
        max_tokens,
        kind,
        ..Created::default()
    })
}

/// A number among the custom parameters; those that mean nothing here are left alone.
fn param<T: std::str::FromStr + Copy>(
    params: &BTreeMap<String, String>,
    name: &str,
    fits: impl Fn(T) -> bool,
) -> Result<Option<T>, Status> {
    let Some(text) = params.get(name) else { return Ok(None) };
    match text.trim().parse().ok().filter(|value| fits(*value)) {
        Some(value) => Ok(Some(value)),
        None => Err(Status::invalid_argument(format!(
            "config.custom_params {name} is {text:?}, which can't be used"
        ))),
    }
}

pub(super) fn list(request: &ListCouncilsRequest) -> Result<ListCouncilsResponse, Status> {
    let settings = Settings::read()?;
    let filter = Some(request.role_filter.trim()).filter(|role| !role.is_empty()).map(councils::canonical);
    let all = councils::all(&settings)?.into_iter();
    let shown = all.filter(|council| filter.as_ref().is_none_or(|role| council.role == *role));
    Ok(ListCouncilsResponse {
        councils: shown.map(|council| info(&council, request.include_agents)).collect(),
    })
}

fn info(council: &Council, agents: bool) -> CouncilInfo {
    let agent = |agent_id| AgentInfo { agent_id, role: council.role.clone(), status: READY.into() };
    CouncilInfo {
        council_id: council.id(),
        role: council.role.clone(),
        num_agents: i32::try_from(council.agents).unwrap_or(i32::MAX),
        agents: if agents { council.agent_ids().into_iter().map(agent).collect() } else { Vec::new() },
        status: ACTIVE.into(),
        model: match council.kind {
            Kind::Mock => "mock".into(),
            Kind::Model => council.model.clone().unwrap_or_else(|| "default".into()),
        },
    }
}

/// Agents are asked as they are needed, so a council is always there.
const ACTIVE: &str = "active";
const READY: &str = "ready";

pub(super) fn delete(request: &DeleteCouncilRequest) -> Result<DeleteCouncilResponse, Status> {
    let role = councils::canonical(given("role", &request.role)?);
    let settings = Settings::read()?;
    let Some(council) = councils::find(&role, &settings)? else {
        return Err(Status::not_found(councils::none_for(&role, &settings)?));
    };
    if council.created_at.is_none() {
        return Ok(DeleteCouncilResponse {
            success: false,
            message: format!(
                "{} is in the plugin's configuration; take {role} out of councils there",
                council.id()
            ),
            agents_removed: 0,
        });
    }
    councils::delete(&role)?;
    let stays = councils::is_configured(&role, &settings);
    info!("a council was taken back"; role = role, agents = council.agents);
    Ok(DeleteCouncilResponse {
        success: true,
        message: if stays {
            format!("{} is as the configuration has it again", council.id())
        } else {
            format!("{} is gone", council.id())
        },
        agents_removed: i32::try_from(council.agents).unwrap_or(i32::MAX),
    })
}
