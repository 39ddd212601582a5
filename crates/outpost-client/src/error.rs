//! Why a client could not be made. What goes wrong later is an `ApiError`.

use thiserror::Error;

/// Why a client could not be made.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Not an http or https address, or one with a user name, a query or a fragment.
    #[error(
        "`{0}` is not the address of a server: give one like http://127.0.0.1:7700, without user name or query"
    )]
    InvalidUrl(String),
    /// The key would travel in the clear over a network.
    #[error(
        "`{0}` would send the API key unencrypted over the network: use https, or allow plain http for this server if the network is trusted"
    )]
    Insecure(String),
    /// A key with characters that cannot be in a header.
    #[error("the API key has characters a key cannot have: check that it was copied whole")]
    InvalidKey,
    /// The HTTP library refused the settings.
    #[error("the HTTP client could not be made")]
    Build(#[source] reqwest::Error),
}
