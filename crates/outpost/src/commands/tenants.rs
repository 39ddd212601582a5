//! `outpost tenants`: make, list and change tenants.

use outpost_args::{TenantSetArgs, TenantsArgs, TenantsCommand};
use outpost_types::{
    Api, ApiError, CreateTenant, ErrorCode, TenantQuery, TenantQuotas, TenantView, UpdateTenant,
};

use crate::clock::now;
use crate::commands::keys::tenant;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;

/// Does one of them.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: TenantsArgs) -> Result<Exit, CliError> {
    match args.command {
        TenantsCommand::Create(args) => create(ui, api, args).await,
        TenantsCommand::Ls => ls(ui, api).await,
        TenantsCommand::Show(args) => {
            let view = api.get_tenant(tenant(&args.id)?).await.map_err(unknown)?;
            show(ui, &[view])
        }
        TenantsCommand::Set(args) => {
            // Without a quota on the command line they stay as they are.
            let quotas = Some(quotas(&args)).filter(|it| *it != TenantQuotas::default());
            let request = UpdateTenant { name: args.name, quotas, suspended: None };
            change(ui, api, &args.id, request).await
        }
        TenantsCommand::Suspend(args) => {
            let request = UpdateTenant { suspended: Some(true), ..UpdateTenant::default() };
            change(ui, api, &args.id, request).await
        }
        TenantsCommand::Resume(args) => {
            let request = UpdateTenant { suspended: Some(false), ..UpdateTenant::default() };
            change(ui, api, &args.id, request).await
        }
    }
}

const fn quotas(args: &TenantSetArgs) -> TenantQuotas {
    TenantQuotas { requests_per_minute: args.requests, concurrent_dispatches: args.concurrent }
}

async fn create(ui: &Ui, api: &dyn Api, args: TenantSetArgs) -> Result<Exit, CliError> {
    let quotas = Some(quotas(&args));
    let request = CreateTenant { id: tenant(&args.id)?, name: args.name, quotas };
    let view = api.create_tenant(request).await?;
    let hint = format!("`outpost keys create NAME --tenant {} --scope …` makes it a key.", view.id);
    let shown = show(ui, &[view])?;
    ui.note(&hint);
    Ok(shown)
}

async fn ls(ui: &Ui, api: &dyn Api) -> Result<Exit, CliError> {
    let mut views = Vec::new();
    let mut query = TenantQuery { limit: Some(100), cursor: None };
    loop {
        let page = api.list_tenants(query.clone()).await?;
        views.extend(page.items);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    if ui.verbosity.json {
        ui.json(&views)?;
        return Ok(Exit::Ok);
    }
    show(ui, &views)
}

async fn change(ui: &Ui, api: &dyn Api, id: &str, request: UpdateTenant) -> Result<Exit, CliError> {
    let view = api.update_tenant(tenant(id)?, request).await.map_err(unknown)?;
    show(ui, &[view])
}

fn show(ui: &Ui, views: &[TenantView]) -> Result<Exit, CliError> {
    match views {
        [view] if ui.verbosity.json => ui.json(view)?,
        views => ui.data(&outpost_terminal::tenants(ui.out, views, now()))?,
    }
    Ok(Exit::Ok)
}

fn unknown(error: ApiError) -> CliError {
    match error.code {
        ErrorCode::NotFound => error.with_hint("`outpost tenants ls` shows them").into(),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use outpost_args::TenantArgs;

    use super::*;
    use crate::fake::FakeApi;
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn a_tenant_is_suspended_and_shown() {
        let (ui, out, _) = Ui::captured(Verbosity::default());
        let suspend = |id: &str| TenantsArgs {
            command: TenantsCommand::Suspend(TenantArgs { id: id.to_owned() }),
        };
        run(&ui, &FakeApi::default(), suspend("acme")).await.unwrap();
        assert!(out.text().contains("suspended"), "{}", out.text());
        let error = run(&ui, &FakeApi::default(), suspend("nobody")).await.unwrap_err();
        assert!(error.hint().unwrap().contains("tenants ls"), "{error}");
        assert!(run(&ui, &FakeApi::default(), suspend("a b")).await.is_err());
    }
}
