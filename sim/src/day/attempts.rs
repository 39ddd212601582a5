//! Dispatches of a simulated day: placed by the core's queue, given a worker by the pool or one of their own.

use outpost_core::pool::{Claim, Event as PoolEvent, WorkerId};
use outpost_core::{
    AgentDefaults, AgentVerdict, Dispatch, DispatchSpec, Event, ExitFacts, PreparedFacts,
    ResultFacts, step,
};
use outpost_types::{AttemptId, DispatchId, DispatchRequest, KeyId, TenantId};

use super::check;
use super::host::{Host, Live, Stands, What};
use super::load::{DAY_MILLIS, Job};

/// Claimed workers that cannot be used, parts of a million.
const CLAIM_FAILS: u64 = 2_000;
/// Time until the sandbox of an attempt that is over is gone, milliseconds.
const RETIRE_MILLIS: u64 = 20;

impl Host {
    pub(super) fn arrive(&mut self, index: usize) -> Result<(), String> {
        let job = self.jobs[index];
        let id = DispatchId::from_parts(self.now().as_millis(), index as u128);
        let record = Dispatch::accept(
            id,
            TenantId::local(),
            KeyId::from_parts(0, 0),
            self.spec_of(&job)?,
            self.now(),
        );
        self.queue.observe(None, &record);
        self.live.insert(id, Live { record, run_millis: job.run_millis, worker: None });
        self.tell_load()
    }

    fn spec_of(&self, job: &Job) -> Result<DispatchSpec, String> {
        let agent = self.agents[job.agent].id.clone();
        let request = DispatchRequest {
            agent: agent.to_string(),
            task: "a task".to_owned(),
            tier: Some(job.tier),
            ..DispatchRequest::default()
        };
        let defaults = AgentDefaults { agent, model_id: "model".to_owned(), tier: job.tier };
        DispatchSpec::from_request(request, &defaults).map_err(|bad| format!("{bad:?}"))
    }

    pub(super) fn tell_load(&mut self) -> Result<(), String> {
        let waiting = u32::try_from(self.queue.waiting()).unwrap_or(u32::MAX);
        self.tell(&PoolEvent::Load { attempts: self.slots(), waiting })
    }

    /// Gives out slots as long as there is somebody for them, and a worker to each who got one.
    pub(super) fn place(&mut self) -> Result<(), String> {
        while self.pool.is_some() {
            let Some(id) = self.queue.next(&self.limits, self.now()) else { break };
            self.change(id, &Event::Placed)?;
            self.tell_load()?;
            let wait = self.claim(id)?;
            if self.millis < DAY_MILLIS {
                self.waits.push(wait);
            }
            self.after(wait, What::Ready(id));
        }
        Ok(())
    }

    /// How long the attempt waits for its worker, milliseconds.
    fn claim(&mut self, id: DispatchId) -> Result<u64, String> {
        let record = &self.live[&id].record;
        let attempt = record.attempt_id().ok_or("a slot without an attempt")?;
        let (agent, tier) = (record.spec.agent.clone(), record.spec.tier);
        let claim = Claim { attempt, agent, tier };
        let now = self.now();
        let Some(pool) = &mut self.pool else { return Err("nobody to claim from".into()) };
        let (answer, effects) = pool.claim(&claim, now);
        self.trace.line(self.millis, format_args!("  {attempt}: {answer:?}"));
        if let Ok(worker) = answer {
            self.give(worker, &claim)?;
        }
        self.carry_out(effects)?;
        let (least, most) = self.day.fleet.build_millis();
        let own_millis = self.rng.range(least, most);
        let counts = self.millis < DAY_MILLIS;
        let worker = match answer {
            Ok(worker) if self.chance(CLAIM_FAILS) => {
                let reason = "no answer".to_owned();
                self.tell(&PoolEvent::ClaimFailed { worker, reason })?;
                Err(outpost_core::pool::Miss::Unhealthy)
            }
            answer => answer,
        };
        match worker {
            Ok(worker) => {
                self.figures.hits += u64::from(counts);
                self.live.entry(id).and_modify(|live| live.worker = Some(worker));
                Ok(0)
            }
            Err(miss) => {
                *self.figures.misses.entry(miss).or_default() += u64::from(counts);
                check::room(self)?;
                Ok(own_millis)
            }
        }
    }

    /// A worker that was parked, of that agent and size, as new as it can be, and never used.
    fn give(&mut self, worker: WorkerId, claim: &Claim) -> Result<(), String> {
        let unlawful = format!("{worker} is given to {}", claim.attempt);
        let sandbox = self.sandboxes.get_mut(&worker).ok_or_else(|| unlawful.clone())?;
        let agent = &self.agents[sandbox.agent];
        let same = agent.id == claim.agent && agent.made_of == sandbox.made_of;
        let tier = self.config.agents[&agent.id].tier;
        if sandbox.stands != Stands::Parked || !same || tier != claim.tier {
            return Err(format!("{unlawful}: {sandbox:?}"));
        }
        if self.used.insert(worker, claim.attempt).is_some() {
            return Err(format!("{unlawful}: it was used before"));
        }
        sandbox.stands = Stands::Claimed;
        Ok(())
    }

    pub(super) fn ready(&mut self, id: DispatchId) -> Result<(), String> {
        let attempt = self.attempt(id)?;
        let prepared = Box::new(PreparedFacts::default());
        self.change(id, &Event::AgentStarted { attempt, prepared })?;
        self.after(self.live[&id].run_millis, What::Done(id));
        Ok(())
    }

    pub(super) fn done(&mut self, id: DispatchId) -> Result<(), String> {
        let attempt = self.attempt(id)?;
        let exit = ExitFacts { code: Some(0), first_output_millis: None };
        self.change(id, &Event::AgentExited { attempt, exit })?;
        let results = Box::new(ResultFacts::of(AgentVerdict::Completed));
        self.change(id, &Event::Collected { attempt, results })?;
        let live = self.live.remove(&id).ok_or("an end of nothing")?;
        if let Some(worker) = live.worker {
            if let Some(sandbox) =
                self.sandboxes.get(&worker).filter(|it| it.stands != Stands::Claimed)
            {
                return Err(format!("{worker} of {attempt} is {sandbox:?}"));
            }
            self.after(RETIRE_MILLIS, What::Ended(worker));
        }
        self.tell_load()
    }

    fn attempt(&self, id: DispatchId) -> Result<AttemptId, String> {
        let live = self.live.get(&id).ok_or("nothing of that id")?;
        live.record.attempt_id().ok_or_else(|| format!("{id} has no attempt"))
    }

    fn change(&mut self, id: DispatchId, event: &Event) -> Result<(), String> {
        let now = self.now();
        let live = self.live.get_mut(&id).ok_or("nothing of that id")?;
        let next = step(&live.record, event, now).map_err(|why| format!("{id}: {why}"))?.next;
        self.queue.observe(Some(&live.record), &next);
        live.record = next;
        Ok(())
    }
}
