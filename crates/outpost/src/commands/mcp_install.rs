//! `outpost mcp install`: an assistant's configuration. It holds the command that starts `outpost mcp` and
//! never a key, since that command finds its key as every other does.
//!
//! Files of others are changed, not replaced: only the entry `outpost` is written, and a file that cannot be
//! read as what it should be is left alone.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use outpost_args::{GlobalArgs, McpClient, McpInstallArgs};
use serde_json::{Map, Value, json};

use crate::ctx::Ctx;
use crate::error::CliError;
use crate::exit::Exit;

/// Largest configuration that is changed, bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest call that Codex and Gemini CLI are told to wait for, seconds.
const CALL_SECONDS_MAX: u64 = 3_660;
const NAME: &str = "outpost";

/// The command that an assistant is to start.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Start {
    command: String,
    args: Vec<String>,
}

/// Where an assistant looks, and in which form.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// An object of servers under this key.
    Json { key: &'static str },
    /// A table of servers.
    Toml,
}

/// Writes or prints the configuration.
pub(crate) fn run(ctx: &Ctx, args: &McpInstallArgs) -> Result<Exit, CliError> {
    let current = std::env::current_dir()?;
    let home = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let place = place(args.client, &current, home("HOME"), home("CODEX_HOME"))?;
    let start = start(&ctx.global)?;
    let ui = &ctx.ui;
    let shown = place.path.display();
    if args.print {
        ui.note(&format!("Belongs into {shown}:"));
        ui.data(&snippet(place.form, args.client, &start))?;
        return Ok(Exit::Ok);
    }
    write(&place, args.client, &start)?;
    if ui.verbosity.json {
        ui.json(&json!({ "path": place.path, "command": start.command, "args": start.args }))?;
    } else {
        ui.note(&format!(
            "Written to {shown}. Start the assistant anew, then ask it to use Outpost."
        ));
    }
    Ok(Exit::Ok)
}

fn place(
    client: McpClient,
    current: &Path,
    home: Option<PathBuf>,
    codex: Option<PathBuf>,
) -> Result<Place, CliError> {
    let home = || home.clone().ok_or_else(|| CliError::usage("HOME is not set"));
    let servers = Form::Json { key: "mcpServers" };
    let (path, form) = match client {
        McpClient::Claude => (current.join(".mcp.json"), servers),
        McpClient::Vscode => (current.join(".vscode/mcp.json"), Form::Json { key: "servers" }),
        McpClient::Gemini => (home()?.join(".gemini/settings.json"), servers),
        McpClient::Cursor => (home()?.join(".cursor/mcp.json"), servers),
        McpClient::Codex => {
            let folder = codex.map_or_else(|| home().map(|home| home.join(".codex")), Ok)?;
            (folder.join("config.toml"), Form::Toml)
        }
    };
    Ok(Place { path, form })
}

/// This program, with the flags that say which server and data are meant.
fn start(global: &GlobalArgs) -> Result<Start, CliError> {
    let text = |path: &Path| {
        let whole = std::path::absolute(path)?;
        whole.into_os_string().into_string().map_err(|path| {
            CliError::usage(format!("the path {} is not UTF-8 text", Path::new(&path).display()))
        })
    };
    let mut args = Vec::new();
    if let Some(server) = &global.server {
        args.extend(["--server".to_owned(), server.clone()]);
    }
    let paths = [
        ("--key-file", &global.key_file),
        ("--data-dir", &global.data_dir),
        ("--config", &global.config),
    ];
    for (flag, path) in paths {
        if let Some(path) = path {
            args.extend([flag.to_owned(), text(path)?]);
        }
    }
    args.push("mcp".to_owned());
    Ok(Start { command: text(&std::env::current_exe()?)?, args })
}

fn entry(client: McpClient, start: &Start) -> Value {
    let mut entry = json!({ "command": start.command, "args": start.args });
    match client {
        McpClient::Claude | McpClient::Vscode => entry["type"] = json!("stdio"),
        McpClient::Gemini => entry["timeout"] = json!(CALL_SECONDS_MAX * 1_000),
        McpClient::Codex | McpClient::Cursor => {}
    }
    entry
}

