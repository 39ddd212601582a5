//! Secrets of every kind are masked, and what only looks like one is not.

use outpost_context::Scrubber;

/// Letters and digits as if drawn by lot, put together here so that no whole token stands in this file.
fn lot(length: usize) -> String {
    "aZ3kQ9xW7vB2mN8cL5pR1tY6uE4iO0sD".chars().cycle().take(length).collect()
}

fn hex(length: usize) -> String {
    "3f9a0c7be1d52846".chars().cycle().take(length).collect()
}

/// One of each rule, with the rule that finds it.
fn secrets() -> Vec<(&'static str, String)> {
    let capitals = "AB7CD2EF9GH4JK6L";
    vec![
        ("aws-access-key", format!("{}{capitals}", "AKIA")),
        ("aws-access-key", format!("{}{capitals}", "ASIA")),
        ("github-token", format!("{}_{}", "ghp", lot(36))),
        ("github-token", format!("{}_{}", "ghs", lot(36))),
        ("github-token", format!("github_{}_{}_{}", "pat", lot(22), lot(59))),
        ("gitlab-token", format!("{}-{}", "glpat", lot(20))),
        ("slack-token", format!("{}-123456789012-{}", "xoxb", lot(24))),
        ("stripe-key", format!("sk_{}_{}", "live", lot(24))),
        ("webhook-secret", format!("{}_{}", "whsec", lot(32))),
        ("google-key", format!("{}{}", "AIza", lot(35))),
        ("google-oauth", format!("{}-{}", "GOCSPX", lot(28))),
        ("model-provider-key", format!("sk-{}-api03-{}", "ant", lot(80))),
        ("model-provider-key", format!("sk-{}-{}", "proj", lot(60))),
        ("model-provider-key", format!("{}-{}", "sk", lot(48))),
        ("model-provider-key", format!("{}-{}", "xai", lot(80))),
        ("hugging-face-token", format!("{}_{}", "hf", lot(34))),
        (
            "json-web-token",
            format!("{}hbGciOiJIUzI1NiJ9.{}zdWIiOiIxMjM0In0.{}", "eyJ", "eyJ", lot(43)),
        ),
        ("npm-token", format!("{}_{}", "npm", lot(36))),
        ("pypi-token", format!("{}-AgEIcHlwaS5vcmc{}", "pypi", lot(100))),
        ("docker-token", format!("dckr_{}_{}", "pat", lot(27))),
        ("sendgrid-key", format!("{}.{}.{}", "SG", lot(22), lot(43))),
        ("digitalocean-token", format!("dop_{}_{}", "v1", hex(64))),
        ("vault-token", format!("{}.{}", "hvs", lot(90))),
        ("outpost-key", format!("{}_{}", "otp", hex(64))),
        ("gateway-handle", format!("{}_{}", "otph", hex(64))),
    ]
}

#[test]
fn every_kind_is_found_wherever_it_stands() {
    let scrubber = Scrubber::default();
    for (rule, secret) in secrets() {
        let mask = format!("[masked:{rule}]");
        for (before, after) in [
            ("", ""),
            ("it is ", " indeed"),
            ("{\"text\":\"", "\"}"),
            ("x=", "\n"),
            ("say:\\n", "\\n"),
            ("(", ")"),
            ("`", "`."),
        ] {
            let text = format!("{before}{secret}{after}");
            let scrubbed = scrubber.text(&text);
            assert_eq!(scrubbed.text, format!("{before}{mask}{after}"), "{rule} in {text:?}");
            assert_eq!(scrubbed.redactions.get(rule), Some(&1));
            // What is masked stays as it is.
            assert!(scrubber.text(&scrubbed.text).redactions.is_empty(), "{}", scrubbed.text);
        }
    }
}

#[test]
fn values_whose_name_or_place_tells_are_found() {
    let scrubber = Scrubber::default();
    let value = "q7Rk2Zp9xLw4Tn8V";
    for text in [
        format!("DB_PASSWORD={value}"),
        format!("export AWS_SECRET_ACCESS_KEY='{value}'"),
        format!("api_key: \"{value}\""),
        format!("{{\"clientSecret\": \"{value}\"}}"),
        format!("{{\"out\":\"{{\\\"token\\\": \\\"{value}\\\"}}\"}}"),
        format!("postgres://app:{value}@db.internal:5432/x"),
        format!("Authorization: Bearer {value}{value}"),
        format!("AccountKey={value}{value}{value}=="),
    ] {
        let scrubbed = scrubber.text(&text);
        assert!(!scrubbed.text.contains(value), "{}", scrubbed.text);
        assert_eq!(scrubbed.redactions.len(), 1, "{text}");
    }
}

