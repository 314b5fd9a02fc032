//! Places to run in, of a plugin or of the host. Who has one may wait, in a call of this host to itself, for somebody who needs
//! one: there are some beside the others for those, so that nobody waits for himself.
//!
//! A call within a run takes a free place as anybody, or one that is kept for its depth: the calls of a run lie at depth 1, the
//! calls of those at depth 2. A kept place is only ever held by a run that waits for nothing but deeper calls; at the greatest
//! depth it waits for none, and such a run makes no call that writes. So each of them comes to its end, and the ones above it follow.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How deep calls of the host to itself lie in one another at most.
pub const DEPTH: usize = 3;
/// Kept for each depth, for calls that write, and for clients' that read; as many as there are places at all, if those are fewer.
const KEPT: u32 = 4;

/// Who asks for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comer {
    Event,
    /// A client's call that reads: it is soon over, and the events of its plugin may not be.
    Read,
    /// A call that writes. It waits in an inbox, perhaps for a run of this host that waits for it.
    Write,
    /// A call that reads, made by a run of this host at the depth before, from 1 to [`DEPTH`].
    Within(usize),
}

pub struct Places {
    all: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    within: [Arc<Semaphore>; DEPTH],
}

impl Places {
    /// Where this host never calls itself none are kept: nobody waits for anybody here, and `count` is all there are.
    pub fn new(count: u32, calls_itself: bool) -> Self {
        let of = |count: u32| Arc::new(Semaphore::new(count as usize));
        let kept = if calls_itself { count.min(KEPT) } else { 0 };
        Self { all: of(count), reads: of(kept), writes: of(kept), within: std::array::from_fn(|_| of(kept)) }
    }

    /// How many may be taken beside `count`.
    pub fn beside(count: u32) -> u32 {
        count.min(KEPT) * (DEPTH as u32 + 2)
    }

    /// Waits for one; `None` once there are none for good.
    pub async fn take(&self, comer: Comer) -> Option<OwnedSemaphorePermit> {
        let all = self.all.clone().acquire_owned();
        let kept = match comer {
            Comer::Event => return all.await.ok(),
            Comer::Read => &self.reads,
            Comer::Write => &self.writes,
            Comer::Within(depth) => self.within.get(depth.checked_sub(1)?)?,
        };
        tokio::select! {
            biased;
            place = all => place.ok(),
            place = kept.clone().acquire_owned() => place.ok(),
        }
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.all.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_others_leaves_them_places() {
        let places = Places::new(2, true);
        let mut held = Vec::new();
        // At each depth all that there is, beside what is kept for deeper ones.
        for comer in [
            Comer::Event,
            Comer::Read,
            Comer::Write,
            Comer::Within(1),
            Comer::Within(2),
            Comer::Within(DEPTH),
        ] {
            for _ in 0..2 {
                held.push(places.take(comer).now_or_never().unwrap().unwrap());
            }
            assert!(places.take(comer).now_or_never().is_none(), "{comer:?}");
        }
        assert_eq!(held.len() as u32, 2 + Places::beside(2));
        assert!(places.take(Comer::Within(DEPTH + 1)).await.is_none());
        assert!(places.take(Comer::Within(0)).await.is_none());
    }

    #[tokio::test]
    async fn one_that_anybody_could_have_is_taken_first_and_whichever_comes_first_after_that() {
        let places = Places::new(1, true);
        let (any, kept) = (places.take(Comer::Within(1)).await, places.take(Comer::Within(1)).await);
        let mut next = Box::pin(places.take(Comer::Within(1)));
        assert!((&mut next).now_or_never().is_none());
        drop(any);
        let next = next.await;
        assert_eq!(places.free(), 0);
        drop((kept, next));
        assert_eq!(places.free(), 1);
    }

    #[tokio::test]
    async fn where_a_host_never_calls_itself_there_are_no_more_than_were_given() {
        let places = Places::new(1, false);
        let held = places.take(Comer::Write).await.unwrap();
        let mut next = Box::pin(places.take(Comer::Write));
        assert!((&mut next).now_or_never().is_none());
        drop(held);
        assert!(next.await.is_some());
    }

    #[test]
    fn of_few_places_few_are_kept() {
        assert_eq!([1, 2, 256].map(Places::beside), [5, 10, 20]);
    }
}
