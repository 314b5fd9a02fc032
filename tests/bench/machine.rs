//! What it was measured on.

use serde::Serialize;

use crate::rig::server_version;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    nats_server: String,
}

impl Machine {
    pub(crate) fn this() -> Machine {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let model = after(&read("/proc/cpuinfo"), "model name");
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        Machine {
            cpu: model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0u64) / 1024,
            kernel: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
            nats_server: server_version().replace("nats-server: ", ""),
        }
    }

    pub(crate) fn line(&self) -> String {
        let Machine { cpu, cores, memory_mib, kernel, nats_server } = self;
        format!("{cpu}, {cores} cores, {memory_mib} MiB, {kernel}, nats-server {nats_server}")
    }
}

/// What follows the name and a colon in the first line that begins with it.
fn after(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
