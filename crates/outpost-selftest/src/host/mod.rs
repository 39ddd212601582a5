//! Attacks that need the host's part in them: what it binds, what it collects, what it reads, what stays behind.

use std::future::Future;
use std::pin::Pin;

use crate::attempt::Attempt;
use crate::run::SelftestError;
use crate::stage::Stage;
use crate::verdict::Group;

/// Against the real thing, or where it must succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Real,
    Proof,
}

type Run = for<'a> fn(
    &'a Stage,
    Mode,
) -> Pin<Box<dyn Future<Output = Result<Attempt, SelftestError>> + 'a>>;

/// One attack of this kind.
pub(crate) struct HostProbe {
    pub(crate) group: Group,
    pub(crate) name: &'static str,
    pub(crate) attack: &'static str,
    /// What is weak where it must succeed.
    pub(crate) proof: &'static str,
    pub(crate) run: Run,
}

/// All of them, in the order they are run.
pub(crate) const PROBES: &[HostProbe] = &[];

/// What is looked for at the end.
pub(crate) struct LeftoverProbe {
    pub(crate) group: Group,
    pub(crate) name: &'static str,
    pub(crate) attack: &'static str,
}

/// Ends the launcher and looks for what stayed.
pub(crate) async fn leftovers(
    stage: Stage,
) -> Result<Vec<(LeftoverProbe, Attempt)>, SelftestError> {
    stage.sandbox.shut_down().await?;
    Ok(Vec::new())
}
