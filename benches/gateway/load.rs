//! Load: as many requests as a proxy answers, or so many a second whatever it answers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::Result;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use crate::client::{Buffers, Client};
use crate::machine::CoreTime;
use crate::process::Process;
use crate::support::wait::in_time;

/// How many requests are under way at a time.
pub const IN_FLIGHT: usize = 64;

/// Nanoseconds; what takes longer counts as much.
const LONGEST: u64 = 60_000_000_000;

/// What was taken while a load went on.
#[derive(Debug)]
pub struct Taken {
    pub requests: u64,
    pub failures: u64,
    pub elapsed: Duration,
    /// Processor time of the proxy.
    pub cpu: Duration,
    /// Nanoseconds.
    pub latencies: Histogram<u64>,
    /// The shares of the time in which the proxy's core was not idle, and was taken away.
    pub busy: f64,
    pub stolen: f64,
}

impl Taken {
    /// Microseconds of processor time for each request.
    pub fn cpu_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count(self.requests)
    }

    /// Requests a second.
    pub fn throughput(&self) -> f64 {
        count(self.requests) / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of all does not exceed, in microseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        count(self.latencies.value_at_quantile(share)) / 1e3
    }
}

/// What all workers of one load share.
struct Shared {
    client: Rc<Client>,
    phase: Cell<Phase>,
    requests: Cell<u64>,
    failures: Cell<u64>,
    latencies: RefCell<Histogram<u64>>,
    /// Moments at which a request was due, and has not been sent.
    due: RefCell<VecDeque<Instant>>,
    more_due: Notify,
}

/// What is seen from outside.
struct Observed {
    elapsed: Duration,
    cpu: Duration,
    shares: [f64; 2],
}

#[derive(Clone, Copy)]
enum Phase {
    WarmUp,
    /// From this moment on.
    Measured(Instant),
    /// From the first moment to the second.
    Over(Instant, Instant),
}

impl Phase {
    fn is_over(self) -> bool {
        matches!(self, Self::Over(..))
    }

    /// Whether what began, or was due, at this moment counts, whenever it ends: what is under way at the end
    /// may be the slowest of all.
    fn has(self, begun: Instant) -> bool {
        match self {
            Self::WarmUp => false,
            Self::Measured(since) => since <= begun,
            Self::Over(since, until) => since <= begun && begun < until,
        }
    }
}

/// Requests of random users, one after the other in each of the workers, as fast as they are answered.
pub async fn saturate(
    client: &Rc<Client>,
    process: Option<&Process>,
    warm_up: Duration,
    time: Duration,
) -> Taken {
    let shared = Shared::new(client);
    let mut workers = JoinSet::new();
    for number in 0..IN_FLIGHT {
        workers.spawn_local(Rc::clone(&shared).go_on(number));
    }
    let observed = shared.observe(process, warm_up, time).await;
    in_time(workers.join_all()).await;
    shared.taken(observed)
}

/// So many requests of random users a second, each at its own moment, whether or not those before were
/// answered. Latency counts from the moment a request was due, so that a proxy which stalls is charged for
/// all that should have been sent meanwhile.
pub async fn at_rate(
    client: &Rc<Client>,
    process: Option<&Process>,
    rate: f64,
    warm_up: Duration,
    time: Duration,
) -> Taken {
    let shared = Shared::new(client);
    let mut workers = JoinSet::new();
    for number in 0..IN_FLIGHT {
        workers.spawn_local(Rc::clone(&shared).serve_what_is_due(number));
    }
    workers.spawn_local(Rc::clone(&shared).tick(Duration::from_secs_f64(1.0 / rate)));
    let observed = shared.observe(process, warm_up, time).await;
    shared.more_due.notify_waiters();
    in_time(workers.join_all()).await;
    shared.taken(observed)
}

