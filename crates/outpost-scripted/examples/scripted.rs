//! Runs the scripted provider by itself, or with a gateway in front, to try a script or a CLI against it:
//! `cargo run -p outpost-scripted --example scripted -- SCRIPT.toml 127.0.0.1:18080 [127.0.0.1:18081]`.
//!
//! Prints one JSON line per request and per event of the gateway. Ends with the process.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use outpost_gateway::gateway::{
    Credential, Gateway, GatewayGrant, GatewaySession, Handle, Route, Upstream, auth_style,
};
use outpost_scripted::{SCRIPTED_KEY, Script, ScriptedProvider};
use outpost_types::Provider;
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (script, addr, gateway) = match arguments.as_slice() {
        [script, addr] => (script, addr, None),
        [script, addr, gateway] => (script, addr, Some(gateway)),
        _ => return Err("usage: scripted SCRIPT.toml ADDRESS:PORT [ADDRESS:PORT]".into()),
    };
    let provider = ScriptedProvider::new(Script::load(Path::new(script))?);
    let handle = provider.start(addr.parse()?).await?;
    show(&format!("provider {} key {SCRIPTED_KEY}", handle.url()));
    let _session = match gateway {
        Some(addr) => Some(open(addr, &handle.url()).await?),
        None => None,
    };
    let mut shown = 0;
    loop {
        let day = Duration::from_secs(86_400);
        let entries = handle.journal_until(day, |entries| entries.len() > shown).await;
        for entry in entries.iter().flatten().skip(shown) {
            show(&serde_json::to_string(entry)?);
            shown += 1;
        }
    }
}

/// A gateway with a route for each provider, all of which lead to `upstream`.
async fn open(addr: &str, upstream: &str) -> Result<GatewaySession, Failure> {
    let mut routes = Vec::new();
    for provider in Provider::ALL {
        let name = provider.as_str();
        let upstream = Upstream::parse(name, upstream)?;
        let credential = Credential::new(name, SCRIPTED_KEY)?;
        let prefix = format!("/{name}");
        routes.push(Route::new(name, &prefix, upstream, credential, auth_style(provider))?);
    }
    let handle = Handle::generate()?;
    show(&format!("gateway http://{addr} key {}", handle.expose()));
    let grant = GatewayGrant::new(handle, routes)?;
    let listener = TcpListener::bind(addr).await?;
    let (session, mut events) = Gateway::new()?.serve(listener, grant);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            show(&serde_json::to_string(&event).unwrap_or_default());
        }
    });
    Ok(session)
}

fn show(line: &str) {
    // Nobody reads any more: the process is about to end.
    let _ = writeln!(std::io::stdout(), "{line}");
}
