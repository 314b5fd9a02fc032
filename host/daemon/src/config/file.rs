//! From the config's text to [`Config`]: each table's keys, defaults with their reasons, and what must fit together.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Value;

use super::{
    AdminConfig, Backend, Config, DispatchConfig, Environment, ExecutorConfig, Faults, Location, LogConfig,
    Reading, SandboxSettings, Upstream,
    bus::bus,
    env::Surroundings,
    executor::executor,
    grpc::{self, grpc},
    limits::Ceilings,
    paths::path_or,
    plugin::{Around, plugins},
    reader::{self, Table},
    settings::Origin,
    source::{Parsed, Source},
    token::token,
    upstreams::upstreams,
};
use crate::observe::logs;

/// Only this machine, unless the operator says otherwise.
const ADMIN: &str = "127.0.0.1:8080";
const LISTEN: &str = "COFFERDAM_LISTEN";
/// Characters of a token that strangers may try to guess: 64 bits even where they are hexadecimal digits.
const LEAST: usize = 16;
/// Compiled components, beside the config.
const CACHE: &str = ".cofferdam/compiled";
/// The config of the repository.
const BUILT_IN: &str = include_str!("../../../../cofferdam.toml");

/// Without `plugins` nothing of theirs is read.
pub(super) fn read(location: &Location, environment: &Environment, plugins: bool) -> Result<Reading, Faults> {
    let (source, base) = match location {
        Location::File(file) => {
            (Source::read(file)?, file.parent().map_or_else(PathBuf::new, Path::to_owned))
        }
        Location::BuiltIn => (Source::built_in(&location.to_string(), BUILT_IN), PathBuf::new()),
    };
    let surroundings = Surroundings::new(base, environment);
    let Parsed { value: config, mut faults, settings, broken } =
        reader::parse(&source, |top| whole(top, &surroundings, plugins));
    if broken {
        return Err(Faults(faults));
    }
    faults.extend(surroundings.into_faults());
    Ok(Reading { config, faults, settings })
}

/// What has a fault has some value all the same.
fn whole(top: &Table<'_>, surroundings: &Surroundings<'_>, with_plugins: bool) -> Config {
    let bus = top.section("bus", |t| bus(t, surroundings));
    let admin = top.section("admin", |t| admin(t, surroundings));
    let grpc = top.section("grpc", |t| grpc(t, surroundings, &grpc::PLUGINS));
    let envelope = top.section("wire", |t| {
        t.parsed_or("envelope", "mirror", "one of mirror, envelope, bare", |s| {
            ["mirror", "envelope", "bare"].contains(&s).then(|| s.to_owned())
        })
    });
    let log = top.section("log", |t| log(t, surroundings));
    let sandbox = top.section("sandbox", |t| sandbox(t, &surroundings.base));
    let limits = top.section("limits", |t| Ceilings::read(t, sandbox.memory));
    let dispatch = top.section("dispatch", dispatch);
    let advisories = top.section("observe", |t| t.boolean("advisories").or(false));
    let upstreams = top.section("upstreams", |t| upstreams(t, surroundings));
    let names = top.names_in("plugins");
    let executor = top.section("executor", |t| executor(t, &upstreams, &names, surroundings));
    if let Some(ExecutorConfig { backend: Backend::Fleet { upstream }, .. }) = &executor
        && !with_plugins
        && upstreams.get(upstream).is_some_and(Upstream::is_own)
    {
        top.table_or_empty("executor").fault_of(
            "upstream",
            format!(
                "the executor's upstream {upstream:?} is the daemon itself, and this process serves no plugins; give it the \
                 address of a daemon's [grpc] listen"
            ),
        );
    }
    let around = Around {
        surroundings,
        upstreams: &upstreams,
        // One that is faulty is there all the same.
        executor: top.has("executor"),
        memory: sandbox.memory,
        ceilings: &limits,
    };
    let plugins = match with_plugins {
        true => top.section("plugins", |t| plugins(t, &around)),
        false => {
            top.has("plugins");
            Vec::new()
        }
    };
    Config {
        bus,
        admin,
        grpc,
        envelope: envelope.unwrap_or_default(),
        log,
        sandbox,
        limits,
        dispatch,
        executor,
        upstreams,
        plugins,
        advisories,
    }
}

