//! One task per key, detached from whoever waits for it: a caller that is cancelled or times out never cancels the
//! work, and everybody who waits gets the same result.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// The flights under way.
pub(super) struct Flights<K, R> {
    flying: Arc<Mutex<Flying<K, R>>>,
    tasks: TaskTracker,
}

type Flying<K, R> = HashMap<K, Arc<Flight<R>>>;

/// Whoever waits for it goes on in the order in which they came: of two who take up the same work after it, the same
/// one is first in every run.
struct Flight<R> {
    landed: CancellationToken,
    /// Stays empty when the task dies without a result.
    result: OnceLock<R>,
}

/// What waiting for a flight gave.
#[derive(Debug)]
pub(super) enum Joined<R> {
    Finished(R),
    /// The task died without a result: it panicked, or the process is being torn down.
    Lost,
    /// Nothing was in the air.
    None,
}

impl<K, R> Flights<K, R>
where
    K: Eq + Hash + Clone + Send + 'static,
    R: Clone + Send + Sync + 'static,
{
    /// `tasks` is waited for at shutdown.
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { flying: Arc::default(), tasks }
    }

    /// Joins the key's flight, beginning it with `work` when there is none.
    pub(super) async fn join_or_begin<F>(&self, key: K, work: impl FnOnce() -> F) -> Joined<R>
    where
        F: Future<Output = R> + Send + 'static,
    {
        let (flight, entered) = self.enter(&key);
        if entered {
            self.begin(key, &flight, work());
        } else {
            // What it holds, the flight that is under way may be waiting for.
            drop(work);
        }
        flight.wait().await
    }

    /// Begins the key's flight without waiting; does nothing when one is under way.
    pub(super) fn spawn<F>(&self, key: K, work: F)
    where
        F: Future<Output = R> + Send + 'static,
    {
        if let (flight, true) = self.enter(&key) {
            self.begin(key, &flight, work);
        }
    }

    /// Whether the key has a flight under way.
    pub(super) fn has(&self, key: &K) -> bool {
        lock(&self.flying).contains_key(key)
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        lock(&self.flying).len()
    }

    /// Waits for the key's flight, if there is one.
    pub(super) async fn join(&self, key: &K) -> Joined<R> {
        let flight = lock(&self.flying).get(key).cloned();
        match flight {
            Some(flight) => flight.wait().await,
            None => Joined::None,
        }
    }

    /// The key's flight, and whether it was entered now and is to be begun.
    fn enter(&self, key: &K) -> (Arc<Flight<R>>, bool) {
        let mut flying = lock(&self.flying);
        if let Some(flight) = flying.get(key) {
            return (Arc::clone(flight), false);
        }
        let flight = Arc::new(Flight { landed: CancellationToken::new(), result: OnceLock::new() });
        flying.insert(key.clone(), Arc::clone(&flight));
        (flight, true)
    }

    /// Without the lock: a runtime that is being torn down drops the task at once, and its landing takes the lock.
    fn begin<F>(&self, key: K, flight: &Arc<Flight<R>>, work: F)
    where
        F: Future<Output = R> + Send + 'static,
    {
        let (flight, landed) = (Arc::clone(flight), flight.landed.clone().drop_guard());
        let landing = Landing { key, flying: Arc::clone(&self.flying), _landed: landed };
        self.tasks.spawn(async move {
            let landing = landing;
            let result = work.await;
            flight.result.get_or_init(|| result);
            drop(landing);
        });
    }
}

impl<R: Clone> Flight<R> {
    async fn wait(&self) -> Joined<R> {
        self.landed.cancelled().await;
        self.result.get().cloned().map_or(Joined::Lost, Joined::Finished)
    }
}

/// Takes the flight out of the map when its task ends, however it ends, and then lets those who wait go on.
struct Landing<K: Eq + Hash, R> {
    key: K,
    flying: Arc<Mutex<Flying<K, R>>>,
    _landed: DropGuard,
}

impl<K: Eq + Hash, R> Drop for Landing<K, R> {
    fn drop(&mut self) {
        lock(&self.flying).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    #[tokio::test]
    async fn a_flight_outlives_who_began_it_and_answers_everybody() {
        let flights = Arc::new(Flights::<u8, u8>::new(TaskTracker::new()));
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let beginner = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move {
                let work = || async move { released.await.map_or(0, |()| 7) };
                flights.join_or_begin(1, work).await
            }
        });
        while !flights.has(&1) {
            tokio::task::yield_now().await;
        }
        beginner.abort();
        assert!(beginner.await.unwrap_err().is_cancelled());
        let joined = flights.join(&1);
        release.send(()).unwrap();
        assert!(matches!(joined.await, Joined::Finished(7)));
        assert!(!flights.has(&1));
    }

    #[tokio::test]
    async fn who_joins_a_flight_holds_on_to_nothing_that_it_may_wait_for() {
        let flights = Flights::<u8, u8>::new(TaskTracker::new());
        let (held, mut let_go) = tokio::sync::oneshot::channel::<()>();
        flights.spawn(1, std::future::pending());
        let work = move || async move {
            drop(held);
            8
        };
        tokio::select! {
            biased;
            _ = flights.join_or_begin(1, work) => panic!("the flight has not landed"),
            () = std::future::ready(()) => assert_eq!(let_go.try_recv(), Err(TryRecvError::Closed)),
        }
    }

    #[tokio::test]
    async fn a_flight_that_panics_is_lost_and_makes_room_for_the_next() {
        let flights = Flights::<u8, u8>::new(TaskTracker::new());
        let lost = flights.join_or_begin(1, || async { panic!("as a test of panics must") }).await;
        assert!(matches!(lost, Joined::Lost));
        assert!(matches!(flights.join_or_begin(1, || async { 7 }).await, Joined::Finished(7)));
    }

    #[test]
    fn a_flight_that_a_dying_runtime_refuses_does_not_block() {
        let flights = Arc::new(Flights::<u8, u8>::new(TaskTracker::new()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let begin_when_dropped = BeginWhenDropped(Arc::clone(&flights));
        runtime.spawn(async move {
            let _begin_when_dropped = begin_when_dropped;
            std::future::pending::<()>().await;
        });
        runtime.block_on(tokio::task::yield_now());
        drop(runtime);
        assert!(!flights.has(&1), "the refused flight is not in the air");
    }

    struct BeginWhenDropped(Arc<Flights<u8, u8>>);

    impl Drop for BeginWhenDropped {
        fn drop(&mut self) {
            self.0.spawn(1, async { 7 });
        }
    }
}
