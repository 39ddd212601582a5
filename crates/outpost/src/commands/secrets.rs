//! `outpost secrets`: set, list, remove, rekey. A value is read from standard input or asked for, and
//! goes nowhere but to the server.

mod prompt;

use std::io::{IsTerminal as _, Read};

use outpost_terminal::sanitize;
use outpost_types::limits::{SECRET_BYTES_MAX, SECRET_NAME_BYTES_MAX};
use outpost_types::{
    Api, ApiError, ErrorCode, PutSecret, SecretKind, SecretName, SecretScope, SecretValue,
};
use zeroize::Zeroizing;

use crate::clock::now;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;
use outpost_args::SecretSetArgs;

/// What is read of an input that is too long, bytes: the longest value, a line end, and one more.
const INPUT_BYTES_MAX: usize = SECRET_BYTES_MAX + 3;

/// Checks the command line and reads the value. Before any server is started for it.
pub(crate) fn read(ui: &Ui, args: &SecretSetArgs) -> Result<(SecretName, PutSecret), CliError> {
    if !args.misplaced.is_empty() || args.misplaced_value.is_some() {
        return Err(in_argv());
    }
    let name = name(&args.name)?;
    let stdin = std::io::stdin();
    let value = if stdin.is_terminal() {
        let Some(typed) = prompt::ask(ui, &format!("Value of {name} (not shown): "))? else {
            return Err(CliError::failed("nothing was stored"));
        };
        SecretValue::new(typed)
    } else {
        value(&mut stdin.lock())?
    };
    let request = PutSecret {
        value,
        kind: match (args.exposed, args.injected) {
            (true, _) => Some(SecretKind::Exposed),
            (_, true) => Some(SecretKind::Injected),
            _ => None,
        },
        scope: Some(scope(args.platform)),
    };
    // What the server holds may be of either kind: the wider bound is the one to check here.
    request.value.check(request.kind.unwrap_or(SecretKind::Exposed)).map_err(wrong_value)?;
    Ok((name, request))
}

/// Stores a value.
pub(crate) async fn set(
    ui: &Ui,
    api: &dyn Api,
    (name, request): (SecretName, PutSecret),
) -> Result<Exit, CliError> {
    let view = api.put_secret(name, request).await.map_err(wrong_value)?;
    if ui.verbosity.json {
        ui.json(&view)?;
        return Ok(Exit::Ok);
    }
    let (name, version) = (&view.name, view.version);
    let what = match (view.kind, view.provider) {
        (SecretKind::Exposed, _) => {
            format!("agents can read it in dispatches with --secret {name}")
        }
        (SecretKind::Injected, Some(provider)) => {
            format!("the gateway uses it for {}", provider.as_str())
        }
        (SecretKind::Injected, None) => {
            "nothing uses it yet: it is no provider's key, and agents get only what is set with \
             --exposed"
                .to_owned()
        }
    };
    ui.note(&format!("{name} is stored, version {version}; {what}."));
    Ok(Exit::Ok)
}

/// Lists secrets.
pub(crate) async fn ls(ui: &Ui, api: &dyn Api) -> Result<Exit, CliError> {
    let views = api.list_secrets().await?;
    if ui.verbosity.json {
        ui.json(&views)?;
    } else if views.is_empty() {
        ui.note("There is no secret. `outpost secrets set NAME` makes one.");
    } else {
        ui.data(&outpost_terminal::secrets(ui.out, &views, now()))?;
    }
    Ok(Exit::Ok)
}

/// Removes one.
pub(crate) async fn rm(
    ui: &Ui,
    api: &dyn Api,
    name: SecretName,
    platform: bool,
) -> Result<Exit, CliError> {
    let view = api.delete_secret(name, scope(platform)).await.map_err(|error| {
        let hint = (error.code == ErrorCode::NotFound).then_some("`outpost secrets ls` shows them");
        match hint {
            Some(hint) => CliError::from(error.with_hint(hint)),
            None => CliError::from(error),
        }
    })?;
    if ui.verbosity.json {
        ui.json(&view)?;
    } else {
        ui.note(&format!("{} is removed, with all its versions.", view.name));
    }
    Ok(Exit::Ok)
}

/// Encrypts everything with a new key.
pub(crate) async fn rekey(ui: &Ui, api: &dyn Api) -> Result<Exit, CliError> {
    let done = api.rekey_secrets().await?;
    if ui.verbosity.json {
        ui.json(&done)?;
        return Ok(Exit::Ok);
    }
    let (key, versions) = (sanitize::line(&done.key_id), done.versions);
    ui.note(&format!(
        "Everything is encrypted with key {key} now; {versions} values were encrypted anew."
    ));
    if done.old_key_left {
        ui.warn(
            "the old key is still in its file, which is not the server's to write: remove it there",
        );
    }
    Ok(Exit::Ok)
}

fn scope(platform: bool) -> SecretScope {
    if platform { SecretScope::Platform } else { SecretScope::Tenant }
}

/// Reads a name. The text is not repeated: it may be the value.
pub(crate) fn name(text: &str) -> Result<SecretName, CliError> {
    if text.contains('=') {
        return Err(in_argv());
    }
    text.parse().map_err(|_| {
        CliError::usage(format!(
            "NAME is no name of a secret: expected 1 to {SECRET_NAME_BYTES_MAX} characters of A-Z, 0-9 and _, the first a letter"
        ))
    })
}

fn in_argv() -> CliError {
    CliError::usage(
        "a secret is never an argument: others can read those, and shells remember them",
    )
    .with_hint(
        "pipe it in (outpost secrets set NAME < FILE), or give only NAME and type it when asked; \
             what you just typed is in your shell's history, so consider making it invalid",
    )
}

/// An error about `value` in the words of the command line.
fn wrong_value(error: ApiError) -> CliError {
    match error.field.as_deref() {
        Some("value") => {
            let message = error.message.replace("`value`", "the value");
            let wrong = CliError::usage(message);
            match error.hint {
                Some(hint) => wrong.with_hint(hint),
                None => wrong,
            }
        }
        Some("kind") => CliError::usage(error.message).with_hint("leave --exposed out"),
        _ => error.into(),
    }
}

/// Reads a value; one line end at its end is not part of it.
fn value(input: &mut impl Read) -> Result<SecretValue, CliError> {
    // Large enough from the start: growing would leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(INPUT_BYTES_MAX));
    input.take(INPUT_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| CliError::usage("the value on standard input is no UTF-8 text"))?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err(CliError::usage("there is no value on standard input")
            .with_hint("pipe it in, or run the command at a terminal and type it"));
    }
    Ok(SecretValue::new(text.to_owned()))
}

#[cfg(test)]
mod tests;
