//! What goes wrong in a simulated day: servers that die and come back, sandboxes that die all at once, agents
//! that are removed or changed, builds that fail for a while, a drain.

use outpost_core::pool::{Event as PoolEvent, Fingerprint, Found, Pool};

use super::host::{Host, Stands, What};
use super::load::{DAY_MILLIS, HOUR_MILLIS};

/// How long a server is away, milliseconds: least and most.
const AWAY_MILLIS: (u64, u64) = (500, 10_000);
/// Servers that die in a day.
const SERVER_DEATHS: usize = 4;

/// Something that goes wrong, or is put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    ServerDies,
    ServerBack,
    WarmDie,
    Upgrade(usize),
    Removed(usize),
    Installed(usize),
    BuildsBreak(usize),
    BuildsWork(usize),
    Drain,
    Undrain,
}

impl Host {
    /// What goes wrong and when; nothing in the last half hour, so that all is well at the end.
    pub(super) fn plan_faults(&mut self) {
        if !self.day.faults {
            return;
        }
        let mut faults = vec![(Fault::WarmDie, None), (Fault::Drain, Some(Fault::Undrain))];
        faults.extend([(Fault::ServerDies, None); SERVER_DEATHS]);
        for agent in 0..self.agents.len() {
            faults.push((Fault::Upgrade(agent), None));
        }
        let (one, other) = (self.rng.range(0, 4), self.rng.range(0, 4));
        let [one, other] = [one, other].map(|agent| usize::try_from(agent).unwrap_or(0));
        faults.push((Fault::Removed(one), Some(Fault::Installed(one))));
        faults.push((Fault::BuildsBreak(other), Some(Fault::BuildsWork(other))));
        for (fault, remedy) in faults {
            let at = self.rng.range(HOUR_MILLIS, DAY_MILLIS - HOUR_MILLIS);
            self.at(at, What::Fault(fault));
            if let Some(remedy) = remedy {
                let later = at + self.rng.range(60_000, HOUR_MILLIS / 2);
                self.at(later, What::Fault(remedy));
            }
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::ServerDies => self.server_dies(),
            Fault::ServerBack => return self.server_back(),
            Fault::WarmDie => return self.warm_die(),
            Fault::Upgrade(agent) => {
                self.agents[agent].made_of += 1;
                return self.tell_agent(agent);
            }
            Fault::Removed(agent) | Fault::Installed(agent) => {
                self.agents[agent].ready = matches!(fault, Fault::Installed(_));
                return self.tell_agent(agent);
            }
            Fault::BuildsBreak(agent) => self.agents[agent].builds_work = false,
            Fault::BuildsWork(agent) => self.agents[agent].builds_work = true,
            Fault::Drain | Fault::Undrain => {
                self.drained = fault == Fault::Drain;
                return self.tell(&if self.drained {
                    PoolEvent::Drain
                } else {
                    PoolEvent::Undrain
                });
            }
        }
        Ok(())
    }

    /// Builds that were under way are swept with it; what is parked or in use goes on.
    fn server_dies(&mut self) {
        (self.pool, self.tick_at) = (None, None);
        self.sandboxes
            .retain(|_, sandbox| matches!(sandbox.stands, Stands::Parked | Stands::Claimed));
        let away = self.rng.range(AWAY_MILLIS.0, AWAY_MILLIS.1);
        self.back_at = self.millis + away;
        self.after(away, What::Fault(Fault::ServerBack));
    }

    fn server_back(&mut self) -> Result<(), String> {
        if self.pool.is_some() {
            return Ok(());
        }
        self.servers += 1;
        let pool = Pool::new(self.config.clone(), self.servers).map_err(|bad| bad.to_string())?;
        self.pool = Some(pool);
        // Who waits and who has a slot is counted again from the records.
        self.queue = outpost_core::Queue::default();
        for live in self.live.values() {
            self.queue.observe(None, &live.record);
        }
        for agent in 0..self.agents.len() {
            self.tell_agent(agent)?;
        }
        if self.drained {
            self.tell(&PoolEvent::Drain)?;
        }
        self.tell_load()?;
        let mut found = Vec::new();
        for (worker, sandbox) in &mut self.sandboxes {
            if sandbox.stands == Stands::Parked {
                sandbox.server = self.servers;
                found.push(Found {
                    worker: *worker,
                    agent: self.agents[sandbox.agent].id.clone(),
                    tier: self.config.agents[&self.agents[sandbox.agent].id].tier,
                    fingerprint: Fingerprint(sandbox.made_of),
                    made_at: sandbox.made_at,
                });
            }
        }
        self.tell(&PoolEvent::Recovered(found))?;
        // The pool does not go on watching what it did not take up.
        for sandbox in self.sandboxes.values_mut() {
            if sandbox.stands == Stands::Ending {
                sandbox.server = 0;
            }
        }
        Ok(())
    }

    fn warm_die(&mut self) -> Result<(), String> {
        let warm = self.sandboxes.iter();
        let warm: Vec<_> = warm
            .filter(|(_, sandbox)| matches!(sandbox.stands, Stands::Parked | Stands::Building))
            .map(|(worker, _)| *worker)
            .collect();
        // All are gone before the first is told of.
        self.sandboxes.retain(|worker, _| !warm.contains(worker));
        for worker in warm {
            self.tell(&PoolEvent::WorkerEnded { worker, reason: "killed with all".into() })?;
        }
        Ok(())
    }

    fn tell_agent(&mut self, agent: usize) -> Result<(), String> {
        let known = &self.agents[agent];
        let (agent, fingerprint) = (known.id.clone(), Fingerprint(known.made_of));
        self.tell(&if known.ready {
            PoolEvent::AgentReady { agent, fingerprint }
        } else {
            PoolEvent::AgentUnavailable { agent, reason: "its command is gone".into() }
        })
    }
}
