//! Length of functions, counted from the line of `fn` to the closing brace.
//!
//! Test functions count too: a test nobody can read proves nothing. Closures and macro bodies are
//! part of the function around them.

use std::path::Path;

use anyhow::Context;
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;

/// Longest function, lines.
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer, as (path, name, reason). Empty is the goal.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

struct Lengths<'a> {
    path: &'a Path,
    findings: Vec<Finding>,
}

impl Lengths<'_> {
    fn measure(&mut self, name: &syn::Ident, from: Span, body: &syn::Block) {
        let first = from.start().line;
        let last = body.brace_token.span.close().end().line;
        let lines = last + 1 - first;
        let excepted = EXCEPTIONS
            .iter()
            .any(|(path, function, _)| Path::new(path) == self.path && name == function);
        if lines > FUNCTION_LINES_MAX && !excepted {
            self.findings.push(Finding::error(
                self.path,
                first,
                format!("`{name}` has {lines} lines, over {FUNCTION_LINES_MAX}: it does not fit one view"),
                "split it along its steps",
            ));
        }
    }
}

impl<'ast> Visit<'ast> for Lengths<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig.ident, item.sig.fn_token.span(), &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig.ident, item.sig.fn_token.span(), &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.measure(&item.sig.ident, item.sig.fn_token.span(), body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// Finds the functions of a file that are too long.
pub(super) fn check(source: &str, path: &Path) -> anyhow::Result<Vec<Finding>> {
    let file = syn::parse_file(source).context("parsing")?;
    let mut lengths = Lengths { path, findings: Vec::new() };
    lengths.visit_file(&file);
    Ok(lengths.findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        let mut text = String::from("/// Head.\n#[inline]\nfn sample() {\n");
        for _ in 0..lines - 2 {
            text.push_str("    let _ = 1;\n");
        }
        text.push_str("}\n");
        text
    }

    #[test]
    fn seventy_lines_pass_and_seventy_one_do_not() {
        assert_eq!(check(&function(70), Path::new("a.rs")).unwrap(), []);
        let found = check(&function(71), Path::new("a.rs")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 3, "the line of `fn`, not of its attributes");
        assert!(found[0].what.contains("71 lines"), "{}", found[0].what);
    }

    #[test]
    fn methods_and_trait_defaults_count() {
        let body = "let _ = 1;\n".repeat(80);
        let source = format!(
            "impl A {{ fn long(&self) {{\n{body}}} }}\ntrait B {{ fn none(&self); fn long(&self) {{\n{body}}} }}\n\
             mod inner {{ fn long() {{\n{body}}} }}"
        );
        assert_eq!(check(&source, Path::new("a.rs")).unwrap().len(), 3);
    }

    #[test]
    fn what_does_not_parse_is_an_error() {
        assert!(check("fn (", Path::new("a.rs")).is_err());
    }
}
