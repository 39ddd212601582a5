//! What can run on this machine, without a server, as text.

use serde::Serialize;

use crate::fleet::paint_available;
use crate::table::{Column, table};
use crate::{Surface, sanitize};

/// One agent as this machine sees it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalAgent {
    /// Its name.
    pub agent: String,
    /// Version that is pinned; absent for commands the operator brings.
    pub version: Option<String>,
    /// Model when none is named.
    pub default_model_id: String,
    /// Its CLI is there.
    pub installed: bool,
    /// Why it is not.
    #[serde(skip)]
    pub install_reason: Option<String>,
    /// Its provider's key is there; absent when it needs none.
    pub key_present: Option<bool>,
    /// Variables that may hold it.
    pub key_variables: Vec<String>,
    /// It can take a dispatch.
    pub available: bool,
    /// Why not, and what to do.
    pub reason: Option<String>,
    /// Terms of use.
    pub licence: String,
}

/// Agents that a machine could run, as a table.
#[must_use]
pub fn local_agents(surface: Surface, agents: &[LocalAgent]) -> String {
    const COLUMNS: [Column; 6] = [
        Column::new("AGENT"),
        Column::new("VERSION"),
        Column::new("INSTALLED"),
        Column::new("KEY"),
        Column::new("AVAILABLE").painted(paint_available),
        Column::new("WHY NOT").flexible(),
    ];
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let cells: Vec<Vec<String>> = agents
        .iter()
        .map(|row| {
            vec![
                sanitize::line(&row.agent),
                row.version.clone().unwrap_or_else(|| "own".to_owned()),
                yes(row.installed),
                row.key_present.map_or_else(|| "none needed".to_owned(), yes),
                yes(row.available),
                sanitize::line(row.reason.as_deref().unwrap_or_default()),
            ]
        })
        .collect();
    table(surface, &COLUMNS, &cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let agent = LocalAgent {
            agent: "claude".to_owned(),
            version: Some("1.2".to_owned()),
            default_model_id: "model".to_owned(),
            installed: true,
            install_reason: None,
            key_present: Some(false),
            key_variables: Vec::new(),
            available: false,
            reason: Some("no key\u{1b}[2J".to_owned()),
            licence: String::new(),
        };
        let own = LocalAgent {
            version: None,
            key_present: None,
            available: true,
            reason: None,
            ..agent.clone()
        };
        let text = local_agents(Surface::PLAIN, &[agent, own]);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["claude", "1.2", "yes", "no", "no", "no", "key"]);
        assert_eq!(lines[2], ["claude", "own", "yes", "none", "needed", "yes"]);
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
