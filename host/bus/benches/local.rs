//! A million events through the embedded bus: rates, disk, memory, and how long it takes to open after a kill.
//!
//! `cargo bench -p cofferdam-bus --bench local -- [EVENTS] [DIRECTORY]`
//!
//! A child process does the work and is killed in the middle of it, so that its memory is its own and the recovery is
//! that of a crash.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops at the first fault"
)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cofferdam_bus::{
    Bus, Change, ConsumerSpec, Delivery, Message, Opened, Point, Publish, Start, StreamSpec, Write,
    local::{self, LocalConfig},
};
use tokio::task::JoinSet;

const CHILD: &str = "--child";
/// Of each event and each effect.
const DATA: usize = 256;
const CELLS: u64 = 1000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // Cargo adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let child = args.iter().any(|a| a == CHILD);
    let mut args = args.iter().filter(|a| *a != CHILD);
    let events = args.next().map_or(1_000_000, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let directory = args.next().map_or_else(|| folder.path().to_owned(), PathBuf::from);
    if child { work(&directory, events).await } else { watch(&directory, events).await }
}

/// Starts the child, kills it when it has done its work, and opens what is left.
async fn watch(directory: &Path, events: u64) {
    println!(
        "{events} events of {DATA} bytes, one effect of {DATA} bytes each, {CELLS} cells; every confirmation is synced"
    );
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([CHILD, &events.to_string(), directory.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "kill me" {
            break;
        }
        println!("{line}");
    }
    println!("{:<46}{:>9.1} MiB", "memory, highest", peak_memory(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    println!("{:<46}{:>9.1} MiB", "disk", disk(directory));
    for how in ["after SIGKILL", "after a clean end"] {
        let began = Instant::now();
        let bus = local::open(LocalConfig { directory: directory.to_owned() }).await.unwrap();
        let mut reader = bus.read("IN", "in.>", Start::Sequence(events)).await.unwrap();
        assert!(reader.next().await.unwrap().sequence >= events);
        println!("{:<46}{:>9.0} ms", format!("open and read, {how}"), began.elapsed().as_secs_f64() * 1e3);
    }
}

async fn work(directory: &Path, events: u64) {
    let bus = local::open(LocalConfig { directory: directory.to_owned() }).await.unwrap();
    for (name, subjects) in [("IN", "in.>"), ("OUT", "out.>")] {
        let spec = StreamSpec {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            max_age: None,
            max_messages: None,
            max_bytes: None,
            duplicate_window: None,
        };
        bus.ensure_stream(&spec).await.unwrap();
    }
    let few = (events / 500).max(100);
    publish(&bus, few, 1).await;
    publish(&bus, events - few, 64).await;
    publish(&bus, few, 1024).await;
    let spec = ConsumerSpec {
        stream: "IN".to_owned(),
        durable: "d".to_owned(),
        filter: "in.>".to_owned(),
        ack_wait: Duration::from_secs(30),
        max_deliver: None,
        max_ack_pending: 65_536,
        ordered: false,
    };
    let origin = bus.ensure_consumer(&spec).await.unwrap();
    commit(&bus, &origin, few, 1).await;
    commit(&bus, &origin, events - few, 64).await;
    println!("kill me");
    publish(&bus, u64::MAX, 64).await;
}

async fn publish(bus: &Arc<dyn Bus>, count: u64, in_flight: usize) {
    let rate = Rate::start(&format!("publish, {in_flight} in flight"), count);
    flight(count, in_flight, |n| {
        let bus = bus.clone();
        async move {
            let message = Message {
                subject: format!("in.{}", n % CELLS),
                headers: vec![("X-Number".to_owned(), n.to_string())],
                data: Bytes::from(vec![b'x'; DATA]),
            };
            bus.publish(message, Publish::default()).await.unwrap();
        }
    })
    .await;
    rate.print();
}

async fn commit(bus: &Arc<dyn Bus>, origin: &Arc<cofferdam_bus::Origin>, count: u64, in_flight: usize) {
    let rate = Rate::start(&format!("take, run nothing, commit, {in_flight} in flight"), count);
    let mut deliveries = bus.deliveries(origin, in_flight * 2).await.unwrap();
    let mut running = JoinSet::new();
    for _ in 0..count {
        if running.len() == in_flight {
            running.join_next().await.unwrap().unwrap();
        }
        let delivery = deliveries.next().await.unwrap();
        running.spawn(run(bus.clone(), delivery));
    }
    running.join_all().await;
    deliveries.close().await;
    rate.print();
}

async fn run(bus: Arc<dyn Bus>, delivery: Delivery) {
    let key = delivery.stored.message.subject.clone();
    let point = Point::Cell { space: "bench".to_owned(), cell: key };
    loop {
        let Opened::Fresh(base) = bus.open(&delivery, &point).await.unwrap() else { return };
        let effect = Message {
            subject: format!("out.{}", delivery.stored.sequence % CELLS),
            headers: Vec::new(),
            data: delivery.stored.message.data.clone(),
        };
        let write = Write::Put { key: "state".to_owned(), value: Bytes::from(vec![b's'; 200]) };
        match bus
            .commit(
                &delivery,
                base,
                Change { writes: vec![write], effects: vec![effect], ..Change::default() },
            )
            .await
        {
            Err(cofferdam_bus::CommitError::Conflict) => {}
            done => return drop(done.unwrap()),
        }
    }
}

async fn flight<F: Future<Output = ()> + Send + 'static>(
    count: u64,
    in_flight: usize,
    one: impl Fn(u64) -> F,
) {
    let mut running = JoinSet::new();
    for n in 0..count {
        if running.len() == in_flight {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(one(n));
    }
    running.join_all().await;
}

struct Rate {
    what: String,
    count: u64,
    began: Instant,
}

impl Rate {
    fn start(what: &str, count: u64) -> Rate {
        Rate { what: what.to_owned(), count, began: Instant::now() }
    }

    fn print(self) {
        let rate = self.count as f64 / self.began.elapsed().as_secs_f64();
        println!("{:<46}{rate:>9.0} /s", self.what);
    }
}

fn disk(directory: &Path) -> f64 {
    let files = std::fs::read_dir(directory).unwrap().map(|f| f.unwrap().metadata().unwrap().len());
    files.sum::<u64>() as f64 / (1 << 20) as f64
}

fn peak_memory(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
