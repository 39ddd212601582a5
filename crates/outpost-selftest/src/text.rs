//! Verdicts for people to read.

use outpost_terminal::format::{pad, truncate, width, wrap};
use outpost_terminal::{Surface, sanitize};

use crate::{Group, Report, Standing, Verdict, errno_name};

/// Columns of the mark and of the answer of the kernel.
const MARK_COLUMNS: usize = 4;
const ERRNO_COLUMNS: usize = 12;
/// Columns of what was tried, where a terminal is wide enough.
const ATTACK_COLUMNS_MAX: usize = 72;

/// One verdict, under the title of its group where that begins: `last` is the group of the one before. With
/// `verbose`, details also of attacks that failed.
#[must_use]
pub fn line(surface: Surface, verbose: bool, verdict: &Verdict, last: Option<Group>) -> String {
    let mut output = String::new();
    if last != Some(verdict.group) {
        let gap = if last.is_some() { "\n" } else { "" };
        output = format!("{gap}{}\n", surface.bold(verdict.group.title()));
    }
    let mark = match verdict.standing {
        Standing::Held => surface.green(surface.glyph("✓", "ok")),
        Standing::Broken => surface.red(surface.glyph("✗", "FAIL")),
        Standing::Missing => surface.yellow(surface.glyph("!", "warn")),
        Standing::Untried => surface.dim(surface.glyph("·", "-")),
    };
    let mark_columns = width(&sanitize::text(&mark));
    let blank = " ".repeat(MARK_COLUMNS.saturating_sub(mark_columns).max(1));
    let room = surface.width().saturating_sub(MARK_COLUMNS + ERRNO_COLUMNS + 3);
    let columns = room.clamp(20, ATTACK_COLUMNS_MAX);
    let attack = truncate(&sanitize::line(&verdict.attack), columns, surface.unicode);
    let answer = match (verdict.standing, verdict.errno.and_then(errno_name)) {
        (Standing::Held, Some(name)) => surface.dim(name),
        (Standing::Held, None) => surface.dim("held"),
        (Standing::Broken, _) => surface.red("succeeded"),
        (Standing::Missing, _) => surface.yellow("not enforced"),
        (Standing::Untried, _) => surface.dim("not tried"),
    };
    output.push_str(&format!("  {mark}{blank}{} {answer}\n", pad(&attack, columns)));
    if verbose || verdict.standing != Standing::Held {
        let indent = " ".repeat(MARK_COLUMNS + 2);
        let detail = format!("{}: {}", verdict.name, verdict.detail);
        for line in wrap(&sanitize::line(&detail), surface.width().saturating_sub(indent.len())) {
            output.push_str(&format!("{indent}{}\n", surface.dim(&line)));
        }
    }
    output
}

/// How many held, and what that means; `ok` is the verdict on the host.
#[must_use]
pub fn summary(surface: Surface, report: &Report, ok: bool) -> String {
    let who = if report.rootless { "as an ordinary user" } else { "as root" };
    let all = report.verdicts.len();
    let mut text = format!("{} of {all} held, {who}", report.count(Standing::Held));
    for (standing, word) in [
        (Standing::Broken, "succeeded"),
        (Standing::Missing, "not enforced on this host"),
        (Standing::Untried, "not tried"),
    ] {
        match report.count(standing) {
            0 => {}
            count => text.push_str(&format!("; {count} {word}")),
        }
    }
    let text = if ok { surface.green(&text) } else { surface.red(&text) };
    let mut output = format!("\n{text}\n");
    for missing in &report.missing {
        output.push_str(&format!("{} {}\n", surface.yellow("missing:"), sanitize::line(missing)));
    }
    if !ok {
        output.push_str("Do not run agents that you do not trust here before this is solved; see SECURITY.md.\n");
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(group: Group, standing: Standing) -> Verdict {
        Verdict {
            group,
            name: "call.keyctl".to_owned(),
            attack: "keyctl".to_owned(),
            standing,
            errno: (standing == Standing::Held).then_some(1),
            detail: "an answer\x1b[2J".to_owned(),
        }
    }

    fn report(verdicts: Vec<Verdict>) -> Report {
        let missing = vec!["no memory limit\x1b[2J".to_owned()];
        Report { verdicts, enforced: Vec::new(), missing, rootless: false }
    }

    #[test]
    fn a_held_attack_is_one_line_and_others_say_more() {
        let held = line(Surface::PLAIN, false, &verdict(Group::Calls, Standing::Held), None);
        let lines: Vec<&str> = held.lines().collect();
        assert_eq!(lines.len(), 2, "{held}");
        assert_eq!(lines[0], "System calls");
        assert!(lines[1].starts_with("  ✓   keyctl ") && lines[1].ends_with(" EPERM"), "{held}");
        let again = line(
            Surface::PLAIN,
            false,
            &verdict(Group::Calls, Standing::Broken),
            Some(Group::Calls),
        );
        assert!(again.starts_with("  ✗   keyctl "), "{again}");
        assert!(again.contains("call.keyctl: an answer") && !again.contains('\x1b'), "{again}");
    }

    #[test]
    fn the_summary_counts_and_is_clean() {
        let both =
            vec![verdict(Group::Calls, Standing::Held), verdict(Group::Calls, Standing::Broken)];
        let text = summary(Surface::PLAIN, &report(both), false);
        assert!(text.contains("1 of 2 held, as root; 1 succeeded"), "{text}");
        assert!(text.contains("missing: no memory limit") && !text.contains('\x1b'), "{text}");
    }
}
