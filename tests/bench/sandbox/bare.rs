//! The bare thing: wasmtime alone with the engine settings of the sandbox, one import, no limits, no meter, nothing
//! asynchronous.

use std::path::Path;

use wasmtime::component::{Component, ComponentExportIndex, HasSelf, InstancePre, Linker, TypedFunc};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use super::{INSTANCES, Tally};

#[allow(clippy::expect_used, unreachable_pub, dead_code, reason = "generated from wit/plugin.wit")]
mod wit {
    wasmtime::component::bindgen!({ path: "../wit", world: "cofferdam:plugin/event-plugin" });
}

use wit::cofferdam::plugin::publish;
use wit::cofferdam::plugin::types::{Event, Failure};

const HANDLER: &str = "cofferdam:plugin/handler@0.1.0";

/// The event lives for ever, so that the function's type can be named.
type Handle = TypedFunc<(&'static Event,), (Result<(), Failure>,)>;

impl publish::Host for Tally {
    fn emit(
        &mut self,
        _subject: String,
        _headers: Vec<(String, String)>,
        data: Vec<u8>,
    ) -> Result<String, publish::EmitError> {
        self.take(data.len());
        Ok(super::EFFECT.to_owned())
    }

    fn schedule(
        &mut self,
        _at: u64,
        _subject: String,
        _headers: Vec<(String, String)>,
        _data: Vec<u8>,
    ) -> Result<String, publish::EmitError> {
        unreachable!("the guest publishes and does nothing else")
    }

    fn cancel(&mut self, _timer: String) -> Result<(), publish::EmitError> {
        unreachable!("the guest publishes and does nothing else")
    }
}

/// As host/sandbox/src/engine.rs has it, number by number.
fn settings() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(INSTANCES * 128)
        .total_memories(INSTANCES * 4)
        .total_tables(INSTANCES * 8)
        .total_stacks(INSTANCES)
        .max_component_instance_size(4 << 20)
        .max_core_instances_per_component(128)
        .max_memories_per_component(4)
        .max_memories_per_module(4)
        .max_tables_per_component(8)
        .max_tables_per_module(8)
        .max_memory_size(256 << 20)
        .table_elements(50_000)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut settings = Config::new();
    settings
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .shared_memory(false)
        .max_wasm_stack(512 << 10)
        .async_stack_size((512 << 10) + (2 << 20));
    settings
}

pub(super) struct Bare {
    pre: InstancePre<Tally>,
    handle: ComponentExportIndex,
}

pub(super) fn engine() -> Engine {
    Engine::new(&settings()).expect("an engine")
}

/// For [`Bare::load`].
pub(super) fn compiled(engine: &Engine, bytes: &[u8]) -> Vec<u8> {
    Component::new(engine, bytes).expect("a component").serialize().expect("compiled code")
}

impl Bare {
    pub(super) fn compile(engine: &Engine, bytes: &[u8]) -> Bare {
        Bare::link(&Component::new(engine, bytes).expect("a component"))
    }

    /// From what [`compiled`] gave.
    #[allow(unsafe_code, reason = "the baseline of what the sandbox's cache does")]
    pub(super) fn load(engine: &Engine, file: &Path) -> Bare {
        // SAFETY: the bench itself wrote the file, from a component that it compiled.
        Bare::link(&unsafe { Component::deserialize_file(engine, file) }.expect("compiled code"))
    }

    fn link(component: &Component) -> Bare {
        let mut linker = Linker::new(component.engine());
        publish::add_to_linker::<Tally, HasSelf<Tally>>(&mut linker, |tally| tally).expect("a linker");
        linker.define_unknown_imports_as_traps(component).expect("traps");
        let pre = linker.instantiate_pre(component).expect("a component that fits");
        let handler = component.get_export_index(None, HANDLER).expect("a handler");
        let handle = component.get_export_index(Some(&handler), "handle").expect("its function");
        Bare { pre, handle }
    }

    fn store(&self) -> Store<Tally> {
        let mut store = Store::new(self.pre.engine(), Tally::default());
        store.set_epoch_deadline(u64::MAX / 2);
        store
    }

    fn instance(&self, store: &mut Store<Tally>) -> Handle {
        let instance = self.pre.instantiate(&mut *store).expect("an instance");
        instance.get_typed_func(&mut *store, self.handle).expect("a function of this type")
    }

    /// Instantiate, call, drop.
    pub(super) fn fresh(&self, event: &'static Event) -> Tally {
        let mut store = self.store();
        let handle = self.instance(&mut store);
        let result = handle.call(&mut store, (event,)).expect("no trap").0;
        result.expect("a handler that succeeds");
        store.into_data()
    }

    pub(super) fn warm(&self) -> Warm {
        let mut store = self.store();
        let handle = self.instance(&mut store);
        Warm { store, handle }
    }
}

/// An instance that is called again and again.
pub(super) struct Warm {
    store: Store<Tally>,
    handle: Handle,
}

impl Warm {
    pub(super) fn call(&mut self, event: &'static Event) {
        let result = self.handle.call(&mut self.store, (event,)).expect("no trap").0;
        result.expect("a handler that succeeds");
    }

    pub(super) fn tally(&self) -> Tally {
        *self.store.data()
    }
}

/// Leaked: see [`Handle`].
pub(super) fn event(event: cofferdam_sandbox::Event) -> &'static Event {
    let cofferdam_sandbox::Event { id, subject, headers, data, timestamp } = event;
    Box::leak(Box::new(Event { id, subject, headers, data: data.into(), timestamp }))
}
