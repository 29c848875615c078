//! Who is at the other end of a connection, and the places there are for connections (R65).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::workers::Load;
use crate::gateway::client_network;
use crate::telemetry::metrics::{Metrics, Open};

/// Who is at the other end of a connection; kept for as long as it, or a tunnel it has become, is open.
#[derive(Debug)]
pub(super) struct Client {
    /// The other end, or whom its header of the PROXY protocol names.
    pub(super) address: SocketAddr,
    _place: Place,
}

/// The connections that may be open, in all and of one client.
#[derive(Debug)]
pub(super) struct Places {
    in_all: Arc<AtomicUsize>,
    metrics: Metrics,
    of_clients: Arc<OfClients>,
}

/// A connection's place among those that are open, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _in_all: PlaceInAll,
    _counted: Open,
    of_client: Option<PlaceOfClient>,
    load: Option<Load>,
}

#[derive(Debug, Default)]
struct OfClients(Mutex<HashMap<IpAddr, usize>>);

#[derive(Debug)]
struct PlaceInAll(Arc<AtomicUsize>);

#[derive(Debug)]
struct PlaceOfClient {
    of_clients: Arc<OfClients>,
    client: IpAddr,
}

/// A client has as many connections as it may have.
#[derive(Debug, thiserror::Error)]
#[error("this client has as many connections as it may have")]
pub(super) struct TooMany;

impl Client {
    pub(super) fn new(address: SocketAddr, place: Place) -> Self {
        Self { address, _place: place }
    }
}

impl Places {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { in_all: Arc::default(), metrics, of_clients: Arc::default() }
    }

    /// A place for a connection of which no client is known so far, where there are at most so many.
    pub(super) fn take(&self, most: usize) -> Option<Place> {
        let in_all = PlaceInAll(Arc::clone(&self.in_all));
        let is_free = self.in_all.fetch_add(1, Ordering::Relaxed) < most;
        let counted = is_free.then(|| self.metrics.open_connection())?;
        Some(Place { _in_all: in_all, _counted: counted, of_client: None, load: None })
    }

    /// Counts the connection as one of this client's, which may have so many.
    pub(super) fn count(&self, place: &mut Place, client: IpAddr, most: usize) -> Result<(), TooMany> {
        let client = client_network(client);
        let mut open = self.of_clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        if *count >= most {
            return Err(TooMany);
        }
        *count += 1;
        drop(open);
        place.of_client = Some(PlaceOfClient { of_clients: Arc::clone(&self.of_clients), client });
        Ok(())
    }
}

impl Place {
    /// Counts the connection as one of a worker's.
    pub(super) fn counts_for(&mut self, worker: Load) {
        self.load = Some(worker);
    }
}

impl Drop for PlaceInAll {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for PlaceOfClient {
    fn drop(&mut self) {
        let mut open = self.of_clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r65_places_become_free_again_and_nothing_is_kept_of_who_has_gone() {
        let places = Places::new(Metrics::new());
        let client = |last| IpAddr::from([192, 0, 2, last]);
        let take = |last| {
            let mut place = places.take(3).unwrap();
            places.count(&mut place, client(last), 2).map(|()| place)
        };
        let (first, second) = (take(1).unwrap(), take(1).unwrap());
        assert!(take(1).is_err(), "a third one of the same client");
        let other = take(2).unwrap();
        assert!(places.take(3).is_none(), "a fourth one in all");
        drop(first);
        drop(take(1).unwrap());
        drop((second, other));
        assert!(places.of_clients.0.lock().unwrap().is_empty());
        assert_eq!(places.in_all.load(Ordering::Relaxed), 0);
    }
}
