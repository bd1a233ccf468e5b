//! What is asked of the container's cgroup: pause it, watch it for OOM kills, read its figures.

use crate::container::{stats, top};
use crate::vm::Vm;
use std::rc::Rc;
use wire::message::{Reply, ToHost};

impl Vm {
    /// Freezes the container's processes or lets them go on.
    pub async fn set_frozen(&self, frozen: bool) -> Reply {
        let run = self.container();
        let state = run.state();
        let Some(cgroup) = self.cgroup.get() else {
            return not_running();
        };
        if frozen && (state.started == 0 || state.exit.is_some()) {
            return not_running();
        }
        match cgroup.freeze(frozen).await {
            // It has ended meanwhile: the next run must not begin frozen.
            Ok(()) if frozen && run.state().exit.is_some() => {
                drop(cgroup.freeze(false).await);
                not_running()
            }
            Ok(()) => {
                self.paused.send_replace(frozen);
                Reply::Done
            }
            Err(error) => {
                let verb = if frozen { "freezing" } else { "thawing" };
                Reply::Error(format!("{verb} the container's cgroup: {error}"))
            }
        }
    }

    /// Whether the container's processes are frozen.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// Lets them go on, where they are frozen: its end is asked for.
    pub fn thaw(self: &Rc<Vm>) {
        if self.is_paused() {
            let vm = Rc::clone(self);
            tokio::task::spawn_local(async move { vm.set_frozen(false).await });
        }
    }

    /// Tells of OOM kills, for ever.
    pub async fn watch_oom(self: Rc<Vm>) {
        let Some(Ok(notices)) = self.cgroup.get().map(|c| c.oom_notices()) else {
            return;
        };
        let mut known = 0;
        while let Ok(kills) = notices.other_than("oom_kill", known).await {
            known = kills;
            self.tell(ToHost::Oom).await;
        }
    }

    /// The container's figures.
    #[must_use]
    pub fn stats(&self) -> Reply {
        match self.cgroup.get() {
            Some(_) => Reply::Stats(stats::read_all()),
            None => not_running(),
        }
    }

    /// Its processes, with all that `ps` may show.
    pub async fn table(&self) -> Reply {
        let Some(cgroup) = self.cgroup.get() else {
            return not_running();
        };
        match top::table(cgroup, self.first_pid(), &self.reaper).await {
            Ok(rows) => Reply::Table(rows),
            Err(error) => Reply::Error(format!("listing processes: {error}")),
        }
    }
}

fn not_running() -> Reply {
    Reply::Error("the container is not running".into())
}
