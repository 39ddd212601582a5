use proptest::prelude::*;

use super::*;

const HELD_BYTES_MAX: usize = 64 * 1024;

/// An answer as a provider sends it, and what it took.
struct Case {
    dialect: UsageDialect,
    framing: Framing,
    bytes: &'static str,
    model: &'static str,
    /// Input, cached, cache write, output, thinking.
    tokens: [u64; 5],
    hour: u64,
}

const CASES: &[Case] = &[
    Case {
        dialect: UsageDialect::Messages,
        framing: Framing::Events,
        bytes: concat!(
            "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-opus-4-5-20251101\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":12,\"cache_creation_input_tokens\":900,\"cache_read_input_tokens\":3400,\"cache_creation\":{\"ephemeral_5m_input_tokens\":600,\"ephemeral_1h_input_tokens\":300},\"output_tokens\":2,\"service_tier\":\"standard\"}}}\r\n\r\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"\\\"usage\\\":{\\\"output_tokens\\\":0}\\ndata: {\\\"type\\\":\\\"message_delta\\\",\\\"usage\\\":{\\\"output_tokens\\\":1}}\"}}\n\n",
            ": a comment\nevent: ping\ndata: {\"type\": \"ping\"}\n\n",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":0,\"output_tokens\":321}}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        ),
        model: "claude-opus-4-5-20251101",
        tokens: [12, 3400, 900, 321, 0],
        hour: 300,
    },
    Case {
        dialect: UsageDialect::Messages,
        framing: Framing::Json,
        bytes: "{\"id\":\"msg_1\",\"type\":\"message\",\"model\":\"claude-haiku-4-5\",\"content\":[{\"type\":\"tool_use\",\"input\":{\"usage\":{\"output_tokens\":1},\"model\":\"x\"}}],\"usage\":{\"input_tokens\":5,\"cache_creation_input_tokens\":7,\"cache_read_input_tokens\":null,\"output_tokens\":9}}",
        model: "claude-haiku-4-5",
        tokens: [5, 0, 7, 9, 0],
        hour: 0,
    },
    Case {
        dialect: UsageDialect::Responses,
        framing: Framing::Events,
        bytes: concat!(
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"status\":\"in_progress\",\"model\":\"gpt-5.2-codex\",\"usage\":null}}\n\n",
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"m\",\"delta\":\"response.completed usage\"}\n\n",
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"status\":\"completed\",\"model\":\"gpt-5.2-codex\",\"output\":[{\"type\":\"message\",\"content\":[{\"text\":\"{\\\"usage\\\":1}\"}]}],\"usage\":{\"input_tokens\":1000,\"input_tokens_details\":{\"cached_tokens\":640},\"output_tokens\":50,\"output_tokens_details\":{\"reasoning_tokens\":32},\"total_tokens\":1050}}}\n\n",
        ),
        model: "gpt-5.2-codex",
        tokens: [360, 640, 0, 50, 32],
        hour: 0,
    },
    Case {
        dialect: UsageDialect::Responses,
        framing: Framing::Json,
        bytes: "{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"incomplete\",\"model\":\"gpt-5.2\",\"usage\":{\"input_tokens\":10,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":4,\"output_tokens_details\":{\"reasoning_tokens\":0}}}",
        model: "gpt-5.2",
        tokens: [10, 0, 0, 4, 0],
        hour: 0,
    },
    Case {
        dialect: UsageDialect::Messages,
        framing: Framing::Json,
        // A pass behind the answer is in no sum but its own.
        bytes: "{\"type\":\"message\",\"model\":\"claude-opus-4-5\",\"content\":[],\"usage\":{\"input_tokens\":23,\"output_tokens\":10,\"iterations\":[{\"type\":\"compaction\",\"input_tokens\":180,\"output_tokens\":35},{\"type\":\"message\",\"input_tokens\":23,\"cache_read_input_tokens\":4,\"output_tokens\":10}]}}",
        model: "claude-opus-4-5",
        tokens: [203, 4, 0, 45, 0],
        hour: 0,
    },
    Case {
        dialect: UsageDialect::Chat,
        framing: Framing::Events,
        bytes: concat!(
            "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"deepseek-chat\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
            "data: {\"id\":\"c\",\"model\":\"deepseek-chat\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"data: [DONE]\\n\\n\"},\"finish_reason\":null}]}\n\n",
            "data: {\"id\":\"c\",\"model\":\"deepseek-chat\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":20,\"total_tokens\":120,\"prompt_cache_hit_tokens\":64,\"prompt_cache_miss_tokens\":36}}\n\n",
            "data: [DONE]\n\n",
        ),
        model: "deepseek-chat",
        tokens: [36, 64, 0, 20, 0],
        hour: 0,
    },
    Case {
        dialect: UsageDialect::Chat,
        framing: Framing::Json,
        // Reasoning is counted apart from the completion.
        bytes: "{\"object\":\"chat.completion\",\"model\":\"grok-4\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\",\"refusal\":null},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":30,\"completion_tokens\":10,\"total_tokens\":130,\"prompt_tokens_details\":{\"cached_tokens\":5},\"completion_tokens_details\":{\"reasoning_tokens\":90}}}",
        model: "grok-4",
        tokens: [25, 5, 0, 100, 90],
        hour: 0,
    },
    Case {
        dialect: UsageDialect::Gemini,
        framing: Framing::Events,
        bytes: concat!(
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"usageMetadata\"}],\"role\":\"model\"}}],\"usageMetadata\":{\"promptTokenCount\":700,\"candidatesTokenCount\":3,\"totalTokenCount\":703},\"modelVersion\":\"gemini-2.5-pro\"}\r\n\r\n",
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"x\",\"args\":{\"usageMetadata\":{\"promptTokenCount\":1}}}}],\"role\":\"model\"},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":700,\"cachedContentTokenCount\":400,\"candidatesTokenCount\":30,\"thoughtsTokenCount\":55,\"toolUsePromptTokenCount\":20,\"totalTokenCount\":805},\"modelVersion\":\"gemini-2.5-pro\"}\r\n\r\n",
        ),
        model: "gemini-2.5-pro",
        tokens: [320, 400, 0, 85, 55],
        hour: 0,
    },
    Case {
        dialect: UsageDialect::Gemini,
        framing: Framing::Json,
        bytes: "[{\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":7},\"modelVersion\":\"gemini-2.5-flash\"}\n,\r\n{\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":7,\"candidatesTokenCount\":2,\"totalTokenCount\":9},\"modelVersion\":\"gemini-2.5-flash\"}]",
        model: "gemini-2.5-flash",
        tokens: [7, 0, 0, 2, 0],
        hour: 0,
    },
];

