//! What the self-test says: one verdict a probe, and all of them together.

use serde::{Deserialize, Serialize};

/// What an attack is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each has its title")]
pub enum Group {
    Privileges,
    Calls,
    Namespaces,
    Devices,
    Proc,
    Mounts,
    Files,
    Descriptors,
    Network,
    Sockets,
    Environment,
    Races,
    Results,
    Output,
    Floods,
    Leftovers,
}

impl Group {
    /// Its name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Privileges => "Privileges",
            Self::Calls => "System calls",
            Self::Namespaces => "Namespaces",
            Self::Devices => "Devices",
            Self::Proc => "/proc and /sys",
            Self::Mounts => "Mounts",
            Self::Files => "Files of others",
            Self::Descriptors => "Descriptors",
            Self::Network => "Network",
            Self::Sockets => "Sockets",
            Self::Environment => "Environment",
            Self::Races => "Races",
            Self::Results => "Results",
            Self::Output => "Output",
            Self::Floods => "Floods",
            Self::Leftovers => "Leftovers",
        }
    }

    /// How names of its probes begin.
    #[cfg(test)]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Privileges => "privilege.",
            Self::Calls => "call.",
            Self::Namespaces => "namespace.",
            Self::Devices => "device.",
            Self::Proc => "proc.",
            Self::Mounts => "mount.",
            Self::Files => "file.",
            Self::Descriptors => "descriptor.",
            Self::Network => "network.",
            Self::Sockets => "socket.",
            Self::Environment => "environment.",
            Self::Races => "race.",
            Self::Results => "result.",
            Self::Output => "output.",
            Self::Floods => "flood.",
            Self::Leftovers => "leftover.",
        }
    }
}

/// How a probe came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The attack failed, as it must.
    Held,
    /// The attack succeeded.
    Broken,
    /// The attack succeeded, and every run says beforehand that this host cannot prevent it (`isolation.missing`).
    Missing,
    /// The attack could not be tried here.
    Untried,
}

/// The verdict of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What the attack is after.
    pub group: Group,
    /// The probe's stable name.
    pub name: String,
    /// What was tried.
    pub attack: String,
    /// How it came out.
    pub standing: Standing,
    /// The error that stopped it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// What was seen.
    pub detail: String,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// In the order they were found.
    pub verdicts: Vec<Verdict>,
    /// What is enforced for an agent's sandbox on this host.
    pub enforced: Vec<String>,
    /// What is not, with the reason.
    pub missing: Vec<String>,
    /// The launcher ran as an ordinary user.
    pub rootless: bool,
}

impl Report {
    /// True if every attack that was tried failed, or is one that the operator accepted: `accept_missing` says whether
    /// what [`Standing::Missing`] means is accepted.
    #[must_use]
    pub fn holds(&self, accept_missing: bool) -> bool {
        self.verdicts.iter().all(|verdict| match verdict.standing {
            Standing::Held | Standing::Untried => true,
            Standing::Missing => accept_missing,
            Standing::Broken => false,
        })
    }

    /// How many came out so.
    #[must_use]
    pub fn count(&self, standing: Standing) -> usize {
        self.verdicts.iter().filter(|verdict| verdict.standing == standing).count()
    }
}
