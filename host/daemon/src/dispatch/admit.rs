//! Admission: events of one key take turns, in the order in which they were taken from the stream; then permits for
//! the host and the plugin, so that there are never more instances than there is room for. What a run calls at its own host comes in
//! beside it (see `places.rs`).

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, oneshot};

use super::places::{Comer, Places};

/// Space and cell.
type Key = (String, String);

pub struct Admission {
    keys: Arc<Keys>,
    host: Places,
    /// Shared by all that runs; who runs alone has it to himself.
    ground: Arc<RwLock<()>>,
}

/// Who holds each key (an entry exists) and who waits for it.
#[derive(Default)]
struct Keys(Mutex<HashMap<Key, VecDeque<oneshot::Sender<()>>>>);

impl Keys {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, VecDeque<oneshot::Sender<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue of a key; dropping it gives up the place, or the turn.
pub struct Turn {
    keys: Arc<Keys>,
    key: Option<Key>,
    waiting: Option<oneshot::Receiver<()>>,
}

/// Held while an event runs and commits.
pub enum Permits {
    Beside {
        _ground: OwnedRwLockReadGuard<()>,
        room: Option<Room>,
    },
    /// On the ground of the run that it is called by, as well as its own where there is some.
    Within {
        _ground: Option<OwnedRwLockReadGuard<()>>,
        _room: Room,
    },
    Alone(OwnedRwLockWriteGuard<()>),
}

/// Of the plugin and of the host, for one instance.
pub struct Room {
    _plugin: OwnedSemaphorePermit,
    _host: OwnedSemaphorePermit,
}

impl Permits {
    /// The instance is gone. What is left waits for the bus, and others run meanwhile: only where that is little, for it is in
    /// memory until it is committed.
    pub fn make_room(&mut self) {
        if let Permits::Beside { room, .. } = self {
            *room = None;
        }
    }

    /// For another run.
    pub fn has_room(&self) -> bool {
        !matches!(self, Permits::Beside { room: None, .. })
    }
}

/// How long others wait, at first, for one that is to run alone; twice as long the next time, up to [`MOST`]: whatever runs comes
/// to an end within its limit of wall time. In between it leaves them [`PEACE`] times as long: a commit that waits for the bus
/// may take for ever.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(60);
const PEACE: u32 = 8;

impl Admission {
    /// `calls_itself`: runs of this host wait for others of it.
    pub fn new(instances: u32, calls_itself: bool) -> Self {
        Self { keys: Arc::default(), host: Places::new(instances, calls_itself), ground: Arc::default() }
    }

    /// Takes a place. Called in stream order, before anything is awaited; an event without a key needs no turn.
    pub fn queue(&self, key: Option<Key>) -> Turn {
        let waiting = key.as_ref().and_then(|key| match self.keys.lock().entry(key.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(VecDeque::new());
                None
            }
            Entry::Occupied(mut entry) => {
                let (send, receive) = oneshot::channel();
                entry.get_mut().push_back(send);
                Some(receive)
            }
        });
        Turn { keys: self.keys.clone(), key, waiting }
    }

    /// Waits for room. The plugin's permit comes first: a plugin at its limit must not hold places of the host.
    pub async fn permits(&self, plugin: &Places, comer: Comer) -> Option<Permits> {
        let room = Room { _plugin: plugin.take(comer).await?, _host: self.host.take(comer).await? };
        if let Comer::Within(_) = comer {
            // Whoever waits to be alone waits for the caller, and whoever is alone may be the caller.
            let ground = self.ground.clone().try_read_owned().ok();
            return Some(Permits::Within { _ground: ground, _room: room });
        }
        // Last, so that nobody who holds it waits for a permit, but for what is kept for calls.
        let ground = self.ground.clone().read_owned().await;
        Some(Permits::Beside { _ground: ground, room: Some(room) })
    }

    /// Waits until nothing else runs, and keeps everything else waiting. Takes no permits: all of them are free then, and
    /// those who wait for their turn alone are not to hold any.
    pub async fn alone(&self) -> Permits {
        let mut patience = PATIENCE;
        loop {
            if let Ok(ground) = tokio::time::timeout(patience, self.ground.clone().write_owned()).await {
                return Permits::Alone(ground);
            }
            tokio::time::sleep(patience * PEACE).await;
            patience = (patience * 2).min(MOST);
        }
    }
}

