//! What comes out of a stream does not depend on the pieces it came in, and takes bounded memory and time.

use outpost_context::Scrubber;
use outpost_context::scrub::WINDOW_BYTES_MAX;
use proptest::prelude::*;

fn scrubber() -> Scrubber {
    Scrubber::new([("PASSWORD", "hunter2!hunter2")])
}

/// The whole stream, and how far it had come after each piece.
fn scrub<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<(usize, usize)>) {
    let (mut stream, mut out, mut taken, mut steps) =
        (scrubber().stream(), Vec::new(), 0, Vec::new());
    for piece in pieces {
        stream.push(piece, &mut out);
        taken += piece.len();
        steps.push((taken, out.len()));
    }
    stream.finish(&mut out);
    (out, steps)
}

fn words() -> impl Strategy<Value = String> {
    let token = format!(" {}_{} ", "ghp", "aZ3kQ9xW7".repeat(4));
    let words = vec![
        "hunter2!hunter2".to_owned(),
        "hunter2!".to_owned(),
        token,
        format!(" token={} ", "q7Rk2Zp9xLw4Tn8V"),
        "-----BEGIN PRIVATE KEY-----".to_owned(),
        "-----END PRIVATE KEY-----".to_owned(),
        "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo".to_owned(),
        "\n".to_owned(),
        "\r\n".to_owned(),
        "\r".to_owned(),
        " ".to_owned(),
        "ü".to_owned(),
        "password: ".to_owned(),
        "x".repeat(300),
    ];
    proptest::collection::vec(proptest::sample::select(words), 0..60)
        .prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn pieces_make_no_difference(text in words(), size in 1_usize..200) {
        let (whole, _) = scrub([text.as_bytes()]);
        let (pieces, steps) = scrub(text.as_bytes().chunks(size));
        prop_assert_eq!(&pieces, &whole);
        // Also what was given out by then: a next server gives out the same.
        for (taken, given) in steps {
            let (_, again) = scrub([&text.as_bytes()[..taken]]);
            prop_assert_eq!(again[0].1, given);
        }
        let out = String::from_utf8(whole).unwrap();
        prop_assert!(!out.contains("hunter2!hunter2") && !out.contains("aZ3kQ9xW7aZ3"));
        prop_assert!(!out.contains("q7Rk2Zp9"));
        prop_assert_eq!(out.matches('\n').count(), text.matches('\n').count());
    }

    #[test]
    fn any_bytes_come_through(bytes: Vec<u8>, size in 1_usize..50) {
        let (whole, _) = scrub([bytes.as_slice()]);
        prop_assert_eq!(scrub(bytes.chunks(size)).0, whole);
    }
}

#[test]
fn a_line_is_given_out_when_it_ends_and_no_later() {
    let (_, steps) = scrub([&b"one\ntw"[..], b"o\n", b"50 %\r", b"rest"]);
    let given: Vec<_> = steps.iter().map(|step| step.1).collect();
    assert_eq!(given, [4, 8, 13, 13]);
}

#[test]
fn an_endless_line_hides_no_secret_at_any_place() {
    for at in [0, 1, 7_000, 7_160, 7_170, 7_200, 9_000] {
        let mut text = vec![b'.'; 3 * WINDOW_BYTES_MAX];
        let place = WINDOW_BYTES_MAX - at - 8;
        text[place..place + 15].copy_from_slice(b"hunter2!hunter2");
        let (out, _) = scrub([text.as_slice()]);
        assert!(!out.windows(15).any(|window| window == b"hunter2!hunter2"), "{at}");
        assert_eq!(out.len(), text.len() - 15 + "[masked:PASSWORD]".len(), "{at}");
        assert_eq!(scrub(text.chunks(4_099)).0, out);
    }
}
