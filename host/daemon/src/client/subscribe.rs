//! `cofferdam sub`: shows what is published from now on, or what is stored. A daemon that goes away is waited for.

use std::{
    io::Write,
    time::{Duration, SystemTime},
};

use clap::Args;
use cofferdam_bus::subject;
use fleet_proto::bus::v1::{ReadRequest, SubscribeRequest, read_request::Start};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tonic::Status;

use super::{
    door::{Door, Reach, may_pass},
    lines::{self, Seen},
    resume::Progress,
    words,
};

/// Between attempts to reach a daemon that went away.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(5);
/// Between the connections and the printer.
const AHEAD: usize = 16;

#[derive(Debug, Args)]
pub struct SubArgs {
    /// What to show; `*` stands for one token, a last `>` for one or more.
    #[arg(value_name = "SUBJECT", required = true, value_parser = words::filter)]
    pub subjects: Vec<String>,
    /// Begins with all that is stored.
    #[arg(long, group = "start")]
    pub all: bool,
    /// Begins with this sequence of the stream.
    #[arg(long, value_name = "SEQUENCE", group = "start")]
    pub from: Option<u64>,
    /// Begins with what was stored then or later: a time such as 2026-01-31T12:00:00Z, or how long ago, such as 10m.
    #[arg(long, value_name = "TIME", group = "start", value_parser = since)]
    pub since: Option<SystemTime>,
    /// Begins with the newest stored message; of subjects without wildcards.
    #[arg(long, group = "start")]
    pub last: bool,
    /// Ends with what is stored by now.
    #[arg(long, requires = "start")]
    pub no_follow: bool,
    /// Ends after so many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Prints JSON, an object a line; without a beginning `{"ready":true}` comes first, once nothing is missed any more.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

impl SubArgs {
    /// What no argument is wrong with by itself.
    pub fn check(&self) -> Result<(), String> {
        match self.subjects.iter().find(|filter| self.last && subject::check(filter).is_err()) {
            Some(filter) => Err(format!(
                "--last wants subjects without wildcards, and {filter:?} has one; name them, or begin with --since"
            )),
            None => Ok(()),
        }
    }

