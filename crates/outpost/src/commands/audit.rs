//! `outpost audit`: read, check and export the audit trail.

use futures_util::StreamExt as _;
use outpost_args::{AuditArgs, AuditCommand, AuditLsArgs, AuditVerifyArgs};
use outpost_types::limits::LIST_LIMIT_DEFAULT;
use outpost_types::{Api, AuditQuery, ExportAudit, VerifyAudit};

use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;

/// Does one of them.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: AuditArgs) -> Result<Exit, CliError> {
    match args.command {
        None => {
            let args = AuditLsArgs { limit: LIST_LIMIT_DEFAULT, ..AuditLsArgs::default() };
            ls(ui, api, args).await
        }
        Some(AuditCommand::Ls(args)) => ls(ui, api, args).await,
        Some(AuditCommand::Verify(args)) => verify(ui, api, args).await,
        Some(AuditCommand::Export(args)) => export(ui, api, args.after).await,
    }
}

async fn ls(ui: &Ui, api: &dyn Api, args: AuditLsArgs) -> Result<Exit, CliError> {
    let query = AuditQuery {
        tenant: args.tenant,
        action: args.action,
        since: args.since,
        until: args.until,
        limit: Some(args.limit),
        cursor: args.cursor,
    };
    let page = api.list_audit(query).await?;
    if ui.verbosity.json {
        ui.json(&page)?;
        return Ok(Exit::Ok);
    }
    ui.data(&outpost_terminal::audit(ui.out, &page.items))?;
    if let Some(cursor) = page.next_cursor {
        ui.note(&format!("There are more: add --cursor {cursor}"));
    }
    Ok(Exit::Ok)
}

/// Part after part, to the end.
async fn verify(ui: &Ui, api: &dyn Api, args: AuditVerifyArgs) -> Result<Exit, CliError> {
    let mut query = VerifyAudit { after: args.after, hash: args.hash, limit: None };
    let mut checked = 0;
    let last = loop {
        let part = api.verify_audit(query).await?;
        checked += part.checked;
        match part.next {
            Some(next) => {
                query = VerifyAudit { after: Some(next), hash: Some(part.hash), limit: None };
            }
            None => break part,
        }
    };
    if ui.verbosity.json {
        ui.json(&last)?;
    } else if let Some(at) = last.broken_at {
        ui.warn(&format!("The audit trail is broken at entry {at}; compare it with a backup."));
    } else {
        ui.note(&format!("{checked} entries are as they were written. Keep this elsewhere:"));
        ui.data(&format!("--after {} --hash {}\n", last.seq, last.hash))?;
    }
    Ok(if last.intact { Exit::Ok } else { Exit::Failed })
}

async fn export(ui: &Ui, api: &dyn Api, after: Option<u64>) -> Result<Exit, CliError> {
    let mut lines = api.export_audit(ExportAudit { after }).await?;
    while let Some(piece) = lines.next().await {
        ui.data_bytes(&piece?)?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn the_trail_is_listed_checked_to_its_end_and_exported() {
        let (ui, out, err) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        run(&ui, &api, AuditArgs { command: None }).await.unwrap();
        assert!(out.text().contains("key.created"), "{}", out.text());
        let exit = verify(&ui, &api, AuditVerifyArgs { after: None, hash: None }).await.unwrap();
        assert_eq!(exit, Exit::Ok);
        assert!(err.text().contains("14 entries"), "{}", err.text());
        assert!(out.text().contains("--after 14 --hash 0000"), "{}", out.text());
        export(&ui, &api, None).await.unwrap();
        assert!(out.text().ends_with("{\"seq\":1}\n"), "{}", out.text());
    }
}
