//! Version 0.1 of the contract: its generated types and the seam's, turned into each other. No decision is taken
//! here.

use wasmtime::Store;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use crate::instance::State;
use crate::seam::{self, Answer, Call, Event, Failure, Reply, Request, ServeError};

/// Makes a call and takes what its answer carries. An answer to another call is the host's fault and ends the run.
macro_rules! answer {
    ($state:expr, $call:expr, $variant:ident) => {
        match $state.call($call).await? {
            Answer::$variant(value) => value,
            other => return Err($state.wrong_answer(stringify!($variant), &other)),
        }
    };
}

mod executor;

#[allow(
    unreachable_pub,
    clippy::large_futures,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "generated from wit/plugin.wit"
)]
mod wit {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "cofferdam:plugin/event-plugin",
        imports: { default: async | trappable },
        exports: { default: async },
        with: { "cofferdam:plugin/executor.token-stream": super::executor::TokenStream },
    });
}

/// What a plugin may export besides, on its own: the world of a plugin that has it would be one more way to link.
#[allow(
    unreachable_pub,
    dead_code,
    clippy::large_futures,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "generated from wit/plugin.wit"
)]
mod more {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "package cofferdam:sandbox; world serving { export cofferdam:plugin/service@0.1.0; }",
        with: { "cofferdam:plugin/types": super::wit::cofferdam::plugin::types },
        exports: { default: async },
    });
}

use more::exports::cofferdam::plugin::service;
use wit::cofferdam::plugin::{clock, config, delivery, log, metrics, publish, rpc, state, types};

pub(super) const INTERFACES: [&str; 9] =
    ["delivery", "publish", "rpc", "executor", "state", "config", "log", "metrics", "clock"];

/// A component, linked, and where its exports are.
#[derive(Clone)]
pub(crate) struct Plugin {
    component: InstancePre<State>,
    handler: wit::EventPluginIndices,
    service: Option<service::GuestIndices>,
}

/// One instance, for events and requests alike.
pub(crate) struct Instance {
    handler: wit::EventPlugin,
    service: Option<service::Guest>,
}

pub(super) fn link(
    linker: &mut Linker<State>,
    component: &Component,
    handler: &str,
    service: Option<&str>,
) -> wasmtime::Result<Plugin> {
    wit::EventPlugin::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    let linked = linker.instantiate_pre(component)?;
    // Otherwise an export of another type would be found out by the first event or request only.
    let instance_type = linked.instance_type();
    let not_as =
        |interface: &str, name: &str| format!("`{name}` of {interface} is not as the contract has it");
    function(component, handler, "handle")?
        .typecheck::<(&types::Event,), (Result<(), types::Failure>,)>(&instance_type)
        .map_err(|error| error.context(not_as(handler, "handle")))?;
    if let Some(service) = service {
        function(component, service, "serve")?
            .typecheck::<(&service::Call,), (Result<Vec<u8>, service::Status>,)>(&instance_type)
            .map_err(|error| error.context(not_as(service, "serve")))?;
    }
    Ok(Plugin {
        handler: wit::EventPluginIndices::new(&linked)?,
        service: service.map(|_| service::GuestIndices::new(&linked)).transpose()?,
        component: linked,
    })
}

/// The type of a function that an interface exports.
fn function(component: &Component, interface: &str, name: &str) -> wasmtime::Result<ComponentFunc> {
    let engine = component.engine();
    let exported = component.component_type().get_export(engine, interface).map(|export| export.ty);
    let Some(ComponentItem::ComponentInstance(exported)) = exported else {
        wasmtime::bail!("{interface} is no interface");
    };
    match exported.get_export(engine, name).map(|export| export.ty) {
        Some(ComponentItem::ComponentFunc(function)) => Ok(function),
        Some(_) => wasmtime::bail!("`{name}` of {interface} is no function"),
        None => wasmtime::bail!("{interface} has no function `{name}`"),
    }
}

impl Plugin {
    pub(super) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Instance> {
        let instance = self.component.instantiate_async(&mut *store).await?;
        let handler = self.handler.load(&mut *store, &instance)?;
        let service =
            self.service.as_ref().map(|service| service.load(&mut *store, &instance)).transpose()?;
        Ok(Instance { handler, service })
    }
}

impl Instance {
    pub(super) async fn handle(
        &self,
        store: &mut Store<State>,
        event: Event,
    ) -> wasmtime::Result<Result<(), Failure>> {
        let event = types::Event {
            id: event.id,
            subject: event.subject,
            headers: event.headers,
            data: event.data.into(),
            timestamp: event.timestamp,
        };
        let result = self.handler.cofferdam_plugin_handler().call_handle(store, &event).await?;
        Ok(result.map_err(|failure| match failure {
            types::Failure::Retry(types::Retry { reason, after_ms }) => Failure::Retry { reason, after_ms },
            types::Failure::Reject(reason) => Failure::Reject(reason),
        }))
    }

