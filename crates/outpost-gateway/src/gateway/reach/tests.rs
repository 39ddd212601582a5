use proptest::prelude::*;

use super::*;
use UsageDialect::{Chat, Gemini, Messages, Responses};

fn scan(dialect: UsageDialect, text: &str) -> Option<Reaches> {
    let mut scan = ReachScan::new(dialect);
    scan.push(text.as_bytes());
    // However it arrives, it says the same.
    for size in [1, 3] {
        let mut pieces = ReachScan::new(dialect);
        text.as_bytes().chunks(size).for_each(|piece| pieces.push(piece));
        assert_eq!(pieces.found(), scan.found(), "{text} by {size}");
    }
    scan.found().cloned()
}

#[test]
fn tools_of_the_provider_are_found_in_every_dialect() {
    let cases = [
        (Messages, r#"{"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#),
        (Messages, r#"{"tools":[{"name":"a"},{"type":"web_fetch_20250910"}]}"#),
        (Messages, r#"{"tools":[{"type":"code_execution_20250825"}]}"#),
        (Messages, r#"{"tools":[{"type":"mcp_toolset","mcp_server_name":"x"}]}"#),
        (Messages, r#"{"mcp_servers":[{"type":"url","url":"https://x"}]}"#),
        (Responses, r#"{"tools":[{"type":"function"},{"type":"web_search"}]}"#),
        (Responses, r#"{"tools":[{"type":"web_search_preview_2025_03_11"}]}"#),
        (Responses, r#"{"tools":[{"type":"mcp","server_url":"https://x"}]}"#),
        (Responses, r#"{"tools":[{"type":"code_interpreter","container":{"type":"auto"}}]}"#),
        (Responses, r#"{"tools":[{"type":"image_generation"}]}"#),
        (Responses, r#"{"tools":[{"type":"file_search"}]}"#),
        (Responses, r#"{"tools":[{"type":"shell","environment":{"type":"container_auto"}}]}"#),
        (Responses, r#"{"tools":[{"type":"namespace","tools":[{"type":"mcp"}]}]}"#),
        (Responses, r#"{"input":[{"type":"tool_search_output","tools":[{"type":"mcp"}]}]}"#),
        (Responses, r#"{"prompt":{"id":"pmpt_1"}}"#),
        (Responses, r#"{"tools":[{"name":"a tool without a kind"}]}"#),
        (Chat, r#"{"search_parameters":{"mode":"auto"}}"#),
        (Chat, r#"{"web_search_options":{}}"#),
        (Chat, r#"{"tools":[{"type":"live_search","sources":[]}]}"#),
        (Chat, r#"{"tools":[{"type":"x_search"}]}"#),
        (Gemini, r#"{"tools":[{"googleSearch":{}}]}"#),
        (Gemini, r#"{"tools":[{"functionDeclarations":[],"urlContext":{}}]}"#),
        (Gemini, r#"{"tools":[{"google_search_retrieval":{}}]}"#),
        (Gemini, r#"{"tools":[{"codeExecution":{}}]}"#),
    ];
    for (dialect, text) in cases {
        assert!(matches!(scan(dialect, text), Some(Reaches::Out(_))), "{text}");
    }
    let named = scan(Messages, r#"{"tools":[{"type":"web_search_20250305"}]}"#);
    assert_eq!(named, Some(Reaches::Out("web_search_20250305".to_owned())));
}

#[test]
fn the_agents_own_tools_pass() {
    let cases = [
        (Messages, r#"{"tools":[{"name":"WebSearch","input_schema":{"type":"object"}}]}"#),
        (Messages, r#"{"tools":[{"type":"custom"},{"type":"bash_20250124","name":"bash"}]}"#),
        (Messages, r#"{"tools":[{"type":null,"name":"a"}],"mcp_servers":null}"#),
        (
            Messages,
            r#"{"messages":[{"content":[{"type":"tool_use","input":{"source":{"type":"url"},"image_url":"http://x"}}]}]}"#,
        ),
        (Messages, r#"{"messages":[{"content":"{\"tools\":[{\"type\":\"web_search\"}]}"}]}"#),
        (Messages, r#"{"messages":[{"content":[{"tools":[{"type":"web_search"}]}]}]}"#),
        (Messages, r#"{"messages":[{"content":[{"source":{"type":"base64","data":"aaaa"}}]}]}"#),
        (
            Responses,
            r#"{"tools":[{"type":"function","parameters":{"properties":{"tools":{"type":"array"},"image_url":{"type":"string"}}}}],"input":"hi"}"#,
        ),
        (Responses, r#"{"tools":[{"type":"namespace","tools":[{"type":"function"}]}]}"#),
        (
            Responses,
            r#"{"input":[{"content":[{"type":"input_image","image_url":"data:image/png;base64,AAAA"}]}]}"#,
        ),
        (
            Chat,
            r#"{"tools":[{"type":"function","function":{"name":"web_search"}}],"tool_choice":"auto"}"#,
        ),
        (
            Chat,
            r#"{"messages":[{"content":[{"image_url":{"url":"DATA:image/png;base64,AAAA"}}]}]}"#,
        ),
        (
            Gemini,
            r#"{"tools":[{"functionDeclarations":[{"name":"google_web_search","parameters":{"type":"OBJECT"}}]}]}"#,
        ),
        (Gemini, r#"{"tools":[],"contents":[{"parts":[{"inlineData":{"data":"AAAA"}}]}]}"#),
    ];
    for (dialect, text) in cases {
        assert_eq!(scan(dialect, text), None, "{text}");
    }
}

#[test]
fn what_is_fetched_by_its_address_is_found() {
    let cases = [
        (
            Messages,
            r#"{"messages":[{"content":[{"type":"image","source":{"type":"url","url":"https://x/?d"}}]}]}"#,
        ),
        (
            Messages,
            r#"{"messages":[{"content":[{"content":[{"source":{"url":"https://x","type":"url"}}]}]}]}"#,
        ),
        (
            Responses,
            r#"{"input":[{"content":[{"type":"input_image","image_url":"https://x/?d"}]}]}"#,
        ),
        (Responses, r#"{"input":[{"content":[{"type":"input_file","file_url":"http://x"}]}]}"#),
        (Chat, r#"{"messages":[{"content":[{"image_url":{"url":"https://x"}}]}]}"#),
        (Gemini, r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://x"}}]}]}"#),
    ];
    for (dialect, text) in cases {
        assert!(matches!(scan(dialect, text), Some(Reaches::Out(_))), "{text}");
    }
}

/// However it is written, a parser of a provider would understand it.
#[test]
fn it_cannot_be_hidden_by_the_way_it_is_written() {
    let cases = [
        (Messages, r#"{"t\u006fols":[{"typ\u0065":"web\u005fsearch_1"}]}"#),
        (Messages, r#"{"Tools" : [ {"TYPE" : "web_search_1"} ]}"#),
        (Responses, r#"{"tools":[{"type":"function","type":"web_search"}]}"#),
        (Responses, r#"{"tools":[{"type":"web_search","type":"function"}]}"#),
        (Responses, r#"{"tools":[],"tools":[{"type":"web_search"}]}"#),
        (Responses, r#"{"tools":[{"type":{"a":1}}]}"#),
        (Responses, r#"{"tools":[{"type":1}]}"#),
        (Responses, r#"{"tools":{"type":"web_search"}}"#),
        (Responses, r#"{"tools":[[{"type":"web_search"}]]}"#),
        (Responses, r#"{"tools":"web_search"}"#),
        (Responses, r#"{"tools":["web_search"]}"#),
        (Chat, r#"{"image_url":"\u0064ata:x"}"#),
        (Gemini, r#"{"tools":[{"google\u0053earch":{}}]}"#),
        (Gemini, r#"{"tools":{"googleSearch":{}}}"#),
        (Gemini, r#"[{"tools":[]}]"#),
        (Gemini, r#"{"tools":[{"a":1]}"#),
    ];
    for (dialect, text) in cases {
        assert!(scan(dialect, text).is_some(), "{text}");
    }
    let long = format!(r#"{{"tools":[{{"type":"{}"}}]}}"#, "function".repeat(99));
    assert!(scan(Chat, &long).is_some());
    let deep = "[".repeat(DEPTH_MAX + 1);
    assert_eq!(scan(Chat, &format!("{{\"a\":{deep}")), Some(Reaches::Unreadable));
    assert!(always_searches("gpt-4o-search-preview") && always_searches("gpt-5-search-api"));
    assert!(!always_searches("gpt-5.2-codex") && !always_searches("o3-deep-research"));
}

fn json(depth: u32) -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        "(web_search|function|data:|url|[a-z\"\\\\é]{0,6})".prop_map(Into::into),
    ];
    leaf.prop_recursive(depth, 40, 4, |inner| {
        let name = "(tools|type|input|source|url|image_url|a|Tools)";
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::vec((name, inner), 0..4)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// What the scan says of the tools at the top, by a parser.
fn by_parser(value: &serde_json::Value) -> bool {
    let own = |tool: &serde_json::Value| tool["type"].as_str().is_some_and(|it| it == "function");
    value.as_object().is_some_and(|top| {
        top.iter().filter(|(name, _)| name.eq_ignore_ascii_case("tools")).all(|(_, tools)| {
            tools.is_null() || tools.as_array().is_some_and(|tools| tools.iter().all(own))
        })
    })
}

proptest! {
    #[test]
    fn what_passes_has_no_tools_but_the_agents_own(value in json(4), size in 1..9_usize) {
        let text = value.to_string();
        let mut scan = ReachScan::new(Responses);
        text.as_bytes().chunks(size).for_each(|piece| scan.push(piece));
        if value.is_object() && scan.found().is_none() {
            prop_assert!(by_parser(&value), "{}", text);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for dialect in [Messages, Responses, Chat, Gemini] {
            ReachScan::new(dialect).push(&bytes);
        }
    }
}
