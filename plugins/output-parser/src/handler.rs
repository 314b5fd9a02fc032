//! From an executor's answer to `parsed` or `rejected`. What a text means is for `fleet_tasks::parse`; what follows from it
//! is for the plugins that read these messages.

use cofferdam_sdk::{
    Event, Failure, config, delivery,
    executor::{self, Phase},
    fleet::{
        AgentAnswer, AgentResponse, Attempt, DerivationParsed, DerivationRejected, Incoming, Malformed,
        Outgoing, Record, Rejection as Kind, Stage, Writer, derivation_id,
    },
    info,
    publish::EmitError,
    warn,
};

use fleet_tasks::{DEFAULT_ROLE, Parsed, Rejection, Settings, parse};

const WRITER: Writer = Writer::new(env!("CARGO_PKG_NAME"));
const SOURCE: &str = "llm";
/// Of an executor's error, in characters: it goes into messages, records and prompts.
const ERROR_CHARS: usize = 600;

/// One answer. Answers to others are acked without a word; so are those that no open derivation waits for.
pub fn handle(event: Event) -> Result<(), Failure> {
    let message = Incoming::read(&event)?;
    let response = AgentResponse::read(&message);
    if response.task_id.is_none() && response.plan_id.is_none() && response.deliberation_id.is_none() {
        return Err(missing(&message, "neither task_id nor plan_id").into());
    }
    // Without a key there is no cell, and so no record.
    let mut record = if delivery::order_key().is_some() { Record::load()? } else { None };
    if !response.is_ours(record.as_ref()) && !executor_knows(record.as_mut(), &response)? {
        return Ok(());
    }
    let from_record = || record.as_ref().map(|record| record.plan_id.clone()).filter(|id| !id.is_empty());
    let plan_id =
        response.plan_id.clone().or_else(from_record).ok_or_else(|| missing(&message, "no plan_id"))?;
    message.keyed_by(&plan_id)?;
    let Some(mut record) = open_record(record, &plan_id, &message, &response)? else { return Ok(()) };
    if !is_new(&mut record, &message, &response) {
        info!("this answer was taken before"; plan_id = plan_id);
        return Ok(());
    }
    answer(&message, &response, &mut record)?;
    Ok(record.save()?)
}

/// Whether the answer's deliberation is that of one of the record's jobs: an executor that has ids of its own told the host, and
/// no answer has told the record yet. The attempt keeps what is found.
fn executor_knows(record: Option<&mut Record>, response: &AgentResponse) -> Result<bool, Failure> {
    let (Some(record), Some(id)) = (record, &response.deliberation_id) else { return Ok(false) };
    if !record.is_open() || response.plan_id.as_ref() != Some(&record.plan_id) {
        return Ok(false);
    }
    let mut is_unsettled = false;
    // Of earlier attempts too, for a late answer is as good as any.
    let unknown = |known: &&mut Attempt| known.deliberation_id.is_none() && !known.job_id.is_empty();
    for attempt in record.attempts.iter_mut().rev().filter(unknown) {
        let status = executor::status(&attempt.job_id)?;
        if status.execution_id.as_ref() == Some(id) {
            attempt.deliberation_id = Some(id.clone());
            return Ok(true);
        }
        is_unsettled |=
            status.execution_id.is_none() && matches!(status.phase, Phase::Queued | Phase::Unknown);
    }
    // The answer may have overtaken the executor's word that it took the job. One that nobody has told of in the end is
    // another's.
    if is_unsettled && !delivery::last_attempt() {
        return Err(Failure::retry(format!(
            "whether deliberation {id} is of plan {} is not known yet",
            record.plan_id
        )));
    }
    Ok(false)
}

fn missing(message: &Incoming, what: &str) -> Malformed {
    Malformed { subject: message.subject().to_owned(), reason: format!("it has {what}") }
}

/// A worker that says neither when nor to which attempt it answers may say the same of each: then an answer that came after
/// an attempt was submitted repeats none from before.
fn is_new(record: &mut Record, message: &Incoming, response: &AgentResponse) -> bool {
    let keyed = message.envelope().is_some_and(|envelope| envelope.idempotency_key.is_some());
    let named = response.attempt.is_some() || response.deliberation_id.is_some();
    let submitted = record.current_attempt().map(|attempt| attempt.submitted_at).unwrap_or_default();
    if keyed || named || message.at("timestamp").is_some() {
        record.seen.first_time(message)
    } else {
        record.seen.first_time_since(message, submitted)
    }
}

