//! Flags of `outpost webhooks`.

use clap::{Args, Subcommand};

/// Flags of `outpost webhooks`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Events: cost.recorded, dispatch.ended, budget.threshold. Deliveries are signed as Standard Webhooks say, tried up
to 8 times over some nine hours, and kept to be looked at and replayed.")]
pub struct WebhooksArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WebhooksCommand,
}

/// Commands below `outpost webhooks`.
#[derive(Debug, Clone, Subcommand)]
pub enum WebhooksCommand {
    /// Make one; prints the secret that signs its deliveries, once
    Add(WebhookAddArgs),
    /// List them
    Ls,
    /// Remove one with its secret
    Rm(WebhookArgs),
    /// Deliver a test event to one
    Test(WebhookArgs),
    /// List what was delivered to one, newest first
    Deliveries(WebhookArgs),
    /// Deliver something again
    Replay(WebhookReplayArgs),
}

/// Flags of `outpost webhooks add`.
#[derive(Debug, Clone, Args)]
pub struct WebhookAddArgs {
    /// Address to deliver to
    #[arg(value_name = "URL")]
    pub url: String,

    /// Tell it of this event only (may be repeated) [default: all]
    #[arg(long = "event", value_name = "EVENT")]
    pub events: Vec<String>,
}

/// Which webhook.
#[derive(Debug, Clone, Args)]
pub struct WebhookArgs {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Which delivery of which webhook.
#[derive(Debug, Clone, Args)]
pub struct WebhookReplayArgs {
    /// Id of the webhook
    #[arg(value_name = "ID")]
    pub id: String,

    /// Number of the delivery
    #[arg(value_name = "NUMBER")]
    pub delivery: u64,
}