/// What is written into an empty file.
fn snippet(form: Form, client: McpClient, start: &Start) -> String {
    match form {
        Form::Json { key } => pretty(&json!({ key: { NAME: entry(client, start) } })),
        Form::Toml => {
            // A JSON text is a TOML text too, and so is a list of them.
            let Start { command, args } = start;
            let (command, args) = (json!(command), json!(args));
            format!(
                "[mcp_servers.{NAME}]\ncommand = {command}\nargs = {args}\ntool_timeout_sec = {CALL_SECONDS_MAX}\n"
            )
        }
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn write(place: &Place, client: McpClient, start: &Start) -> Result<(), CliError> {
    let before = read(&place.path)?;
    let after = match place.form {
        Form::Json { key } => with_entry(&before, key, entry(client, start)),
        Form::Toml => with_table(&before, &snippet(place.form, client, start)),
    };
    let after = after.map_err(|what| {
        CliError::failed(format!("{} is left as it is: {what}", place.path.display()))
            .with_hint("`outpost mcp install --print` shows what belongs into it")
    })?;
    // The file that a link names is changed, not the link.
    let path = fs::canonicalize(&place.path).unwrap_or_else(|_| place.path.clone());
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(after.as_bytes())?;
    if let Ok(old) = fs::metadata(&path) {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.persist(&path).map_err(|error| CliError::from(error.error))?;
    Ok(())
}

/// The file's text; empty when there is none.
fn read(path: &Path) -> Result<String, CliError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(CliError::chain(&format!("reading {}", path.display()), &error)),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(CliError::failed(format!("{} is too large to be changed", path.display())));
    }
    Ok(text)
}

fn with_entry(before: &str, key: &str, entry: Value) -> Result<String, String> {
    let mut document = match before.trim() {
        "" => Value::Object(Map::new()),
        text => {
            serde_json::from_str(text).map_err(|error| format!("it is no plain JSON ({error})"))?
        }
    };
    let object = document.as_object_mut().ok_or("it holds no object")?;
    let servers = object.entry(key).or_insert_with(|| json!({}));
    let servers = servers.as_object_mut().ok_or_else(|| format!("`{key}` is no object"))?;
    servers.insert(NAME.to_owned(), entry);
    Ok(pretty(&document))
}

fn with_table(before: &str, table: &str) -> Result<String, String> {
    let document: toml::Table = before
        .parse()
        .map_err(|error: toml::de::Error| format!("it is no TOML ({})", error.message()))?;
    let there = document.get("mcp_servers").and_then(|servers| servers.get(NAME));
    if let Some(there) = there {
        let wanted: toml::Table = table.parse().map_err(|_| "the entry cannot be written")?;
        if wanted.get("mcp_servers").and_then(|servers| servers.get(NAME)) == Some(there) {
            return Ok(before.to_owned());
        }
        return Err(format!("it has an entry [mcp_servers.{NAME}] already"));
    }
    let gap = match before {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    let after = format!("{before}{gap}{table}");
    // Such as when the servers stand there as an inline table, to which nothing can be added.
    after.parse::<toml::Table>().map_err(|_| "no table of servers can be added to it")?;
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start {
            command: "/opt/out post".into(),
            args: vec!["--data-dir".into(), "/d\"x".into(), "mcp".into()],
        }
    }

    fn written(client: McpClient, before: &str) -> Result<String, CliError> {
        let dir = tempfile::tempdir().unwrap();
        let home = Some(dir.path().join("home"));
        let place = place(client, &dir.path().join("project"), home, None)?;
        if !before.is_empty() {
            fs::create_dir_all(place.path.parent().unwrap()).unwrap();
            fs::write(&place.path, before).unwrap();
        }
        write(&place, client, &start())?;
        Ok(fs::read_to_string(&place.path).unwrap())
    }

    #[test]
    fn every_client_is_told_the_same_command() {
        for client in [McpClient::Claude, McpClient::Gemini, McpClient::Cursor, McpClient::Vscode] {
            let document: Value = serde_json::from_str(&written(client, "").unwrap()).unwrap();
            let key = if client == McpClient::Vscode { "servers" } else { "mcpServers" };
            assert_eq!(document[key]["outpost"]["command"], "/opt/out post", "{client:?}");
            assert_eq!(document[key]["outpost"]["args"][1], "/d\"x", "{client:?}");
        }
        let document: toml::Table = written(McpClient::Codex, "").unwrap().parse().unwrap();
        assert_eq!(document["mcp_servers"]["outpost"]["args"][1].as_str(), Some("/d\"x"));
    }

    #[test]
    fn what_else_is_there_stays() {
        let before = "{\"theme\": \"x\", \"mcpServers\": {\"other\": {\"command\": \"o\"}}}";
        let after: Value =
            serde_json::from_str(&written(McpClient::Gemini, before).unwrap()).unwrap();
        assert_eq!(
            (&after["theme"], &after["mcpServers"]["other"]["command"]),
            (&json!("x"), &json!("o"))
        );
        let before = "# mine\nmodel = \"m\"\n[mcp_servers.other]\ncommand = \"o\"";
        let after = written(McpClient::Codex, before).unwrap();
        assert!(after.starts_with(before), "{after}");
        assert_eq!(
            written(McpClient::Codex, &after).unwrap(),
            after,
            "a second time changes nothing"
        );
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        for (client, before) in [
            (McpClient::Claude, "{ // a comment\n}"),
            (McpClient::Claude, "[]"),
            (McpClient::Claude, "{\"mcpServers\": []}"),
            (McpClient::Codex, "[mcp_servers.outpost]\ncommand = \"other\"\n"),
            (McpClient::Codex, "mcp_servers = {}\n"),
            (McpClient::Codex, "="),
        ] {
            let error = written(client, before).unwrap_err();
            assert!(error.to_string().contains("is left as it is"), "{before}: {error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("--print")));
        }
    }
}
