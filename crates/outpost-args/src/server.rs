//! Words of the server's flags that its configuration file uses too.

use std::fmt;

use clap::ValueEnum;
use serde::Deserialize;

/// Which models answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ModelSource {
    /// The providers, with the operator's keys.
    #[default]
    Real,
    /// The scripted provider: no model, no cost.
    Scripted,
}

/// Least isolation that a sandbox must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum IsolationMinimum {
    /// Namespaces, private root and seccomp; missing resource limits are reported in each run
    Namespaces,
    /// The same, and cpu, memory and processes are limited by cgroups
    Limits,
}

impl fmt::Display for IsolationMinimum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Limits => "limits",
        })
    }
}
