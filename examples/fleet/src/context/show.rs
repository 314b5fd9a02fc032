//! `fleet context`: what a running Context would tell an agent.

use anyhow::Context as _;
use fleet_proto::context::v1::{GetContextRequest, context_service_client::ContextServiceClient};
use serde_json::json;
use tonic::transport::Endpoint;

use super::text::DECISIONS;
use crate::{cli::ContextCommand, client::TIMEOUT, output};

pub(crate) async fn run(command: ContextCommand) -> anyhow::Result<()> {
    let ContextCommand::Show { story_id, role, address, json } = command;
    let url = if address.contains("://") { address.clone() } else { format!("http://{address}") };
    let channel = Endpoint::from_shared(url)
        .with_context(|| format!("{address:?} is no address (--context)"))?
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT)
        .connect()
        .await
        .with_context(|| {
            format!(
                "can't reach Context at {address}; start it with `fleet serve`, or name another with --context"
            )
        })?;
    let request = GetContextRequest { story_id, role, phase: "BUILD".to_owned(), ..Default::default() };
    let story_id = request.story_id.clone();
    let told = ContextServiceClient::new(channel)
        .get_context(request)
        .await
        .map_err(|status| anyhow::anyhow!("Context refused ({:?}): {}", status.code(), status.message()))?;
    let told = told.into_inner();
    if json {
        output::json(&json!({
            "story_id": story_id,
            "context": told.context,
            "decisions": decisions(&told.context),
            "scopes": told.scopes,
            "token_count": told.token_count,
            "version": told.version,
        }))?;
    } else {
        output::line(told.context.trim_end())?;
    }
    Ok(())
}

/// The lines below the heading.
fn decisions(context: &str) -> Vec<&str> {
    let lines = context.lines().skip_while(|line| *line != DECISIONS).skip(1);
    lines.map_while(|line| line.strip_prefix("- ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_the_lines_below_their_heading() {
        let told =
            "Tasks so far:\n- One (t, QA)\nDecisions:\n- D-1: One table.\n- D-2: A cache.\nThe end\n- E\n";
        assert_eq!(decisions(told), ["D-1: One table.", "D-2: A cache."]);
        assert!(decisions("Tasks so far:\n- One (t, QA)\n").is_empty());
    }
}
