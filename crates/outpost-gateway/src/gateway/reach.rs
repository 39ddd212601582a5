//! What a request asks its provider to reach beside the model, found while the request passes.
//!
//! A sandbox without a network could otherwise have the provider search, fetch, and talk to servers for it. So
//! the tools of such a request must be of the kinds that the agent carries out itself: a list of those, since a
//! list of the others would be old by the next release of a provider. What is fetched by its address (an image, a
//! document) is refused as well, unless it is in the request itself.
//!
//! As in [`super::scan`] names are compared after decoding, and without regard to case. Sources: the public API
//! references of Anthropic (Messages), OpenAI (Responses, Chat Completions), Google (`generateContent`) and xAI.
//!
//! Bounded: depth, what is kept of a name and of a word. Absent: full validation; what is no JSON is found there,
//! or is the provider's to refuse. What a stored thing of the account (a cache, a file, a conversation) may ask
//! for: no path that makes one is passed on.

use super::usage::UsageDialect;

/// Longest name that means something here, bytes, with every character escaped.
const NAME_BYTES_MAX: usize = 21 * 6;
/// Most that is kept of a word, bytes.
const WORD_BYTES_MAX: usize = 128;
/// Deepest nesting; no parser of a provider goes as far.
const DEPTH_MAX: usize = 10_000;

/// Kinds of tools that the agent carries out itself, or that search nothing but the request's own tools.
const OWN_TOOLS: [&str; 7] =
    ["custom", "function", "namespace", "local_shell", "apply_patch", "tool_search", "computer"];
/// The same as beginnings: Anthropic's have a date at their end.
const OWN_TOOL_PREFIXES: [&str; 5] =
    ["bash_", "text_editor_", "computer_", "memory_", "tool_search_tool_"];

/// Why a request does not pass where nothing may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reaches {
    /// It asks for this, in the request's own word.
    Out(String),
    /// What it asks for cannot be read.
    Unreadable,
}

/// What a name means, by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Other,
    /// At the top: something that is never asked for without a network.
    Banned,
    Tools,
    Kind,
    Input,
    Source,
    /// An address, or an object with one.
    Link,
    Url,
    FileData,
    FileUri,
    /// The agent's own functions, in Gemini's words.
    Functions,
}

/// What a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Other,
    Top,
    /// The list of tools, and one of them.
    Tools,
    Tool {
        typed: bool,
    },
    /// The items of a conversation in Responses, and one of them: some carry tools.
    Items,
    Item,
    Source,
    Link,
    FileData,
    /// What a model gave a tool: data, whatever it looks like.
    Quiet,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    object: bool,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Name,
    /// A value; whether it is looked at.
    Value {
        kept: bool,
    },
}

/// Looks at a request as it passes.
#[derive(Debug)]
pub(crate) struct ReachScan {
    dialect: UsageDialect,
    frames: Vec<Frame>,
    /// A name comes next, if the innermost container is an object.
    wants_name: bool,
    /// Of the value that comes next, or is being read.
    name: Name,
    text: Option<Text>,
    escaped: bool,
    kept: Vec<u8>,
    /// A number or a word without quotes is being read.
    bare: bool,
    found: Option<Reaches>,
}

impl ReachScan {
    pub(crate) fn new(dialect: UsageDialect) -> Self {
        Self {
            dialect,
            frames: Vec::new(),
            wants_name: false,
            name: Name::Other,
            text: None,
            escaped: false,
            kept: Vec::new(),
            bare: false,
            found: None,
        }
    }

    /// What was found so far.
    pub(crate) fn found(&self) -> Option<&Reaches> {
        self.found.as_ref()
    }

