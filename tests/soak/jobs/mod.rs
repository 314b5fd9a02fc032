//! The soak of the executor: jobs on a queue, workers that are killed in the middle of them and started again, and then a look at
//! what came of each job.

mod aim;
pub(crate) mod endpoint;
mod journal;
mod options;
mod place;
mod report;
mod verdict;

use std::{io::Write as _, time::Duration};

use harness::{
    answering,
    dice::Dice,
    jobs::{Queue, job},
};
use tokio::time::{Instant, sleep};

use self::{
    aim::{Aim, Windows},
    place::{LEASE, MODEL, PLACES, Place},
    verdict::{Answers, Killed, Verdict},
};
pub(crate) use self::{options::Options, report::Report};
use crate::mark::now;

const POLL: Duration = Duration::from_millis(5);
/// Workers that have nothing to do for so long get more.
const IDLE: Duration = Duration::from_millis(100);
/// Nothing new for so long means that nothing will come. Many leases, for a job may lose its worker several times.
const QUIET: Duration = Duration::from_secs(20);
/// A worker that lives and has jobs to take holds one within this.
const PATIENCE: Duration = Duration::from_secs(20);
/// For one message; one that doesn't come, because others were quicker, is not missed.
const AIMED: Duration = Duration::from_secs(3);

struct Soak {
    options: Options,
    place: Place,
    queue: Queue,
    dice: Dice,
    submitted: u64,
    /// Of each worker, those that hit a lease.
    kills: Vec<u64>,
    /// Jobs that were held when their worker was killed.
    held: u64,
    windows: Windows,
    killed: Killed,
    unfinished: Option<String>,
}

pub(crate) async fn run(options: Options) -> Report {
    let seed = options.seed.unwrap_or_else(|| Dice::new().seed());
    say(&format!("seed {seed}"));
    let place = Place::start(&options).await;
    let queue = Queue::new("soak", MODEL);
    queue.open(&place.jetstream).await;
    let kills = vec![0; options.workers];
    let (dice, began) = (Dice::of(seed), Instant::now());
    let (windows, killed, held, submitted, unfinished) = Default::default();
    let mut soak = Soak { options, place, queue, dice, submitted, kills, held, windows, killed, unfinished };
    soak.kill_all().await;
    soak.submit(u64::MAX).await;
    say("all is submitted");
    let answers = soak.rest().await;
    soak.report(&answers, seed, began.elapsed())
}

impl Soak {
    /// Stores so many more jobs, as long as there are any.
    async fn submit(&mut self, more: u64) {
        let end = self.options.jobs.min(self.submitted.saturating_add(more));
        for number in self.submitted..end {
            let job = job(&task(number), MODEL, &answering::prompt(number));
            let stored = self.queue.submit(&self.place.jetstream, &number.to_string(), &job).await;
            stored.unwrap_or_else(|e| panic!("job {number} was not stored: {e}"));
        }
        self.submitted = end;
    }

    /// Each worker as often as it was asked for, in turns; the jobs are spread over the kills.
    async fn kill_all(&mut self) {
        let workers = self.options.workers;
        let all = self.options.kills * workers as u64;
        let each = self.options.jobs / (all + 1);
        let mut down: Option<usize> = None;
        for number in 0..all {
            let victim = (number as usize) % workers;
            if down == Some(victim) {
                down = None;
                self.place.start_worker(victim).await;
            }
            self.submit(each.max(1)).await;
            let aim = Aim::of(number, PLACES, &mut self.dice);
            if !self.kill(victim, aim).await {
                self.unfinished
                    .get_or_insert(format!("worker {victim} held nothing when it was to be killed"));
                return;
            }
            if (number + 1).is_multiple_of((all / 10).max(1)) {
                say(&format!("{} jobs submitted, {} of {all} kills", self.submitted, number + 1));
            }
            if let Some(other) = down.take() {
                self.place.start_worker(other).await;
            }
            // Now and then two are down at a time, and now and then one for longer than its leases.
            match self.dice.below(4) {
                0 => down = Some(victim),
                1 => {
                    sleep(LEASE * 5 / 4).await;
                    self.place.start_worker(victim).await;
                }
                _ => {
                    sleep(Duration::from_millis(self.dice.below(200))).await;
                    self.place.start_worker(victim).await;
                }
            }
        }
        if let Some(victim) = down {
            self.place.start_worker(victim).await;
        }
    }

