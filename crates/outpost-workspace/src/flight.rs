//! One question to a host at a time: whoever wants to know the same waits for the same answer.
//!
//! An answer serves only those who asked before the question went out: a dispatch that follows a push must see the push. So of
//! many at once the first asks, and all others share the next answer. Bounded: one question under way per key. Deliberately
//! absent: keeping answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Questions by key; `E` may be a kind of error that cannot be copied, and is then told to one asker only.
#[derive(Debug)]
pub(crate) struct Flights<T, E> {
    flights: Mutex<HashMap<String, Weak<Flight<T, E>>>>,
}

#[derive(Debug)]
struct Flight<T, E> {
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State<T, E>>,
}

#[derive(Debug)]
struct State<T, E> {
    begun: u64,
    landed: Option<(u64, Result<T, E>)>,
}

impl<T, E> Default for Flights<T, E> {
    fn default() -> Self {
        Self { flights: Mutex::default() }
    }
}

impl<T: Clone, E> Flights<T, E> {
    /// The answer of `ask`, or of one like it that began after this call. `copy` copies an error where that is possible.
    pub(crate) async fn join(
        &self,
        key: &str,
        copy: fn(&E) -> Option<E>,
        ask: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let flight = self.flight(key);
        let seen = locked(&flight.state).begun;
        let _turn = flight.turn.lock().await;
        let mine = {
            let mut state = locked(&flight.state);
            if let Some((begun, answer)) = &state.landed
                && *begun > seen
            {
                match answer {
                    Ok(answer) => return Ok(answer.clone()),
                    Err(error) => {
                        if let Some(error) = copy(error) {
                            return Err(error);
                        }
                    }
                }
            }
            state.begun += 1;
            state.begun
        };
        let answer = ask.await;
        let shared = match &answer {
            Ok(answer) => Some(Ok(answer.clone())),
            Err(error) => copy(error).map(Err),
        };
        locked(&flight.state).landed = shared.map(|shared| (mine, shared));
        answer
    }

    fn flight(&self, key: &str) -> Arc<Flight<T, E>> {
        let mut flights = locked(&self.flights);
        if let Some(flight) = flights.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let state = Mutex::new(State { begun: 0, landed: None });
        let flight = Arc::new(Flight { turn: tokio::sync::Mutex::default(), state });
        flights.insert(key.to_owned(), Arc::downgrade(&flight));
        flight
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::Flights;

    type Answer = Result<u32, String>;

    /// Asks when it is let to; the answer is how many asked so far.
    async fn ask(asked: Arc<AtomicU32>, gate: Arc<Semaphore>) -> Answer {
        let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
        gate.acquire().await.unwrap().forget();
        if number == 2 { Err("no".to_owned()) } else { Ok(number) }
    }

    async fn until(asked: &AtomicU32, count: u32) {
        while asked.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_comes_while_one_asks_shares_the_next_answer() {
        let flights = Arc::new(Flights::<u32, String>::default());
        let (asked, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let join = || {
            let (flights, question) = (Arc::clone(&flights), ask(asked.clone(), gate.clone()));
            tokio::spawn(async move { flights.join("k", |e| Some(e.clone()), question).await })
        };
        let first = join();
        until(&asked, 1).await;
        let rest: Vec<_> = (0..20).map(|_| join()).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(1));
        for task in rest {
            assert_eq!(task.await.unwrap(), Err("no".to_owned()));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        // Later comers ask anew, and one who gives up half-way blocks nobody.
        let dropped = join();
        until(&asked, 3).await;
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        gate.add_permits(1);
        assert_eq!(join().await.unwrap(), Ok(4));
    }
}
