//! `outpost usage`: what was used, summed up.

use outpost_terminal::usage;
use outpost_types::{Api, UsageQuery};

use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;
use outpost_args::UsageArgs;

/// Shows the sums.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: UsageArgs) -> Result<Exit, CliError> {
    let group_by = (!args.by.is_empty())
        .then(|| args.by.into_iter().map(|group| group.as_str()).collect::<Vec<_>>().join(","));
    let day = |day: Option<outpost_types::Day>| day.map(|day| day.to_string());
    let query =
        UsageQuery { from: day(args.from), to: day(args.to), group_by, tenant: args.tenant };
    let report = api.usage(query).await?;
    if ui.verbosity.json {
        ui.json(&report)?;
    } else if report.rows.is_empty() {
        ui.note(&format!(
            "Nothing that ended from {} to {} used anything.",
            report.from, report.to
        ));
    } else {
        ui.data(&usage(ui.out, &report))?;
        if report.total.unpriced_calls > 0 {
            ui.note("+? stands for calls without a known price: add one under [[prices]].");
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::fake::{Call, FakeApi};
    use crate::ui::Verbosity;
    use outpost_args::{Cli, Command};

    fn args(words: &[&str]) -> Result<UsageArgs, clap::Error> {
        match Cli::try_parse_from(["outpost", "usage"].iter().chain(words))?.command {
            Command::Usage(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_travels() {
        let (ui, out, _) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        let words = ["--from", "2026-11-01", "--by", "agent,day", "--tenant", "acme"];
        run(&ui, &api, args(&words).unwrap()).await.unwrap();
        let query = UsageQuery {
            from: Some("2026-11-01".into()),
            to: None,
            group_by: Some("agent,day".into()),
            tenant: Some("acme".into()),
        };
        assert_eq!(api.calls(), [Call::Usage(query)]);
        assert!(out.text().contains("claude"), "{}", out.text());
        for wrong in [["--from", "november"], ["--by", "user"]] {
            assert!(args(&wrong).is_err(), "{wrong:?}");
        }
    }
}
