//! Persistent workspaces: one dispatch at a time in each, and a line of those who wait for it.
//!
//! The head of the line of an empty workspace is ready for a slot; the others are not, so they hold up nobody. All
//! of it is bounded by the slots and by those who wait. Deliberately absent: who is inside on disk; that is the
//! runner's to know, and a workspace that another server is in fails the attempt, which is tried again.

use std::collections::BTreeMap;

use outpost_types::{AgentId, TenantId};

use crate::dispatch::Dispatch;
use crate::placement::{Rank, rank};
use crate::spec::WorkspaceName;

/// A workspace on this host.
pub(crate) type Key = (TenantId, WorkspaceName);

/// The one that may go next, if anybody may: agent and rank.
pub(crate) type Head = Option<(AgentId, Rank)>;

/// Which workspace a dispatch works in.
pub(crate) fn key(dispatch: &Dispatch) -> Option<Key> {
    Some((dispatch.tenant.clone(), dispatch.spec.workspace.clone()?))
}

/// All workspaces that somebody is in or waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Lines {
    lines: BTreeMap<Key, Line>,
}

/// One workspace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Line {
    /// Those that hold a slot; more than one only in records that an older version wrote.
    pub(crate) inside: u32,
    /// Those that wait, but for who backs off.
    pub(crate) waiting: BTreeMap<Rank, AgentId>,
}

impl Line {
    fn head(&self) -> Head {
        let (rank, agent) = self.waiting.first_key_value().filter(|_| self.inside == 0)?;
        Some((agent.clone(), *rank))
    }
}

impl Lines {
    /// Changes a line; its head before and after.
    pub(crate) fn change(&mut self, key: &Key, edit: impl FnOnce(&mut Line)) -> (Head, Head) {
        let line = self.lines.entry(key.clone()).or_default();
        let before = line.head();
        edit(line);
        let after = line.head();
        if *line == Line::default() {
            self.lines.remove(key);
        }
        (before, after)
    }

    /// Whether somebody is inside, or goes before this one.
    pub(crate) fn holds_up(&self, dispatch: &Dispatch) -> bool {
        let line = key(dispatch).and_then(|key| self.lines.get(&key));
        line.is_some_and(|line| {
            let first = line.waiting.first_key_value();
            line.inside > 0 || first.is_some_and(|(first, _)| *first < rank(dispatch))
        })
    }

    /// How many are before it in its line; `None` when it is in none.
    pub(crate) fn position(&self, dispatch: &Dispatch) -> Option<usize> {
        let line = self.lines.get(&key(dispatch)?)?;
        let rank = rank(dispatch);
        line.waiting.contains_key(&rank).then(|| line.waiting.range(..rank).count())
    }
}
