//! Doing what the schedule says, to processes and lines.

use std::time::Duration;

use harness::{dice::Dice, proxy::Act};
use tokio::time::{Instant, sleep};

use crate::{mark::now, options::Kind, place::Place, schedule::Step, tap::Tap};

/// What was sent before a kill is on its way for at most so long.
const SETTLE: Duration = Duration::from_millis(30);
const POLL: Duration = Duration::from_millis(2);

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
        Kind::Daemon | Kind::Torn => {
            aim(place, step, Act::Hold).await;
            let host = &mut place.hosts[step.host];
            let who = Some(host.who());
            host.kill().await;
            sleep(SETTLE).await;
            if let Some(tap) = tap {
                tap.flush().await;
            }
            let kill = Kill { at: now(), who };
            if step.kind == Kind::Torn {
                place.tear(&mut Dice::of(step.seed));
            }
            sleep(step.lasts).await;
            place.start_host(step.host).await;
            return Some(kill);
        }
        Kind::Pause => {
            let host = &place.hosts[step.host];
            host.signal(libc::SIGSTOP);
            sleep(step.lasts).await;
            host.signal(libc::SIGCONT);
        }
        Kind::Server => {
            let nats = place.nats.as_mut().expect("a server");
            let (at, alone) = (now(), nats.nodes().len() == 1);
            nats.node(step.node).kill().await;
            sleep(step.lasts).await;
            nats.node(step.node).up().await;
            nats.ready().await;
            if let Some(tap) = tap {
                tap.blind(at).await;
            }
            // One of several ends nobody's work: what it cuts off is not told apart from what goes on.
            return alone.then_some(Kill { at, who: None });
        }
        Kind::Cut if step.aim.is_some() => {
            let act = if step.lasts.as_millis().is_multiple_of(2) { Act::CutAfter } else { Act::CutBefore };
            aim(place, step, act).await;
        }
        Kind::Cut => place.hosts[step.host].links.iter().for_each(|link| link.line.cut()),
        Kind::Delay => {
            let links = &place.hosts[step.host].links;
            links.iter().for_each(|link| link.line.delay(step.delay));
            sleep(step.lasts).await;
            links.iter().for_each(|link| link.line.delay(Duration::ZERO));
        }
        Kind::Upstream => {
            place.kill_ledger().await;
            sleep(step.lasts).await;
            place.start_ledger().await;
        }
    }
    None
}

/// Waits until a proxy has done this to the message that the step names; the host has one before each node.
async fn aim(place: &mut Place, step: &Step, act: Act) {
    let links = &place.hosts[step.host].links;
    let Some(aim) = step.aim.as_ref().filter(|_| !links.is_empty()) else {
        return sleep(step.lasts).await;
    };
    let acted = || links.iter().map(|link| link.proxy.hits()).sum::<u32>();
    let (before, deadline) = (acted(), Instant::now() + aim.patience);
    links.iter().for_each(|link| link.proxy.once(aim.subject, aim.skip, act));
    while acted() == before && Instant::now() < deadline {
        sleep(POLL).await;
    }
    links.iter().for_each(|link| link.proxy.forget());
}
