//! What must hold after every event: the pool knows what there is, and keeps to its bounds.

use outpost_core::pool::{AgentFigures, Effect, StopReason, WARM_COUNT_MAX};

use super::host::{Host, Sandbox, Stands};

/// Holds the pool against a recount of the sandboxes.
pub(super) fn counts(host: &Host) -> Result<(), String> {
    let Some(pool) = &host.pool else { return Ok(()) };
    let all = pool.figures(host.now());
    let mut warm = 0;
    for figures in &all {
        let seen = of_agent(host, figures);
        let told = [figures.starting, figures.idle, figures.busy, figures.stopping];
        if seen != told {
            return Err(format!("{}: the pool tells {told:?}, there are {seen:?}", figures.agent));
        }
        let (sizes, idle) = (figures.sizes, figures.starting + figures.idle);
        let bounded = idle <= figures.target && figures.target <= sizes.max;
        if !bounded || figures.target < sizes.min {
            return Err(format!("{}: {idle} warm, target {}", figures.agent, figures.target));
        }
        let gone = host.agents.iter().any(|agent| agent.id == figures.agent && !agent.ready);
        if idle > 0 && (host.drained || gone) {
            return Err(format!("{}: {idle} warm though it is drained or gone", figures.agent));
        }
        warm += idle;
    }
    let starting: u32 = all.iter().map(|figures| figures.starting).sum();
    if warm > host.config.warm_max.min(WARM_COUNT_MAX) || starting > host.config.builds_max {
        return Err(format!("{warm} warm in all, {starting} of them being made"));
    }
    if host.slots() > host.limits.host_attempts_max {
        return Err(format!("{} slots in use", host.slots()));
    }
    Ok(())
}

/// Starting, idle, busy and stopping sandboxes that this server has to know.
fn of_agent(host: &Host, figures: &AgentFigures) -> [u32; 4] {
    let mut seen = [0; 4];
    let own = |sandbox: &&Sandbox| sandbox.server == host.servers;
    for sandbox in host.sandboxes.values().filter(own) {
        if host.agents[sandbox.agent].id == figures.agent {
            seen[match sandbox.stands {
                Stands::Building => 0,
                Stands::Parked => 1,
                Stands::Claimed => 2,
                Stands::Ending => 3,
            }] += 1;
        }
    }
    seen
}

/// Whether that may be asked for of that sandbox.
pub(super) fn effect(effect: &Effect, sandbox: Option<&Sandbox>) -> Result<(), String> {
    let lawful = match (effect, sandbox.map(|sandbox| sandbox.stands)) {
        (Effect::Start { .. }, stands) => stands.is_none(),
        (Effect::Stop { why, .. }, Some(Stands::Claimed)) => *why == StopReason::Unhealthy,
        (Effect::Stop { .. }, stands) => stands.is_some(),
        (Effect::Check { .. }, stands) => stands == Some(Stands::Parked),
    };
    if lawful { Ok(()) } else { Err(format!("{effect:?} of {sandbox:?}")) }
}

/// After an attempt that missed, nothing warm is in its way.
pub(super) fn room(host: &Host) -> Result<(), String> {
    let Some(pool) = &host.pool else { return Ok(()) };
    let figures = pool.figures(host.now());
    let warm: u32 = figures.iter().map(|figures| figures.starting + figures.idle).sum();
    let over = host.slots().saturating_add(warm) > host.config.sandboxes_max;
    if over && warm > 0 { Err(format!("{warm} warm in the way of an attempt")) } else { Ok(()) }
}

/// The day is over and all is well: as many workers as the minima say, and no attempt.
pub(super) fn at_rest(host: &Host) -> Result<(), String> {
    let Some(pool) = &host.pool else { return Err("no server at the end of the day".into()) };
    if host.slots() > 0 || host.queue.waiting() > 0 {
        return Err(format!("{} slots are in use at the end", host.slots()));
    }
    for figures in pool.figures(host.now()) {
        let warm = figures.starting + figures.idle;
        if warm != figures.sizes.min || figures.target != warm || figures.busy > 0 {
            return Err(format!("not at its minimum at the end: {figures:?}"));
        }
    }
    Ok(())
}

/// It was drained: nothing is left.
pub(super) fn empty(host: &Host) -> Result<(), String> {
    let drained = host.pool.as_ref().is_some_and(|pool| pool.is_drained());
    match host.sandboxes.iter().next() {
        None if drained => Ok(()),
        left => Err(format!("drained: {drained}, left: {left:?}")),
    }
}
