//! The one TLS implementation of the process.

/// Makes `ring` the TLS provider of this process unless one was chosen already. Safe to call often;
/// [`crate::HttpApi`] calls it, other users of TLS in the same program may need it before.
pub fn install_crypto_provider() {
    // An error means that there is a provider: what was asked for.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
