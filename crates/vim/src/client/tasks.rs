//! Waiting for tasks: one collector with a list view of all tasks that are waited for, and one
//! long poll on it.

use super::{Core, Error, manager};
use crate::fault::Fault;
use crate::method::{self, Task};
use crate::types::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What a watched task is told by: its last known state, or why it is lost.
type State = Option<Result<TaskInfo, String>>;

/// Tasks of the view that are done are taken out with the next addition, or when so many are in it.
const STALE: usize = 64;
/// Faults in a row on setting up the poll before all waits fail: the server is there, and refuses.
const FAULTS: u32 = 3;
/// For how long a server that does not answer is waited for before all waits fail. A management agent that is started
/// again takes some seconds, and its tasks go on meanwhile.
const AWAY: Duration = Duration::from_secs(60);
/// Between two attempts, doubled each time up to the second one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A watched task.
#[derive(Debug)]
pub struct TaskHandle {
    task: Task,
    state: watch::Receiver<State>,
}

impl TaskHandle {
    /// The task.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The task's next known state: at once the first, then each change (progress, end).
    ///
    /// # Errors
    /// Where the task can no longer be watched.
    pub async fn changed(&mut self) -> Result<TaskInfo, Error> {
        loop {
            let lost = self.state.changed().await.is_err();
            let state = self.state.borrow_and_update().clone();
            match state {
                Some(Ok(info)) => return Ok(info),
                Some(Err(why)) => return Err(self.lost(why)),
                None if lost => return Err(self.lost("the client was dropped".into())),
                None => {}
            }
        }
    }

    /// The task's end, whether good or bad.
    ///
    /// # Errors
    /// Where the task can no longer be watched.
    pub async fn end(&mut self) -> Result<TaskInfo, Error> {
        loop {
            let state = self.state.borrow_and_update().clone();
            match state {
                Some(Ok(info)) if info.state.is_final() => return Ok(info),
                Some(Err(why)) => return Err(self.lost(why)),
                _ => {}
            }
            if self.state.changed().await.is_err() {
                return Err(self.lost("the client was dropped".into()));
            }
        }
    }

    fn lost(&self, why: String) -> Error {
        Error::TaskLost {
            task: self.task.to_string(),
            why,
        }
    }
}

/// The waiter of a client.
pub(super) struct Waiter {
    core: Arc<Core>,
    shared: Arc<Shared>,
    /// The poll, started with the first task.
    poll: tokio::sync::Mutex<Option<Poll>>,
}

#[derive(Default)]
struct Shared {
    waits: Mutex<HashMap<Task, watch::Sender<State>>>,
    /// Tasks that are done but still in the view.
    stale: Mutex<Vec<Task>>,
}

struct Poll {
    view: watch::Receiver<Option<ManagedObjectReference>>,
    abort: tokio::task::AbortHandle,
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Waiter {
    pub(super) fn new(core: Arc<Core>) -> Waiter {
        Waiter {
            core,
            shared: Arc::default(),
            poll: tokio::sync::Mutex::new(None),
        }
    }

    pub(super) async fn watch(&self, task: &Task) -> Result<TaskHandle, Error> {
        if self.shared.lock_stale().contains(task) {
            // It has ended and is still in the view, so nothing more would come for it there.
            return self.ended(task).await;
        }
        let state = {
            let mut waits = self.shared.lock_waits();
            match waits.get(task) {
                Some(sender) => {
                    return Ok(TaskHandle {
                        task: task.clone(),
                        state: sender.subscribe(),
                    });
                }
                None => {
                    let (sender, receiver) = watch::channel(None);
                    waits.insert(task.clone(), sender);
                    receiver
                }
            }
        };
        let handle = TaskHandle {
            task: task.clone(),
            state,
        };
        let view = self.current_view().await;
        let Some(view) = view else {
            // The poll is being set up (again) and takes every task of `waits` with it.
            return Ok(handle);
        };
        let remove = std::mem::take(&mut *self.shared.lock_stale());
        let modify = method::ModifyListView {
            this: view,
            add: vec![task.clone()],
            remove,
        };
        match self.core.call(&modify).await {
            Ok(unknown) if unknown.contains(task) => {
                self.shared.lock_waits().remove(task);
                let kind = crate::FaultKind::ManagedObjectNotFound { obj: task.clone() };
                let fault = Fault::new(kind, format!("the server does not know the task {task}"));
                Err(Error::Fault {
                    method: "ModifyListView",
                    fault: Box::new(fault),
                })
            }
            Ok(_) => Ok(handle),
            // The session was renewed and the view went with the old one: the poll finds that
            // out, too, makes a new view and takes every task of `waits` into it.
            Err(e)
                if e.fault()
                    .is_some_and(|f| f.is_not_found() || f.is_not_authenticated()) =>
            {
                Ok(handle)
            }
            Err(e) => {
                self.shared.lock_waits().remove(task);
                Err(e)
            }
        }
    }

    async fn ended(&self, task: &Task) -> Result<TaskHandle, Error> {
        let call = method::RetrievePropertiesEx {
            this: self.core.content().property_collector.clone(),
            spec_set: vec![PropertyFilterSpec::object(task, &["info"])],
            options: RetrieveOptions::default(),
        };
        let found = self
            .core
            .call(&call)
            .await?
            .and_then(|r| r.objects.into_iter().next());
        let info: Option<TaskInfo> = found.map(|o| o.get("info")).transpose()?.flatten();
        let info = info.ok_or_else(|| Error::NotFound {
            what: task.to_string(),
        })?;
        let (sender, state) = watch::channel(None);
        sender.send_replace(Some(Ok(info)));
        Ok(TaskHandle {
            task: task.clone(),
            state,
        })
    }

    async fn current_view(&self) -> Option<ManagedObjectReference> {
        let mut poll = self.poll.lock().await;
        if poll.as_ref().is_none_or(|p| p.abort.is_finished()) {
            let (sender, view) = watch::channel(None);
            let work = run(self.core.clone(), self.shared.clone(), sender);
            let abort = tokio::spawn(work).abort_handle();
            *poll = Some(Poll { view, abort });
        }
        poll.as_ref().and_then(|p| p.view.borrow().clone())
    }
}

impl Shared {
    fn lock_waits(&self) -> std::sync::MutexGuard<'_, HashMap<Task, watch::Sender<State>>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_stale(&self) -> std::sync::MutexGuard<'_, Vec<Task>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, task: &Task, info: TaskInfo) {
        let mut waits = self.lock_waits();
        if info.state.is_final() {
            self.lock_stale().push(task.clone());
            if let Some(sender) = waits.remove(task) {
                sender.send_replace(Some(Ok(info)));
            }
        } else if let Some(sender) = waits.get(task) {
            sender.send_replace(Some(Ok(info)));
        }
    }

