//! From a trigger to `parsed`, or to the end: what a plan says is the same however often it is read, so nothing is tried twice.

use cofferdam_sdk::{
    Event, Failure, config,
    fleet::{
        DerivationParsed, DerivationRejected, DerivationTimeout, Incoming, Outgoing, Record,
        Rejection as Kind, Timestamp,
    },
    info,
    publish::EmitError,
    warn,
};
use fleet_derivation::{Opening, Request, STORING_SECONDS, Strategy, Trouble, is_guarded, over, plan};
use fleet_proto::task_derivation::v1::PlanContext;
use fleet_tasks::{Parsed, Rejection, Settings, settle};

use crate::structure::entries;

const STRATEGY: Strategy = Strategy::new(env!("CARGO_PKG_NAME"));
const SOURCE: &str = "structured";

/// One event of any of the plugin's subjects.
pub fn handle(event: Event) -> Result<(), Failure> {
    let message = Incoming::read(&event)?;
    if let Some(request) = Request::read(&message)? {
        return trigger(&message, &request);
    }
    match message.subject() {
        DerivationRejected::SUBJECT => rejected(&message, &DerivationRejected::read(&message)?),
        DerivationTimeout::SUBJECT => {
            match over(STRATEGY, &message, &DerivationTimeout::read(&message)?, STORING_SECONDS)? {
                Some((record, detail)) => STRATEGY.fail(&message, record, Kind::Timeout.as_str(), &detail),
                None => Ok(()),
            }
        }
        other => Err(Failure::reject(format!("plan-reader has no part in {other}; remove the subscription"))),
    }
}

fn trigger(message: &Incoming, request: &Request) -> Result<(), Failure> {
    match request.open(STRATEGY, message)? {
        Opening::Followed => Ok(()),
        // Prompt-builder opened it, and left it waiting for its turn.
        Opening::Open(record) if record.attempt == 0 => begin(message, *record),
        Opening::Open(mut record) => {
            if !is_guarded(&record, message) {
                STRATEGY.rearm(&mut record, message, STORING_SECONDS)?;
            }
            Ok(record.save()?)
        }
        Opening::New(record) => begin(message, *record),
    }
}

fn begin(message: &Incoming, mut record: Record) -> Result<(), Failure> {
    let settings = settings()?;
    match plan(&mut record) {
        Ok(plan) => derive(message, record, &plan, settings),
        Err(trouble) => STRATEGY.trouble(message, record, trouble),
    }
}

fn settings() -> Result<Settings, config::ConfigError> {
    Ok(Settings {
        min_tasks: config::get_or("min_tasks", 1_u8)?,
        max_tasks: config::get_or("max_tasks", 8_u8)?,
        max_hours: config::get_or("max_hours", 40)?,
        roles: Vec::new(),
    })
}

fn derive(
    message: &Incoming,
    mut record: Record,
    plan: &PlanContext,
    mut settings: Settings,
) -> Result<(), Failure> {
    settings.roles.clone_from(&record.roles);
    // The attempt that all stages speak of: there is no job to it.
    record.submitted("");
    record.answered(record.attempt);
    match read(plan, &settings) {
        Ok(parsed) => tell(message, record, parsed),
        Err(rejection) => STRATEGY.fail(message, record, rejection.kind.as_str(), &rejection.detail),
    }
}

/// The tasks of the description and of the technical notes; those of both, if both have any.
fn read(plan: &PlanContext, settings: &Settings) -> Result<Parsed, Rejection> {
    let mut found = Vec::new();
    for (name, text) in [("description", &plan.description), ("technical notes", &plan.technical_notes)] {
        found.extend(entries(text).map_err(|rejection| Rejection {
            detail: format!("the plan's {name}: {}", rejection.detail),
            ..rejection
        })?);
    }
    if found.is_empty() {
        let detail =
            "neither the plan's description nor its technical notes list tasks in a form that can be read";
        return Err(Rejection { kind: Kind::NoTasks, detail: detail.into() });
    }
    settle(found, settings)
}

fn tell(message: &Incoming, mut record: Record, parsed: Parsed) -> Result<(), Failure> {
    let plan_id = record.plan_id.clone();
    for warning in &parsed.warnings {
        warn!("{warning}"; plan_id = plan_id);
        record.warn(warning);
    }
    for dropped in &parsed.dropped {
        warn!("dropped {:?}: {}", dropped.title, dropped.why; plan_id = plan_id);
    }
    let count = parsed.tasks.len();
    let event = DerivationParsed {
        stage: record.stage(record.attempt),
        source: SOURCE.into(),
        roles: record.roles.clone(),
        tasks: parsed.tasks,
        dropped: parsed.dropped,
        warnings: parsed.warnings,
        below_min: parsed.below_min,
        deliberation_id: None,
    };
    let cause = message.cause();
    match STRATEGY.writer.emit(&cause, &event, &record.attempt_operation("parsed", record.attempt)) {
        Ok(_) => {}
        Err(EmitError::TooLarge(limit)) => {
            let trouble =
                Trouble::last("invalid_plan", format!("its tasks are too long to pass on: {limit}"));
            return STRATEGY.trouble(message, record, trouble);
        }
        Err(error) => return Err(error.into()),
    }
    info!("the plan lists {count} tasks"; plan_id = plan_id, story_id = record.story_id);
    // Should nobody store them.
    STRATEGY.arm(&mut record, &cause, Timestamp::now().plus_seconds(STORING_SECONDS))?;
    Ok(record.save()?)
}

/// The plan lists the same tasks when it is read again, so this is the end.
fn rejected(message: &Incoming, rejected: &DerivationRejected) -> Result<(), Failure> {
    let stage = &rejected.stage;
    message.keyed_by(&stage.plan_id)?;
    let of_this = |record: &Record| {
        record.is_open() && stage.attempt >= record.attempt && record.concerns(stage.run, message.arrival())
    };
    let Some(mut record) = Record::load()?.filter(of_this) else {
        info!("no derivation is open for this rejection"; plan_id = stage.plan_id, kind = rejected.kind);
        return Ok(());
    };
    record.rejected(&format!("{}: {}", rejected.kind, rejected.detail));
    STRATEGY.fail(message, record, rejected.kind.as_str(), &rejected.detail)
}
