//! What can run on a server and what runs now, as text.

use outpost_types::{AgentView, DrainView, FleetView, PoolView};

use crate::format::bytes;
use crate::table::{Column, table};
use crate::{Surface, sanitize};

/// Colour of "yes" and everything else.
#[must_use]
pub fn paint_available(surface: Surface, word: &str) -> String {
    if word == "yes" { surface.green(word) } else { surface.yellow(word) }
}

/// Numbers of the fleet, and a table of its agents.
#[must_use]
pub fn fleet(surface: Surface, fleet: &FleetView) -> String {
    const COLUMNS: [Column; 9] = [
        Column::new("AGENT"),
        Column::new("AVAILABLE").painted(paint_available),
        Column::new("RUNNING").right(),
        Column::new("WARM").right(),
        Column::new("HIT RATE").right(),
        Column::new("CPU").right(),
        Column::new("MEMORY").right(),
        Column::new("MODEL"),
        Column::new("WHY NOT").flexible(),
    ];
    let rows: Vec<Vec<String>> = fleet
        .agents
        .iter()
        .map(|agent| {
            let (available, reason) = standing(agent);
            vec![
                sanitize::line(&agent.agent),
                available.to_owned(),
                format!("{}/{}", agent.running, agent.concurrency_max),
                agent
                    .pool
                    .as_ref()
                    .map(|pool| format!("{}/{}", pool.idle, pool.target))
                    .unwrap_or_default(),
                agent.pool.as_ref().map(hit_rate).unwrap_or_default(),
                format!("{}", f64::from(agent.resources.cpu_millis) / 1_000.0),
                bytes(agent.resources.memory_bytes),
                sanitize::line(&agent.default_model_id),
                reason,
            ]
        })
        .collect();
    let mut heading = format!(
        "{} fleet: {} of {} running, {} queued",
        sanitize::line(&fleet.fleet),
        fleet.running,
        fleet.concurrency_max,
        fleet.queued
    );
    if fleet.scripted_model {
        heading.push_str(&surface.yellow("; the model is the scripted provider"));
    }
    if let Some(drain) = &fleet.draining {
        heading.push_str(&surface.yellow(&format!("; {}", drained(drain))));
    }
    format!("{heading}\n\n{}", table(surface, &COLUMNS, &rows))
}

/// Whether an agent can run, and why not.
fn standing(agent: &AgentView) -> (&'static str, String) {
    let reason = agent.availability.reason.as_deref().map(sanitize::line);
    match (&agent.draining, agent.availability.available) {
        (Some(drain), true) => ("waits", drained(drain)),
        (_, true) => ("yes", reason.unwrap_or_default()),
        (_, false) => ("no", reason.unwrap_or_default()),
    }
}

fn drained(drain: &DrainView) -> String {
    let reason = drain.reason.as_deref().map(|reason| format!(" ({})", sanitize::line(reason)));
    format!("draining since {}{}", drain.since, reason.unwrap_or_default())
}

/// Part of the attempts that got a warm worker since the server started.
fn hit_rate(pool: &PoolView) -> String {
    let all = pool.hits.saturating_add(pool.misses.values().sum());
    let percent = pool.hits.saturating_mul(100).checked_div(all);
    percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, assert_golden};

    #[test]
    fn what_is_drained_says_why() {
        let mut drained = samples::fleet();
        let since = outpost_types::Timestamp::from_millis(0);
        let drain = |reason: &str| Some(DrainView { since, reason: Some(reason.into()) });
        drained.draining = drain("new disk\u{1b}[2J");
        drained.agents[1].draining = drain("upgrade");
        let text = fleet(Surface::PLAIN, &drained);
        assert!(text.contains("draining since 1970-01-01T00:00:00.000Z (new disk"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        let codex = text.lines().find(|line| line.starts_with("codex")).unwrap();
        assert!(codex.contains("waits") && codex.contains("(upgrade)"), "{codex}");
    }

    #[test]
    fn agents_with_reasons() {
        assert_golden("fleet.txt", &fleet(Surface::PLAIN, &samples::fleet()));
    }
}
