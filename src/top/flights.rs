//! The workers that are held, as lines of a table: put into order, and sifted by the filter.
//!
//! Pure.

use super::view::{Sort, View};
use crate::clock::Moment;
use crate::scoreboard::snapshot::{Child, Request, Shown, Snapshot, Worker};
use crate::scoreboard::state::{Stage, WorkerState};
use std::cmp::{Ordering, Reverse};

/// A worker that is held, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Flight<'a> {
    /// Its child.
    pub child: &'a Child,
    /// Its row.
    pub worker: &'a Worker,
    /// Microseconds since its request began; `None` if it has no request now, or no row tells.
    pub age: Option<u64>,
    /// Who answers; empty if that is not known.
    pub backend: &'a str,
}

impl<'a> Flight<'a> {
    fn of(snapshot: &'a Snapshot, child: &'a Child, worker: &'a Worker, as_of: Moment) -> Self {
        let age = if is_asked(worker) { worker.request() } else { None };
        let backend = snapshot.backends.iter().find(|backend| Some(backend.row) == worker.backend);
        Self {
            child,
            worker,
            age: age.map(|request| as_of.micros_since(Moment(request.started))),
            backend: backend.map_or("", |backend| &backend.url),
        }
    }

    /// What its row tells of the request it is held for, or of the last one of its client.
    #[must_use]
    pub fn request(&self) -> Option<&'a Request> {
        // While a head is being read, the row still tells of whoever was there before.
        if self.worker.state == Some(WorkerState::Read) { None } else { self.worker.request() }
    }

    /// What stands where the request line would be, if there is none.
    #[must_use]
    pub fn instead(&self) -> &'static str {
        match (self.worker.state, &self.worker.request) {
            (Some(WorkerState::Read), _) => "(reading a request)",
            (_, Shown::Torn) => "(changing)",
            _ if !self.child.extended => "(ExtendedStatus is off)",
            _ => "",
        }
    }

    /// The client's address, with its port if `port`.
    #[must_use]
    pub fn client(&self, port: bool) -> String {
        match self.request().and_then(|request| request.client) {
            Some(client) if port => client.to_string(),
            Some(client) => client.ip().to_string(),
            None => String::new(),
        }
    }

    /// Whether a filter lets it through: `filter` is in lower case, and looked for in request, host, client and
    /// backend.
    #[must_use]
    pub fn matches(&self, filter: &str) -> bool {
        let holds = |text: &str| text.to_lowercase().contains(filter);
        filter.is_empty()
            || holds(self.backend)
            || holds(&self.client(true))
            || self.request().is_some_and(|request| holds(&request.line) || holds(&request.host))
    }
}

/// Whether a request is under way: not only a connection that waits for one, or is on its way out.
fn is_asked(worker: &Worker) -> bool {
    worker.is_busy()
        && !matches!(worker.state, Some(WorkerState::Read | WorkerState::KeepAlive | WorkerState::Closing))
}

/// The children that there are, in the order of their slots.
pub fn children(snapshot: &Snapshot) -> impl Iterator<Item = &Child> {
    snapshot.children.iter().filter(|child| child.stage != Some(Stage::Free))
}

/// All held workers that the filter lets through, in the order that was asked for; and how many there are without
/// the filter.
#[must_use]
pub fn flights<'a>(snapshot: &'a Snapshot, as_of: Moment, view: &View) -> (Vec<Flight<'a>>, usize) {
    let workers = children(snapshot)
        .flat_map(|child| child.workers.iter().map(move |worker| (child, worker)))
        .filter(|(_, worker)| worker.is_busy());
    let mut flights: Vec<Flight> =
        workers.map(|(child, worker)| Flight::of(snapshot, child, worker, as_of)).collect();
    let all = flights.len();
    flights.retain(|flight| flight.matches(&view.filter));
    flights.sort_by(|one, other| {
        let order = compare(one, other, view.sort);
        let order = if view.reversed { order.reverse() } else { order };
        order.then_with(|| place(one).cmp(&place(other)))
    });
    (flights, all)
}

fn place(flight: &Flight<'_>) -> (u32, u32) {
    (flight.child.slot, flight.worker.index)
}

