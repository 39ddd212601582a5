//! A deterministic executor: one thread, simulated time, tasks that belong to somebody who can die.
//!
//! Tasks that are ready run in the order in which they became so; time stands still until none is. A
//! killed owner's tasks are dropped between two polls, as those of a killed process are. Absent:
//! wakes from outside, real time, priorities.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Most polls of one simulation: beyond it something spins.
const POLLS_MAX: u64 = 4_000_000;

/// Whose a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The world's: clients, agents, chance. Nobody kills it.
    World,
    /// The server's of that incarnation.
    Server(u32),
}

type Ready = Arc<Mutex<VecDeque<usize>>>;

struct TaskWaker {
    id: usize,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.id);
    }
}

struct Task {
    owner: Owner,
    waker: Waker,
    work: Pin<Box<dyn Future<Output = ()>>>,
}

/// Tasks and time.
#[derive(Default)]
pub(crate) struct Sched {
    now_micros: Cell<u64>,
    seq: Cell<u64>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    ready: Ready,
    tasks: RefCell<Vec<Option<Task>>>,
    condemned: Cell<Option<Owner>>,
    polls: Cell<u64>,
    stopped: Cell<bool>,
}

impl std::fmt::Debug for Sched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sched").field("now_micros", &self.now_micros).finish_non_exhaustive()
    }
}

impl Sched {
    /// Time since the simulation began, microseconds. Never jumps.
    pub(crate) const fn now_micros(&self) -> u64 {
        self.now_micros.get()
    }

    /// Time since the simulation began, milliseconds.
    pub(crate) const fn now_millis(&self) -> u64 {
        self.now_micros.get() / 1000
    }

    /// Starts a task.
    pub(crate) fn spawn(&self, owner: Owner, work: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let id = tasks.len();
        let ready = Arc::clone(&self.ready);
        let waker = Waker::from(Arc::new(TaskWaker { id, ready }));
        waker.wake_by_ref();
        tasks.push(Some(Task { owner, waker, work: Box::pin(work) }));
    }

    /// Drops all tasks of that owner before anything else runs.
    pub(crate) fn kill(&self, owner: Owner) {
        self.condemned.set(Some(owner));
    }

    /// Ends the simulation after the current poll.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
    }

    /// Runs until stopped, or until nothing can ever happen again. `Err` when something spins.
    pub(crate) fn run(&self) -> Result<(), &'static str> {
        while !self.stopped.get() {
            let next = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(id) => self.poll(id)?,
                None => {
                    let Some(((at, _), waker)) = self.timers.borrow_mut().pop_first() else {
                        return Ok(());
                    };
                    self.now_micros.set(at.max(self.now_micros.get()));
                    waker.wake();
                }
            }
        }
        Ok(())
    }

    /// Drops everything; needed because tasks and what they share hold each other.
    pub(crate) fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        let timers = std::mem::take(&mut *self.timers.borrow_mut());
        drop(timers);
    }

    fn poll(&self, id: usize) -> Result<(), &'static str> {
        self.polls.set(self.polls.get() + 1);
        if self.polls.get() > POLLS_MAX {
            return Err("something spins: too many polls");
        }
        // Taken out while it runs, so that it can start others.
        let Some(mut task) = self.tasks.borrow_mut()[id].take() else { return Ok(()) };
        let waker = task.waker.clone();
        let pending = task.work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
        if pending {
            self.tasks.borrow_mut()[id] = Some(task);
        } else {
            drop(task);
        }
        if let Some(owner) = self.condemned.take() {
            self.bury(owner);
        }
        Ok(())
    }

    fn bury(&self, owner: Owner) {
        let count = self.tasks.borrow().len();
        for id in 0..count {
            let taken = {
                let mut tasks = self.tasks.borrow_mut();
                match &tasks[id] {
                    Some(task) if task.owner == owner => tasks[id].take(),
                    _ => None,
                }
            };
            drop(taken);
        }
    }
}

/// Waits; see [`sleep_micros`].
#[derive(Debug)]
struct Sleep {
    sched: Rc<Sched>,
    at: u64,
    key: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.sched.now_micros.get() >= self.at {
            return Poll::Ready(());
        }
        if self.key.is_none() {
            let seq = self.sched.seq.get();
            self.sched.seq.set(seq + 1);
            let key = (self.at, seq);
            self.sched.timers.borrow_mut().insert(key, cx.waker().clone());
            self.key = Some(key);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.sched.timers.borrow_mut().remove(&key);
        }
    }
}

/// Waits that long, microseconds of simulated time.
pub(crate) fn sleep_micros(sched: &Rc<Sched>, micros: u64) -> impl Future<Output = ()> + use<> {
    let at = sched.now_micros.get().saturating_add(micros);
    Sleep { sched: Rc::clone(sched), at, key: None }
}

/// Something that can change; whoever waits is woken, in the order of waiting.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    waiting: RefCell<Vec<Waker>>,
}

impl Changed {
    /// Wakes everybody who waits.
    pub(crate) fn notify(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until `look` sees something.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        poll_fn(|cx| match look() {
            Some(seen) => Poll::Ready(seen),
            None => {
                self.waiting.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

/// One at a time, in no promised order.
#[derive(Debug, Default)]
pub(crate) struct Lock {
    held: Cell<bool>,
    changed: Changed,
}

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    lock: &'a Lock,
}

impl Lock {
    /// Waits for its turn.
    pub(crate) async fn hold(&self) -> Held<'_> {
        self.changed.until(|| (!self.held.replace(true)).then_some(())).await;
        Held { lock: self }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.lock.held.set(false);
        self.lock.changed.notify();
    }
}

/// A queue between two tasks.
#[derive(Debug)]
pub(crate) struct Pipe<T> {
    state: RefCell<(VecDeque<T>, bool)>,
    changed: Changed,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Self { state: RefCell::new((VecDeque::new(), false)), changed: Changed::default() }
    }
}

impl<T> Pipe<T> {
    /// Appends, unless it was closed.
    pub(crate) fn send(&self, item: T) {
        let mut state = self.state.borrow_mut();
        if !state.1 {
            state.0.push_back(item);
        }
        drop(state);
        self.changed.notify();
    }

    /// Nothing more comes; what is in it can still be taken.
    pub(crate) fn close(&self) {
        self.state.borrow_mut().1 = true;
        self.changed.notify();
    }

    /// The next item; `None` once it is closed and empty.
    pub(crate) async fn receive(&self) -> Option<T> {
        self.changed
            .until(|| {
                let mut state = self.state.borrow_mut();
                match state.0.pop_front() {
                    Some(item) => Some(Some(item)),
                    None if state.1 => Some(None),
                    None => None,
                }
            })
            .await
    }
}

/// Which of two was first.
#[derive(Debug)]
pub(crate) enum First<A, B> {
    /// The first one, also when both were.
    One(A),
    /// The second one.
    Two(B),
}

/// Waits for either; the other is dropped.
pub(crate) async fn first<A, B>(
    one: impl Future<Output = A>,
    two: impl Future<Output = B>,
) -> First<A, B> {
    let (mut one, mut two) = (pin!(one), pin!(two));
    poll_fn(|cx| {
        if let Poll::Ready(done) = one.as_mut().poll(cx) {
            return Poll::Ready(First::One(done));
        }
        two.as_mut().poll(cx).map(First::Two)
    })
    .await
}
