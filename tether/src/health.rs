//! Health checks: run beside the container's process, endpoint or no endpoint.

use crate::container::StartError;
use crate::session::Session;
use crate::sys::process::Ended;
use crate::vm::Vm;
use std::rc::Rc;
use std::time::Duration;
use wire::health::{HealthCheck, OUTPUT_MAX, Probe};
use wire::message::{SessionId, ToHost};

impl Vm {
    /// Checks the present run for ever; to be dropped at its end.
    pub async fn watch_health(self: Rc<Vm>) {
        let Some(check) = &self.config.health else {
            return;
        };
        self.health.borrow_mut().restart();
        let started = self.container().state().started;
        loop {
            let running = crate::io::now().saturating_sub(started);
            let pause = self.health.borrow().pause(check, running);
            tokio::time::sleep(Duration::from_nanos(pause)).await;
            // The VM holds the sender: this ends when the container goes on.
            let _ = self.paused.subscribe().wait_for(|paused| !*paused).await;
            let probe = self.probe(check).await;
            let told = {
                let mut health = self.health.borrow_mut();
                health.judge(check, started, probe.clone());
                ToHost::Probed {
                    status: health.status,
                    streak: health.streak,
                    probe,
                }
            };
            self.tell(told).await;
        }
    }

    /// One check.
    async fn probe(&self, check: &HealthCheck) -> Probe {
        let start = crate::io::now();
        let mut process = self.config.process.clone();
        process.args.clone_from(&check.args);
        (process.tty, process.stdin) = (false, false);
        // Of no number that the endpoint could give: nobody attaches to it.
        let session = Session::new(SessionId(u32::MAX), process);
        session.keep_output(OUTPUT_MAX);
        let limit = Duration::from_nanos(check.timeout);
        let (code, output) = match self.run_probe(&session, limit).await {
            Ok(Some(code)) => (code, session.kept_output()),
            Ok(None) => {
                let output = session.kept_output();
                let colon = if output.is_empty() { "" } else { ": " };
                let text = format!("Health check exceeded timeout ({limit:?}){colon}{output}");
                (-1, text)
            }
            Err(error) => (-1, error.message),
        };
        Probe {
            start,
            end: crate::io::now(),
            code,
            output,
        }
    }

    /// Its exit code; `None` where it took too long.
    async fn run_probe(
        &self,
        session: &Rc<Session>,
        limit: Duration,
    ) -> Result<Option<i32>, StartError> {
        let mut ended = self.start_exec(session).await?;
        let in_time = tokio::time::timeout(limit, &mut ended).await;
        let how = match &in_time {
            Ok(how) => how.as_ref().ok().copied(),
            Err(_) => {
                // It may have ended in this moment.
                let _ = session.signal(libc::SIGKILL);
                ended.await.ok()
            }
        };
        let status = session.ended(how.unwrap_or(Ended::Signaled(libc::SIGKILL)), false);
        session.drained().await;
        session.release();
        Ok(in_time.is_ok().then_some(status.code))
    }
}
