//! The commands against the fake.

use outpost_terminal::Surface;

use super::*;
use crate::fake::{Call, FakeApi};
use crate::samples::assert_golden;
use crate::ui::Verbosity;

fn request(kind: Option<SecretKind>) -> PutSecret {
    let value = SecretValue::new("canary-4711".into());
    PutSecret { value, kind, scope: Some(SecretScope::Tenant) }
}

#[test]
fn one_line_end_is_not_part_of_a_value() {
    let read = |text: &[u8]| value(&mut &*text).map(|value| value.expose().to_owned());
    for (text, expected) in [
        (&b"canary-1"[..], "canary-1"),
        (b"canary-1\n", "canary-1"),
        (b"canary-1\r\n", "canary-1"),
        (b"canary-1\n\n", "canary-1\n"),
        (b" canary 1 ", " canary 1 "),
    ] {
        assert_eq!(read(text).unwrap(), expected);
    }
    for text in [&b""[..], b"\n", b"\r\n", b"canary\xff"] {
        let error = read(text).unwrap_err();
        assert!(error.exit() == Exit::Usage && !error.to_string().contains("canary"), "{error}");
    }
    let long = vec![b'x'; 10 * INPUT_BYTES_MAX];
    let error = value(&mut &*long).unwrap().check(SecretKind::Exposed).unwrap_err();
    assert!(error.message.contains("65536"), "{error}");
}

#[test]
fn a_value_in_the_wrong_place_is_refused_and_not_shown() {
    for text in ["A=canary-1", "canary-1", "", "a", "1A"] {
        let error = name(text).unwrap_err();
        assert!(error.exit() == Exit::Usage && !error.to_string().contains("canary"), "{error}");
    }
    assert!(name("A=x").unwrap_err().hint().unwrap().contains("history"));
}

#[tokio::test]
async fn set_says_who_uses_it_and_never_shows_it() {
    for (text, kind, part) in [
        ("OPENAI_API_KEY", None, "for openai"),
        ("DATABASE_URL", Some(SecretKind::Exposed), "--secret DATABASE_URL"),
        ("DATABASE_URL", None, "nothing uses it yet"),
    ] {
        for json in [false, true] {
            let verbosity = Verbosity { json, ..Verbosity::default() };
            let (ui, out, err) = Ui::captured(verbosity);
            let api = FakeApi::default();
            let wanted: SecretName = text.parse().unwrap();
            set(&ui, &api, (wanted.clone(), request(kind))).await.unwrap();
            assert_eq!(api.calls(), [Call::PutSecret(wanted, request(kind))]);
            assert!(json || err.text().contains(part), "{}", err.text());
            assert!(!json || out.text().contains(text), "{}", out.text());
            assert!(!format!("{}{}", out.text(), err.text()).contains("canary"));
        }
    }
}

#[tokio::test]
async fn a_list_has_everything_but_values() {
    let views = FakeApi::default().list_secrets().await.unwrap();
    let now = views[0].updated_at.plus_millis(3_600_000);
    assert_golden("secrets.txt", &outpost_terminal::secrets(Surface::PLAIN, &views, now));
}

#[tokio::test]
async fn what_is_not_there_cannot_be_removed() {
    let (ui, _, err) = Ui::captured(Verbosity::default());
    let api = FakeApi::default();
    rm(&ui, &api, "A".parse().unwrap(), true).await.unwrap();
    let called = Call::DeleteSecret("A".parse().unwrap(), SecretScope::Platform);
    assert_eq!(api.calls(), [called]);
    assert!(err.text().contains("A is removed"));
    let error = rm(&ui, &api, "MISSING".parse().unwrap(), false).await.unwrap_err();
    assert!(error.hint().unwrap().contains("outpost secrets ls"));
    rekey(&ui, &api).await.unwrap();
    assert!(err.text().contains("4 values"), "{}", err.text());
}
