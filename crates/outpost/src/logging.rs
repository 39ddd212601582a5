//! The log on standard error. `OUTPOST_LOG` takes filters such as `outpost_engine=debug`.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::args::LogFormat;

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
        LogFormat::Pretty => builder.compact().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
