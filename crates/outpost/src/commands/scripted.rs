//! `outpost scripted`: the scripted model provider alone, for rehearsals with one's own tools.

use outpost_scripted::{SCRIPTED_KEY, Script, ScriptedProvider};

use crate::error::CliError;
use crate::exit::Exit;
use crate::follow::Interrupts;
use crate::ui::Ui;
use outpost_args::ScriptedArgs;

/// The demo's script, whose head explains the format.
const EXAMPLE: &str = include_str!("../../../outpost-scripted/scripts/demo.toml");

/// Serves until interrupted.
pub(crate) async fn run(ui: &Ui, args: &ScriptedArgs) -> Result<Exit, CliError> {
    if args.print_example {
        ui.data(EXAMPLE)?;
        return Ok(Exit::Ok);
    }
    let script = match &args.script {
        Some(path) => Script::load(path),
        None => Script::demo(),
    };
    let script = script.map_err(|error| {
        let mut error = CliError::chain("the script cannot be used", &error);
        if let CliError::Failed { message, .. } = error {
            error = CliError::usage(message);
        }
        error.with_hint("`outpost scripted --print-example` prints one that explains itself")
    })?;
    let handle = ScriptedProvider::new(script)
        .start(args.listen)
        .await
        .map_err(|error| CliError::chain("the scripted provider cannot start", &error))?;
    let url = format!("http://{}", handle.addr());
    let mut interrupts = Interrupts::listen();
    if ui.verbosity.json {
        ui.json(&serde_json::json!({ "url": url, "key": SCRIPTED_KEY }))?;
    } else {
        ui.data(&url)?;
        ui.note(&format!(
            "The scripted provider speaks Anthropic Messages, OpenAI Responses and Chat Completions, and Gemini.\nIts key is {SCRIPTED_KEY}, which opens nothing else. Ctrl-C ends it."
        ));
    }
    interrupts.pressed().await;
    Ok(Exit::Ok)
}
