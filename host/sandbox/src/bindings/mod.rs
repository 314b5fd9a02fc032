//! The versions of the contract that this host speaks: one module of generated bindings each, which turns imports
//! into calls of the seam and does nothing else.

mod v0_1;

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

use crate::error::LoadError;
use crate::inspect::Shape;
use crate::instance::State;
use crate::seam::{Answer, Event, Failure, Reply, Request};
use crate::wasi;

/// For messages.
pub(crate) const KNOWN_VERSIONS: &str = "0.1";

/// A version of `cofferdam:plugin`; patch releases are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contract {
    V0_1,
}

impl Contract {
    /// From `0.1.0`.
    pub(crate) fn of(version: &str) -> Option<Self> {
        let mut numbers = version.splitn(3, '.');
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some("0"), Some("1"), Some(patch)) if patch.parse::<u32>().is_ok() => Some(Self::V0_1),
            _ => None,
        }
    }

    /// What a component of this version can import.
    pub(crate) fn interfaces(self) -> &'static [&'static str] {
        match self {
            Self::V0_1 => &v0_1::INTERFACES,
        }
    }
}

/// A component, linked for its version: what an instance is made from.
#[derive(Clone)]
pub(crate) enum Bindings {
    V0_1(v0_1::Plugin),
}

impl Bindings {
    pub(crate) fn link(engine: &Engine, component: &Component, shape: &Shape) -> Result<Self, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Link(format!("{error:#}"));
        let mut linker = Linker::new(engine);
        if !shape.wasi.is_empty() {
            wasi::link(&mut linker).map_err(failed)?;
        }
        match shape.contract {
            Contract::V0_1 => {
                let (handler, service) = (shape.handler(), shape.service());
                v0_1::link(&mut linker, component, &handler, service).map(Self::V0_1).map_err(failed)
            }
        }
    }

    /// Makes an instance; code of the guest may run in it.
    pub(crate) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Instantiated> {
        match self {
            Self::V0_1(plugin) => plugin.instantiate(store).await.map(Instantiated::V0_1),
        }
    }
}

/// The guest in a store, by its version.
pub(crate) enum Instantiated {
    V0_1(v0_1::Instance),
}

impl Instantiated {
    /// Calls the handler.
    pub(crate) async fn handle(
        &self,
        store: &mut Store<State>,
        event: Event,
    ) -> wasmtime::Result<Result<(), Failure>> {
        match self {
            Self::V0_1(instance) => instance.handle(store, event).await,
        }
    }

    /// Calls the service, which it is known to have.
    pub(crate) async fn serve(&self, store: &mut Store<State>, request: Request) -> wasmtime::Result<Reply> {
        match self {
            Self::V0_1(instance) => instance.serve(store, request).await,
        }
    }
}

/// For messages: the name of an answer, without what it carries.
pub(crate) fn answer_name(answer: &Answer) -> &'static str {
    match answer {
        Answer::Attempt(_) => "Attempt",
        Answer::LastAttempt(_) => "LastAttempt",
        Answer::DeadlineMs(_) => "DeadlineMs",
        Answer::OrderKey(_) => "OrderKey",
        Answer::Emit(_) => "Emit",
        Answer::Schedule(_) => "Schedule",
        Answer::CancelTimer(_) => "CancelTimer",
        Answer::Rpc(_) => "Rpc",
        Answer::Submit(_) => "Submit",
        Answer::JobStatus(_) => "JobStatus",
        Answer::CancelJob(_) => "CancelJob",
        Answer::Infer(_) => "Infer",
        Answer::Tokens(_) => "Tokens",
        Answer::NextToken(_) => "NextToken",
        Answer::FinishTokens(_) => "FinishTokens",
        Answer::StateGet(_) => "StateGet",
        Answer::StatePut(_) => "StatePut",
        Answer::StateDelete(_) => "StateDelete",
        Answer::StateKeys(_) => "StateKeys",
        Answer::Config(_) => "Config",
        Answer::Unit => "Unit",
        Answer::Count(_) => "Count",
        Answer::Observe(_) => "Observe",
        Answer::SetGauge(_) => "SetGauge",
        Answer::Now(_) => "Now",
        Answer::Random(_) => "Random",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_are_those_of_the_world() {
        let wit = include_str!("../../../../wit/plugin.wit");
        let world = wit.split_once("world event-plugin {").unwrap().1;
        let imports: Vec<_> =
            world.lines().filter_map(|line| line.trim().strip_prefix("import ")?.strip_suffix(';')).collect();
        assert_eq!(imports, Contract::V0_1.interfaces());
    }

    #[test]
    fn a_contract_is_known_by_its_minor_version() {
        for (version, known) in [
            ("0.1.0", true),
            ("0.1.12", true),
            ("0.1", false),
            ("0.1.x", false),
            ("0.2.0", false),
            ("1.1.0", false),
        ] {
            assert_eq!(Contract::of(version).is_some(), known, "{version}");
        }
    }
}
