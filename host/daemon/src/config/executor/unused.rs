//! What the file says of the executor and the backend makes nothing of: told by `cofferdam check`, and no fault, so that a
//! backend can be changed for a while.

use super::{Backend, EndpointSettings, ExecutorConfig};
use crate::config::{Settings, literal::show_size};

/// What one commit holds where nobody changed the bus: NATS's `max_payload` of 1 MiB, less what is left free of it, as on the
/// local bus.
const COMMIT: usize = 960 << 10;

/// A key, or a table and all below it, with the backends that it is for.
const KEYS: [(&str, &str, &[&str]); 6] = [
    ("executor", "upstream", &["fleet"]),
    ("executor", "vllm-url", &["fleet", "queue"]),
    ("executor", "attempts", &["queue"]),
    ("executor", "repeat", &["queue"]),
    ("executor", "stream-tokens", &["queue", "offline"]),
    ("executor", "task-results", &["queue", "offline"]),
];
const TABLES: [(&str, &[&str]); 4] = [
    ("executor.endpoints", &["queue"]),
    ("executor.models", &["queue"]),
    ("executor.cache", &["queue"]),
    ("executor.offline", &["offline"]),
];

/// Each with its line, in no order.
pub fn unused(settings: &Settings, executor: &ExecutorConfig) -> Vec<(Option<usize>, String)> {
    let backend = executor.backend.name();
    let set = |table: &str, key: &str| settings.get(table, key).and_then(|setting| setting.origin.line());
    let mut all = Vec::new();
    for (table, key, of) in KEYS {
        if let Some(line) = set(table, key).filter(|_| !of.contains(&backend)) {
            all.push((Some(line), nothing(&format!("{table}.{key}"), backend, of)));
        }
    }
    for (table, of) in TABLES {
        let below =
            |name: &str| name == table || name.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
        let line = settings.iter().filter(|s| below(&s.table)).filter_map(|s| s.origin.line()).min();
        if let Some(line) = line.filter(|_| !of.contains(&backend)) {
            all.push((Some(line), nothing(&format!("[{table}]"), backend, of)));
        }
    }
    if executor.backend == Backend::Queue {
        all.extend(unasked(settings, executor, &set));
    }
    all
}

fn nothing(what: &str, backend: &str, of: &[&str]) -> String {
    let of: Vec<String> = of.iter().map(|backend| format!("{backend:?}")).collect();
    format!("{what} means nothing with backend = {backend:?}, only with {}", of.join(" or "))
}

/// What nobody asks, or nobody here answers.
fn unasked(
    settings: &Settings,
    executor: &ExecutorConfig,
    set: &impl Fn(&str, &str) -> Option<usize>,
) -> Vec<(Option<usize>, String)> {
    let mut all = Vec::new();
    let ExecutorConfig { model, inference, .. } = executor;
    let configured =
        settings.iter().any(|s| s.table.starts_with("executor.endpoints.") && s.origin.line().is_some());
    if let Some(line) = set("executor", "vllm-url").filter(|_| configured) {
        let message = "executor.vllm-url means nothing beside [executor.endpoints]; remove it".to_owned();
        all.push((Some(line), message));
    }
    for endpoint in &inference.endpoints {
        let name = &endpoint.name;
        let mut served = inference.models.iter().flat_map(|model| &model.endpoints);
        if !served.any(|(at, _)| at == name) {
            let message = format!(
                "no model is asked of the endpoint {name:?}; add it to endpoints of one in [executor.models], or remove it"
            );
            all.push((set(&format!("executor.endpoints.{name}"), "url"), message));
        }
        all.extend(idle_places(endpoint, executor, set));
        all.extend(unstored(endpoint, executor, settings));
    }
    if !inference.models.iter().any(|served| served.name == *model) {
        let message = format!(
            "jobs that name no model are for {model:?}, which no endpoint here is asked for: they wait for a worker with \
             another configuration; set [executor] model, or add [executor.models.{model:?}]"
        );
        all.push((set("executor", "model").or_else(|| settings.table("executor")), message));
    }
    all
}

/// Places at an endpoint that nothing here ever takes.
fn idle_places(
    endpoint: &EndpointSettings,
    executor: &ExecutorConfig,
    set: &impl Fn(&str, &str) -> Option<usize>,
) -> Option<(Option<usize>, String)> {
    let EndpointSettings { name, concurrency, .. } = endpoint;
    let line = set(&format!("executor.endpoints.{name}"), "concurrency")?;
    let models = executor.inference.models.iter();
    let asked = models.filter(|model| model.endpoints.iter().any(|(at, _)| at == name));
    let by_models = asked.map(|model| u64::from(model.concurrency)).sum::<u64>();
    let here = executor.concurrency;
    (by_models > 0 && u64::from(*concurrency) > by_models.min(here.into())).then(|| {
        let message = format!(
            "the endpoint {name:?} never has {concurrency} requests of this process: concurrency is {here} in [executor], and \
             {by_models} in its models; raise what is lower, or lower the endpoint's"
        );
        (Some(line), message)
    })
}

/// A limit of answers above what an event of one is stored with: who sets it means to have such answers.
fn unstored(
    endpoint: &EndpointSettings,
    executor: &ExecutorConfig,
    settings: &Settings,
) -> Option<(Option<usize>, String)> {
    let table = format!("executor.endpoints.{}", endpoint.name);
    let line = settings.get(&table, "max-answer")?.origin.line()?;
    let envelope = settings.get("wire", "envelope").and_then(|setting| setting.value.as_ref()?.as_str());
    let (mut times, mut because) = (1, String::new());
    for (doubles, key) in [
        (matches!(envelope, Some("mirror")), "wire.envelope = \"mirror\""),
        (executor.task_results, "executor.task-results"),
    ] {
        if doubles {
            times *= 2;
            because.push_str(if because.is_empty() { ", as it is there " } else { " and " });
            because.push_str(key);
        }
    }
    if times > 1 {
        because = because.replace("as it is there ", &format!("as it is there {times} times with "));
    }
    let room = COMMIT / times;
    (endpoint.max_answer > room).then(|| {
        let message = format!(
            "{table}.max-answer is {}, and the event of an answer over about {} can't be stored where the bus has its usual limit \
             of 1 MiB{because}: it is told as result_too_large, after it was paid for; lower it, or raise NATS's max_payload",
            show_size(endpoint.max_answer),
            show_size(room)
        );
        (Some(line), message)
    })
}
