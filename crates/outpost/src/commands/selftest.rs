//! `outpost selftest`: attacks from inside a real sandbox of this host, and a verdict on each.

use outpost_sandbox::{LAUNCHER_ARGUMENT, SandboxPolicy};
use outpost_selftest::text::{line, summary};
use outpost_selftest::{Options, Report};

use crate::ctx::Ctx;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;
use outpost_args::IsolationMinimum;

/// Runs every probe and says which held. Exit code 0 only if all did.
pub(crate) async fn run(ctx: &Ctx) -> Result<Exit, CliError> {
    let config = ctx.config()?;
    let program = std::env::current_exe()
        .and_then(|path| path.canonicalize())
        .map_err(|error| CliError::chain("this program's own file cannot be found", &error))?;
    let accept_missing = config.isolation_minimum == IsolationMinimum::Namespaces;
    let options = Options {
        launcher_program: program.clone(),
        launcher_arguments: vec![LAUNCHER_ARGUMENT.to_owned()],
        probe_program: program,
        policy: if accept_missing {
            SandboxPolicy::allow_missing_limits()
        } else {
            SandboxPolicy::default()
        },
    };
    let ui = &ctx.ui;
    let mut last = None;
    // A verdict is printed as it is reached; one that cannot be printed is reported at the end.
    let mut printed = Ok(());
    let report = outpost_selftest::run(&options, |verdict| {
        if !ui.verbosity.json && printed.is_ok() {
            printed = ui.data(&line(ui.out, ui.verbosity.verbose, verdict, last));
            last = Some(verdict.group);
        }
    })
    .await
    .map_err(|error| CliError::chain("the self-test came to no verdict", &error))?;
    printed?;
    finish(ui, &report, accept_missing)
}

fn finish(ui: &Ui, report: &Report, accept_missing: bool) -> Result<Exit, CliError> {
    let ok = report.holds(accept_missing);
    if ui.verbosity.json {
        ui.json(&serde_json::json!({ "ok": ok, "report": report }))?;
    } else {
        ui.data(&summary(ui.out, report, ok))?;
    }
    Ok(if ok { Exit::Ok } else { Exit::Failed })
}

#[cfg(test)]
mod tests {
    use outpost_selftest::{Group, Standing, Verdict};

    use super::*;
    use crate::ui::Verbosity;

    /// Of one attack that came to this.
    fn report(standing: Standing) -> Report {
        let (name, attack, detail) = Default::default();
        let verdict = Verdict { group: Group::Calls, name, attack, standing, errno: None, detail };
        Report { verdicts: vec![verdict], enforced: vec![], missing: vec![], rootless: false }
    }

    #[test]
    fn only_what_holds_ends_well() {
        let exit = |standing, accept| {
            let (ui, out, _) = Ui::captured(Verbosity { json: true, ..Verbosity::default() });
            (finish(&ui, &report(standing), accept).unwrap(), out.text())
        };
        assert_eq!(exit(Standing::Held, false).0, Exit::Ok);
        assert_eq!(exit(Standing::Untried, false).0, Exit::Ok);
        assert_eq!(exit(Standing::Missing, true).0, Exit::Ok);
        assert_eq!(exit(Standing::Missing, false).0, Exit::Failed);
        let (ended, text) = exit(Standing::Broken, true);
        assert_eq!(ended, Exit::Failed);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["report"]["verdicts"][0]["standing"], "broken");
    }
}