fn compare(one: &Flight<'_>, other: &Flight<'_>, sort: Sort) -> Ordering {
    let by_text = |text: fn(&Request) -> &str| {
        one.request().map(text).unwrap_or_default().cmp(other.request().map(text).unwrap_or_default())
    };
    match sort {
        // The oldest first, and behind them whatever is not asked for anything.
        Sort::Age => Reverse(one.age).cmp(&Reverse(other.age)),
        Sort::Slot => place(one).cmp(&place(other)),
        Sort::Client => {
            let client = |flight: &Flight<'_>| flight.request().and_then(|request| request.client);
            client(one).cmp(&client(other))
        }
        Sort::Host => by_text(|request| &request.host),
        Sort::Request => by_text(|request| &request.line),
        Sort::Backend => one.backend.cmp(other.backend),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::tests::lived_in;
    use std::time::Duration;

    /// Four held workers in two children; a fifth one has ended.
    fn board() -> Snapshot {
        let mut snapshot = lived_in().reader().snapshot().expect("a snapshot");
        for (child, port) in snapshot.children.iter_mut().zip([1000, 2000]) {
            child.workers[1] = child.workers[0].clone();
            child.workers[1].index = 1;
            for (worker, line) in child.workers.iter_mut().zip(["GET /b HTTP/1.1", "GET /a HTTP/1.1"]) {
                let Shown::Request(request) = &mut worker.request else { continue };
                request.line = line.into();
                request.client = Some(format!("192.0.2.{}:{port}", port / 1000).parse().expect("an address"));
                request.started += u64::from(worker.index) * 1_000_000 + port;
            }
        }
        snapshot
    }

    fn shown(snapshot: &Snapshot, change: impl Fn(&mut View)) -> Vec<String> {
        let mut view = View::new(Duration::from_secs(1));
        change(&mut view);
        let (flights, all) = flights(snapshot, Moment(15_000_000), &view);
        assert_eq!(all, 4);
        flights.iter().map(|flight| format!("{}-{}", flight.child.slot, flight.worker.index)).collect()
    }

    #[test]
    fn the_order_is_the_one_that_was_asked_for() {
        let snapshot = board();
        for (sort, want, reversed) in [
            (Sort::Age, "0-0 1-0 0-1 1-1", "1-1 0-1 1-0 0-0"),
            (Sort::Slot, "0-0 0-1 1-0 1-1", "1-1 1-0 0-1 0-0"),
            (Sort::Client, "0-0 0-1 1-0 1-1", "1-0 1-1 0-0 0-1"),
            (Sort::Request, "0-1 1-1 0-0 1-0", "0-0 1-0 0-1 1-1"),
            (Sort::Host, "0-0 0-1 1-0 1-1", "0-0 0-1 1-0 1-1"),
            (Sort::Backend, "0-0 0-1 1-0 1-1", "0-0 0-1 1-0 1-1"),
        ] {
            assert_eq!(shown(&snapshot, |view| view.sort = sort).join(" "), want, "{sort:?}");
            let back = shown(&snapshot, |view| (view.sort, view.reversed) = (sort, true));
            assert_eq!(back.join(" "), reversed, "{sort:?} the other way round");
        }
    }

    #[test]
    fn the_filter_looks_into_request_host_client_and_backend() {
        let snapshot = board();
        for (filter, want) in [
            ("get /a", "0-1 1-1"),
            ("b.example", "0-0 1-0 0-1 1-1"),
            ("192.0.2.2:2000", "1-0 1-1"),
            ("app.sock", "0-0 1-0 0-1 1-1"),
            ("nobody", ""),
        ] {
            assert_eq!(shown(&snapshot, |view| view.filter = filter.into()).join(" "), want, "{filter}");
        }
    }

    #[test]
    fn a_connection_without_a_request_has_no_age_and_comes_last() {
        let mut snapshot = board();
        snapshot.children[0].workers[0].state = Some(WorkerState::Read);
        snapshot.children[1].workers[0].state = Some(WorkerState::KeepAlive);
        let view = View::new(Duration::from_secs(1));
        let (flights, _) = flights(&snapshot, Moment(15_000_000), &view);
        let ages: Vec<_> = flights.iter().map(|flight| flight.age.is_some()).collect();
        assert_eq!(ages, [true, true, false, false]);
        assert_eq!((flights[2].client(true), flights[2].instead()), (String::new(), "(reading a request)"));
        assert_eq!(flights[3].client(false), "192.0.2.2");
        snapshot.children[0].workers[1].request = Shown::Torn;
        let (flights, _) = super::flights(&snapshot, Moment(15_000_000), &view);
        assert!(flights.iter().any(|flight| flight.instead() == "(changing)"));
    }
}
