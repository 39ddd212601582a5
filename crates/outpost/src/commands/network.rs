//! `outpost network`: changes what a dispatch may reach.

use outpost_terminal::{network, sanitize};
use outpost_types::{Api, Network, NetworkLevel, NetworkRequest};

use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;
use outpost_args::NetworkArgs;

/// Changes it. A level stands for itself; hosts alone are added to what there is.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: NetworkArgs) -> Result<Exit, CliError> {
    let id = select::dispatch(api, &args.id).await?;
    let request = match args.network {
        Some(level) => {
            let allow_hosts = Some(args.allow_hosts);
            NetworkRequest { network: Some(level.into()), allow_hosts }
        }
        None => {
            let view = api.get_dispatch(id, None, None).await?;
            added(view.network, view.allow_hosts, args.allow_hosts)
        }
    };
    let view = api.change_network(id, request).await?;
    if ui.verbosity.json {
        ui.json(&view)?;
    } else {
        let agent = sanitize::line(&view.agent);
        let now = network(&Network { level: view.network, allow_hosts: view.allow_hosts });
        ui.note(&format!("{id} ({agent}) may reach from now on: {now}."));
    }
    Ok(Exit::Ok)
}

/// What it may reach already, and these hosts.
fn added(level: NetworkLevel, mut hosts: Vec<String>, more: Vec<String>) -> NetworkRequest {
    for host in more {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let level = match level {
        NetworkLevel::None => NetworkLevel::Custom,
        level => level,
    };
    NetworkRequest { network: Some(level), allow_hosts: Some(hosts) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, Call, FakeApi};
    use crate::ui::Verbosity;
    use clap::Parser as _;
    use outpost_args::Cli;

    fn args(words: &str) -> Result<NetworkArgs, clap::Error> {
        let words = ["outpost", "network"].into_iter().chain(words.split(' '));
        match Cli::try_parse_from(words)?.command {
            outpost_args::Command::Network(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn hosts_are_added_and_a_level_stands_for_itself() {
        let (ui, ..) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        let wanted = |level, hosts: &[&str]| {
            let allow_hosts = Some(hosts.iter().map(|host| (*host).to_owned()).collect());
            Call::Network(fake::id(2), NetworkRequest { network: Some(level), allow_hosts })
        };
        for words in [
            "last --allow-host a.example",
            "last --allow-host b.example --allow-host a.example",
            "last --network trusted --allow-host c.example",
            "last --allow-host d.example",
            "last --network none",
        ] {
            run(&ui, &api, args(words).unwrap()).await.unwrap();
        }
        let expected = [
            wanted(NetworkLevel::Custom, &["a.example"]),
            wanted(NetworkLevel::Custom, &["a.example", "b.example"]),
            wanted(NetworkLevel::Trusted, &["c.example"]),
            wanted(NetworkLevel::Trusted, &["c.example", "d.example"]),
            wanted(NetworkLevel::None, &[]),
        ];
        assert_eq!(api.calls(), expected);
        assert!(args("last").is_err(), "nothing is asked for");
    }
}