/// One request of each user.
pub async fn once_for_each_user(client: &Rc<Client>) {
    let next = Rc::new(Cell::new(0));
    let mut workers = JoinSet::new();
    for number in 0..IN_FLIGHT {
        let (client, next) = (Rc::clone(client), Rc::clone(&next));
        workers.spawn_local(async move {
            let mut buffers = Buffers::default();
            while next.get() < client.users() {
                let user = next.replace(next.get() + 1);
                client.exchange(number, user, &mut buffers).await.expect("an answer for each");
            }
        });
    }
    workers.join_all().await;
}

impl Shared {
    fn new(client: &Rc<Client>) -> Rc<Self> {
        Rc::new(Self {
            client: Rc::clone(client),
            phase: Cell::new(Phase::WarmUp),
            requests: Cell::new(0),
            failures: Cell::new(0),
            latencies: RefCell::new(Histogram::new_with_max(LONGEST, 3).expect("three digits")),
            due: RefCell::default(),
            more_due: Notify::new(),
        })
    }

    async fn observe(&self, process: Option<&Process>, warm_up: Duration, time: Duration) -> Observed {
        sleep(warm_up).await;
        let cpu = || process.map_or(Duration::ZERO, Process::cpu);
        let (since, core, before) = (Instant::now(), CoreTime::now(), cpu());
        self.phase.set(Phase::Measured(since));
        sleep(time).await;
        let until = Instant::now();
        self.phase.set(Phase::Over(since, until));
        let cpu = cpu().saturating_sub(before);
        Observed { elapsed: until - since, cpu, shares: CoreTime::now().shares_since(&core) }
    }

    fn taken(&self, Observed { elapsed, cpu, shares: [busy, stolen] }: Observed) -> Taken {
        let (requests, failures) = (self.requests.get(), self.failures.get());
        let latencies = self.latencies.borrow().clone();
        Taken { requests, failures, elapsed, cpu, latencies, busy, stolen }
    }

    async fn go_on(self: Rc<Self>, number: usize) {
        let (mut dice, mut buffers) = (Dice::new(number), Buffers::default());
        while !self.phase.get().is_over() {
            let begun = Instant::now();
            let answered = self.client.exchange(number, dice.below(self.client.users()), &mut buffers).await;
            self.note(begun, answered.map(drop));
        }
    }

    async fn serve_what_is_due(self: Rc<Self>, number: usize) {
        let (mut dice, mut buffers) = (Dice::new(number), Buffers::default());
        loop {
            let due = self.due.borrow_mut().pop_front();
            let Some(due) = due else {
                if self.phase.get().is_over() {
                    return;
                }
                self.more_due.notified().await;
                continue;
            };
            let answered = self.client.exchange(number, dice.below(self.client.users()), &mut buffers).await;
            self.note(due, answered.map(drop));
        }
    }

    /// Says what is due. The runtime's own timers tick in milliseconds, which is far too coarse, and to be
    /// woken by the kernel for each request would take the load as long as the request: so it never rests.
    async fn tick(self: Rc<Self>, period: Duration) {
        let mut due = Instant::now();
        while !self.phase.get().is_over() {
            while due <= Instant::now() {
                self.due.borrow_mut().push_back(due);
                self.more_due.notify_one();
                due += period;
            }
            yield_now().await;
        }
    }

    fn note(&self, begun: Instant, answered: Result<()>) {
        if !self.phase.get().has(begun) {
            return;
        }
        match answered {
            Ok(()) => {
                self.requests.set(self.requests.get() + 1);
                let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.latencies.borrow_mut().saturating_record(nanoseconds);
            }
            Err(error) => {
                if self.failures.replace(self.failures.get() + 1) == 0 {
                    println!("failed: {error}");
                }
            }
        }
    }
}

/// Which user is next: as good a mixture as this needs (xorshift).
struct Dice(u64);

impl Dice {
    fn new(number: usize) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1))
    }

    #[expect(clippy::cast_possible_truncation, reason = "it is below a number of users")]
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % count as u64) as usize
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
pub fn count(number: u64) -> f64 {
    number as f64
}
