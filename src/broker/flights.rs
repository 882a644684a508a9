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
        let receiver = {
            let mut flying = lock(&self.flying);
            match flying.get(&key) {
                Some(receiver) => receiver.clone(),
                None => self.begin(&mut flying, key, work()),
            }
        };
        wait(receiver).await
    }

    /// Begins the key's flight without waiting; does nothing when one is under way.
    pub(super) fn spawn<F>(&self, key: K, work: F)
    where
        F: Future<Output = R> + Send + 'static,
    {
        let mut flying = lock(&self.flying);
        if !flying.contains_key(&key) {
            self.begin(&mut flying, key, work);
        }
    }

    /// Waits for the key's flight, if there is one.
    pub(super) async fn join(&self, key: &K) -> Joined<R> {
        let receiver = lock(&self.flying).get(key).cloned();
        match receiver {
            Some(receiver) => wait(receiver).await,
            None => Joined::None,
        }
    }

    fn begin<F>(
        &self,
        flying: &mut HashMap<K, watch::Receiver<Option<R>>>,
        key: K,
        work: F,
    ) -> watch::Receiver<Option<R>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        let (sender, receiver) = watch::channel(None);
        flying.insert(key.clone(), receiver.clone());
        let landing = Landing { key, flying: Arc::clone(&self.flying) };
        self.tasks.spawn(async move {
            let result = work.await;
            drop(landing);
            sender.send_replace(Some(result));
        });
        receiver
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
