//! One task per key, detached from whoever waits for it: a caller that is cancelled or times out never cancels the
//! work, and everybody who waits gets the same result.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// The flights under way.
pub(super) struct Flights<K, R> {
    flying: Arc<Mutex<HashMap<K, watch::Receiver<Option<R>>>>>,
    tasks: TaskTracker,
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
        let (receiver, begun) = self.enter(&key);
        if let Some(sender) = begun {
            self.begin(key, sender, work());
        }
        wait(receiver).await
    }

    /// Begins the key's flight without waiting; does nothing when one is under way.
    pub(super) fn spawn<F>(&self, key: K, work: F)
    where
        F: Future<Output = R> + Send + 'static,
    {
        if let (_, Some(sender)) = self.enter(&key) {
            self.begin(key, sender, work);
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
        let receiver = lock(&self.flying).get(key).cloned();
        match receiver {
            Some(receiver) => wait(receiver).await,
            None => Joined::None,
        }
    }

    /// The key's flight; with a sender when it was entered now and is to be begun.
    fn enter(&self, key: &K) -> (watch::Receiver<Option<R>>, Option<watch::Sender<Option<R>>>) {
        let mut flying = lock(&self.flying);
        if let Some(receiver) = flying.get(key) {
            return (receiver.clone(), None);
        }
        let (sender, receiver) = watch::channel(None);
        flying.insert(key.clone(), receiver.clone());
        (receiver, Some(sender))
    }

    /// Without the lock: a runtime that is being torn down drops the task at once, and its landing takes the lock.
    fn begin<F>(&self, key: K, sender: watch::Sender<Option<R>>, work: F)
    where
        F: Future<Output = R> + Send + 'static,
    {
        let landing = Landing { key, flying: Arc::clone(&self.flying) };
        self.tasks.spawn(async move {
            let result = work.await;
            drop(landing);
            sender.send_replace(Some(result));
        });
    }
}

/// Takes the flight out of the map when its task ends, however it ends.
struct Landing<K: Eq + Hash, R> {
    key: K,
    flying: Arc<Mutex<HashMap<K, watch::Receiver<Option<R>>>>>,
}

impl<K: Eq + Hash, R> Drop for Landing<K, R> {
    fn drop(&mut self) {
        lock(&self.flying).remove(&self.key);
    }
}

async fn wait<R: Clone>(mut receiver: watch::Receiver<Option<R>>) -> Joined<R> {
    match receiver.wait_for(Option::is_some).await {
        Ok(result) => result.clone().map_or(Joined::Lost, Joined::Finished),
        Err(_) => Joined::Lost,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
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
