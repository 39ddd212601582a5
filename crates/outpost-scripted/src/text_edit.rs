//! Edits as text, for an agent without tools: aider's whole-file and SEARCH/REPLACE formats.
//!
//! The files' contents are taken from the prompt, where aider puts them. Absent: running commands, and
//! overwriting a file that exists but was not given to aider.

use crate::conversation::{Conversation, Item};
use crate::script::{Action, Step};

/// How the agent wants its edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextFormat {
    /// Whole files.
    Whole,
    /// SEARCH/REPLACE blocks.
    Blocks,
}

const ADDED_FILES: &str = "I have *added these files to the chat*";

/// The format the instructions ask for, if any.
pub(crate) fn format(conversation: &Conversation) -> Option<TextFormat> {
    let mut texts = conversation.system_texts();
    texts.find_map(|text| {
        if text.contains("*SEARCH/REPLACE block*") {
            Some(TextFormat::Blocks)
        } else if text.contains("*file listing*") {
            Some(TextFormat::Whole)
        } else {
            None
        }
    })
}

/// All of a rule's texts and edits in one answer.
pub(crate) fn answer(steps: &[Step], format: TextFormat, conversation: &Conversation) -> String {
    let mut editor = Editor::new(conversation);
    let mut says = Vec::new();
    let mut edits = Vec::new();
    let mut missing = Vec::new();
    for step in steps {
        // Words about a command would be untrue: it is not run.
        if !matches!(step.action, Some(Action::Run(_) | Action::Read(_) | Action::Call { .. })) {
            says.extend(step.say.clone());
        }
        match &step.action {
            Some(Action::Write { path, content }) => {
                edits.push(editor.write(path, content, format));
            }
            Some(Action::Edit { path, old, new }) => match editor.edit(path, old, new, format) {
                Some(edit) => edits.push(edit),
                None => missing.push(path.as_str()),
            },
            Some(Action::Run(_) | Action::Read(_) | Action::Call { .. }) | None => {}
        }
    }
    missing.dedup();
    // Naming a file makes aider offer to add it; the answer to that has its content and comes here again.
    let asked = conversation.items.iter().any(
        |item| matches!(item, Item::Assistant(text) if text.contains("Please add these files")),
    );
    if !missing.is_empty() && !asked {
        return format!("Please add these files to the chat: {}", missing.join(" "));
    }
    if !missing.is_empty() {
        says.push(format!(
            "I could not make the edit of {}: the text to replace is not in the chat.",
            missing.join(", ")
        ));
    }
    let mut parts = says;
    parts.extend(edits);
    parts.join("\n\n")
}

struct Editor {
    /// Messages that hold contents of files.
    listings: Vec<String>,
    fence: &'static str,
    /// Contents as they are after the edits so far.
    edited: Vec<(String, String)>,
}

impl Editor {
    fn new(conversation: &Conversation) -> Self {
        let listings: Vec<String> = conversation
            .items
            .iter()
            .filter_map(|item| match item {
                Item::User(text) if text.starts_with(ADDED_FILES) => Some(text.clone()),
                _ => None,
            })
            .collect();
        // Aider takes a longer fence when a file contains the usual one.
        let long = listings.iter().any(|text| text.contains("\n````\n"));
        Self { listings, fence: if long { "````" } else { "```" }, edited: Vec::new() }
    }

    fn content(&self, path: &str) -> Option<String> {
        if let Some((_, content)) = self.edited.iter().rev().find(|(known, _)| known == path) {
            return Some(content.clone());
        }
        let opening = format!("\n{path}\n{}\n", self.fence);
        let closing = format!("\n{}\n", self.fence);
        let text = self.listings.iter().rev().find(|text| text.contains(&opening))?;
        let start = text.find(&opening)? + opening.len();
        // One byte back, so that an empty file's closing fence is found as well.
        let end = text[start - 1..].find(&closing)? + start;
        Some(text[start..end].to_owned())
    }

    fn write(&mut self, path: &str, content: &str, format: TextFormat) -> String {
        let before = self.content(path).unwrap_or_default();
        self.edited.push((path.to_owned(), content.to_owned()));
        match format {
            TextFormat::Whole => self.listing(path, content),
            TextFormat::Blocks => self.block(path, &before, content),
        }
    }

