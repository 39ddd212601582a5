//! Who turns names into addresses. It happens outside the sandbox, and after the policy has allowed the name.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

/// Addresses that are still being looked up.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Turns names into addresses.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// All addresses of a name in lower case.
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a>;
}

/// The host's own resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            // The dot keeps the host's own search domains out of it.
            let found = tokio::net::lookup_host((format!("{name}."), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}
