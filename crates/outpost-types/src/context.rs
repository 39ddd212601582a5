//! What an agent was told of its project before its task, and where that came from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ContextLevel;

/// What was put before the task of a dispatch: the text, and the origin of each part. The same document is
/// `context.json` in the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContextView {
    /// Version of this format.
    pub version: u32,
    /// The level that was asked for.
    pub level: ContextLevel,
    /// Most tokens the text may have; a token counts as four characters.
    pub budget_tokens: u64,
    /// Tokens of the text.
    pub tokens: u64,
    /// The parts, in the order of the text; also those for which no room was left.
    pub sections: Vec<ContextSection>,
    /// Files that would have been a part, but cannot be.
    #[serde(default)]
    pub skipped: Vec<ContextSkip>,
    /// How often something was masked in the text, by rule or by name of a secret.
    pub redactions: BTreeMap<String, u64>,
    /// The text, as it stands before the task; empty when there is nothing to tell.
    pub text: String,
}

/// Where a part of the context came from, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContextSection {
    /// What it is.
    pub kind: ContextKind,
    /// Its file in the repository; what is no file has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Tokens of what was read of it.
    pub tokens_before: u64,
    /// Tokens of what is told of it.
    pub tokens_after: u64,
    /// How it was made shorter.
    pub trimmed: ContextTrim,
    /// How often something was masked in it, by rule or by name of a secret.
    pub redactions: BTreeMap<String, u64>,
}

/// The parts of a context.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ContextKind {
    /// What the project is.
    Identity,
    /// What was decided and holds.
    Decisions,
    /// How the operator wants agents to work.
    Profile,
    /// What was done last.
    Journal,
    /// What is to be done next.
    Roadmap,
    /// What is where.
    Map,
}

/// How a part was made shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContextTrim {
    /// Not at all.
    None,
    /// Its beginning is told.
    Cut,
    /// Its headings are told: it is some days old.
    Headings,
    /// Its beginning and its end are told: it is old.
    Ends,
    /// Nothing is told of it: there was no room.
    Dropped,
}

/// A file that is no part of the context, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContextSkip {
    /// Its path in the repository.
    pub path: String,
    /// Why.
    pub reason: ContextSkipReason,
}

/// Why a file is no part of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContextSkipReason {
    /// It is no text.
    Binary,
    /// It has nothing to tell.
    Empty,
    /// It is a link, a directory or something else that is no file.
    Irregular,
    /// It could not be read.
    Unreadable,
}
