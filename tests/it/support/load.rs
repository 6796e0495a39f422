//! Many clients at once: a burst, or a steady load whose every failure is remembered.

use super::client::{Client, Failure, Response};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Runs `ask` in so many threads that all begin together; the outcomes in no order.
pub fn at_once<T: Send + 'static>(
    count: usize,
    ask: impl Fn(usize) -> T + Send + Sync + 'static,
) -> Vec<JoinHandle<T>> {
    let (ask, barrier) = (Arc::new(ask), Arc::new(Barrier::new(count)));
    let client = |number| {
        let (ask, barrier) = (Arc::clone(&ask), Arc::clone(&barrier));
        let body = move || {
            barrier.wait();
            ask(number)
        };
        std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(body)
            .expect("the machine has room for a thread")
    };
    (0..count).map(client).collect()
}

/// Waits for all of `at_once` and panics unless every answer is a 200.
#[track_caller]
pub fn all_served(threads: Vec<JoinHandle<Result<Response, Failure>>>) {
    let outcomes: Vec<_> =
        threads.into_iter().map(|thread| thread.join().expect("a client never panics")).collect();
    let is_served =
        |outcome: &&Result<Response, Failure>| outcome.as_ref().is_ok_and(|answer| answer.status == 200);
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !is_served(outcome)).collect();
    assert!(failed.is_empty(), "{} of {} failed, the first: {:?}", failed.len(), outcomes.len(), failed[0]);
}

/// What a load has seen.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Requests answered with 200.
    pub served: u64,
    /// Connections made.
    pub connections: u64,
    /// Why the others were not.
    pub failures: Vec<String>,
}

/// Clients that ask again and again on kept-alive connections until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Outcome>>,
}

impl Load {
    /// So many clients, each asking for `target` and resting for `pause` after every answer.
    ///
    /// A client makes a new connection only after an answer that announces the end of the old one: a daemon
    /// that closes without such a word costs a request, which counts as failed.
    pub fn start(address: SocketAddr, clients: usize, target: &str, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, target) = (Arc::clone(&stop), target.to_owned());
        let threads = at_once(clients, move |_| one_client(address, &target, pause, &flag));
        Self { stop, threads }
    }

    /// Lets every client finish its request and adds up what they saw.
    pub fn finish(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Outcome::default();
        for thread in self.threads.drain(..) {
            let one = thread.join().expect("a client never panics");
            sum.served += one.served;
            sum.connections += one.connections;
            sum.failures.extend(one.failures);
        }
        sum
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn one_client(address: SocketAddr, target: &str, pause: Duration, stop: &AtomicBool) -> Outcome {
    let mut seen = Outcome::default();
    let mut kept: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let mut client = match kept.take().map_or_else(|| Client::try_connect(address), Ok) {
            Ok(client) => client,
            Err(failure) => {
                seen.failures.push(format!("{failure:?}"));
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        match client.get(target) {
            Ok(answer) if answer.status == 200 => {
                seen.served += 1;
                if answer.closes() {
                    seen.connections += 1;
                } else {
                    kept = Some(client);
                }
            }
            Ok(answer) => seen.failures.push(format!("status {}", answer.status)),
            Err(failure) => seen.failures.push(format!("{failure:?} after {:?}", start.elapsed())),
        }
        std::thread::sleep(pause);
    }
    seen
}
