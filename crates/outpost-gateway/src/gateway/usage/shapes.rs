//! The parts of the providers' answers that count. Everything else in them is skipped unread.
//!
//! Sources: the public API references of Anthropic (Messages, Streaming), OpenAI (Responses, Chat Completions,
//! Streaming), DeepSeek (context caching), xAI (reasoning) and Google (`usageMetadata`).

use std::fmt;

use outpost_core::Tokens;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Service, Told};

/// How much of a text is kept, bytes.
const WORD_BYTES_MAX: usize = 128;

/// A count. Whatever is not one (null, text, a negative number) is zero, so that one odd field does not hide
/// the others.
#[derive(Debug, Clone, Copy, Default)]
struct Count(u64);

/// How long a text is, without keeping it; zero for anything else.
#[derive(Debug, Clone, Copy, Default)]
struct TextBytes(u64);

/// The beginning of a text; empty for anything else.
#[derive(Debug, Default)]
struct Word(String);

/// How many items of a list are searches; zero for anything else.
#[derive(Debug, Clone, Copy, Default)]
struct SearchItems(u64);

macro_rules! lenient {
    ($type:ident, $visitor:ident, { $($extra:tt)* }) => {
        lenient!($type, $visitor, IgnoredAny, |none, _| none, { $($extra)* });
    };
    ($type:ident, $visitor:ident, $item:ty, $each:expr, { $($extra:tt)* }) => {
        struct $visitor;
        impl<'de> Visitor<'de> for $visitor {
            type Value = $type;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok($type::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok($type::default())
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok($type::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let each: fn($type, $item) -> $type = $each;
                let mut sum = $type::default();
                while let Some(item) = seq.next_element()? {
                    sum = each(sum, item);
                }
                Ok(sum)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok($type::default())
            }
            $($extra)*
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($visitor)
            }
        }
    };
}

lenient!(Count, CountVisitor, {
    fn visit_u64<E>(self, count: u64) -> Result<Count, E> {
        Ok(Count(count))
    }
    fn visit_f64<E>(self, count: f64) -> Result<Count, E> {
        // Saturates; not a number becomes zero.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        Ok(Count(count.ceil() as u64))
    }
    fn visit_str<E>(self, _: &str) -> Result<Count, E> {
        Ok(Count::default())
    }
});

lenient!(TextBytes, TextVisitor, {
    fn visit_u64<E>(self, _: u64) -> Result<TextBytes, E> {
        Ok(TextBytes::default())
    }
    fn visit_f64<E>(self, _: f64) -> Result<TextBytes, E> {
        Ok(TextBytes::default())
    }
    fn visit_str<E>(self, text: &str) -> Result<TextBytes, E> {
        Ok(TextBytes(text.len() as u64))
    }
});

lenient!(Word, WordVisitor, {
    fn visit_u64<E>(self, _: u64) -> Result<Word, E> {
        Ok(Word::default())
    }
    fn visit_f64<E>(self, _: f64) -> Result<Word, E> {
        Ok(Word::default())
    }
    fn visit_str<E>(self, text: &str) -> Result<Word, E> {
        Ok(Word(text[..text.floor_char_boundary(WORD_BYTES_MAX)].to_owned()))
    }
});

lenient!(
    SearchItems,
    SearchItemsVisitor,
    OutputItem,
    |sum, item| SearchItems(sum.0 + u64::from(item.is_search())),
    {
        fn visit_u64<E>(self, _: u64) -> Result<SearchItems, E> {
            Ok(SearchItems::default())
        }
        fn visit_f64<E>(self, _: f64) -> Result<SearchItems, E> {
            Ok(SearchItems::default())
        }
        fn visit_str<E>(self, _: &str) -> Result<SearchItems, E> {
            Ok(SearchItems::default())
        }
    }
);