impl Turn {
    /// Waits until all events of the key that queued before are through.
    pub async fn come(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            // The sender is only dropped after it has sent.
            if waiting.await.is_ok() {
                self.waiting = None;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        if let Some(waiting) = &mut self.waiting {
            waiting.close();
            // Still waiting: whoever has the turn skips us. If the turn arrived just before, we pass it on.
            if waiting.try_recv().is_err() {
                return;
            }
        }
        let mut keys = self.keys.lock();
        if let Entry::Occupied(mut entry) = keys.entry(key) {
            while let Some(next) = entry.get_mut().pop_front() {
                if next.send(()).is_ok() {
                    return;
                }
            }
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Option<Key> {
        Some(("s".into(), "k".into()))
    }

    #[tokio::test]
    async fn turns_come_in_the_order_of_queueing() {
        let admission = Admission::new(8, true);
        let mut first = admission.queue(key());
        let mut second = admission.queue(key());
        let mut third = admission.queue(key());
        first.come().await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = [(3, &mut third), (2, &mut second)].into_iter().map(|(n, _)| n).collect();
        assert_eq!(tasks, [3, 2]);
        let (o2, o3) = (order.clone(), order.clone());
        let third = tokio::spawn(async move {
            third.come().await;
            o3.lock().unwrap().push(3);
        });
        let second = tokio::spawn(async move {
            second.come().await;
            o2.lock().unwrap().push(2);
        });
        drop(first);
        second.await.unwrap();
        third.await.unwrap();
        assert_eq!(*order.lock().unwrap(), [2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_runs_alone_and_holds_up_the_others_for_some_seconds_only() {
        let admission = Arc::new(Admission::new(8, true));
        let plugin = Arc::new(Places::new(8, true));
        let long = admission.permits(&plugin, Comer::Event).await.unwrap();
        let alone = tokio::spawn({
            let admission = admission.clone();
            async move { admission.alone().await }
        });
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        // What it waits for comes to its end.
        let within = admission.permits(&plugin, Comer::Within(1)).await.unwrap();
        assert!(began.elapsed().is_zero() && matches!(within, Permits::Within { _ground: None, .. }));
        drop(within);
        // Behind the one that waits to be alone, until that gives way.
        let second = admission.permits(&plugin, Comer::Event).await.unwrap();
        assert!(began.elapsed() <= PATIENCE && !alone.is_finished(), "{:?}", began.elapsed());
        drop((long, second));
        let alone = alone.await.unwrap();
        assert!(tokio::time::timeout(PATIENCE, admission.permits(&plugin, Comer::Event)).await.is_err());
        admission.permits(&plugin, Comer::Within(1)).await.unwrap();
        drop(alone);
        admission.permits(&plugin, Comer::Event).await.unwrap();
    }

    #[tokio::test]
    async fn who_commits_leaves_room_for_another_run() {
        let admission = Admission::new(1, true);
        let plugin = Places::new(1, true);
        let mut first = admission.permits(&plugin, Comer::Event).await.unwrap();
        assert!(first.has_room() && plugin.free() == 0);
        first.make_room();
        assert!(!first.has_room());
        assert!(admission.permits(&plugin, Comer::Event).await.unwrap().has_room());
    }

    #[tokio::test]
    async fn one_that_gives_up_is_skipped_and_nothing_is_left() {
        let admission = Admission::new(8, true);
        let first = admission.queue(key());
        let second = admission.queue(key());
        let mut third = admission.queue(key());
        drop(second);
        drop(first);
        third.come().await;
        drop(third);
        assert!(admission.keys.lock().is_empty());
    }

    #[tokio::test]
    async fn a_turn_that_arrives_while_giving_up_is_passed_on() {
        let admission = Admission::new(8, true);
        let first = admission.queue(key());
        let second = admission.queue(key());
        let mut third = admission.queue(key());
        drop(first);
        drop(second);
        third.come().await;
    }
}