    fn edit(&mut self, path: &str, old: &str, new: &str, format: TextFormat) -> Option<String> {
        let before = self.content(path)?;
        let at = before.find(old)?;
        let after = before.replacen(old, new, 1);
        self.edited.push((path.to_owned(), after.clone()));
        if format == TextFormat::Whole {
            return Some(self.listing(path, &after));
        }
        // Blocks replace whole lines.
        let start = before[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let old_end = at + old.len();
        let end = if old.ends_with('\n') {
            old_end
        } else {
            before[old_end..].find('\n').map_or(before.len(), |newline| old_end + newline + 1)
        };
        let replaced = format!("{}{new}{}", &before[start..at], &before[old_end..end]);
        Some(self.block(path, &before[start..end], &replaced))
    }

    fn listing(&self, path: &str, content: &str) -> String {
        format!("{path}\n{0}\n{1}{0}\n", self.fence, ended(content))
    }

    fn block(&self, path: &str, old: &str, new: &str) -> String {
        format!(
            "{path}\n{0}\n<<<<<<< SEARCH\n{1}=======\n{2}>>>>>>> REPLACE\n{0}\n",
            self.fence,
            ended(old),
            ended(new)
        )
    }
}

/// With a newline at the end, unless empty.
fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Parsed;
    use crate::script::Dialect;

    fn conversation(items: Vec<Item>) -> Conversation {
        Conversation::new(Parsed {
            dialect: Dialect::Chat,
            model: "m".into(),
            stream: true,
            items,
            tools: Vec::new(),
            searchable: false,
            searches: Vec::new(),
            forced_tool: None,
            json_schema: None,
        })
    }

    fn edit_step() -> Step {
        Step {
            think: None,
            say: Some("Fixing.".into()),
            action: Some(Action::Edit {
                path: "calc.py".into(),
                old: "a - b".into(),
                new: "a + b".into(),
            }),
        }
    }

    fn listing() -> Item {
        Item::User(format!(
            "{ADDED_FILES} so.\n\ncalc.py\n```\ndef add(a, b):\n    return a - b\n```\n\nempty.txt\n```\n```\n"
        ))
    }

    #[test]
    fn edits_become_whole_lines() {
        let conversation = conversation(vec![listing(), Item::User("Fix it".into())]);
        assert_eq!(
            answer(&[edit_step()], TextFormat::Blocks, &conversation),
            "Fixing.\n\ncalc.py\n```\n<<<<<<< SEARCH\n    return a - b\n=======\n    return a + b\n>>>>>>> REPLACE\n```\n"
        );
        assert_eq!(
            answer(&[edit_step()], TextFormat::Whole, &conversation),
            "Fixing.\n\ncalc.py\n```\ndef add(a, b):\n    return a + b\n```\n"
        );
        assert_eq!(Editor::new(&conversation).content("empty.txt").as_deref(), Some(""));
    }

    #[test]
    fn a_file_that_is_not_there_is_asked_for_once() {
        let mut items = vec![Item::User("Fix it".into())];
        let text = answer(&[edit_step()], TextFormat::Blocks, &conversation(items.clone()));
        assert_eq!(text, "Please add these files to the chat: calc.py");
        items.push(Item::Assistant(text));
        let text = answer(&[edit_step()], TextFormat::Blocks, &conversation(items));
        assert!(text.contains("could not make the edit of calc.py"));
    }

    #[test]
    fn a_new_file_is_written_in_both_formats() {
        let step = Step {
            think: None,
            say: None,
            action: Some(Action::Write { path: "n.txt".into(), content: "x".into() }),
        };
        let conversation = conversation(vec![Item::User("Write".into())]);
        let steps = [step];
        assert_eq!(answer(&steps, TextFormat::Whole, &conversation), "n.txt\n```\nx\n```\n");
        assert_eq!(
            answer(&steps, TextFormat::Blocks, &conversation),
            "n.txt\n```\n<<<<<<< SEARCH\n=======\nx\n>>>>>>> REPLACE\n```\n"
        );
    }
}
