//! `outpost events`: the event stream, one JSON document a line.

use outpost_types::Api;

use super::logs::each_event;
use crate::args::EventsArgs;
use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;

/// Prints the events.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: &EventsArgs) -> Result<Exit, CliError> {
    let id = select::dispatch(api, &args.id).await?;
    let view = api.get_dispatch(id, None, None).await?;
    each_event(api, &view, args.after, args.follow, |event| {
        // Always one line, on a terminal too: JSON escapes every control character in it.
        let line = serde_json::to_string(event)
            .map_err(|error| CliError::chain("an event is no JSON", &error))?;
        ui.data(&escape_non_ascii_controls(&line))
    })
    .await?;
    Ok(Exit::Ok)
}

/// JSON leaves the C1 controls (U+0080 to U+009F) as they are, and some terminals obey them.
fn escape_non_ascii_controls(json: &str) -> String {
    let mut output = String::with_capacity(json.len());
    for character in json.chars() {
        if ('\u{7f}'..='\u{9f}').contains(&character) {
            output.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            output.push(character);
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, FakeApi};
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn one_document_a_line_after_the_number() {
        let (ui, out, _) = Ui::captured(Verbosity::default());
        let args = EventsArgs { id: fake::id(0).to_string(), follow: true, after: 5 };
        run(&ui, &FakeApi::default(), &args).await.unwrap();
        let text = out.text();
        let events: Vec<outpost_types::EventEnvelope> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events, fake::events().split_off(5));
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn controls_are_escaped_and_read_back() {
        let json = escape_non_ascii_controls("\"a\u{9b}31m\u{7f}é\"");
        assert_eq!(json, "\"a\\u009b31m\\u007fé\"");
        let back: String = serde_json::from_str(&json).unwrap();
        assert_eq!(back, "a\u{9b}31m\u{7f}é");
    }
}
