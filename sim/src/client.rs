//! The model's clients: they ask for dispatches, ask again when they hear nothing, cancel, and look.
//! A request runs in the server and dies with it; the client then does not know what became of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use outpost_core::{AgentDefaults, Dispatch, DispatchSpec, Event};
use outpost_types::limits::IDEMPOTENCY_TTL_SECONDS;
use outpost_types::{DispatchId, DispatchRequest, KeyId, TenantId, Tier, WorkspaceMode};

use crate::disk::{self, Accepted, DiskError};
use crate::plan::{Cancel, Job, Mutant, Plan};
use crate::sched::{Changed, Owner};
use crate::server::{ApplyError, Live, Server};
use crate::world::World;

/// Pause between two tries of a client, milliseconds.
const AGAIN_MILLIS: (u64, u64) = (50, 2_000);
/// Pause between two looks at a dispatch, milliseconds.
const LOOK_MILLIS: u64 = 4_000;

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Try again in a moment.
    Unavailable,
    /// It ended already.
    Finished,
    /// There is no such dispatch.
    NotFound,
}

/// The job that a dispatch stands for: its task is the job's number.
pub(crate) fn job_of<'a>(plan: &'a Plan, dispatch: &Dispatch) -> &'a Job {
    let index: usize = dispatch.spec.task.parse().expect("a task of this model is a number");
    &plan.jobs[index]
}

/// Follows one job from request to end.
pub(crate) async fn life(world: Rc<World>, index: usize) {
    let job = world.plan.jobs[index].clone();
    world.sleep_millis(job.at_millis).await;
    if let Some(id) = create(&world, &job, index).await {
        if job.keyed && world.fault(world.plan.faults.reply_lost) {
            // It asks once more, as a client does that was restarted in between.
            create(&world, &job, index).await;
        }
        if let Some(when) = job.cancel {
            cancel(&world, id, when).await;
        }
        watch(&world, id).await;
    }
    world.clients.set(world.clients.get() - 1);
}

async fn create(world: &Rc<World>, job: &Job, index: usize) -> Option<DispatchId> {
    let key = job.keyed.then(|| format!("{}-key-{index}", job.tenant));
    loop {
        let (of_server, asked) = (key.clone(), job.clone());
        let answer =
            call(world, async move |server| accept(&server, &asked, index, of_server).await).await;
        if let Some(Ok(id)) = answer {
            if !world.fault(world.plan.faults.reply_lost) {
                world.check.borrow_mut().acknowledged(world, id, key.as_deref());
                return Some(id);
            }
            world.trace(format_args!("{id}: the answer is lost"));
        }
        // Without a key it would become a second dispatch.
        key.as_ref()?;
        world.sleep_millis(world.range(AGAIN_MILLIS.0, AGAIN_MILLIS.1)).await;
    }
}

async fn cancel(world: &Rc<World>, id: DispatchId, when: Cancel) {
    match when {
        Cancel::After(millis) => world.sleep_millis(millis).await,
        Cancel::At(status) => loop {
            let now = world.disk.borrow().records.get(&id).map(Dispatch::status);
            if now.is_none_or(|now| now == status || now.is_terminal()) {
                break;
            }
            world.sleep_millis(1).await;
        },
    }
    loop {
        let answer = call(world, async move |server| request_cancel(&server, id).await).await;
        match answer {
            Some(Ok(())) => {
                world.check.borrow_mut().cancel_acknowledged(world, id);
                return;
            }
            Some(Err(Refusal::Finished)) => return,
            Some(Err(Refusal::NotFound)) => {
                world.violated(format_args!("{id} was acknowledged, and cannot be cancelled"));
                return;
            }
            Some(Err(Refusal::Unavailable)) | None => {}
        }
        world.sleep_millis(world.range(AGAIN_MILLIS.0, AGAIN_MILLIS.1)).await;
    }
}

/// Looks at the dispatch until it ends.
async fn watch(world: &Rc<World>, id: DispatchId) {
    loop {
        let answer = call(world, async move |server| find(&server, id).await).await;
        match answer {
            Some(Ok(record)) if record.status().is_terminal() => return,
            Some(Err(Refusal::NotFound)) => {
                world.violated(format_args!("{id} was acknowledged, and cannot be found"));
                return;
            }
            _ => {}
        }
        world.sleep_millis(LOOK_MILLIS).await;
    }
}

// ---- the connection ----

struct Slot<T> {
    answer: RefCell<Option<T>>,
    gone: Cell<bool>,
    changed: Changed,
}

/// The server's end; dropped with the request.
struct Reply<T>(Rc<Slot<T>>);

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.gone.set(true);
        self.0.changed.notify();
    }
}

/// Carries out a request in the server; `None` when the server went away.
async fn call<T: 'static, F: Future<Output = T>>(
    world: &Rc<World>,
    request: impl FnOnce(Rc<Server>) -> F + 'static,
) -> Option<T> {
    let ready = || {
        let server = world.server.borrow();
        server.as_ref().filter(|server| server.up_since().is_some()).cloned()
    };
    let server = world.server_changed.until(ready).await;
    let (answer, gone, changed) = (RefCell::new(None), Cell::new(false), Changed::default());
    let slot = Rc::new(Slot { answer, gone, changed });
    let reply = Reply(Rc::clone(&slot));
    let owner = Owner::Server(server.incarnation);
    server.busy.set(server.busy.get() + 1);
    world.sched.spawn(owner, async move {
        let answer = request(Rc::clone(&server)).await;
        server.busy.set(server.busy.get() - 1);
        *reply.0.answer.borrow_mut() = Some(answer);
    });
    slot.changed
        .until(|| match slot.answer.take() {
            Some(answer) => Some(Some(answer)),
            None => slot.gone.get().then_some(None),
        })
        .await
}