    pub(super) async fn serve(&self, store: &mut Store<State>, request: Request) -> wasmtime::Result<Reply> {
        let Some(service) = &self.service else { wasmtime::bail!("the component exports no service") };
        let call = service::Call {
            id: request.id,
            method: request.method,
            metadata: request.metadata,
            request: request.request.into(),
            timestamp: request.timestamp,
        };
        Ok(match service.call_serve(store, &call).await? {
            Ok(answer) => Ok(answer.into()),
            Err(status) => Err(ServeError { code: number(status.code), message: status.message }),
        })
    }
}

impl types::Host for State {}

impl delivery::Host for State {
    async fn attempt(&mut self) -> wasmtime::Result<u32> {
        Ok(answer!(self, Call::Attempt, Attempt))
    }

    async fn last_attempt(&mut self) -> wasmtime::Result<bool> {
        Ok(answer!(self, Call::LastAttempt, LastAttempt))
    }

    async fn deadline_ms(&mut self) -> wasmtime::Result<u64> {
        Ok(answer!(self, Call::DeadlineMs, DeadlineMs))
    }

    async fn order_key(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(answer!(self, Call::OrderKey, OrderKey))
    }
}

fn emit_error(error: seam::EmitError) -> publish::EmitError {
    use publish::EmitError as Wit;
    use seam::EmitError as Seam;
    match error {
        Seam::Denied(message) => Wit::Denied(message),
        Seam::TooLarge(message) => Wit::TooLarge(message),
        Seam::Limit(message) => Wit::Limit(message),
        Seam::InvalidSubject(message) => Wit::InvalidSubject(message),
        Seam::NoStream(message) => Wit::NoStream(message),
        Seam::Unavailable(message) => Wit::Unavailable(message),
    }
}