/// The record of the derivation that waits for this answer; nothing if none does.
fn open_record(
    record: Option<Record>,
    plan_id: &str,
    message: &Incoming,
    response: &AgentResponse,
) -> Result<Option<Record>, config::ConfigError> {
    let Some(record) = record else {
        if config::get_or("accept_unrequested", true)? {
            return Ok(Some(Record {
                story_id: response.story_id.clone().unwrap_or_default(),
                // Counts, so that as many retries follow it as another derivation has.
                attempt: response.attempt.unwrap_or(1).max(1),
                roles: vec![DEFAULT_ROLE.into()],
                ..Record::open(plan_id, message.cause(), None)
            }));
        }
        info!("no derivation was requested for this answer"; plan_id = plan_id);
        return Ok(None);
    };
    if !record.is_open() {
        info!("the derivation has ended, this answer is late"; plan_id = plan_id);
        return Ok(None);
    }
    let is_earlier = match response.run {
        Some(run) => run < record.run,
        None => !record.concerns(None, message.arrival()),
    };
    if is_earlier {
        info!("this answers an earlier derivation of the plan"; plan_id = plan_id);
        return Ok(None);
    }
    Ok(Some(record))
}

fn answer(message: &Incoming, response: &AgentResponse, record: &mut Record) -> Result<(), Failure> {
    let of_deliberation = || Some(record.attempt_of(response.deliberation_id.as_deref()?)?.attempt);
    // No later than the one that is out, whatever an answer says.
    let attempt =
        response.attempt.or_else(of_deliberation).unwrap_or(record.attempt).min(record.attempt).max(1);
    record.answered(attempt);
    if let (Some(id), Some(entry)) = (&response.deliberation_id, record.attempt_mut(attempt)) {
        entry.deliberation_id = Some(id.clone());
    }
    let answered = Answered { message, response, attempt, record };
    let (min_tasks, max_tasks): (u32, u32) =
        (config::get_or("min_tasks", 3_u8)?, config::get_or("max_tasks", 8_u8)?);
    let settings = Settings {
        min_tasks: min_tasks as usize,
        max_tasks: max_tasks as usize,
        max_hours: config::get_or("max_hours", 40)?,
        roles: answered.record.roles.clone(),
    };
    match &response.answer {
        AgentAnswer::Text(text) => match parse(text, &settings) {
            Ok(parsed) => answered.parsed(parsed),
            Err(rejection) => answered.rejected(rejection),
        },
        AgentAnswer::Failed { error, error_type } => {
            let named = error_type.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
            let detail = format!("{named}{error}").chars().take(ERROR_CHARS).collect();
            answered.rejected(Rejection { kind: Kind::AgentFailed, detail })
        }
    }
}

/// An answer that counts.
struct Answered<'a> {
    message: &'a Incoming,
    response: &'a AgentResponse,
    attempt: u32,
    record: &'a mut Record,
}

impl Answered<'_> {
    fn parsed(self, parsed: Parsed) -> Result<(), Failure> {
        let plan_id = self.record.plan_id.clone();
        for warning in &parsed.warnings {
            warn!("{warning}"; plan_id = plan_id);
            self.record.warn(warning.clone());
        }
        for dropped in &parsed.dropped {
            warn!("dropped {:?}: {}", dropped.title, dropped.why; plan_id = plan_id);
        }
        let count = parsed.tasks.len();
        let sent = self.emit(
            "parsed",
            &DerivationParsed {
                stage: self.stage(),
                source: SOURCE.into(),
                roles: self.record.roles.clone(),
                tasks: parsed.tasks,
                dropped: parsed.dropped,
                warnings: parsed.warnings,
                below_min: parsed.below_min,
                deliberation_id: self.deliberation_id(),
            },
        );
        match sent {
            Ok(()) => {
                info!("the answer holds {count} tasks"; plan_id = plan_id, attempt = self.attempt);
                Ok(())
            }
            // Descriptions have no limit of their own. Asking again may bring shorter ones; a dead letter nothing.
            Err(EmitError::TooLarge(limit)) => {
                let detail = format!(
                    "the answer's tasks are too long to pass on ({limit}); write shorter descriptions"
                );
                self.rejected(Rejection { kind: Kind::AgentFailed, detail })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn rejected(self, rejection: Rejection) -> Result<(), Failure> {
        warn!("the answer is no use: {rejection}"; plan_id = self.record.plan_id, attempt = self.attempt);
        self.emit(
            "rejected",
            &DerivationRejected {
                stage: self.stage(),
                kind: rejection.kind,
                detail: rejection.detail,
                deliberation_id: self.deliberation_id(),
            },
        )?;
        Ok(())
    }

    fn emit<M: Outgoing>(&self, operation: &str, message: &M) -> Result<(), EmitError> {
        let cause = self.message.cause().continuing(&self.record.cause);
        WRITER.emit(&cause, message, &self.record.attempt_operation(operation, self.attempt)).map(drop)
    }

    /// The story as the answer says, else as the record knows it.
    fn stage(&self) -> Stage {
        let story_id = self.response.story_id.clone().unwrap_or_else(|| self.record.story_id.clone());
        let plan_id = self.record.plan_id.clone();
        let run = Some(self.record.run);
        Stage { derivation_id: derivation_id(&plan_id), plan_id, story_id, attempt: self.attempt, run }
    }

    fn deliberation_id(&self) -> Option<String> {
        let known = || self.record.current_attempt()?.deliberation_id.clone();
        self.response.deliberation_id.clone().or_else(known)
    }
}
