//! Which connections are there, and who goes when one more comes.

use super::client::Client;
use crate::clock::Tick;

/// The most connections at one time.
pub const MOST: usize = 64;

/// The connections, in the order of their coming.
#[derive(Debug, Default)]
pub(super) struct Clients(Vec<Client>);

impl Clients {
    /// One more. Where there are as many as may be, the one goes that has kept us waiting for longest: so those that
    /// never ask, however many they are, keep nobody out who does.
    pub fn admit(&mut self, client: Client) {
        if self.0.len() >= MOST {
            let waiting = self.0.iter().map(|client| (client.is_answering(), client.since()));
            if let Some(place) = who_goes(waiting) {
                self.0.remove(place);
            }
        }
        self.0.push(client);
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Client> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps those for which `stays` says so; it is given each one's place, too.
    pub fn retain(&mut self, mut stays: impl FnMut(usize, &mut Client) -> bool) {
        let mut places = 0..;
        self.0.retain_mut(|client| stays(places.next().unwrap_or_default(), client));
    }

    /// When the first has waited for long enough.
    pub fn deadline(&self) -> Option<Tick> {
        self.0.iter().map(Client::deadline).min()
    }
}

/// The place of the one that goes, of all by whether each gets an answer just now and since when it waits.
fn who_goes(clients: impl Iterator<Item = (bool, Tick)>) -> Option<usize> {
    clients.enumerate().min_by_key(|(_, client)| *client).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_goes_that_waits_for_longest_and_gets_no_answer() {
        for (clients, want) in [
            (vec![], None),
            (vec![(false, 5)], Some(0)),
            (vec![(false, 5), (false, 3), (false, 9)], Some(1)),
            (vec![(true, 1), (false, 8), (true, 2)], Some(1)),
            (vec![(true, 4), (true, 2)], Some(1)),
        ] {
            let shown = format!("{clients:?}");
            assert_eq!(who_goes(clients.into_iter().map(|(answer, at)| (answer, Tick(at)))), want, "{shown}");
        }
    }
}
