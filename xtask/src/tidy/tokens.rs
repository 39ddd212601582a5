//! What may not be written: banned calls, bare lint exceptions, `unsafe` outside its one crate.
//!
//! Works on tokens, so words in comments and strings do not count and macro bodies do. A scope is
//! test code when it stands under `#[cfg(test)]` or `#[test]`, or when its whole file is.

use std::path::Path;
use std::str::FromStr;

use anyhow::anyhow;
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::Finding;

/// Unfinished work that compiles.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Macros that write to the process's streams.
const PRINTING: [&str; 4] = ["println", "print", "eprintln", "eprint"];
/// Prefixes of functions that may pause in tests: a helper that polls a condition until a deadline.
const WAITING: [&str; 4] = ["wait", "poll", "eventually", "until"];

/// What is allowed in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The whole file is test code.
    pub(crate) in_test: bool,
    pub(crate) may_print: bool,
    pub(crate) may_be_unsafe: bool,
}

/// Where the scanner stands.
#[derive(Debug, Clone, Copy)]
struct Scope {
    in_test: bool,
    /// Inside a function that waits for a condition.
    waiting: bool,
}

struct Scanner<'a> {
    path: &'a Path,
    rules: Rules,
    findings: Vec<Finding>,
    test_lines: Vec<(usize, usize)>,
}

/// Finds what may not be written in a file.
pub(super) fn check(source: &str, path: &Path, rules: Rules) -> anyhow::Result<Vec<Finding>> {
    Ok(scan(source, path, rules)?.findings)
}

/// Lines of a file that are test code although the file is not, each counted once.
pub(crate) fn test_line_count(source: &str, path: &Path) -> anyhow::Result<usize> {
    let rules = Rules { in_test: false, may_print: true, may_be_unsafe: true };
    let ranges = scan(source, path, rules)?.test_lines;
    Ok(ranges.iter().map(|(first, last)| last + 1 - first).sum())
}

fn scan<'a>(source: &str, path: &'a Path, rules: Rules) -> anyhow::Result<Scanner<'a>> {
    let stream = TokenStream::from_str(source)
        .map_err(|error| anyhow!("line {}: {error}", error.span().start().line))?;
    let mut scanner = Scanner { path, rules, findings: Vec::new(), test_lines: Vec::new() };
    scanner.walk(stream, Scope { in_test: rules.in_test, waiting: false });
    Ok(scanner)
}

/// State between the tokens of one level, until the item they belong to ends.
#[derive(Default)]
struct Pending {
    /// Line of the attribute that made the coming item test code.
    test_from: Option<usize>,
    waiting: bool,
}

impl Scanner<'_> {
    fn walk(&mut self, stream: TokenStream, scope: Scope) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut pending = Pending::default();
        let mut at = 0;
        while at < tokens.len() {
            if let Some((attribute, used)) = attribute(&tokens[at..]) {
                let line = attribute.span_open().start().line;
                self.attribute(attribute, line, &mut pending);
                at += used;
                continue;
            }
            match &tokens[at] {
                TokenTree::Ident(_) => self.word(&tokens, at, scope, &mut pending),
                TokenTree::Group(group) => self.group(group, scope, &mut pending),
                TokenTree::Punct(punct) if punct.as_char() == ';' => pending = Pending::default(),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }

    fn group(&mut self, group: &Group, scope: Scope, pending: &mut Pending) {
        if group.delimiter() != Delimiter::Brace {
            self.walk(group.stream(), scope);
            return;
        }
        let inner = Scope {
            in_test: scope.in_test || pending.test_from.is_some(),
            waiting: scope.waiting || pending.waiting,
        };
        if let Some(first) = pending.test_from.filter(|_| !scope.in_test) {
            self.test_lines.push((first, group.span_close().end().line));
        }
        *pending = Pending::default();
        self.walk(group.stream(), inner);
    }

    fn attribute(&mut self, attribute: &Group, line: usize, pending: &mut Pending) {
        let words = words(attribute.stream());
        let head = words.first().map_or("", String::as_str);
        let has = |word: &str| words.iter().any(|own| own == word);
        if head == "allow" || (head == "cfg_attr" && has("allow")) {
            self.findings.push(Finding::error(
                self.path,
                line,
                "bare `allow`: nobody learns when it is no longer needed",
                "write `#[expect(..., reason = \"...\")]`",
            ));
        }
        if head == "expect" && !has("reason") {
            self.findings.push(Finding::error(
                self.path,
                line,
                "`expect` without a reason",
                "add `reason = \"...\"`",
            ));
        }
        if head == "unsafe" && !self.rules.may_be_unsafe {
            self.report(
                line,
                "an unsafe attribute outside outpost-sandbox",
                "leave it out, or move the item there",
            );
        }
        let marks_test = (head == "cfg" && has("test") && !has("not"))
            || (head != "cfg" && head != "cfg_attr" && is_test_path(attribute));
        if marks_test {
            pending.test_from.get_or_insert(line);
        }
    }

    fn word(&mut self, tokens: &[TokenTree], at: usize, scope: Scope, pending: &mut Pending) {
        let TokenTree::Ident(ident) = &tokens[at] else {
            return;
        };
        let word = ident.to_string();
        let line = ident.span().start().line;
        let is_macro = is_punct(tokens.get(at + 1), '!')
            && matches!(tokens.get(at + 2), Some(TokenTree::Group(_)));
        if word == "fn" {
            if let Some(TokenTree::Ident(name)) = tokens.get(at + 1) {
                let name = name.to_string();
                pending.waiting = WAITING.iter().any(|prefix| name.starts_with(prefix));
            }
        } else if word == "unsafe" && !self.rules.may_be_unsafe {
            self.report(
                line,
                "`unsafe` outside outpost-sandbox",
                "move it there behind a safe function",
            );
        } else if is_macro && UNFINISHED.contains(&word.as_str()) {
            self.report(
                line,
                &format!("`{word}!` is unfinished work"),
                "finish it or leave the feature out",
            );
        } else if is_macro
            && PRINTING.contains(&word.as_str())
            && !self.rules.may_print
            && !scope.in_test
        {
            self.report(
                line,
                &format!("`{word}!` in a library: the caller owns the terminal"),
                "return the text or use `tracing`",
            );
        } else if word == "sleep" && scope.in_test && !scope.waiting && is_call(tokens, at) {
            self.report(
                line,
                "sleep in a test: either too short somewhere or too long everywhere",
                "wait for a condition with a deadline, in a helper named `wait_...`",
            );
        }
    }

    fn report(&mut self, line: usize, what: &str, fix: &str) {
        self.findings.push(Finding::error(self.path, line, what, fix));
    }
}