    fn fail(&self, task: &Task, why: &str) {
        if let Some(sender) = self.lock_waits().remove(task) {
            sender.send_replace(Some(Err(why.to_owned())));
        }
    }
}

/// Sets up collector, view and filter, polls, and sets up anew when the session or the connection
/// was lost.
async fn run(
    core: Arc<Core>,
    shared: Arc<Shared>,
    view: watch::Sender<Option<ManagedObjectReference>>,
) {
    let (mut faults, mut away, mut pause) = (0, None, PAUSES.0);
    loop {
        let error = match set_up(&core, &shared, &view).await {
            Ok(collector) => {
                (faults, away, pause) = (0, None, PAUSES.0);
                match poll(&core, &shared, &collector, &view).await {
                    Ok(never) => match never {},
                    Err(e) => e,
                }
            }
            Err(e) => {
                away.get_or_insert_with(Instant::now);
                faults += u32::from(e.fault().is_some());
                e
            }
        };
        view.send_replace(None);
        tracing::debug!(%error, "watching tasks begins anew");
        if faults < FAULTS && away.is_none_or(|since| since.elapsed() < AWAY) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        } else {
            let why = error.to_string();
            let all: Vec<Task> = shared.lock_waits().keys().cloned().collect();
            for task in all {
                shared.fail(&task, &why);
            }
            return;
        }
    }
}

async fn set_up(
    core: &Core,
    shared: &Shared,
    view: &watch::Sender<Option<ManagedObjectReference>>,
) -> Result<ManagedObjectReference, Error> {
    let this = core.content().property_collector.clone();
    let collector = core.call(&method::CreatePropertyCollector { this }).await?;
    let this = manager(&core.content().view_manager, "ViewManager")?;
    let list = core
        .call(&method::CreateListView {
            this,
            obj: Vec::new(),
        })
        .await?;
    let spec = PropertyFilterSpec::view(&list, "Task", &["info"]);
    core.call(&method::CreateFilter {
        this: collector.clone(),
        spec,
        partial_updates: false,
    })
    .await?;
    shared.lock_stale().clear();
    // From here on `Waiter::watch` adds its task by itself; those that came before are added here.
    view.send_replace(Some(list.clone()));
    let add: Vec<Task> = shared.lock_waits().keys().cloned().collect();
    if !add.is_empty() {
        let modify = method::ModifyListView {
            this: list,
            add,
            remove: Vec::new(),
        };
        for unknown in core.call(&modify).await? {
            shared.fail(&unknown, "the server no longer knows it");
        }
    }
    Ok(collector)
}

async fn poll(
    core: &Core,
    shared: &Shared,
    collector: &ManagedObjectReference,
    view: &watch::Sender<Option<ManagedObjectReference>>,
) -> Result<std::convert::Infallible, Error> {
    let mut version: Option<String> = None;
    loop {
        // No renewal in here: the collector is gone with the old session. `set_up` logs in again.
        let set = core.wait_for_updates(collector, version.as_deref()).await?;
        let Some(set) = set else {
            continue;
        };
        version = Some(set.version);
        for update in set.filter_set.into_iter().flat_map(|f| f.object_set) {
            match update.kind {
                ObjectUpdateKind::Leave => {
                    shared.fail(&update.obj, "the server no longer knows it")
                }
                _ => match update.get::<TaskInfo>("info") {
                    Ok(Some(info)) => shared.update(&update.obj, info),
                    Ok(None) => {}
                    Err(e) => shared.fail(&update.obj, &e.to_string()),
                },
            }
        }
        let list = view.borrow().clone();
        if let Some(this) = list.filter(|_| shared.lock_stale().len() >= STALE) {
            let remove = std::mem::take(&mut *shared.lock_stale());
            core.call(&method::ModifyListView {
                this,
                add: Vec::new(),
                remove,
            })
            .await?;
        }
    }
}
