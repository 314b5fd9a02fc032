//! Doing what the schedule says, to processes and lines.

use std::time::Duration;

use harness::proxy::Act;
use tokio::time::{sleep, timeout};

use crate::{mark::now, options::Kind, place::Place, schedule::Step, tap::Tap};

/// For an aimed fault; then it happens anyway.
const AIM: Duration = Duration::from_secs(2);
/// What was sent before a kill is on its way for at most so long.
const SETTLE: Duration = Duration::from_millis(30);

/// A kill that cut off events.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    /// By when everything that was sent before it had been seen.
    pub(crate) at: u64,
    /// Whose events; `None`: everybody's.
    pub(crate) who: Option<String>,
}

pub(crate) async fn inject(place: &mut Place, step: &Step, tap: Option<&Tap>) -> Option<Kill> {
    match step.kind {
        Kind::Daemon => {
            aim(place, step, Act::Hold).await;
            let host = &mut place.hosts[step.host];
            let who = Some(host.who());
            host.kill().await;
            sleep(SETTLE).await;
            if let Some(tap) = tap {
                tap.flush().await;
            }
            let kill = Kill { at: now(), who };
            sleep(step.lasts).await;
            place.start_host(step.host).await;
            return Some(kill);
        }
        Kind::Pause => {
            place.hosts[step.host].signal(libc::SIGSTOP);
            sleep(step.lasts).await;
            place.hosts[step.host].signal(libc::SIGCONT);
        }
        Kind::Server => {
            let nats = place.nats.as_mut().expect("a server");
            let at = now();
            nats.kill().await;
            sleep(step.lasts).await;
            nats.up().await;
            if let Some(tap) = tap {
                tap.blind(at).await;
            }
            return Some(Kill { at, who: None });
        }
        Kind::Cut if step.aim.is_some() => {
            let act = if step.lasts.as_millis().is_multiple_of(2) { Act::CutAfter } else { Act::CutBefore };
            aim(place, step, act).await;
        }
        Kind::Cut => place.hosts[step.host].link.as_ref().expect("a line").line.cut(),
        Kind::Delay => {
            let line = &place.hosts[step.host].link.as_ref().expect("a line").line;
            line.delay(step.delay);
            sleep(step.lasts).await;
            line.delay(Duration::ZERO);
        }
        Kind::Upstream => {
            place.kill_ledger().await;
            sleep(step.lasts).await;
            place.start_ledger().await;
        }
    }
    None
}

/// Waits until the proxy has done this to the message that the step names.
async fn aim(place: &mut Place, step: &Step, act: Act) {
    let (Some(aim), Some(link)) = (&step.aim, &mut place.hosts[step.host].link) else {
        return sleep(step.lasts).await;
    };
    link.proxy.once(aim.subject, aim.skip, act);
    if timeout(AIM, link.proxy.acted(link.acted + 1)).await.is_err() {
        // What nobody publishes takes the rule's place.
        link.proxy.once("\0", 0, Act::CutBefore);
    }
    if timeout(Duration::from_millis(1), link.proxy.acted(link.acted + 1)).await.is_ok() {
        link.acted += 1;
    }
}