/// The attribute that starts here and how many tokens it takes.
fn attribute(tokens: &[TokenTree]) -> Option<(&Group, usize)> {
    if !is_punct(tokens.first(), '#') {
        return None;
    }
    let inner = usize::from(is_punct(tokens.get(1), '!'));
    match tokens.get(1 + inner) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => {
            Some((group, 2 + inner))
        }
        _ => None,
    }
}

/// `test`, `tokio::test` and the like: the last word of the attribute's path.
fn is_test_path(attribute: &Group) -> bool {
    let mut last = None;
    for token in attribute.stream() {
        match token {
            TokenTree::Ident(ident) => last = Some(ident.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == ':' => {}
            _ => break,
        }
    }
    last.is_some_and(|word| word == "test")
}

fn words(stream: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    for token in stream {
        match token {
            TokenTree::Ident(ident) => found.push(ident.to_string()),
            TokenTree::Group(group) => found.extend(words(group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}

/// A plain or path call, not a definition and not a method of something else's clock.
fn is_call(tokens: &[TokenTree], at: usize) -> bool {
    let called = matches!(tokens.get(at + 1), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    let defined = matches!(before, Some(TokenTree::Ident(ident)) if ident == "fn");
    called && !defined && !is_punct(before, '.')
}

fn is_punct(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: Rules = Rules { in_test: false, may_print: false, may_be_unsafe: false };
    const TEST: Rules = Rules { in_test: true, may_print: true, may_be_unsafe: false };

    fn lines(source: &str, rules: Rules) -> Vec<usize> {
        check(source, Path::new("a.rs"), rules).unwrap().iter().map(|found| found.line).collect()
    }

    #[test]
    fn unfinished_work_is_found_even_inside_macros() {
        let source = "fn a() { todo!() }\nfn b() { select! { _ = x => unimplemented!(\"later\") } }\nfn c() { dbg!(1); }";
        assert_eq!(lines(source, LIBRARY), [1, 2, 3]);
        assert_eq!(lines(source, TEST), [1, 2, 3]);
    }

    #[test]
    fn words_in_comments_strings_and_names_are_fine() {
        let source = "/// todo!() unsafe\n// dbg!(1)\nfn todo() -> &'static str { \"unsafe todo!() #[allow(x)]\" }\n#![deny(unsafe_code)]";
        assert_eq!(lines(source, LIBRARY), [0_usize; 0]);
    }

    #[test]
    fn printing_is_for_binaries_and_tests() {
        let source = "fn a() { println!(); }\n#[cfg(test)]\nmod tests { fn b() { println!(); eprintln!(); } }";
        assert_eq!(lines(source, LIBRARY), [1]);
        assert_eq!(lines(source, Rules { may_print: true, ..LIBRARY }), [0_usize; 0]);
    }

    #[test]
    fn unsafe_belongs_to_one_crate() {
        let source =
            "fn a() { unsafe { x() } }\nunsafe impl Send for B {}\n#[unsafe(no_mangle)]\nfn c() {}";
        assert_eq!(lines(source, LIBRARY), [1, 2, 3]);
        assert_eq!(lines(source, Rules { may_be_unsafe: true, ..LIBRARY }), [0_usize; 0]);
    }

    #[test]
    fn exceptions_to_lints_need_a_reason() {
        let source = "#![allow(dead_code)]\n#[allow(x)]\nfn a() {}\n#[expect(x)]\nfn b() {}\n\
                      #[expect(x, reason = \"why\")]\nfn c() {}\n#[cfg_attr(test, allow(x))]\nfn d() {}";
        assert_eq!(lines(source, LIBRARY), [1, 2, 4, 8]);
    }

    #[test]
    fn tests_do_not_sleep_but_waiting_helpers_may() {
        let source = "#[tokio::test]\nasync fn a() {\n    tokio::time::sleep(d).await;\n}\n\
                      #[test]\nfn b() {\n    thread::sleep(d);\n    clock.sleep(d);\n}\n\
                      #[cfg(test)]\nmod tests {\n    fn wait_for() { sleep(d) }\n    fn c() { sleep(d) }\n}\n\
                      fn product() { sleep(d) }";
        assert_eq!(lines(source, LIBRARY), [3, 7, 13]);
    }

    #[test]
    fn code_that_only_runs_without_tests_is_no_test() {
        let source =
            "#[cfg(not(test))]\nfn a() { sleep(d) }\n#[cfg(test)]\nuse x::y;\nfn b() { sleep(d) }";
        assert_eq!(lines(source, LIBRARY), [0_usize; 0]);
    }

    #[test]
    fn test_lines_are_counted_with_their_attribute() {
        let source = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\n";
        assert_eq!(test_line_count(source, Path::new("a.rs")).unwrap(), 5);
    }
}
