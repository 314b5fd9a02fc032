//! Serves `cofferdam.fixtures.v1.LedgerService`, whose file says what each call does. An event `{"account", "amount"}` adds, too. An
//! account is its cell's key `sum`; who publishes says so at the config value `to`.

use std::{hint::black_box, time::Duration};

use cofferdam_sdk::{
    Event, Failure, clock, config, delivery,
    executor::{self, Inference, Job},
    info, publish,
    rpc::{self, Code},
    service::{self, Call, Status},
    state,
};
use fleet_proto::fixtures::v1::{
    AddRequest, AddResponse, End, Fate, GetRequest, GetResponse, Metadata, TellRequest, TellResponse,
};
use guest_fixtures::instructions;
use serde_json::json;

const SUM: &str = "sum";

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let account = told["account"].as_str().unwrap_or_default();
    let amount = told["amount"].as_i64().unwrap_or(1);
    let sum = add(amount)?;
    publish(&event.id, account, amount, sum)
}

fn serve(call: Call) -> Result<Vec<u8>, Status> {
    match call.name() {
        "Get" => get(&call),
        "Add" => put(&call),
        "Tell" => tell(&call),
        _ => Err(Status::unimplemented(&call)),
    }
}

fn get(call: &Call) -> Result<Vec<u8>, Status> {
    let GetRequest { account, reaches, fate } = call.read()?;
    first(call, fate.as_ref(), call.request.clone());
    let Some(sum) = state::load(SUM)? else {
        return Err(Status::not_found(format!("no account {account:?}")));
    };
    let refused = if reaches { reach(sum) } else { Vec::new() };
    end(fate, service::answer(&GetResponse { sum, refused }))
}

/// Every effect there is, and what each was refused with.
fn reach(sum: i64) -> Vec<String> {
    let subject = config::get_or::<String>("to", "nowhere").unwrap_or_default();
    let job = Job::new("ledger", "DEV", "a prompt").agent("agent-1", "DEV");
    let mut refused = Vec::new();
    let mut tried =
        |what: &str, error: Option<String>| refused.extend(error.map(|error| format!("{what}: {error}")));
    tried("emit", publish::emit(&subject, "").err().map(|error| error.to_string()));
    tried("schedule", publish::schedule(clock::now(), &subject, "").err().map(|error| error.to_string()));
    tried("cancel", publish::cancel("ledger-service.none.0").err().map(|error| error.to_string()));
    tried("submit", job.submit().err().map(|error| error.to_string()));
    let job_id = "ledger-service_normal_00000000_none";
    tried("cancel-job", executor::cancel(job_id).err().map(|error| error.to_string()));
    let asked = Inference::new("a prompt");
    tried("infer", asked.infer().err().map(|error| error.to_string()));
    tried("tokens", asked.tokens().err().map(|error| error.to_string()));
    tried("put", state::save(SUM, &(sum + 1)).err().map(|error| error.to_string()));
    tried("delete", state::delete(SUM).err().map(|error| error.to_string()));
    tried("put-in", account_cell("other").save(SUM, &1).err().map(|error| error.to_string()));
    refused
}

fn put(call: &Call) -> Result<Vec<u8>, Status> {
    let AddRequest { account, amount, from, messages, later_ms, padding, fate } = call.read()?;
    if account.is_empty() {
        return Err(Status::invalid_argument("account is empty"));
    }
    let inner = if from.is_empty() { &account } else { &from };
    let inner = AddRequest { account: inner.clone(), amount, ..AddRequest::default() };
    first(call, fate.as_ref(), service::answer(&inner)?);
    let sum = add(amount)?;
    if !from.is_empty() {
        let from = account_cell(&from);
        let before: i64 = from.load(SUM)?.unwrap_or(0);
        from.save(SUM, &(before - amount))?;
    }
    for _ in 0..messages.max(1) {
        publish(&call.id, &account, amount, sum)?;
    }
    if later_ms > 0 {
        let at = call.timestamp + u64::from(later_ms) * 1_000_000;
        publish::schedule_json(at, &target()?, &json!({ "later": call.id }))?;
    }
    info!("added"; account = account, sum = sum);
    let answer = AddResponse { sum, call_id: call.id.clone(), padding: vec![b'x'; padding as usize] };
    end(fate, service::answer(&answer))
}

fn tell(call: &Call) -> Result<Vec<u8>, Status> {
    let _: TellRequest = call.read()?;
    let metadata =
        call.metadata.iter().map(|(name, value)| Metadata { name: name.clone(), value: value.clone() });
    service::answer(&TellResponse {
        id: call.id.clone(),
        method: call.method.clone(),
        metadata: metadata.collect(),
        timestamp: call.timestamp,
        order_key: delivery::order_key().unwrap_or_default(),
        attempt: delivery::attempt(),
        last_attempt: delivery::last_attempt(),
        deadline_ms: u64::try_from(delivery::deadline().as_millis()).unwrap_or(u64::MAX),
        now: clock::now(),
        random: clock::random(4).iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

fn account_cell(name: &str) -> state::Cell {
    state::cell(format!("account/{name}"))
}

fn add(amount: i64) -> Result<i64, Failure> {
    let sum = state::load::<i64>(SUM)?.unwrap_or(0) + amount;
    state::save(SUM, &sum)?;
    Ok(sum)
}

fn target() -> Result<String, Failure> {
    config::get::<String>("to")?.ok_or_else(|| Failure::reject("nowhere to publish: no config value `to`"))
}

fn publish(id: &str, account: &str, amount: i64, sum: i64) -> Result<(), Failure> {
    let message = json!({ "account": account, "amount": amount, "sum": sum, "by": id });
    publish::emit_json(&target()?, &message)?;
    Ok(())
}

/// Before a run's end: whoever has no more left does not come to his own.
const LAST_MOMENT: Duration = Duration::from_millis(50);

/// Its own method is called with `inner`.
fn first(call: &Call, fate: Option<&Fate>, inner: Vec<u8>) {
    let Some((upstream, method)) = fate.and_then(|fate| fate.calls.split_once('/')) else { return };
    let request = if method == call.method { inner } else { call.id.clone().into_bytes() };
    if let Err(status) = rpc::call(upstream, method, &request, &rpc::Options::default()) {
        info!("the upstream answered {status}");
        // The call's time was the run's: it is stopped just now, and does nothing that depends on when.
        if delivery::deadline() < LAST_MOMENT {
            loop {
                black_box(&status);
            }
        }
    }
}

fn end(fate: Option<Fate>, answer: Result<Vec<u8>, Status>) -> Result<Vec<u8>, Status> {
    let fate = fate.unwrap_or_default();
    match fate.end() {
        End::Unspecified => answer,
        End::Status => Err(Status::new(code(fate.code), fate.message)),
        #[expect(clippy::panic, reason = "what a test asks for")]
        End::Trap => panic!("as told: {}", fate.message),
        End::Spin => loop {
            black_box(&answer);
        },
        End::Grow => {
            let mut chunks = Vec::new();
            loop {
                chunks.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        End::HostCalls => loop {
            delivery::attempt();
        },
        End::Garbage => Ok(vec![0xff; 3]),
    }
}

fn code(number: i32) -> Code {
    const CODES: [Code; 17] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];
    usize::try_from(number).ok().and_then(|number| CODES.get(number)).copied().unwrap_or(Code::Unknown)
}

cofferdam_sdk::export!(handle, serve);
