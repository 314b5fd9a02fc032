//! `cofferdam jobs watch`: one line that is written anew on a terminal, line after line elsewhere.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use fleet_proto::admin::v1::{WatchJobsRequest, WatchJobsResponse};
use serde_json::{Value, json};

use super::{
    super::{
        door::Door,
        lines::{print, time},
        table::{cut, width},
    },
    WatchArgs, brief, rfc3339,
};

pub(super) async fn watch(mut door: Door, args: WatchArgs) -> anyhow::Result<()> {
    let interval_ms = u32::try_from(args.interval.as_millis()).unwrap_or(u32::MAX);
    let answer = door.jobs.watch(WatchJobsRequest { interval_ms }).await;
    let mut progress = answer.map_err(|status| door.told(&status))?.into_inner();
    let mut out = io::stdout();
    // Asked each time: people make their windows wider.
    let terminal = || width().filter(|_| !args.json);
    let mut open_line = false;
    let ended = loop {
        let told = tokio::select! {
            told = progress.message() => told,
            // What comes next begins on a line of its own.
            _ = tokio::signal::ctrl_c(), if open_line => return print(&mut out, "").map(drop),
        };
        let told = match told {
            Ok(Some(told)) => told,
            Ok(None) => break "the daemon ended the watch".to_owned(),
            Err(status) => break door.lost(&status),
        };
        let read = match terminal() {
            Some(width) => {
                open_line = true;
                // To the line's begin, and nothing left of what stood there.
                rewrite(&mut out, &format!("\r\x1b[K{}", cut(&line(&told), width)))?
            }
            None if args.json => print(&mut out, &as_json(&told).to_string())?,
            None => print(&mut out, &line(&told))?,
        };
        if !read {
            return Ok(());
        }
    };
    if open_line {
        print(&mut out, "")?;
    }
    bail!("nothing more is told: {ended}");
}

/// False if nobody reads any more.
fn rewrite(out: &mut impl Write, text: &str) -> anyhow::Result<bool> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output can't be written"),
    }
}

fn line(told: &WatchJobsResponse) -> String {
    let at = humantime::format_rfc3339_seconds(time(told.at.as_ref())).to_string();
    let clock = at.split_once('T').map_or(at.as_str(), |(_, clock)| clock);
    let workers = match told.workers {
        1 => "1 worker".to_owned(),
        workers => format!("{workers} workers"),
    };
    let oldest = match told.oldest_seconds {
        seconds if told.queued + told.running > 0 && seconds.is_finite() && seconds >= 1.0 => {
            format!(" (oldest {})", brief(Duration::from_secs(seconds as u64)))
        }
        _ => String::new(),
    };
    let mut ended = format!("{} done, {} failed", told.done, told.failed);
    if told.cancelled > 0 {
        ended.push_str(&format!(", {} cancelled", told.cancelled));
    }
    format!(
        "{clock}  {workers}  {} queued, {} running{oldest}  {ended}  {:.1} jobs/s  {:.1} tokens/s",
        told.queued, told.running, told.jobs_per_second, told.tokens_per_second
    )
}

fn as_json(told: &WatchJobsResponse) -> Value {
    json!({
        "time": rfc3339(time(told.at.as_ref())),
        "workers": told.workers,
        "queued": told.queued,
        "running": told.running,
        "done": told.done,
        "failed": told.failed,
        "cancelled": told.cancelled,
        "tokens_in": told.tokens_in,
        "tokens_out": told.tokens_out,
        "jobs_per_second": told.jobs_per_second,
        "tokens_per_second": told.tokens_per_second,
        "oldest_seconds": told.oldest_seconds,
    })
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn a_line_tells_how_things_stand() {
        let told = WatchJobsResponse {
            at: Some(Timestamp { seconds: 3661, nanos: 0 }),
            workers: 3,
            queued: 120,
            running: 48,
            done: 7,
            failed: 1,
            jobs_per_second: 12.34,
            tokens_per_second: 512.0,
            oldest_seconds: 75.2,
            ..WatchJobsResponse::default()
        };
        assert_eq!(
            line(&told),
            "01:01:01Z  3 workers  120 queued, 48 running (oldest 1m 15s)  7 done, 1 failed  12.3 jobs/s  512.0 tokens/s"
        );
        let quiet = WatchJobsResponse {
            workers: 1,
            cancelled: 2,
            oldest_seconds: 9.0,
            ..WatchJobsResponse::default()
        };
        assert_eq!(
            line(&quiet),
            "00:00:00Z  1 worker  0 queued, 0 running  0 done, 0 failed, 2 cancelled  0.0 jobs/s  0.0 tokens/s"
        );
    }
}