// ---- the server's side ----

fn spec_of(job: &Job, index: usize) -> DispatchSpec {
    let request = DispatchRequest {
        agent: job.agent.to_owned(),
        task: index.to_string(),
        timeout_seconds: Some(job.timeout_seconds),
        deadline_seconds: Some(job.deadline_seconds),
        priority: Some(job.priority),
        workspace_mode: job.workspace_of.map(|_| WorkspaceMode::Persistent),
        user_id: job.workspace_of.map(str::to_owned),
        repo: Some("acme/one".to_owned()),
        ..DispatchRequest::default()
    };
    let defaults = AgentDefaults {
        agent: job.agent.parse().expect("it is a name"),
        model_id: "model".to_owned(),
        tier: Tier::Fast,
    };
    DispatchSpec::from_request(request, &defaults).expect("the request is within every bound")
}

async fn accept(
    server: &Rc<Server>,
    job: &Job,
    index: usize,
    key: Option<String>,
) -> Result<DispatchId, Refusal> {
    let world = &server.world;
    world.point("accept").await;
    let now = world.now();
    let id = DispatchId::from_parts(now.as_millis(), u128::from(world.range(0, u64::MAX - 1)));
    let tenant: TenantId = job.tenant.parse().expect("it is a name");
    let by = KeyId::from_parts(0, 0);
    let dispatch = Dispatch::accept(id, tenant, by, spec_of(job, index), now);
    if world.has(Mutant::KeysInMemory)
        && let Some(first) = key.as_ref().and_then(|key| server.keys.borrow().get(key).copied())
    {
        return Ok(first);
    }
    let expires_at = now.plus_millis(IDEMPOTENCY_TTL_SECONDS * 1000);
    let live = Live::new(dispatch.clone());
    server.live.borrow_mut().insert(id, Rc::clone(&live));
    if world.has(Mutant::AckFirst) {
        let (later, dispatch, live) = (Rc::clone(server), dispatch.clone(), Rc::clone(&live));
        server.spawn(async move {
            let claim = key.as_deref().map(|key| (key, expires_at));
            if disk::accept(&later.world, &later, &dispatch, claim).await.is_ok() {
                taken(&later, &live);
            }
        });
        return Ok(id);
    }
    let in_store = key.as_deref().filter(|_| !world.has(Mutant::KeysInMemory));
    let claim = in_store.map(|key| (key, expires_at));
    let accepted = match disk::accept(world, server, &dispatch, claim).await {
        Err(DiskError::Unknown) if !world.has(Mutant::LostAcceptForgotten) => {
            find_out(server, id).await
        }
        other => other,
    };
    match accepted {
        Ok(Accepted::New) => {
            server.keys.borrow_mut().extend(key.map(|key| (key, id)));
            taken(server, &live);
            Ok(id)
        }
        Ok(Accepted::Replayed(first)) => {
            server.live.borrow_mut().remove(&id);
            Ok(first.id)
        }
        Err(_) => {
            server.live.borrow_mut().remove(&id);
            Err(Refusal::Unavailable)
        }
    }
}

/// A write was made or not; only the store can say.
async fn find_out(server: &Rc<Server>, id: DispatchId) -> Result<Accepted, DiskError> {
    match disk::get(&server.world, server, id).await? {
        Some(_) => Ok(Accepted::New),
        None => Err(DiskError::Failed),
    }
}

fn taken(server: &Server, live: &Live) {
    server.enqueue(live);
    server.wake_placer();
}

async fn find(server: &Rc<Server>, id: DispatchId) -> Result<Dispatch, Refusal> {
    if let Some(live) = server.live_one(id).filter(|live| live.is_open()) {
        return Ok(live.snapshot());
    }
    match disk::get(&server.world, server, id).await {
        Ok(Some(record)) => Ok(record),
        Ok(None) => Err(Refusal::NotFound),
        Err(_) => Err(Refusal::Unavailable),
    }
}

async fn request_cancel(server: &Rc<Server>, id: DispatchId) -> Result<(), Refusal> {
    let world = &server.world;
    world.point("cancel").await;
    let record = find(server, id).await?;
    let Some(live) = server.live_one(id) else {
        if record.status().is_terminal() {
            return Err(Refusal::Finished);
        }
        // Stored, and known to nobody: it would never end.
        return Err(Refusal::Unavailable);
    };
    let event = Event::CancelRequested { reason: None };
    if world.has(Mutant::CancelAckFirst) {
        let later = Rc::clone(server);
        server.spawn(async move { drop(later.apply(&live, &event).await) });
        return Ok(());
    }
    match server.apply(&live, &event).await {
        Ok(_) => Ok(()),
        Err(ApplyError::Disk(_)) => Err(Refusal::Unavailable),
        Err(ApplyError::Rejected(_)) if live.snapshot().status().is_terminal() => {
            Err(Refusal::Finished)
        }
        Err(ApplyError::Rejected(_)) => Ok(()),
    }
}