    /// Kills a worker while it holds leases. Tells whether it did.
    async fn kill(&mut self, victim: usize, aim: Aim) -> bool {
        let deadline = Instant::now() + PATIENCE;
        if let Aim::Ending { subject, skip, act } = aim {
            let worker = &self.place.workers[victim];
            let (acted, patience) = (worker.proxy.hits(), Instant::now() + AIMED);
            worker.proxy.once(subject, skip, act);
            let mut busy = Instant::now();
            while self.place.workers[victim].proxy.hits() == acted && Instant::now() < patience {
                self.keep_busy(&mut busy).await;
                sleep(POLL).await;
            }
            let worker = &self.place.workers[victim];
            worker.proxy.forget();
            if worker.proxy.hits() > acted {
                // Whatever else it does is no matter to the server any more.
                self.place.journal.refresh();
                self.end(victim, &aim.name(), 1 + self.place.journal.open(&worker.who())).await;
                return true;
            }
        }
        let wanted = if let Aim::Asking { open } = aim { open } else { 1 };
        let (soon, mut busy) = (Instant::now() + IDLE, Instant::now());
        loop {
            self.keep_busy(&mut busy).await;
            let who = self.place.workers[victim].who();
            // Fewer will do where no more come.
            let enough = if Instant::now() < soon { wanted } else { 1 };
            if self.place.journal.open(&who) >= enough {
                sleep(Duration::from_millis(self.dice.below(20))).await;
                // Frozen first, so that what it holds is what it dies with.
                self.place.workers[victim].signal(libc::SIGSTOP);
                sleep(POLL).await;
                // What the endpoint had answered before is in the journal by now.
                self.place.journal.refresh();
                let held = self.place.journal.open(&who);
                if held > 0 {
                    self.end(victim, "asking", held).await;
                    return true;
                }
                self.place.workers[victim].signal(libc::SIGCONT);
            }
            if Instant::now() > deadline {
                return false;
            }
            sleep(POLL).await;
        }
    }

    async fn end(&mut self, victim: usize, window: &str, held: u64) {
        self.place.workers[victim].kill().await;
        self.killed.insert(self.place.workers[victim].who(), now());
        self.kills[victim] += 1;
        self.held += held;
        *self.windows.entry(window.to_owned()).or_default() += 1;
    }

    /// Submits more where those that live have nothing to do: the rest is done, or waits for the leases of the dead.
    async fn keep_busy(&mut self, busy: &mut Instant) {
        self.place.journal.refresh();
        if self.place.is_busy() {
            *busy = Instant::now();
        } else if busy.elapsed() > IDLE {
            *busy = Instant::now();
            self.submit(PLACES).await;
        }
    }

    /// Waits until every job has ended, then lets every worker come again to whatever it may think has not.
    async fn rest(&mut self) -> Answers {
        let mut answers = Answers::default();
        let (mut news, mut before) = (Instant::now(), 0);
        while answers.jobs() < self.options.jobs {
            sleep(20 * POLL).await;
            self.place.journal.refresh();
            answers.refresh(&self.place.jetstream).await;
            let seen = answers.all() + self.place.journal.requests();
            if seen != before {
                (news, before) = (Instant::now(), seen);
            }
            if news.elapsed() > QUIET {
                let ended = answers.jobs();
                self.unfinished =
                    Some(format!("{ended} of {} jobs have ended, and nothing happens", self.options.jobs));
                break;
            }
        }
        sleep(2 * LEASE).await;
        self.place.stop_workers().await;
        self.place.journal.refresh();
        answers.refresh(&self.place.jetstream).await;
        answers.read_records(&self.place.jetstream).await;
        answers
    }

    fn report(self, answers: &Answers, seed: u64, took: Duration) -> Report {
        let Options { jobs, workers, kills, .. } = self.options;
        let verdict = Verdict::of(jobs, answers, &self.place.journal, &self.killed);
        let mut failed: Vec<String> = self.unfinished.into_iter().collect();
        failed.extend(verdict.faults());
        for (worker, hit) in self.kills.iter().enumerate().filter(|(_, hit)| **hit < kills) {
            failed.push(format!("worker {worker} was killed {hit} times while it held leases, not {kills}"));
        }
        verdict.told.iter().for_each(|told| say(told));
        Report {
            jobs,
            workers,
            kills: self.kills,
            held: self.held,
            windows: self.windows,
            verdict,
            seed,
            seconds: took.as_secs(),
            failed,
        }
    }
}

fn task(number: u64) -> String {
    format!("soak-{number}")
}

/// Progress, for people.
fn say(line: &str) {
    // Nobody may be there to read it.
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}