    /// Looks at the next bytes; after something was found it looks no more.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let mut at = 0;
        while at < piece.len() && self.found.is_none() {
            at += match self.text {
                Some(text) => self.string(text, &piece[at..]),
                None => {
                    self.plain(piece[at]);
                    1
                }
            };
        }
    }

    /// Looks at bytes inside a string; says how many.
    fn string(&mut self, text: Text, bytes: &[u8]) -> usize {
        let (taken, ended) = if self.escaped {
            self.escaped = false;
            (1, false)
        } else {
            match memchr::memchr2(b'"', b'\\', bytes) {
                Some(at) if bytes[at] == b'"' => (at + 1, true),
                Some(at) => {
                    self.escaped = true;
                    (at + 1, false)
                }
                None => (bytes.len(), false),
            }
        };
        let bytes_max = match text {
            Text::Name => NAME_BYTES_MAX,
            Text::Value { kept: true } => WORD_BYTES_MAX,
            Text::Value { kept: false } => 0,
        };
        let part = &bytes[..taken - usize::from(ended)];
        // One more than fits says that it was longer.
        let room = (bytes_max + 1).saturating_sub(self.kept.len()).min(part.len());
        self.kept.extend_from_slice(&part[..room]);
        if ended {
            self.text = None;
            match text {
                Text::Name => self.name_ended(),
                Text::Value { kept: true } => self.word_ended(),
                Text::Value { kept: false } => {}
            }
            self.kept.clear();
        }
        taken
    }

    fn plain(&mut self, byte: u8) {
        match byte {
            b'"' => self.quote(),
            b'{' | b'[' => self.opens(byte == b'{'),
            b'}' | b']' => self.closes(byte == b'}'),
            b',' => {
                self.bare = false;
                self.name = Name::Other;
                self.wants_name = self.frames.last().is_some_and(|frame| frame.object);
            }
            b':' => {}
            _ if byte.is_ascii_whitespace() => self.bare = false,
            _ if !self.bare => {
                self.bare = true;
                self.bare_value(byte);
            }
            _ => {}
        }
    }

    fn place(&self) -> Place {
        self.frames.last().map_or(Place::Other, |frame| frame.place)
    }

    fn quote(&mut self) {
        if self.wants_name {
            self.wants_name = false;
            self.text = Some(Text::Name);
            return;
        }
        let kept = match (self.place(), self.name) {
            (Place::Quiet, _) => false,
            (Place::Top, Name::Banned) | (Place::Tools, _) => return self.out("a text for a list"),
            (Place::Top | Place::Tool { .. } | Place::Item, Name::Tools) => {
                return self.out("a text for a list");
            }
            (Place::Tool { .. } | Place::Source, Name::Kind)
            | (Place::Link, Name::Url)
            | (Place::FileData, Name::FileUri)
            | (_, Name::Link) => true,
            _ => false,
        };
        self.text = Some(Text::Value { kept });
    }

    fn opens(&mut self, object: bool) {
        if self.wants_name || self.frames.len() >= DEPTH_MAX {
            return self.unreadable();
        }
        let (parent, name) = (self.frames.last().map(|frame| frame.place), self.name);
        let responses = self.dialect == UsageDialect::Responses;
        let place = match (parent, name) {
            (None, _) if object => Place::Top,
            (None, _) => return self.unreadable(),
            (Some(Place::Quiet), _) => Place::Quiet,
            (Some(Place::Top), Name::Banned) => return self.out("a tool of the provider"),
            (Some(Place::Tools), _) if object => Place::Tool { typed: false },
            (Some(Place::Tools), _) => return self.unreadable(),
            (Some(Place::Top | Place::Tool { .. } | Place::Item), Name::Tools) if !object => {
                Place::Tools
            }
            (Some(Place::Top | Place::Tool { .. } | Place::Item), Name::Tools)
            | (Some(Place::Tool { .. }), Name::Kind) => return self.unreadable(),
            (Some(Place::Top), Name::Input) if responses && !object => Place::Items,
            (Some(Place::Items), _) if object => Place::Item,
            (_, Name::Input) if self.dialect == UsageDialect::Messages => Place::Quiet,
            (_, Name::Source) if object => Place::Source,
            (_, Name::Link) if object => Place::Link,
            (_, Name::FileData) if object => Place::FileData,
            _ => Place::Other,
        };
        self.frames.push(Frame { object, place });
        self.wants_name = object;
        self.name = Name::Other;
    }

    fn closes(&mut self, object: bool) {
        self.bare = false;
        match self.frames.pop() {
            Some(Frame { object: was, place }) if was == object => {
                let untyped = place == Place::Tool { typed: false };
                let may_be = matches!(self.dialect, UsageDialect::Messages | UsageDialect::Gemini);
                if untyped && !may_be {
                    self.out("a tool of no kind");
                }
            }
            _ => self.unreadable(),
        }
        self.wants_name = false;
        self.name = Name::Other;
    }

    /// A number, or `true`, `false`, `null`.
    fn bare_value(&mut self, first: u8) {
        let null = first == b'n';
        match (self.place(), self.name) {
            _ if self.wants_name || self.frames.is_empty() => self.unreadable(),
            (Place::Tools, _) => self.unreadable(),
            (Place::Tool { .. }, Name::Kind)
            | (Place::Top | Place::Tool { .. } | Place::Item, Name::Tools)
                if !null =>
            {
                self.unreadable();
            }
            (Place::Top, Name::Banned) if !null => self.out("a tool of the provider"),
            _ => {}
        }
    }

    fn name_ended(&mut self) {
        let Some(name) = decoded(&self.kept, NAME_BYTES_MAX) else {
            // Too long for any name that matters, or no text to any parser.
            self.name = Name::Other;
            if self.is_geminis_tool() {
                self.out("a tool of no name");
            }
            return;
        };
        self.name = meaning(&name);
        if self.is_geminis_tool() && self.name != Name::Functions {
            self.out(&name);
        }
    }

    fn is_geminis_tool(&self) -> bool {
        self.dialect == UsageDialect::Gemini && matches!(self.place(), Place::Tool { .. })
    }

    /// A string ended that means something where it stands.
    fn word_ended(&mut self) {
        let word = decoded(&self.kept, WORD_BYTES_MAX);
        match self.place() {
            Place::Tool { .. } if self.name == Name::Kind => {
                let word = word.unwrap_or_else(|| "a tool of a long name".to_owned());
                let own = OWN_TOOLS.contains(&word.as_str())
                    || OWN_TOOL_PREFIXES.iter().any(|prefix| word.starts_with(prefix));
                if !own {
                    return self.out(&word);
                }
                if let Some(frame) = self.frames.last_mut() {
                    frame.place = Place::Tool { typed: true };
                }
            }
            Place::Source if self.name == Name::Kind => {
                if word.is_none_or(|word| word.eq_ignore_ascii_case("url")) {
                    self.out("a document by its address");
                }
            }
            _ => {
                // In the request itself; what is cut off does not matter then.
                if !self.kept.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"data:")) {
                    self.out("a file by its address");
                }
            }
        }
    }

    fn out(&mut self, what: &str) {
        self.found.get_or_insert_with(|| Reaches::Out(what.to_owned()));
    }

    fn unreadable(&mut self) {
        self.found.get_or_insert(Reaches::Unreadable);
    }
}