fn reader(case: &Case) -> UsageReader {
    UsageReader::new(case.dialect, case.framing, HELD_BYTES_MAX)
}

fn check(case: &Case, taken: &Taken, what: &str) {
    let [input, cached, cache_write, output, thinking] = case.tokens;
    let tokens = Tokens { input, cached, cache_write, output, thinking };
    assert_eq!(taken.tokens, tokens, "{:?} {:?} {what}", case.dialect, case.framing);
    assert_eq!(taken.model.as_deref(), Some(case.model), "{what}");
    assert!(!taken.estimated, "{:?} {what}", case.dialect);
    assert_eq!(taken.measured.cache_write_hour, case.hour);
}

#[test]
fn every_dialect_is_read_however_it_is_split() {
    for case in CASES {
        let bytes = case.bytes.as_bytes();
        for at in 0..=bytes.len() {
            let mut reader = reader(case);
            reader.push(&bytes[..at]);
            reader.push(&bytes[at..]);
            check(case, &reader.finish(true, 9999), &format!("split at {at}"));
        }
        let mut single = reader(case);
        bytes.iter().for_each(|byte| single.push(std::slice::from_ref(byte)));
        check(case, &single.finish(true, 9999), "byte by byte");
    }
}

#[test]
fn an_answer_that_is_cut_is_never_less_than_what_arrived() {
    for case in CASES {
        for at in 0..case.bytes.len() {
            let mut reader = reader(case);
            reader.push(&case.bytes.as_bytes()[..at]);
            let taken = reader.finish(false, 3000);
            if taken.estimated {
                let read = taken.tokens.input + taken.tokens.cached + taken.tokens.cache_write;
                assert!(read >= case.tokens[0].min(1000), "{:?} at {at}", case.dialect);
            } else {
                check(case, &taken, &format!("cut at {at}"));
            }
        }
    }
}

