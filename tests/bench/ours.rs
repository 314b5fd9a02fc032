//! Our side: a daemon on the rig's server, with the bench's plugin, warm before the first round.

use harness::{daemon::Daemon, setup::Setup};

use crate::{
    compare::{Round, Side},
    rig::{Isolation, Rig},
    track::Track,
    work::{Class, Work},
};

pub(crate) struct Ours<'a> {
    rig: &'a Rig,
    track: Track<'a>,
    daemon: Daemon,
    /// Its folder is there as long as the daemon.
    _setup: Setup,
}

impl<'a> Ours<'a> {
    pub(crate) async fn start(
        rig: &'a Rig,
        work: Work,
        class: Class,
        isolation: Isolation,
        events: u64,
    ) -> Ours<'a> {
        let route = rig.route("ours").await;
        let setup = rig.setup(&route.input, &route.output, class, isolation);
        let daemon = setup.start().await;
        let durable = Track::only_durable(rig, &route).await;
        let track = Track::new(rig, route, durable, work, events);
        Ours { rig, track, daemon, _setup: setup }
    }

    pub(crate) async fn end(mut self) {
        self.daemon.stop().await;
        self.rig.end(&self.track.route).await;
    }
}

impl Side for Ours<'_> {
    async fn round(&mut self) -> Result<Round, String> {
        let loaded = self.track.load().await;
        let finished = self.track.finish(loaded).await;
        // What the daemon has to say at this level is never good.
        finished.map_err(|why| match self.daemon.log().lines().last() {
            Some(line) => format!("{why}; the daemon's last line: {line}"),
            None => why,
        })
    }
}