/// Whether a model always searches, by its name: OpenAI's `gpt-5-search-api` and `gpt-4o-search-preview`.
pub(crate) fn always_searches(model: &str) -> bool {
    model.split(['-', '/', ':']).any(|part| part.eq_ignore_ascii_case("search"))
}

/// A text between quotes, as a parser reads it; `None` when it was longer than is kept, or is no text.
fn decoded(written: &[u8], bytes_max: usize) -> Option<String> {
    if written.len() > bytes_max {
        return None;
    }
    if written.contains(&b'\\') {
        return serde_json::from_slice(&[b"\"", written, b"\""].concat()).ok();
    }
    std::str::from_utf8(written).ok().map(str::to_owned)
}

fn meaning(name: &str) -> Name {
    let is = |known: &[&str]| known.iter().any(|known| name.eq_ignore_ascii_case(known));
    if is(&["mcp_servers", "search_parameters", "web_search_options", "plugins", "prompt"]) {
        Name::Banned
    } else if is(&["functionDeclarations", "function_declarations", "computerUse", "computer_use"])
    {
        Name::Functions
    } else if is(&["image_url", "file_url", "video_url", "audio_url"]) {
        Name::Link
    } else if is(&["fileData", "file_data"]) {
        Name::FileData
    } else if is(&["fileUri", "file_uri"]) {
        Name::FileUri
    } else if is(&["tools"]) {
        Name::Tools
    } else if is(&["type"]) {
        Name::Kind
    } else if is(&["input"]) {
        Name::Input
    } else if is(&["source"]) {
        Name::Source
    } else if is(&["url"]) {
        Name::Url
    } else {
        Name::Other
    }
}

#[cfg(test)]
mod tests;