#[test]
fn what_is_too_long_or_tells_nothing_is_estimated_on_the_high_side() {
    let long = format!(
        "data: {{\"type\":\"response.completed\",\"response\":{{\"output\":\"{}\",\"usage\":{{\"input_tokens\":1,\"output_tokens\":1}}}}}}\n\n",
        "x".repeat(HELD_BYTES_MAX)
    );
    let mut reader = UsageReader::new(UsageDialect::Responses, Framing::Events, HELD_BYTES_MAX);
    long.as_bytes().chunks(1000).for_each(|piece| reader.push(piece));
    assert!(reader.held.capacity() <= 2 * HELD_BYTES_MAX);
    let taken = reader.finish(true, 300);
    assert!(taken.estimated && taken.tokens.output as usize >= HELD_BYTES_MAX / 3);
    assert_eq!(taken.tokens.input, 100);
    // The next line is read again.
    let mut reader = UsageReader::new(UsageDialect::Responses, Framing::Events, HELD_BYTES_MAX);
    reader.push(format!("data: {}\n", "y".repeat(2 * HELD_BYTES_MAX)).as_bytes());
    reader.push(CASES[2].bytes.as_bytes());
    check(&CASES[2], &reader.finish(true, 0), "after a long line");
    // Chat that was not asked to count.
    let mut reader = UsageReader::new(UsageDialect::Chat, Framing::Events, HELD_BYTES_MAX);
    reader.push(b"data: {\"model\":\"gpt-5.2\",\"choices\":[{\"delta\":{\"content\":\"123456789\"}}]}\n\ndata: [DONE]\n\n");
    assert_eq!(reader.so_far().tokens.output, 2);
    let taken = reader.finish(true, 30);
    assert_eq!((taken.tokens.input, taken.tokens.output, taken.estimated), (10, 3, true));
    // JSON without a count.
    let mut reader = UsageReader::new(UsageDialect::Messages, Framing::Json, HELD_BYTES_MAX);
    reader.push(b"{\"content\":[{\"text\":\"123456789\"}]}");
    assert!(reader.finish(true, 30).tokens.output >= 3);
}

#[test]
fn a_failure_before_anything_was_written_costs_nothing() {
    let mut reader = UsageReader::new(UsageDialect::Responses, Framing::Events, HELD_BYTES_MAX);
    reader.push(b"data: {\"type\":\"response.failed\",\"response\":{\"model\":\"gpt-5.2\",\"usage\":null}}\n\n");
    let taken = reader.finish(true, 30);
    assert_eq!((taken.tokens, taken.estimated), (Tokens::default(), false));
    let mut reader = UsageReader::new(UsageDialect::Messages, Framing::Events, HELD_BYTES_MAX);
    reader.push(b"data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n");
    assert!(!reader.finish(true, 30).estimated);
}

#[test]
fn dearer_service_is_noticed() {
    let mut reader = UsageReader::new(UsageDialect::Responses, Framing::Json, HELD_BYTES_MAX);
    reader.push(b"{\"model\":\"gpt-5.2\",\"service_tier\":\"priority\",\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}");
    assert_eq!(reader.finish(true, 0).measured.service, Service::Priority);
    let mut reader = UsageReader::new(UsageDialect::Messages, Framing::Json, HELD_BYTES_MAX);
    reader.push(
        b"{\"model\":\"m\",\"usage\":{\"input_tokens\":1,\"output_tokens\":1,\"speed\":\"fast\"}}",
    );
    assert_eq!(reader.finish(true, 0).measured.service, Service::Fast);
}