    /// Where to begin to read; `None`: nothing stored is asked for.
    fn start(&self) -> Option<Option<Start>> {
        let from = self.from.map(Start::Sequence);
        let since = self.since.map(|time| Start::Time(time.into()));
        let last = self.last.then_some(Start::Last(true));
        let start = from.or(since).or(last);
        (start.is_some() || self.all).then_some(start)
    }
}

/// What a connection has to tell.
enum News {
    Ready,
    Message(Seen),
    Lost(String),
    Back,
}

/// Where a connection tells it. An error ends everything.
type Out = mpsc::Sender<anyhow::Result<News>>;

/// Prints messages until there are no more, or the user, the reader of the output or `--count` has had enough.
pub async fn subscribe(args: SubArgs) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        shown = show(args) => shown,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

async fn show(args: SubArgs) -> anyhow::Result<()> {
    let door = Door::open(&args.reach).await?;
    let (out, mut news) = mpsc::channel(AHEAD);
    let live = args.start().is_none();
    if live {
        tokio::spawn(tell_unstored(door.clone(), args.subjects.clone()));
    }
    match args.start() {
        None => {
            tokio::spawn(hear(door, args.subjects, out));
        }
        Some(start) => {
            for (n, subject) in args.subjects.iter().enumerate() {
                let progress = Progress::new(subject.clone(), start, !args.no_follow);
                let earlier = args.subjects[..n].to_vec();
                tokio::spawn(read(door.clone(), progress, earlier, out.clone()));
            }
            drop(out);
        }
    }
    let (mut stdout, mut left, mut lost) = (std::io::stdout(), args.count.unwrap_or(u64::MAX), 0_usize);
    while let Some(item) = news.recv().await {
        let line = match item? {
            News::Ready if live && args.json => json!({ "ready": true }).to_string(),
            News::Ready => continue,
            News::Message(seen) => {
                left -= 1;
                if args.json { seen.json().to_string() } else { seen.text() }
            }
            News::Lost(reason) => {
                if lost == 0 {
                    note(&format!("{reason}; trying again until it is back"));
                }
                lost += 1;
                continue;
            }
            News::Back => {
                lost -= 1;
                if lost == 0 {
                    let missed = if live { "; what was published meanwhile is missed" } else { "" };
                    note(&format!("the daemon is back{missed}"));
                }
                continue;
            }
        };
        if !lines::print(&mut stdout, &line)? || left == 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// For whoever watches; the output itself stays clean.
fn note(text: &str) {
    // Where standard error is gone, nobody is there to tell.
    writeln!(std::io::stderr(), "cofferdam: {text}").unwrap_or_default();
}

/// Says which subjects are stored nowhere: what nobody publishes now will not be found later, and may be misspelt.
async fn tell_unstored(mut door: Door, subjects: Vec<String>) {
    let mut unstored = Vec::new();
    // Some stream stores something of what begins with a wildcard.
    for subject in subjects.into_iter().filter(|subject| !subject.starts_with(['*', '>'])) {
        let start = Some(Start::Time(SystemTime::now().into()));
        let request = ReadRequest { subject: subject.clone(), follow: false, limit: 1, start };
        match door.bus.read(request).await {
            Err(status) if status.code() == tonic::Code::NotFound => unstored.push(format!("{subject:?}")),
            // Whatever else is wrong, whoever hears finds out.
            _ => {}
        }
    }
    if !unstored.is_empty() {
        let unstored = unstored.join(" or ");
        note(&format!("no stream stores {unstored} now; only what is published while this runs is shown"));
    }
}

/// Hears what is published, over lost connections.
async fn hear(mut door: Door, subjects: Vec<String>, out: Out) {
    let mut line = Line::new(out);
    loop {
        let called = door.bus.subscribe(SubscribeRequest { subjects: subjects.clone() }).await;
        let why = match called {
            Ok(answer) => {
                line.up().await;
                let mut messages = answer.into_inner();
                loop {
                    match messages.message().await {
                        Ok(Some(message)) => line.tell(News::Message(Seen::Live(message))).await,
                        Ok(None) => break Status::unavailable("the daemon ended the call"),
                        Err(status) => break status,
                    }
                    if line.is_over() {
                        return;
                    }
                }
            }
            Err(status) => status,
        };
        if !line.down(&door, why).await {
            return;
        }
    }
}

/// Reads what is stored, over lost connections. What an earlier subject of the same command stands for is its to show.
async fn read(mut door: Door, mut progress: Progress, earlier: Vec<String>, out: Out) {
    let mut line = Line::new(out);
    loop {
        let request = progress.request();
        let follow = request.follow;
        let why = match door.bus.read(request).await {
            Ok(answer) => {
                progress.begin();
                line.up().await;
                let mut messages = answer.into_inner();
                loop {
                    match messages.message().await {
                        Ok(Some(stored)) => {
                            let subject = stored.message.as_ref().map_or("", |m| &m.subject);
                            let shown = earlier.iter().any(|filter| subject::covers(filter, subject));
                            if progress.advance(&stored) && !shown {
                                line.tell(News::Message(Seen::Stored(stored))).await;
                            }
                        }
                        Ok(None) if !follow => return,
                        Ok(None) => break Status::unavailable("the daemon ended the call"),
                        Err(status) => break status,
                    }
                    if line.is_over() {
                        return;
                    }
                }
            }
            Err(status) if status.code() == tonic::Code::InvalidArgument && progress.widen() => continue,
            Err(status) => status,
        };
        if !line.down(&door, why).await {
            return;
        }
    }
}

/// One connection's state, as it is told.
struct Line {
    out: Out,
    /// Whether it ever was up: a daemon that was never there is an error.
    was_up: bool,
    is_lost: bool,
    wait: Duration,
}

impl Line {
    fn new(out: Out) -> Line {
        Line { out, was_up: false, is_lost: false, wait: SOON }
    }

    async fn tell(&self, news: News) {
        // Nobody listens any more: `is_over` says so next.
        self.out.send(Ok(news)).await.unwrap_or_default();
    }

    fn is_over(&self) -> bool {
        self.out.is_closed()
    }

    async fn up(&mut self) {
        if !self.was_up {
            self.tell(News::Ready).await;
        } else if self.is_lost {
            self.tell(News::Back).await;
        }
        (self.was_up, self.is_lost, self.wait) = (true, false, SOON);
    }

    /// Waits before the next attempt; false if there is none to be made.
    async fn down(&mut self, door: &Door, why: Status) -> bool {
        if !self.was_up || !may_pass(&why) {
            self.out.send(Err(door.told(&why))).await.unwrap_or_default();
            return false;
        }
        if !std::mem::replace(&mut self.is_lost, true) {
            self.tell(News::Lost(door.lost(&why))).await;
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LATER);
        !self.is_over()
    }
}

/// RFC 3339, or a time span before now.
pub(super) fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let wrong = "a time is written 2026-01-31T12:00:00Z, and how long ago 90s, 10m, 3h or 2days";
    let ago = humantime::parse_duration(text).map_err(|_| wrong.to_owned())?;
    SystemTime::now().checked_sub(ago).ok_or_else(|| wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: SubArgs,
    }

    fn parse(line: &[&str]) -> Result<SubArgs, String> {
        let line = Line::try_parse_from(["sub"].iter().chain(line));
        line.map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_stored_is_read_only_if_a_beginning_is_named() {
        assert_eq!(parse(&["a", "b"]).unwrap().start(), None);
        assert_eq!(parse(&["a", "--all"]).unwrap().start(), Some(None));
        assert_eq!(parse(&["a", "--from", "7"]).unwrap().start(), Some(Some(Start::Sequence(7))));
        assert_eq!(parse(&["a", "--last"]).unwrap().start(), Some(Some(Start::Last(true))));
        let since = parse(&["a", "--since", "1970-01-01T00:00:09Z"]).unwrap().start();
        assert_eq!(since, Some(Some(Start::Time(prost_types::Timestamp { seconds: 9, nanos: 0 }))));
        for wrong in [
            &[][..],
            &["a", "--no-follow"],
            &["a", "--all", "--last"],
            &["a", "--count", "0"],
            &["a", "--since", "yesterday"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_last_is_that_of_one_subject() {
        assert!(parse(&["a.b", "--last"]).unwrap().check().is_ok());
        assert!(parse(&["a.*", "--all"]).unwrap().check().is_ok());
        let wrong = parse(&["a", "a.*", "--last"]).unwrap().check().unwrap_err();
        assert!(wrong.contains("\"a.*\" has one"), "{wrong}");
        assert!(parse(&["a.b*"]).unwrap_err().contains("whole token"));
    }

    #[test]
    fn how_long_ago_counts_from_now() {
        let about = SystemTime::now() - Duration::from_secs(600);
        let time = since("10m").unwrap();
        assert!(time >= about && time <= about + Duration::from_secs(60), "{time:?}");
        assert!(since("").unwrap_err().contains("10m"));
    }
}
