//! The bundled plugins together, from an approved plan to its assignments, as a user would configure them.

use crate::{fleet::Fleet, plugin::Plugin, setup::Setup, world::World};

/// Retried quickly: the contract's five seconds would make tests wait.
const QUICK: &str = "backoff = \"200ms\"";

pub fn bundled(name: &str) -> Plugin {
    let plugin = Plugin::bundled(name).every_subscription(QUICK);
    // Nor do tests wait before a model is asked again.
    if name == "prompt-builder" { plugin.set("backoff_seconds", 0) } else { plugin }
}

/// The three that turn a plan into tasks; the executor is left to the test.
pub fn derivation(world: &World, planning: &str, context: &str) -> Setup {
    derivation_on(world.setup(), planning, context)
}

/// The same on any bus.
pub fn derivation_on(setup: Setup, planning: &str, context: &str) -> Setup {
    let plugins = ["prompt-builder", "output-parser", "dependency-analyzer"];
    let setup = setup.upstream("planning", planning).upstream("context", context);
    plugins.into_iter().fold(setup, |setup, name| setup.plugin(bundled(name)))
}

/// All four against the fleet's stand-ins, with the offline executor.
pub fn pipeline(world: &World, fleet: &Fleet) -> Setup {
    pipeline_on(world.setup(), fleet)
}

/// The same on the embedded bus, with the admin port that the fleet was told, and patient: a fleet that is killed may be away
/// for longer than three tries take.
pub fn local_pipeline(admin: &str, fleet: &Fleet) -> Setup {
    let setup = pipeline_on(Setup::local().with("admin.listen", admin), fleet);
    let plugins = ["prompt-builder", "output-parser", "dependency-analyzer", "workflow-router"];
    plugins
        .into_iter()
        .fold(setup, |setup, name| setup.plugin(bundled(name).every_subscription("max-attempts = 24")))
}

fn pipeline_on(setup: Setup, fleet: &Fleet) -> Setup {
    derivation_on(setup, &fleet.planning, &fleet.context)
        .plugin(bundled("workflow-router"))
        .with("executor.backend", "offline")
}

/// A setup's executor is the one at this address.
pub fn executed_at(setup: Setup, address: &str) -> Setup {
    setup.upstream("ray", address).with("executor.backend", "fleet").with("executor.upstream", "ray")
}
