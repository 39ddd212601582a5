//! Where the time of a dispatch went, as bars on a common scale.

use outpost_types::PhaseTimings;

use crate::Surface;
use crate::format::{millis, pad, pad_left};

/// Widest bar area, columns.
const BAR_COLUMNS_MAX: usize = 48;
/// Columns of name and duration before the bars.
const LABEL_COLUMNS: usize = 26;

struct Bar {
    name: &'static str,
    start_millis: u64,
    length_millis: u64,
    /// A part of the bar before it.
    inner: bool,
}

/// One line per phase that was reached, and the total. Empty when nothing is known.
pub(crate) fn timeline(surface: Surface, timings: &PhaseTimings) -> String {
    let bars = bars(timings);
    let end = bars
        .iter()
        .map(|bar| bar.start_millis + bar.length_millis)
        .max()
        .unwrap_or(0)
        .max(timings.total_millis.unwrap_or(0));
    if bars.is_empty() {
        return String::new();
    }
    let area = surface.width().saturating_sub(LABEL_COLUMNS + 2).clamp(8, BAR_COLUMNS_MAX);
    let mut output = String::new();
    for bar in &bars {
        let name = if bar.inner {
            format!("{} {}", surface.glyph("└", "`"), bar.name)
        } else {
            bar.name.to_owned()
        };
        let label = format!("  {}{}", pad(&name, 14), pad_left(&millis(bar.length_millis), 10));
        let (offset, length) = place(bar, end, area);
        let block = surface.glyph(if bar.inner { "▒" } else { "█" }, "#");
        // What took place, but not for one column's worth of time, is a thin line.
        let drawn = match length {
            0 => surface.glyph("▏", "|").to_owned(),
            length => block.repeat(length),
        };
        let drawn = surface.cyan(&drawn);
        output.push_str(&format!("{label}  {}{drawn}\n", " ".repeat(offset)));
    }
    if let Some(total) = timings.total_millis {
        let label = format!("  {}{}", pad("total", 14), pad_left(&millis(total), 10));
        output.push_str(&surface.bold(&label));
        output.push('\n');
    }
    output
}

fn bars(timings: &PhaseTimings) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut at = 0_u64;
    let steps = [
        ("queue", timings.queue_millis),
        ("fetch", timings.fetch_millis),
        ("checkout", timings.checkout_millis),
        ("setup", timings.setup_millis),
        ("sandbox", timings.sandbox_millis),
        ("agent", timings.agent_millis),
        ("collect", timings.collect_millis),
    ];
    for (name, length) in steps {
        let Some(length) = length else {
            continue;
        };
        bars.push(Bar { name, start_millis: at, length_millis: length, inner: false });
        if let ("agent", Some(first)) = (name, timings.first_output_millis) {
            bars.push(Bar {
                name: "first output",
                start_millis: at,
                length_millis: first.min(length),
                inner: true,
            });
        }
        at = at.saturating_add(length);
    }
    bars
}

/// Offset and length of a bar, columns.
fn place(bar: &Bar, end_millis: u64, area: usize) -> (usize, usize) {
    let scale = |millis: u64| {
        let columns = u128::from(millis) * area as u128 / u128::from(end_millis.max(1));
        usize::try_from(columns).unwrap_or(area).min(area)
    };
    let offset = scale(bar.start_millis).min(area.saturating_sub(1));
    let length = scale(bar.start_millis.saturating_add(bar.length_millis)).saturating_sub(offset);
    (offset, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::assert_golden;

    fn timings() -> PhaseTimings {
        PhaseTimings {
            queue_millis: Some(0),
            fetch_millis: Some(41),
            checkout_millis: Some(120),
            setup_millis: None,
            sandbox_millis: Some(8),
            warm: None,
            first_output_millis: Some(400),
            agent_millis: Some(2_600),
            collect_millis: Some(350),
            total_millis: Some(3_125),
        }
    }

    #[test]
    fn bars_share_one_scale() {
        assert_golden("timeline.txt", &timeline(Surface::PLAIN, &timings()));
    }

    #[test]
    fn unreached_phases_are_absent() {
        let part = PhaseTimings { queue_millis: Some(5), ..PhaseTimings::default() };
        let text = timeline(Surface::PLAIN, &part);
        assert!(text.contains("queue") && !text.contains("agent") && !text.contains("total"));
        assert_eq!(timeline(Surface::PLAIN, &PhaseTimings::default()), "");
    }

    #[test]
    fn absurd_durations_stay_in_the_area() {
        let huge = PhaseTimings {
            queue_millis: Some(u64::MAX / 2),
            agent_millis: Some(u64::MAX / 4),
            first_output_millis: Some(u64::MAX),
            ..PhaseTimings::default()
        };
        for line in timeline(Surface::PLAIN, &huge).lines() {
            assert!(line.chars().count() <= LABEL_COLUMNS + 40 + BAR_COLUMNS_MAX, "{line}");
        }
    }
}
