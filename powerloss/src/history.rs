//! What may be found after a cut: the states a store went through, and from when to when each is a
//! lawful answer.
//!
//! State `n` is the store after the first `n` writes. It may be found once write `n` was issued, and
//! must not be found any more once write `n + 1` was acknowledged. A write that failed leaves a state
//! beside the line: it may be found until the next acknowledgement.

use outpost_store::MemoryStore;

use crate::workload::{Picture, Write};

/// One lawful state.
#[derive(Debug, Clone)]
pub struct State {
    /// What the store answers.
    pub picture: Picture,
    /// The writes that made it, by number.
    pub writes: Vec<usize>,
    /// First position at which it may be found.
    pub from: usize,
    /// From this position on it must not be found: something newer was acknowledged.
    pub until: usize,
}

/// All writes of a store and the states they made.
#[derive(Debug)]
pub struct History {
    /// Every write, also those that failed.
    pub writes: Vec<Write>,
    /// Every state.
    pub states: Vec<State>,
    /// The writes that happened, by number.
    pub line: Vec<usize>,
    /// The store after them.
    now: MemoryStore,
}

impl History {
    /// The history of an empty store.
    ///
    /// # Errors
    /// Never in practice: memory answers.
    pub async fn new() -> anyhow::Result<Self> {
        Self::from_state(Vec::new(), Vec::new()).await
    }

    /// The history that begins with the state these writes made.
    ///
    /// # Errors
    /// Never in practice: memory answers.
    pub async fn from_state(writes: Vec<Write>, line: Vec<usize>) -> anyhow::Result<Self> {
        let now = replay(&writes, &line).await;
        let picture = Picture::of(&now).await?;
        let first = State { picture, writes: line.clone(), from: 0, until: usize::MAX };
        Ok(Self { writes, states: vec![first], line, now })
    }

    /// Writes that were issued together at a position and came out well, in this order.
    /// `acknowledged` has the position of each acknowledgement.
    ///
    /// # Errors
    /// Never in practice: memory answers.
    pub async fn happened(
        &mut self,
        group: Vec<Write>,
        issued: usize,
        acknowledged: &[usize],
    ) -> anyhow::Result<()> {
        for (write, acknowledged) in group.into_iter().zip(acknowledged) {
            for state in &mut self.states {
                state.until = state.until.min(*acknowledged);
            }
            // A refusal (a stale generation, a missing key) is an answer too, and changes nothing.
            let _refused = write.issue(&self.now).await;
            self.line.push(self.writes.len());
            self.writes.push(write);
            let picture = Picture::of(&self.now).await?;
            let writes = self.line.clone();
            self.states.push(State { picture, writes, from: issued, until: usize::MAX });
        }
        Ok(())
    }

    /// Writes that were issued together and failed: all of them may show after a crash, or none.
    ///
    /// # Errors
    /// Never in practice: memory answers.
    pub async fn failed(&mut self, group: Vec<Write>, issued: usize) -> anyhow::Result<()> {
        let mut writes = self.line.clone();
        for write in group {
            writes.push(self.writes.len());
            self.writes.push(write);
        }
        let picture = Picture::of(&replay(&self.writes, &writes).await).await?;
        self.states.push(State { picture, writes, from: issued, until: usize::MAX });
        Ok(())
    }

    /// The store as it must be when nothing was lost.
    #[must_use]
    pub const fn now(&self) -> &MemoryStore {
        &self.now
    }

    /// A store in memory in this state.
    pub async fn store_of(&self, state: &State) -> MemoryStore {
        replay(&self.writes, &state.writes).await
    }
}

async fn replay(writes: &[Write], line: &[usize]) -> MemoryStore {
    let store = MemoryStore::new();
    for number in line {
        let _refused = writes[*number].issue(&store).await;
    }
    store
}