/// An event of Anthropic's stream, or its whole message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MessagesAnswer {
    #[serde(rename = "type")]
    kind: Word,
    model: Word,
    message: Option<MessagesStart>,
    usage: Option<MessagesUsage>,
    delta: Option<MessagesDelta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MessagesStart {
    model: Word,
    usage: Option<MessagesUsage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MessagesDelta {
    text: TextBytes,
    partial_json: TextBytes,
    thinking: TextBytes,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MessagesUsage {
    input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_creation: Option<CacheCreation>,
    output_tokens: Count,
    speed: Word,
    server_tool_use: Option<ServerToolUse>,
    /// Passes behind one answer, such as a compaction or an advisor's. The sums above leave some of them out.
    iterations: Option<Vec<MessagesPass>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServerToolUse {
    web_search_requests: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MessagesPass {
    input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    output_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

impl MessagesUsage {
    fn tell(&self, told: &mut Told) {
        let split = self.cache_creation.as_ref().map_or((0, 0), |creation| {
            (creation.ephemeral_5m_input_tokens.0, creation.ephemeral_1h_input_tokens.0)
        });
        told.count(Tokens {
            input: self.input_tokens.0,
            cached: self.cache_read_input_tokens.0,
            cache_write: self.cache_creation_input_tokens.0.max(split.0.saturating_add(split.1)),
            output: self.output_tokens.0,
            thinking: 0,
        });
        let passes = self.iterations.iter().flatten();
        told.count(passes.fold(Tokens::default(), |sum, pass| {
            sum.plus(Tokens {
                input: pass.input_tokens.0,
                cached: pass.cache_read_input_tokens.0,
                cache_write: pass.cache_creation_input_tokens.0,
                output: pass.output_tokens.0,
                thinking: 0,
            })
        }));
        told.searched(self.server_tool_use.as_ref().map_or(0, |it| it.web_search_requests.0));
        told.measured.cache_write_hour = told.measured.cache_write_hour.max(split.1);
        told.serve(if self.speed.0 == "fast" { Service::Fast } else { Service::Standard });
    }
}

impl MessagesAnswer {
    pub(super) fn event(&self, told: &mut Told) {
        if let Some(message) = &self.message {
            told.name(&message.model.0);
            if let Some(usage) = &message.usage {
                usage.tell(told);
            }
        }
        if let Some(delta) = &self.delta {
            told.text_bytes += delta.text.0 + delta.partial_json.0 + delta.thinking.0;
        }
        if self.kind.0 == "message_delta"
            && let Some(usage) = &self.usage
        {
            usage.tell(told);
            told.last_word = true;
        }
        if self.kind.0 == "error" && told.model.is_none() {
            told.failed = true;
        }
    }

    pub(super) fn whole(&self, told: &mut Told) {
        told.name(&self.model.0);
        if let Some(usage) = &self.usage {
            usage.tell(told);
            told.last_word = true;
        }
    }
}

/// An event of a stream of Responses, or the whole response.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResponsesAnswer {
    #[serde(rename = "type")]
    kind: Word,
    delta: TextBytes,
    response: Option<ResponseBody>,
    item: Option<OutputItem>,
    model: Word,
    service_tier: Word,
    usage: Option<OpenaiUsage>,
    #[serde(rename = "output")]
    searches: SearchItems,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResponseBody {
    model: Word,
    service_tier: Word,
    usage: Option<OpenaiUsage>,
    #[serde(rename = "output")]
    searches: SearchItems,
}

/// Of what a response is made of, its kind is all that counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OutputItem {
    #[serde(rename = "type")]
    kind: Word,
}

impl OutputItem {
    fn is_search(&self) -> bool {
        matches!(self.kind.0.as_str(), "web_search_call" | "x_search_call")
    }
}

/// Counts of OpenAI, in the words of Responses and of Chat Completions, and of those who speak the same.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpenaiUsage {
    input_tokens: Count,
    output_tokens: Count,
    total_tokens: Count,
    input_tokens_details: Option<InputDetails>,
    output_tokens_details: Option<OutputDetails>,
    prompt_tokens: Count,
    completion_tokens: Count,
    prompt_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
    prompt_cache_hit_tokens: Count,
    /// xAI's: sources of a live search.
    num_sources_used: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: Count,
}

impl OpenaiUsage {
    fn tell(&self, told: &mut Told) {
        let read = self.input_tokens.0.max(self.prompt_tokens.0);
        let details = [&self.input_tokens_details, &self.prompt_tokens_details];
        let details = details.into_iter().flatten().map(|details| details.cached_tokens.0).max();
        let cached = details.unwrap_or(0).max(self.prompt_cache_hit_tokens.0).min(read);
        let thinking = [&self.output_tokens_details, &self.completion_tokens_details];
        let thinking = thinking.into_iter().flatten().map(|it| it.reasoning_tokens.0).max();
        let written = self.output_tokens.0.max(self.completion_tokens.0);
        // xAI counts reasoning apart from the completion; the total tells.
        let output = written.max(self.total_tokens.0.saturating_sub(read));
        told.recount(Tokens {
            input: read - cached,
            cached,
            cache_write: 0,
            output,
            thinking: thinking.unwrap_or(0).min(output),
        });
        told.searched(self.num_sources_used.0);
        told.last_word = true;
    }
}

fn tier_of(word: &str) -> Service {
    if word == "priority" { Service::Priority } else { Service::Standard }
}

impl ResponsesAnswer {
    pub(super) fn event(&self, told: &mut Told) {
        told.text_bytes += self.delta.0;
        if self.kind.0 == "response.output_item.done"
            && self.item.as_ref().is_some_and(OutputItem::is_search)
        {
            told.measured.searches = told.measured.searches.saturating_add(1);
        }
        let Some(response) = &self.response else { return };
        told.name(&response.model.0);
        told.serve(tier_of(&response.service_tier.0));
        let ended = matches!(
            self.kind.0.as_str(),
            "response.completed" | "response.incomplete" | "response.failed"
        );
        if !ended {
            return;
        }
        told.searched(response.searches.0);
        match &response.usage {
            Some(usage) => usage.tell(told),
            None => told.failed = self.kind.0 == "response.failed",
        }
    }

    pub(super) fn whole(&self, told: &mut Told) {
        told.name(&self.model.0);
        told.serve(tier_of(&self.service_tier.0));
        told.searched(self.searches.0);
        if let Some(usage) = &self.usage {
            usage.tell(told);
        }
    }
}

/// A chunk of Chat Completions, or the whole completion.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChatAnswer {
    model: Word,
    service_tier: Word,
    usage: Option<OpenaiUsage>,
    choices: Option<Vec<ChatChoice>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatChoice {
    #[serde(alias = "message")]
    delta: Option<ChatDelta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatDelta {
    content: TextBytes,
    reasoning_content: TextBytes,
    tool_calls: Option<Vec<ChatCall>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatCall {
    function: Option<ChatFunction>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatFunction {
    name: TextBytes,
    arguments: TextBytes,
}

impl ChatAnswer {
    pub(super) fn tell(&self, told: &mut Told) {
        told.name(&self.model.0);
        told.serve(tier_of(&self.service_tier.0));
        let deltas = self.choices.iter().flatten().filter_map(|choice| choice.delta.as_ref());
        for delta in deltas {
            let calls = delta.tool_calls.iter().flatten().filter_map(|call| call.function.as_ref());
            let calls: u64 = calls.map(|call| call.name.0 + call.arguments.0).sum();
            told.text_bytes += delta.content.0 + delta.reasoning_content.0 + calls;
        }
        if let Some(usage) = &self.usage {
            usage.tell(told);
            // Some count with each chunk; `[DONE]` or the end says that this was the last.
            told.running = true;
        }
    }
}

/// A piece of Gemini's stream, or the whole answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct GeminiAnswer {
    model_version: Word,
    usage_metadata: Option<GeminiUsage>,
    candidates: Option<Vec<GeminiCandidate>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GeminiUsage {
    prompt_token_count: Count,
    cached_content_token_count: Count,
    candidates_token_count: Count,
    thoughts_token_count: Count,
    tool_use_prompt_token_count: Count,
    total_token_count: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GeminiCandidate {
    content: Option<GeminiContent>,
    grounding_metadata: Option<Grounding>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Grounding {
    web_search_queries: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GeminiContent {
    parts: Option<Vec<GeminiPart>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GeminiPart {
    text: TextBytes,
}

impl GeminiAnswer {
    pub(super) fn tell(&self, told: &mut Told) {
        told.name(&self.model_version.0);
        let contents = self.candidates.iter().flatten().filter_map(|it| it.content.as_ref());
        let parts = contents.flat_map(|content| content.parts.iter().flatten());
        told.text_bytes += parts.map(|part| part.text.0).sum::<u64>();
        let grounds =
            self.candidates.iter().flatten().filter_map(|it| it.grounding_metadata.as_ref());
        let queries = grounds.map(|it| it.web_search_queries.as_ref().map_or(0, Vec::len) as u64);
        told.searched(queries.sum());
        let Some(usage) = &self.usage_metadata else { return };
        let prompt = usage.prompt_token_count.0;
        let cached = usage.cached_content_token_count.0.min(prompt);
        let tools = usage.tool_use_prompt_token_count.0;
        let read = prompt.saturating_add(tools);
        let written = usage.candidates_token_count.0.saturating_add(usage.thoughts_token_count.0);
        told.recount(Tokens {
            input: read - cached,
            cached,
            cache_write: 0,
            output: written.max(usage.total_token_count.0.saturating_sub(read)),
            thinking: usage.thoughts_token_count.0,
        });
        // Each piece counts anew; the end of the stream says which was the last.
        (told.last_word, told.running) = (true, true);
    }
}