#[test]
fn what_only_looks_like_a_secret_stays() {
    let scrubber = Scrubber::default();
    let sha512 =
        "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg6M2BJ8F1o4hP0qYH6Yv7hQqXoY3n9a2kX5pL7wZ8c0A==";
    for text in [
        &format!("commit {}", hex(40)),
        &format!("index {}..{} 100644", hex(7), hex(9)),
        "id 123e4567-e89b-12d3-a456-426614174000",
        "dispatch 01J9Z3NDEKTSV4RRFFQ69G5FAV",
        &format!("\"integrity\": \"sha512-{sha512}\","),
        &format!("checksum = \"{}\"", hex(64)),
        &format!("{}  file.tar.gz", hex(128)),
        &format!("data:image/png;base64,{}", lot(400)),
        "input_tokens: 12345678, \"output_tokens\":987654321",
        "password: string; secret = getSecretFromVault(name)",
        "const token = parser.nextToken2;",
        "token=$GITHUB_TOKEN_1 password=${DB_PASSWORD1}",
        "api_key = os.environ[\"OPENAI_API_KEY\"]",
        "session_token: 123e4567-e89b-12d3-a456-426614174000",
        ".sk-folding-cube-animation-with-a-very-long-name-of-a-class",
        "https://user:password@example.com/ http://localhost:8080/a@b",
        "ghp_short and AKIA and eyJ and xoxb- and sk-",
        "a risk-free task-oriented desk-based disk-0123456789abcdef0123456789abcdef",
        "basic understanding of bearer tokens",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n",
        "secret: see https://vault.example.com/v1/secret/data2",
    ] {
        let scrubbed = scrubber.text(text);
        assert_eq!(scrubbed.text, text, "{:?}", scrubbed.redactions);
    }
}

#[test]
fn private_keys_go_whole_in_every_form() {
    let scrubber = Scrubber::default();
    let (head, foot) = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----");
    let body = [lot(64), lot(64), lot(20)];
    let plain = format!("a\n{head}\n{}\n{foot}\nb\n", body.join("\n"));
    let escaped = format!("{{\"text\":\"{head}\\n{}\\n{foot}\\n\"}}\n", body.join("\\n"));
    let numbered = format!("  1\t{head}\n  2\t{}\n  3\t{}\n  4\t{foot}\nrest\n", body[0], body[1]);
    for text in [&plain, &escaped, &numbered] {
        let scrubbed = scrubber.text(text);
        assert!(
            !scrubbed.text.contains(&lot(20)) && !scrubbed.text.contains("KEY--"),
            "{}",
            scrubbed.text
        );
        assert_eq!(scrubbed.text.lines().count(), text.lines().count());
    }
    assert!(scrubber.text(&plain).text.ends_with("]\nb\n"));
    assert!(scrubber.text(&numbered).text.ends_with("]\nrest\n"));
    assert_eq!(scrubber.text(&escaped).text, "{\"text\":\"[masked:private-key]\\n\"}\n");
    // One without its end masks nothing but what looks like it.
    let torn = format!("{head}\n{}\nThe rest is not a key.\n", body[0]);
    assert!(scrubber.text(&torn).text.ends_with("]\nThe rest is not a key.\n"));
}

#[test]
fn a_known_value_is_masked_in_every_form() {
    let value = "it's \"a\" p&ss/w√rd\\1";
    let scrubber = Scrubber::new([("DB_PASSWORD", value)]);
    let json = serde_json::to_string(value).unwrap();
    let twice = serde_json::to_string(&json).unwrap();
    let forms = [
        value.to_owned(),
        json[1..json.len() - 1].to_owned(),
        twice[3..twice.len() - 3].to_owned(),
        "it's%20%22a%22%20p%26ss%2Fw%E2%88%9Ard%5C1".replace('\'', "%27"),
        "it%27s+%22a%22+p%26ss%2Fw%E2%88%9Ard%5C1".to_owned(),
        value.bytes().map(|byte| format!("{byte:02x}")).collect(),
    ];
    for form in forms {
        let text = format!("before {form} after");
        let scrubbed = scrubber.text(&text);
        assert_eq!(scrubbed.text, "before [masked:DB_PASSWORD] after", "{form}");
    }
    // In base64, wherever it begins.
    for before in ["", "u:", "ab", "user:name:"] {
        let encoded = base64_of(&format!("{before}{value} and more"));
        let scrubbed = scrubber.text(&encoded);
        assert!(scrubbed.text.contains("[masked:DB_PASSWORD]"), "{encoded}");
        assert!(scrubbed.text.len() < encoded.len(), "{}", scrubbed.text);
    }
    assert!(!format!("{scrubber:?}").contains("ss/w"));
}

fn base64_of(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..=three.len() {
            encoded.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    encoded
}

#[test]
fn a_known_value_of_several_lines_is_masked_line_by_line() {
    let scrubber = Scrubber::new([("CERT", "first-line\nsecond-line\nno\n")]);
    let scrubbed =
        scrubber.text("> first-line\n> second-line\n> no\n\"first-line\\nsecond-line\\nno\"");
    let mask = "[masked:CERT]";
    assert_eq!(scrubbed.text, format!("> {mask}\n> {mask}\n> no\n\"{mask}\""));
}

#[test]
fn a_known_value_wins_over_a_shape_that_overlaps() {
    let token = format!("{}_{}", "ghp", lot(36));
    let scrubber = Scrubber::new([("GIT_TOKEN", token.as_str())]);
    assert_eq!(scrubber.text(&format!("x {token} y")).text, "x [masked:GIT_TOKEN] y");
    let url = format!("https://bot:{token}@github.com/o/r");
    assert!(!scrubber.text(&url).text.contains(&lot(10)));
}

#[test]
fn lines_whose_values_cannot_be_known_are_withheld() {
    let scrubbed = Scrubber::withholding();
    assert_eq!(scrubbed.text("a b\n\nc").text, "[masked:withheld]\n\n[masked:withheld]");
}
