//! The log on standard error. `OUTPOST_LOG` takes filters such as `outpost_engine=debug`.
//!
//! A value may be what an agent wrote. Each is put on one line and loses what acts on a terminal, so that
//! nobody forges a line of the log; as JSON it is escaped anyway.

use std::io;

use outpost_terminal::sanitize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{FmtSpan, Writer, debug_fn};

use outpost_args::LogFormat;

/// Starts logging; later calls change nothing.
pub(crate) fn start(default: &str, format: LogFormat, color: bool) {
    let filter = EnvFilter::try_from_env("OUTPOST_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(color)
        .with_span_events(FmtSpan::NONE);
    // An embedding test may have set a logger already.
    let _ = match format {
        LogFormat::Pretty => builder.compact().fmt_fields(one_line_each()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Writes `name=value name=value`, the message without its name.
fn one_line_each() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer: &mut Writer<'_>, field, value| {
        let value = sanitize::line(&format!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(writer, "{name}={value}"),
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_forges_a_line() {
        let file = std::sync::Arc::new(tempfile::tempfile().unwrap());
        let subscriber = tracing_subscriber::fmt()
            .with_writer(std::sync::Arc::clone(&file))
            .with_ansi(false)
            .compact()
            .fmt_fields(one_line_each())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let output = "x\n2026-01-01 INFO forged\u{1b}[2J\u{202e}";
            tracing::info!(%output, count = 7, "said");
        });
        let mut text = String::new();
        let mut reader = file.as_ref();
        io::Seek::rewind(&mut reader).unwrap();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(text.contains("said output=x 2026-01-01 INFO forged count=7"), "{text:?}");
    }
}