fn dialect() -> impl Strategy<Value = (UsageDialect, Framing)> {
    let dialects =
        [UsageDialect::Messages, UsageDialect::Responses, UsageDialect::Chat, UsageDialect::Gemini];
    (proptest::sample::select(dialects.to_vec()), any::<bool>())
        .prop_map(|(dialect, json)| (dialect, if json { Framing::Json } else { Framing::Events }))
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_hold_too_much(
        (dialect, framing) in dialect(),
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
        held_max in 0..300_usize,
        whole in any::<bool>(),
    ) {
        let mut reader = UsageReader::new(dialect, framing, held_max);
        for piece in &pieces {
            reader.push(piece);
            prop_assert!(reader.held.len() <= held_max);
            let _ = reader.so_far();
        }
        let _ = reader.finish(whole, 100);
    }

    #[test]
    fn a_changed_answer_is_the_same_in_any_pieces(
        index in 0..CASES.len(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3_u8), 0..6),
        size in 1..50_usize,
        held_max in 10..2000_usize,
    ) {
        let case = &CASES[index];
        let mut bytes = case.bytes.as_bytes().to_vec();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.splice(at..at, case.bytes.bytes().skip(at / 2).take(40))),
            }
        }
        let mut at_once = UsageReader::new(case.dialect, case.framing, held_max);
        at_once.push(&bytes);
        let mut in_pieces = UsageReader::new(case.dialect, case.framing, held_max);
        bytes.chunks(size).for_each(|piece| in_pieces.push(piece));
        prop_assert_eq!(at_once.finish(true, 10), in_pieces.finish(true, 10));
    }
}

#[test]
fn searches_of_the_provider_are_counted() {
    let search = "{\"type\":\"web_search_call\",\"action\":{\"type\":\"search\",\"query\":\"x\"}}";
    let say = "{\"type\":\"message\",\"content\":[{\"text\":\"web_search_call\"}]}";
    let usage = "\"usage\":{\"input_tokens\":1,\"output_tokens\":1}";
    let done =
        |item| format!("data: {{\"type\":\"response.output_item.done\",\"item\":{item}}}\n\n");
    let completed = format!(
        "data: {{\"type\":\"response.completed\",\"response\":{{\"output\":[{search},{say},{search}],{usage}}}}}\n\n"
    );
    let stream = [done(search), done(say), done(search), completed].concat();
    let whole = format!("{{\"output\":[{search},{say}],{usage}}}");
    let told_again = format!("data: {{\"type\":\"x\",\"output\":\"a text\"}}\n\n{}", done(search));
    let anthropic = "{\"usage\":{\"input_tokens\":1,\"output_tokens\":1,\"server_tool_use\":{\"web_search_requests\":4}}}";
    let gemini = "{\"candidates\":[{\"groundingMetadata\":{\"webSearchQueries\":[\"a\",\"b\"]}}]}";
    let xai = "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"num_sources_used\":5}}";
    for (dialect, framing, bytes, searches) in [
        (UsageDialect::Responses, Framing::Events, stream.as_str(), 2),
        (UsageDialect::Responses, Framing::Events, &told_again, 1),
        (UsageDialect::Responses, Framing::Json, &whole, 1),
        (UsageDialect::Messages, Framing::Json, anthropic, 4),
        (UsageDialect::Gemini, Framing::Json, gemini, 2),
        (UsageDialect::Chat, Framing::Json, xai, 5),
    ] {
        let mut reader = UsageReader::new(dialect, framing, HELD_BYTES_MAX);
        reader.push(bytes.as_bytes());
        assert_eq!(reader.so_far().searches, if framing == Framing::Json { 0 } else { searches });
        assert_eq!(reader.finish(true, 1).measured.searches, searches, "{bytes}");
    }
}
