//! `cofferdam jobs list`.

use std::time::SystemTime;

use anyhow::bail;
use fleet_proto::admin::v1::{
    JobFilter, JobSummary, ListJobsRequest, ListJobsResponse, list_jobs_response::Item,
};
use tonic::Streaming;

use super::{
    super::{
        door::Door,
        lines::{note, print, shown, time},
        table::{Table, cut},
    },
    ListArgs, as_json, brief, took,
};

const HEAD: [&str; 9] = ["ID", "STATE", "SUBMITTED", "TASK", "MODEL", "AGENTS", "TOOK", "TOKENS", "WHY"];
const NUMBERS: &[usize] = &[5, 6, 7];
/// Of a name that others chose, which may be half a kilobyte long, in letters; `--json` has all of it.
const MAX_NAME: usize = 40;

pub(super) async fn list(mut door: Door, args: ListArgs) -> anyhow::Result<()> {
    let filter = args.filter();
    let request = ListJobsRequest { filter: Some(filter.clone()), newest: args.limit };
    let items = door.jobs.list(request).await.map_err(|status| door.told(&status))?.into_inner();
    let (jobs, more) = all(&door, items).await?;
    let mut out = std::io::stdout();
    let now = SystemTime::now();
    let lines = match args.json {
        true => jobs.iter().map(|job| as_json(job).to_string()).collect(),
        false if jobs.is_empty() => Vec::new(),
        false => Table::new(HEAD, NUMBERS).rows(jobs.iter().map(|job| cells(job, now))),
    };
    for line in lines {
        if !print(&mut out, &line)? {
            return Ok(());
        }
    }
    note(&counted(&filter, jobs.len(), more));
    Ok(())
}

/// All of them, and whether there are more.
async fn all(door: &Door, mut items: Streaming<ListJobsResponse>) -> anyhow::Result<(Vec<JobSummary>, bool)> {
    let mut jobs = Vec::new();
    loop {
        match items.message().await {
            Ok(Some(ListJobsResponse { item: Some(Item::Job(job)) })) => jobs.push(job),
            Ok(Some(ListJobsResponse { item: Some(Item::End(end)) })) => return Ok((jobs, end.more)),
            Ok(_) => bail!("the list ended before it was whole; try again"),
            Err(status) => bail!("the list is not whole: {}", door.lost(&status)),
        }
    }
}

fn cells(job: &JobSummary, now: SystemTime) -> [String; 9] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { shown(text.as_bytes()) };
    let submitted =
        job.submitted_at.as_ref().map(|at| humantime::format_rfc3339_seconds(time(Some(at))).to_string());
    let why = match (job.error_type.as_str(), job.error.as_str()) {
        ("", why) => why.to_owned(),
        (kind, why) => format!("{kind}: {why}"),
    };
    [
        shown(job.id.as_bytes()),
        or_dash(&job.state),
        submitted.unwrap_or_else(|| "-".to_owned()),
        cut(&or_dash(&job.task_id), MAX_NAME),
        cut(&or_dash(&job.model), MAX_NAME),
        job.agents.to_string(),
        took(job, now).map_or_else(|| "-".to_owned(), brief),
        match (job.tokens_in, job.tokens_out) {
            (0, 0) => "-".to_owned(),
            (tokens_in, tokens_out) => format!("{tokens_in}+{tokens_out}"),
        },
        shown(why.as_bytes()),
    ]
}

/// How many there are, for whoever watches; the output itself stays clean.
fn counted(filter: &JobFilter, count: usize, more: bool) -> String {
    let any = *filter == JobFilter::default();
    let s = if count == 1 { "" } else { "s" };
    match (count, more, any) {
        (0, _, true) => "there are no jobs".to_owned(),
        (0, _, false) => "no job matches".to_owned(),
        (_, true, true) => format!("these are the newest {count} (--limit shows more)"),
        (_, true, false) => format!("these are the newest {count} that match (--limit shows more)"),
        (_, false, true) => format!("{count} job{s}"),
        (_, false, false) => format!("{count} job{s} match{}", if count == 1 { "es" } else { "" }),
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn it_is_said_how_many_there_are() {
        let all = JobFilter::default();
        let failed = JobFilter { state: "failed".into(), ..JobFilter::default() };
        for (filter, count, more, expected) in [
            (&all, 0, false, "there are no jobs"),
            (&failed, 0, false, "no job matches"),
            (&all, 1, false, "1 job"),
            (&failed, 1, false, "1 job matches"),
            (&failed, 2, false, "2 jobs match"),
            (&all, 50, true, "these are the newest 50 (--limit shows more)"),
        ] {
            assert_eq!(counted(filter, count, more), expected);
        }
    }

    #[test]
    fn a_job_is_a_row() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let job = JobSummary {
            id: "p_normal_aa_1".into(),
            state: "failed".into(),
            task_id: "t\n1".into(),
            model: "m".into(),
            agents: 1,
            submitted_at: at(0),
            started_at: at(1),
            ended_at: at(3),
            tokens_in: 12,
            tokens_out: 3,
            error: "too late".into(),
            error_type: "timeout".into(),
            ..JobSummary::default()
        };
        let waiting =
            JobSummary { id: "q".into(), state: "queued".into(), agents: 3, ..JobSummary::default() };
        let mut table = Table::for_width(HEAD, NUMBERS, None);
        assert_eq!(
            table.rows([&job, &waiting].map(|job| cells(job, SystemTime::UNIX_EPOCH))),
            [
                "ID             STATE   SUBMITTED             TASK  MODEL  AGENTS  TOOK  TOKENS  WHY",
                "p_normal_aa_1  failed  1970-01-01T00:00:00Z  t\\n1  m           1  2.0s    12+3  timeout: too late",
                "q              queued  -                     -     -           3     -       -",
            ]
        );
    }

    #[test]
    fn a_long_name_leaves_the_columns_where_they_are() {
        let job =
            JobSummary { task_id: "t".repeat(512), model: "\u{202e}m".repeat(512), ..JobSummary::default() };
        let cells = cells(&job, SystemTime::UNIX_EPOCH);
        assert_eq!(cells[3], format!("{}…", "t".repeat(39)));
        assert_eq!((cells[4].chars().count(), &cells[4][..10]), (40, "\\u{202e}m\\"));
    }
}
