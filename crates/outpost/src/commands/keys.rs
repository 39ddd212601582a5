//! `outpost keys`: make, list, replace and take back API keys. A key is printed once, alone on standard output.

use outpost_args::{KeyCreateArgs, KeyRotateArgs, KeysArgs, KeysCommand};
use outpost_terminal::sanitize;
use outpost_types::{
    Api, ApiError, CreateKey, CreatedKey, ErrorCode, KeyId, KeyQuery, RotateKey, Scope, TenantId,
};

use crate::clock::now;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;

/// Does one of them.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: KeysArgs) -> Result<Exit, CliError> {
    match args.command {
        KeysCommand::Create(args) => create(ui, api, args).await,
        KeysCommand::Ls(args) => ls(ui, api, args.tenant).await,
        KeysCommand::Rotate(args) => rotate(ui, api, &args).await,
        KeysCommand::Revoke(args) => revoke(ui, api, &args.id).await,
    }
}

async fn create(ui: &Ui, api: &dyn Api, args: KeyCreateArgs) -> Result<Exit, CliError> {
    let request = CreateKey {
        name: args.name,
        scopes: args.scopes.iter().map(|name| scope(name)).collect::<Result<_, _>>()?,
        tenant_id: args.tenant.as_deref().map(tenant).transpose()?,
        expires_at: args.expires_in.map(|seconds| now().plus_millis(seconds.saturating_mul(1000))),
    };
    let created = api.create_key(request).await?;
    show_once(ui, &created, "is made")
}

async fn ls(ui: &Ui, api: &dyn Api, tenant: Option<String>) -> Result<Exit, CliError> {
    let mut views = Vec::new();
    let mut query = KeyQuery { tenant, limit: Some(100), cursor: None };
    loop {
        let page = api.list_keys(query.clone()).await?;
        views.extend(page.items);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    if ui.verbosity.json {
        ui.json(&views)?;
    } else {
        ui.data(&outpost_terminal::keys(ui.out, &views, now()))?;
    }
    Ok(Exit::Ok)
}

async fn rotate(ui: &Ui, api: &dyn Api, args: &KeyRotateArgs) -> Result<Exit, CliError> {
    let request = RotateKey { overlap_seconds: args.overlap };
    let created = api.rotate_key(find(&args.id)?, request).await.map_err(unknown)?;
    show_once(ui, &created, "takes its place")
}

async fn revoke(ui: &Ui, api: &dyn Api, id: &str) -> Result<Exit, CliError> {
    let view = api.revoke_key(find(id)?).await.map_err(unknown)?;
    if ui.verbosity.json {
        ui.json(&view)?;
    } else {
        ui.note(&format!("The key {} is revoked.", view.id));
    }
    Ok(Exit::Ok)
}

fn show_once(ui: &Ui, created: &CreatedKey, what: &str) -> Result<Exit, CliError> {
    if ui.verbosity.json {
        ui.json(created)?;
    } else {
        let id = created.api_key.id;
        ui.note(&format!("The key {id} {what}. It is shown only now:"));
        ui.data(&format!("{}\n", sanitize::line(&created.key)))?;
    }
    Ok(Exit::Ok)
}

fn scope(name: &str) -> Result<Scope, CliError> {
    name.parse().map_err(|()| {
        let names = Scope::ALL.map(Scope::as_str).join(", ");
        CliError::usage(format!("there is no scope {name:?}; choose from {names}"))
    })
}

/// The id of a tenant.
pub(crate) fn tenant(id: &str) -> Result<TenantId, CliError> {
    id.parse().map_err(|error| CliError::usage(format!("{id:?} is no id of a tenant: {error}")))
}

fn find(id: &str) -> Result<KeyId, CliError> {
    id.parse().map_err(|_| {
        CliError::usage(format!("{id:?} is no id of a key"))
            .with_hint("`outpost keys ls` shows them")
    })
}

fn unknown(error: ApiError) -> CliError {
    match error.code {
        ErrorCode::NotFound => error.with_hint("`outpost keys ls` shows them").into(),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn a_key_is_alone_on_standard_output() {
        let (ui, out, err) = Ui::captured(Verbosity::default());
        let args = |scope: &str| KeyCreateArgs {
            name: "ci".into(),
            scopes: vec![scope.to_owned()],
            tenant: None,
            expires_in: None,
        };
        create(&ui, &FakeApi::default(), args("status")).await.unwrap();
        assert_eq!(out.text(), format!("otp_{}\n", "ab".repeat(32)));
        assert!(!err.text().contains("abab"), "{}", err.text());
        let error = create(&ui, &FakeApi::default(), args("root")).await.unwrap_err();
        assert!(error.to_string().contains("promote"), "{error}");
    }

    #[tokio::test]
    async fn lists_show_no_control_characters_and_unknown_ids_are_refused() {
        let (ui, out, _) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        ls(&ui, &api, None).await.unwrap();
        assert!(out.text().contains("otp_3f9c1a7be02") && !out.text().contains('\u{1b}'));
        for id in ["x".to_owned(), KeyId::from_parts(9, 9).to_string()] {
            let error = revoke(&ui, &api, &id).await.unwrap_err();
            assert!(error.hint().unwrap().contains("keys ls"), "{error}");
        }
        revoke(&ui, &api, &KeyId::from_parts(1, 1).to_string()).await.unwrap();
    }
}
