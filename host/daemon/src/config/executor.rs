//! `[executor]`: who works the jobs that plugins submit.

use std::collections::BTreeMap;

use toml::Value;

use super::{Backend, ExecutorConfig, Upstream, Url, env::Surroundings, reader::Table, settings::Origin};

/// What the fleet's own deployment uses.
const MODEL: &str = "Qwen/Qwen2.5-7B-Instruct";
const VLLM_URL: &str = "http://vllm-server-service:8000";
const UPSTREAM: &str = "ray";

/// `None` if there is no such table, or along with a fault; every key has been read by then.
pub(super) fn executor(
    table: &Table<'_>,
    upstreams: &BTreeMap<String, Upstream>,
    surroundings: &Surroundings<'_>,
) -> Option<ExecutorConfig> {
    if !table.is_there() {
        return None;
    }
    let name = table.required("backend", "\"offline\"");
    let upstream = table.string("upstream");
    let model = table.text("model").or(MODEL.to_owned());
    let model = surroundings.overriding(table, "model", "VLLM_MODEL").unwrap_or(model);
    let wrong = |what: &str, url: &str| {
        format!("{what} is {:?}, which is not a URL; write one such as {VLLM_URL:?}", Url::new(url))
    };
    let vllm_url = table.text("vllm-url").or(VLLM_URL.to_owned());
    if !is_http_url(&vllm_url) {
        table.fault_of("vllm-url", wrong("executor.vllm-url", &vllm_url));
    }
    let moved = surroundings.overriding(table, "vllm-url", "VLLM_URL");
    if let Some(url) = moved.as_ref().filter(|url| !is_http_url(url)) {
        surroundings.fault(wrong("VLLM_URL", url));
    }
    let concurrency = table.integer("concurrency", 1, 10_000).or(16);
    let name = name?;
    let backend = match name.value.as_str() {
        "offline" => Backend::Offline,
        "fleet" => {
            let upstream = upstream.unwrap_or_else(|| {
                table.set("upstream", Value::from(UPSTREAM), Origin::Default);
                name.with(UPSTREAM)
            });
            if !upstreams.contains_key(&upstream.value) {
                table.fault_at(
                    &upstream,
                    format!(
                        "the executor's upstream {:?} is not configured; add [upstreams.{}] with its address",
                        upstream.value, upstream.value
                    ),
                );
            }
            Backend::Fleet { upstream: upstream.value }
        }
        other => {
            table.fault_at(&name, format!("executor.backend is {other:?}; known here: offline, fleet"));
            return None;
        }
    };
    Some(ExecutorConfig { backend, model, vllm_url: Url::new(moved.unwrap_or(vllm_url)), concurrency })
}

fn is_http_url(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|u| {
        matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some_and(|h| !h.is_empty())
    })
}