fn admin(table: &Table<'_>, surroundings: &Surroundings<'_>) -> AdminConfig {
    let wanted = "an address with a port such as \"127.0.0.1:8080\"";
    let listen: Option<SocketAddr> = table.parsed_or("listen", ADMIN, wanted, |s| s.parse().ok());
    let moved = surroundings.overriding(table, "listen", LISTEN).and_then(|text| {
        let moved: Option<SocketAddr> = text.parse().ok();
        if moved.is_none() {
            surroundings.fault(format!("{LISTEN} is {text:?}, which is not {wanted}"));
        }
        moved
    });
    let token = token(table, surroundings);
    let used = moved.or(listen);
    if let (Some(listen), Some(token)) = (used.filter(|a| !a.ip().is_loopback()), &token) {
        let length = token.reveal().len();
        if length < LEAST {
            let key = if table.has("token-file") { "token-file" } else { "token-env" };
            table.fault_of(
                key,
                format!(
                    "the token that admin.{key} names has {length} characters, and others than this machine could guess \
                     it at {listen}; make one of {LEAST} or more, such as `openssl rand -hex 32` prints"
                ),
            );
        }
    }
    // A token with a fault is one all the same.
    let protected = table.has("token-file") || table.has("token-env");
    let open = |what: &str, listen: SocketAddr| {
        format!(
            "{what} is {listen}, where others than this machine could publish and read; add token-file or token-env to \
             [admin], or listen on 127.0.0.1"
        )
    };
    match (moved, listen) {
        (Some(moved), _) if !moved.ip().is_loopback() && !protected => {
            surroundings.fault(open(LISTEN, moved));
        }
        (None, Some(listen)) if !listen.ip().is_loopback() && !protected => {
            table.fault_of("listen", open("admin.listen", listen));
        }
        _ => {}
    }
    let listen = used.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    AdminConfig { listen, token }
}

fn log(table: &Table<'_>, surroundings: &Surroundings<'_>) -> LogConfig {
    let wanted = logs::LEVELS;
    let mut level = table.parsed_or("level", "info", wanted, logs::level);
    if let Some(text) = surroundings.overriding(table, "level", "LOG_LEVEL") {
        match logs::level(&text) {
            Some(moved) => {
                table.set("level", Value::from(moved.as_str()), Origin::Variable("LOG_LEVEL".to_owned()));
                level = Some(moved);
            }
            None => surroundings.fault(format!("LOG_LEVEL is {text:?}, which is not {wanted}")),
        }
    }
    let json = table.parsed_or("format", "text", "text or json", |s| match s {
        "text" => Some(false),
        "json" => Some(true),
        _ => None,
    });
    LogConfig { level: level.unwrap_or_default(), json: json.unwrap_or_default() }
}

fn sandbox(table: &Table<'_>, base: &Path) -> SandboxSettings {
    SandboxSettings {
        cache: Some(path_or(table, "cache", base, Path::new(CACHE))),
        // Each costs address space, and memory only while it lives.
        instances: table.integer("instances", 1, 10_000).or(256),
        memory: table.size("memory").or(256 << 20),
    }
}

fn dispatch(table: &Table<'_>) -> DispatchConfig {
    DispatchConfig {
        // A few times what runs at once: enough to keep it busy, little enough that other hosts get their share.
        max_in_flight: table.integer("max-in-flight", 1, 65_536).or(256),
        drain: table.duration("drain").or(Duration::from_secs(30)),
        // A host that dies for another reason dies less often while one and the same event is all that it runs.
        max_deliveries: table.integer("max-deliveries", 1, 10_000).or(8),
    }
}