impl publish::Host for State {
    async fn emit(
        &mut self,
        subject: String,
        headers: Vec<(String, String)>,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<String, publish::EmitError>> {
        let call = Call::Emit { subject, headers, data: data.into() };
        Ok(answer!(self, call, Emit).map_err(emit_error))
    }

    async fn schedule(
        &mut self,
        at: u64,
        subject: String,
        headers: Vec<(String, String)>,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<String, publish::EmitError>> {
        let call = Call::Schedule(seam::Scheduled { at, subject, headers, data: data.into() });
        Ok(answer!(self, call, Schedule).map_err(emit_error))
    }

    async fn cancel(&mut self, timer_id: String) -> wasmtime::Result<Result<(), publish::EmitError>> {
        Ok(answer!(self, Call::CancelTimer(timer_id), CancelTimer).map_err(emit_error))
    }
}

impl rpc::Host for State {
    async fn call(
        &mut self,
        upstream: String,
        method: String,
        request: Vec<u8>,
        options: rpc::Options,
    ) -> wasmtime::Result<Result<Vec<u8>, rpc::Status>> {
        let rpc::Options { timeout_ms, metadata, repeat } = options;
        let request = request.into();
        let call = Call::Rpc(seam::RpcRequest { upstream, method, request, timeout_ms, metadata, repeat });
        Ok(answer!(self, call, Rpc).map(Vec::from).map_err(|status| rpc::Status {
            code: code(status.code),
            message: status.message,
            local: status.local,
        }))
    }
}

/// By gRPC's numbers. One that gRPC does not have is unknown, as gRPC itself has it.
fn code(number: u8) -> rpc::Code {
    match number {
        0 => rpc::Code::Ok,
        1 => rpc::Code::Cancelled,
        3 => rpc::Code::InvalidArgument,
        4 => rpc::Code::DeadlineExceeded,
        5 => rpc::Code::NotFound,
        6 => rpc::Code::AlreadyExists,
        7 => rpc::Code::PermissionDenied,
        8 => rpc::Code::ResourceExhausted,
        9 => rpc::Code::FailedPrecondition,
        10 => rpc::Code::Aborted,
        11 => rpc::Code::OutOfRange,
        12 => rpc::Code::Unimplemented,
        13 => rpc::Code::Internal,
        14 => rpc::Code::Unavailable,
        15 => rpc::Code::DataLoss,
        16 => rpc::Code::Unauthenticated,
        _ => rpc::Code::Unknown,
    }
}

/// gRPC's number of a code that is to say why there is no answer. OK can't: it is unknown, as the contract has it.
fn number(code: types::Code) -> u8 {
    match code {
        types::Code::Cancelled => 1,
        types::Code::Ok | types::Code::Unknown => 2,
        types::Code::InvalidArgument => 3,
        types::Code::DeadlineExceeded => 4,
        types::Code::NotFound => 5,
        types::Code::AlreadyExists => 6,
        types::Code::PermissionDenied => 7,
        types::Code::ResourceExhausted => 8,
        types::Code::FailedPrecondition => 9,
        types::Code::Aborted => 10,
        types::Code::OutOfRange => 11,
        types::Code::Unimplemented => 12,
        types::Code::Internal => 13,
        types::Code::Unavailable => 14,
        types::Code::DataLoss => 15,
        types::Code::Unauthenticated => 16,
    }
}

fn state_error(error: seam::StateError) -> state::StateError {
    match error {
        seam::StateError::NoCell(message) => state::StateError::NoCell(message),
        seam::StateError::Denied(message) => state::StateError::Denied(message),
        seam::StateError::Limit(message) => state::StateError::Limit(message),
    }
}

impl state::Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, state::StateError>> {
        let value = answer!(self, Call::StateGet { cell: None, key }, StateGet);
        Ok(value.map(|value| value.map(Vec::from)).map_err(state_error))
    }

    async fn put(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), state::StateError>> {
        let call = Call::StatePut { cell: None, key, value: value.into() };
        Ok(answer!(self, call, StatePut).map_err(state_error))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), state::StateError>> {
        Ok(answer!(self, Call::StateDelete { cell: None, key }, StateDelete).map_err(state_error))
    }

    async fn keys(&mut self, prefix: String) -> wasmtime::Result<Result<Vec<String>, state::StateError>> {
        Ok(answer!(self, Call::StateKeys { cell: None, prefix }, StateKeys).map_err(state_error))
    }

    async fn get_in(
        &mut self,
        cell: String,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, state::StateError>> {
        let value = answer!(self, Call::StateGet { cell: Some(cell), key }, StateGet);
        Ok(value.map(|value| value.map(Vec::from)).map_err(state_error))
    }

    async fn put_in(
        &mut self,
        cell: String,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), state::StateError>> {
        let call = Call::StatePut { cell: Some(cell), key, value: value.into() };
        Ok(answer!(self, call, StatePut).map_err(state_error))
    }

    async fn delete_in(
        &mut self,
        cell: String,
        key: String,
    ) -> wasmtime::Result<Result<(), state::StateError>> {
        Ok(answer!(self, Call::StateDelete { cell: Some(cell), key }, StateDelete).map_err(state_error))
    }

    async fn keys_in(
        &mut self,
        cell: String,
        prefix: String,
    ) -> wasmtime::Result<Result<Vec<String>, state::StateError>> {
        Ok(answer!(self, Call::StateKeys { cell: Some(cell), prefix }, StateKeys).map_err(state_error))
    }
}

impl config::Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(answer!(self, Call::Config(key), Config))
    }
}

impl log::Host for State {
    async fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Trace => seam::LogLevel::Trace,
            log::Level::Debug => seam::LogLevel::Debug,
            log::Level::Info => seam::LogLevel::Info,
            log::Level::Warn => seam::LogLevel::Warn,
            log::Level::Error => seam::LogLevel::Error,
        };
        match self.call(Call::Log { level, message, fields }).await? {
            Answer::Unit => Ok(()),
            other => Err(self.wrong_answer("Unit", &other)),
        }
    }
}

fn metric_error(error: seam::MetricError) -> metrics::MetricError {
    match error {
        seam::MetricError::Undeclared(message) => metrics::MetricError::Undeclared(message),
    }
}

impl metrics::Host for State {
    async fn count(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
        delta: u64,
    ) -> wasmtime::Result<Result<(), metrics::MetricError>> {
        Ok(answer!(self, Call::Count { name, labels, delta }, Count).map_err(metric_error))
    }

    async fn observe(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
        value: f64,
    ) -> wasmtime::Result<Result<(), metrics::MetricError>> {
        Ok(answer!(self, Call::Observe { name, labels, value }, Observe).map_err(metric_error))
    }

    async fn set(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
        value: f64,
    ) -> wasmtime::Result<Result<(), metrics::MetricError>> {
        Ok(answer!(self, Call::SetGauge { name, labels, value }, SetGauge).map_err(metric_error))
    }
}

impl clock::Host for State {
    async fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(answer!(self, Call::Now, Now))
    }

    async fn random(&mut self, len: u32) -> wasmtime::Result<Vec<u8>> {
        Ok(answer!(self, Call::Random(len), Random))
    }
}
