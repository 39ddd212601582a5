//! From wire types to text. Pure functions of a value and a [`Surface`](crate::ui::Surface); every
//! text that an agent, a repository or a server wrote passes [`sanitize`] first.

pub(crate) mod card;
pub(crate) mod diff;
pub(crate) mod event;
pub(crate) mod format;
pub(crate) mod live;
pub(crate) mod sanitize;
pub(crate) mod table;
pub(crate) mod timeline;

/// Compares with a file beside the tests. `OUTPOST_BLESS=1` rewrites it after a wanted change.
#[cfg(test)]
pub(crate) fn assert_golden(name: &str, actual: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("OUTPOST_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        actual,
        expected,
        "differs from {}; if the change is wanted, run the tests once with OUTPOST_BLESS=1",
        path.display()
    );
}
