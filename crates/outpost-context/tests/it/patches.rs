//! A patch loses its secrets and still applies.

use outpost_context::{Finding, Scrubber};

fn scrub(text: &str, size: usize) -> (String, Vec<Finding>) {
    let mut patch = Scrubber::new([("DB_PASSWORD", "hunter2!hunter2")]).patch();
    let mut out = Vec::new();
    for piece in text.as_bytes().chunks(size) {
        patch.push(piece, &mut out);
    }
    let findings = patch.finish(&mut out);
    (String::from_utf8(out).unwrap(), findings)
}

#[test]
fn only_what_is_added_loses_shapes_and_everything_loses_known_values() {
    let token = format!("{}_{}", "ghp", "aZ3kQ9xW7".repeat(4));
    let text = format!(
        "diff --git a/x b/x\n--- a/x\n+++ b/dir/x\n@@ -1,4 +1,5 @@\n {token}\n-{token}\n+{token}\n+++ b/no-name\n\
         +api_key = \"q7Rk2Zp9xLw4Tn8V\"\n hunter2!hunter2\n"
    );
    for size in [1, 7, 10_000] {
        let (out, findings) = scrub(&text, size);
        let expected = text
            .replace(&format!("+{token}"), "+[masked:github-token]")
            .replace("hunter2!hunter2", "[masked:DB_PASSWORD]");
        assert_eq!(out, expected);
        let finding =
            |rule: &str, masked| Finding { file: "dir/x".into(), rule: rule.into(), masked };
        assert_eq!(
            findings,
            [
                finding("DB_PASSWORD", true),
                finding("github-token", true),
                finding("named-value", false)
            ]
        );
    }
}

#[test]
fn a_key_that_is_added_keeps_its_lines() {
    let text = "diff --git a/k b/k\n--- /dev/null\n+++ b/k\n@@ -0,0 +1,3 @@\n+-----BEGIN PRIVATE KEY-----\n+QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo\n+-----END PRIVATE KEY-----\n";
    let (out, findings) = scrub(text, 5);
    assert_eq!(out.lines().count(), text.lines().count());
    assert!(
        out.ends_with("+[masked:private-key]\n+[masked:private-key]\n+[masked:private-key]\n"),
        "{out}"
    );
    assert_eq!(findings.len(), 1);
}

#[test]
fn long_lines_and_names_are_bounded() {
    let text = format!(
        "diff --git a/x b/x\n+++ b/{}\n@@ -1 +1 @@\n+{} hunter2!hunter2\n",
        "n".repeat(5_000),
        "x".repeat(600_000)
    );
    let (out, findings) = scrub(&text, 64 * 1024);
    assert!(out.ends_with("[masked:DB_PASSWORD]\n"));
    assert_eq!(findings.len(), 1);
    assert!(findings[0].file.len() <= 512);
}
