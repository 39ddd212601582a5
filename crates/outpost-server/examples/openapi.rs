//! Prints the OpenAPI document; `cargo xtask openapi` writes it to `openapi/outpost.json`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(outpost_server::openapi_json().as_bytes())
}
