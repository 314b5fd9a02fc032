//! CPU time of a future: what the polling threads spent in it, and an end once its budget is spent.
//!
//! To ask the system for a thread's CPU time takes longer than most runs need to answer a host call. So what a run takes at
//! first counts by the clock on the wall, which includes what others computed meanwhile, and the rest by CPU time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// By the clock on the wall. Far less than any budget, so that it hardly matters who else computes.
const AT_FIRST: Duration = Duration::from_millis(2);

/// Counts the CPU time of each poll. A guest gives way at every tick, so no poll of it is longer than one.
pub(crate) struct Metered<'a, F> {
    future: Pin<&'a mut F>,
    spent: Duration,
    budget: Duration,
}

/// The budget ran out before the future was done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spent;

impl<'a, F> Metered<'a, F> {
    pub(crate) fn new(future: Pin<&'a mut F>, budget: Duration) -> Self {
        Self { future, spent: Duration::ZERO, budget }
    }

    pub(crate) fn spent(&self) -> Duration {
        self.spent
    }
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = Result<F::Output, Spent>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = if self.spent < AT_FIRST {
            let before = Instant::now();
            let polled = self.future.as_mut().poll(context);
            self.spent += before.elapsed();
            polled
        } else {
            let before = thread_cpu_time();
            let polled = self.future.as_mut().poll(context);
            self.spent += thread_cpu_time().saturating_sub(before);
            polled
        };
        match polled {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if self.spent >= self.budget => Poll::Ready(Err(Spent)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Of the calling thread, since it started.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn compute(time: Duration) {
        let start = thread_cpu_time();
        while thread_cpu_time() - start < time {}
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_costs_nothing() {
        let waiting = pin!(tokio::time::sleep(Duration::from_secs(3600)));
        let mut metered = Metered::new(waiting, Duration::from_millis(50));
        assert_eq!((&mut metered).await, Ok(()));
        assert!(metered.spent() < Duration::from_millis(50));
    }

    #[tokio::test]
    async fn computing_past_the_budget_ends_at_the_next_yield() {
        let computing = pin!(async {
            loop {
                compute(Duration::from_millis(5));
                tokio::task::yield_now().await;
            }
        });
        let mut metered = Metered::new(computing, Duration::from_millis(12));
        let outcome: Result<(), Spent> = (&mut metered).await;
        assert_eq!(outcome, Err(Spent));
        assert!(metered.spent() >= Duration::from_millis(12));
        assert!(metered.spent() < Duration::from_millis(50));
    }
}
