//! Shapes of well-known secrets: how each begins, and what has to follow.
//!
//! The forms are those that the services document for their tokens. A rule is tried only where one of its beginnings
//! stands, so text without any costs one pass of an automaton. Every pattern is bounded and stays in its line.
//! Absent: secrets without a form of their own, such as passwords in prose.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::bytes::Regex;

use super::random::looks_random;

/// Most bytes of a line that a rule looks at.
pub(super) const LOOK_BYTES_MAX: usize = 7 * 1024;
/// Name of the rule for a value whose name says that it is secret.
pub(super) const NAMED: &str = "named-value";
/// Name of the rule for private keys, which go over several lines.
pub(super) const PRIVATE_KEY: &str = "private-key";

/// How one kind of secret is known.
struct Shape {
    rule: &'static str,
    /// How it begins, in any case of its letters.
    begins: &'static [&'static str],
    /// All of it, from its beginning on. What is masked is the group, where there is one.
    pattern: &'static str,
    /// Whether a letter or digit may stand before it.
    inside_words: bool,
    /// Whether the group has to look as if drawn by lot.
    random: bool,
}

const fn token(
    rule: &'static str,
    begins: &'static [&'static str],
    pattern: &'static str,
) -> Shape {
    Shape { rule, begins, pattern, inside_words: false, random: false }
}

const SHAPES: &[Shape] = &[
    token("aws-access-key", &["AKIA", "ASIA", "ABIA", "ACCA"], "A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}"),
    token(
        "github-token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        "gh[pousr]_[A-Za-z0-9]{36,255}",
    ),
    token("github-token", &["github_pat_"], "github_pat_[A-Za-z0-9_]{22,255}"),
    token(
        "gitlab-token",
        &[
            "glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glimt-", "glagent-",
            "gloas-", "glsoat-",
        ],
        "gl[a-z]{2,5}-[A-Za-z0-9_.=-]{20,300}",
    ),
    token("slack-token", &["xox", "xapp-"], "x(?:ox[abeoprs]|app)[-.][A-Za-z0-9.-]{10,250}"),
    Shape {
        inside_words: true,
        ..token(
            "slack-webhook",
            &["hooks.slack.com/"],
            "hooks\\.slack\\.com/(?:services|workflows|triggers)/([A-Za-z0-9_/-]{20,200})",
        )
    },
    token(
        "stripe-key",
        &["sk_live_", "sk_test_", "rk_live_", "rk_test_"],
        "[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}",
    ),
    token("webhook-secret", &["whsec_"], "whsec_[A-Za-z0-9+/=]{24,255}"),
    token("google-key", &["AIza"], "AIza[A-Za-z0-9_-]{35}"),
    token("google-oauth", &["GOCSPX-"], "GOCSPX-[A-Za-z0-9_-]{20,60}"),
    token("google-oauth", &["ya29."], "ya29\\.[A-Za-z0-9_.-]{20,2048}"),
    token(
        "model-provider-key",
        &["sk-"],
        "sk-(?:(?:ant|proj|svcacct|admin|or)-[A-Za-z0-9_-]{20,300}|[A-Za-z0-9]{32,300})",
    ),
    token("model-provider-key", &["xai-", "gsk_"], "(?:xai-|gsk_)[A-Za-z0-9]{40,200}"),
    token("hugging-face-token", &["hf_"], "hf_[A-Za-z0-9]{30,100}"),
    token(
        "json-web-token",
        &["eyJ"],
        "eyJ[A-Za-z0-9_-]{10,1024}\\.eyJ[A-Za-z0-9_-]{10,4096}\\.[A-Za-z0-9_-]{10,1024}",
    ),
    token("npm-token", &["npm_"], "npm_[A-Za-z0-9]{36}"),
    token("pypi-token", &["pypi-Ag"], "pypi-Ag[A-Za-z0-9_-]{50,1000}"),
    token("crates-token", &["cio"], "cio[A-Za-z0-9]{32}"),
    token("rubygems-token", &["rubygems_"], "rubygems_[a-f0-9]{48}"),
    token("docker-token", &["dckr_pat_", "dckr_oat_"], "dckr_[po]at_[A-Za-z0-9_-]{24,100}"),
    token("sendgrid-key", &["SG."], "SG\\.[A-Za-z0-9_-]{22}\\.[A-Za-z0-9_-]{43}"),
    token("digitalocean-token", &["dop_v1_", "doo_v1_", "dor_v1_"], "do[por]_v1_[a-f0-9]{64}"),
    token(
        "shopify-token",
        &["shpat_", "shpca_", "shppa_", "shpss_"],
        "shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}",
    ),
    token("vault-token", &["hvs.", "hvb."], "hv[sb]\\.[A-Za-z0-9_-]{24,300}"),
    token("databricks-token", &["dapi"], "dapi[a-f0-9]{32}"),
    token("linear-key", &["lin_api_"], "lin_api_[A-Za-z0-9]{32,64}"),
    token("age-key", &["AGE-SECRET-KEY-1"], "AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    token("outpost-key", &["otp_"], "otp_[a-f0-9]{64}"),
    token("gateway-handle", &["otph_"], "otph_[a-f0-9]{32,64}"),
    Shape {
        inside_words: true,
        ..token(
            "azure-key",
            &["AccountKey=", "SharedAccessKey="],
            "(?:Account|SharedAccess)Key=([A-Za-z0-9+/]{40,100}={0,2})",
        )
    },
    Shape {
        inside_words: true,
        ..token(
            "url-password",
            &["://"],
            "://[^\\s/@:\"'<>\\\\]{0,128}:([^\\s/@\"'<>\\\\]{3,256})@[A-Za-z0-9\\[]",
        )
    },
    Shape {
        random: true,
        ..token(
            "authorization",
            &["bearer ", "basic "],
            "(?i:bearer|basic) {1,4}([A-Za-z0-9._~+/-]{20,2048}={0,2})",
        )
    },
    Shape {
        inside_words: true,
        ..token(
            PRIVATE_KEY,
            &["-----BEGIN "],
            "-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----",
        )
    },
    Shape {
        inside_words: true,
        random: true,
        ..token(
            NAMED,
            &[
                "password",
                "passwd",
                "passphrase",
                "secret",
                "token",
                "api_key",
                "apikey",
                "api-key",
                "access_key",
                "accesskey",
                "private_key",
                "auth_key",
                "client_key",
                "credential",
            ],
            "[A-Za-z_-]{5,12}[A-Za-z0-9_.-]{0,32}\\\\{0,3}[\"'`]?[ \\t]{0,4}(?:=>|:=|[:=])[ \\t]{0,4}\\\\{0,3}[\"'`]?([^\\s\"'`,;<>(){}\\[\\]\\\\|&]{8,512})",
        )
    },
];

/// A secret that was found in a line; offsets are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) rule: &'static str,
    /// Where the text begins that tells it.
    pub(super) from: usize,
    /// What is to be masked.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// All shapes, made ready.
pub(super) struct Rules {
    begins: AhoCorasick,
    /// Of which shape each beginning is.
    shape_of: Vec<usize>,
    patterns: Vec<Regex>,
}

/// Made once.
pub(super) static RULES: LazyLock<Rules> = LazyLock::new(Rules::new);

impl Rules {
    fn new() -> Self {
        let (mut begins, mut shape_of, mut patterns) = (Vec::<&str>::new(), Vec::new(), Vec::new());
        for (index, shape) in SHAPES.iter().enumerate() {
            begins.extend(shape.begins);
            shape_of.extend(shape.begins.iter().map(|_| index));
            let pattern = format!("^(?:{})", shape.pattern);
            patterns.push(Regex::new(&pattern).expect("the patterns are tested, one by one"));
        }
        let begins = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::DFA))
            .build(begins)
            .expect("a hundred short words are no large automaton");
        Self { begins, shape_of, patterns }
    }

    /// The next secret at or after `from`; `look_on` says whether those of this rule are wanted.
    pub(super) fn next(
        &self,
        text: &[u8],
        mut from: usize,
        wanted: impl Fn(&'static str) -> bool,
    ) -> Option<Found> {
        while from < text.len() {
            let begin = self.begins.find(aho_corasick::Input::new(text).range(from..))?;
            let index = self.shape_of[begin.pattern().as_usize()];
            if wanted(SHAPES[index].rule)
                && let Some(found) = self.at(index, text, begin.start())
            {
                return Some(found);
            }
            from = begin.end();
        }
        None
    }

    fn at(&self, index: usize, text: &[u8], start: usize) -> Option<Found> {
        let shape = &SHAPES[index];
        if !shape.inside_words && start > 0 && is_word(text[start - 1]) && !escaped(text, start) {
            return None;
        }
        let rest = &text[start..text.len().min(start + LOOK_BYTES_MAX)];
        // Most beginnings are of nothing: the cheaper question first.
        let whole = self.patterns[index].find(rest)?;
        let found = if shape.pattern.contains("([") {
            self.patterns[index].captures(rest)?.get(1)?
        } else {
            whole
        };
        let after = rest.get(found.end());
        if !shape.inside_words && !shape.random && after.is_some_and(|byte| is_word(*byte)) {
            return None;
        }
        if shape.random && !looks_random(found.as_bytes(), shape.rule == NAMED)
            || shape.rule == "url-password" && is_placeholder_password(found.as_bytes())
        {
            return None;
        }
        let (begin, end) = (start + found.start(), start + found.end());
        Some(Found { rule: shape.rule, from: start, start: begin, end })
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether the letter before is of an escape such as `\n`, as in text inside JSON.
fn escaped(text: &[u8], start: usize) -> bool {
    start >= 2 && text[start - 2] == b'\\' && matches!(text[start - 1], b'n' | b'r' | b't')
}

/// Whether it only shows where a password goes.
fn is_placeholder_password(value: &[u8]) -> bool {
    const SHOWN: [&str; 14] = [
        "pass", "password", "passwd", "pwd", "pw", "secret", "token", "user", "username",
        "postgres", "root", "guest", "changeme", "example",
    ];
    let first = value.first().copied().unwrap_or(b'$');
    matches!(first, b'$' | b'{' | b'%' | b'*' | b'[' | b'.')
        || value.iter().all(|byte| byte.is_ascii_digit())
        || SHOWN.iter().any(|shown| value.eq_ignore_ascii_case(shown.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_begins_as_it_says() {
        for shape in SHAPES {
            let pattern = Regex::new(&format!("^(?:{})", shape.pattern)).unwrap();
            assert!(!shape.begins.is_empty() && !pattern.is_match(b""), "{}", shape.rule);
            // One group at most, which is what `([` tells.
            assert_eq!(pattern.captures_len() > 1, shape.pattern.contains("(["), "{}", shape.rule);
        }
        assert!(RULES.next(b"nothing to see", 0, |_| true).is_none());
    }
}
