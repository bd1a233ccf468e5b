//! One thread writes. It takes all jobs that wait, runs each in a savepoint, commits once, and answers them all.

use super::{Error, Read, Result, Write};
use rusqlite::Connection;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Most jobs in one commit: bounds what one transaction holds, and how long the first one waits.
const GROUP: usize = 256;

/// What is left to do for a job once its group is durable, or was not.
type Answer = Box<dyn FnOnce(Result<()>) + Send>;
/// Told why instead of a connection when no transaction could be begun.
type Job = Box<dyn FnOnce(Result<&Connection>) -> Answer + Send>;

/// The writing thread's handle; dropping it lets the thread finish what waits, and ends it.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
}

/// What is told of the thread's work.
#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    commits: AtomicU64,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Self {
        let (jobs, queue) = channel();
        let counts = Arc::new(Counts::default());
        let count = counts.clone();
        let thread = std::thread::Builder::new()
            .name("metadata".into())
            .spawn(move || work(&connection, &queue, &count));
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(e) => {
                // The receiver went with the closure: every job will be answered `Closed`.
                tracing::error!("the metadata's writer cannot start: {e}");
                None
            }
        };
        Writer {
            jobs: Some(jobs),
            thread: Mutex::new(thread),
            counts,
        }
    }

    pub(super) async fn run<T, E>(
        &self,
        change: impl FnOnce(&Write<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection
                .map_err(E::from)
                .and_then(|connection| savepoint(connection, change));
            Box::new(move |committed| {
                let result = match (result, committed) {
                    (Ok(_), Err(e)) => Err(e.into()),
                    (result, _) => result,
                };
                // The caller may have gone.
                let _ = answer.send(result);
            })
        });
        let closed = || E::from(Error::Closed);
        self.hand_in(job).map_err(|()| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// As [`Writer::run`], for what nobody waits for.
    pub(super) fn later(&self, change: impl FnOnce(&Write<'_>) -> Result<()> + Send + 'static) {
        let job: Job = Box::new(move |connection| {
            let result = connection.and_then(|connection| savepoint(connection, change));
            Box::new(move |committed| {
                if let Err(e) = result.and(committed) {
                    tracing::error!("metadata: a change that nobody waits for failed: {e}");
                }
            })
        });
        // Without a writer there is nothing that could be kept; whoever waits for an answer is told.
        let _ = self.hand_in(job);
    }

    /// Jobs that were handed in and have not begun.
    pub(super) fn waiting(&self) -> usize {
        self.counts.waiting.load(Ordering::Relaxed)
    }

    /// Transactions that were committed since the start.
    pub(super) fn commits(&self) -> u64 {
        self.counts.commits.load(Ordering::Relaxed)
    }

    fn hand_in(&self, job: Job) -> Result<(), ()> {
        let jobs = self.jobs.as_ref().ok_or(())?;
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        jobs.send(job).map_err(|_| {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        let thread = self.thread.get_mut().ok().and_then(Option::take);
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the metadata's writer panicked");
        }
    }
}

/// Runs one job so that its error undoes it alone.
fn savepoint<T, E: From<Error>>(
    connection: &Connection,
    change: impl FnOnce(&Write<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let run = |sql: &str| -> Result<()> {
        connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    };
    run("SAVEPOINT job")?;
    let result = change(&Write(Read(connection)));
    if result.is_err() {
        // A full disk may have ended the whole transaction already; the commit then says so to everybody.
        if !connection.is_autocommit() {
            run("ROLLBACK TO job")?;
            run("RELEASE job")?;
        }
    } else {
        run("RELEASE job")?;
    }
    result
}

fn work(connection: &Connection, queue: &Receiver<Job>, counts: &Counts) {
    let waiting = &counts.waiting;
    while let Ok(first) = queue.recv() {
        waiting.fetch_sub(1, Ordering::Relaxed);
        let mut answers: Vec<Answer> = Vec::new();
        let begun = connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(Error::from);
        if let Err(e) = begun {
            // Savepoints outside of a transaction would commit one by one: no job may run.
            tracing::error!("metadata: cannot begin: {e}");
            first(Err(e.clone()))(Err(e));
            continue;
        }
        answers.push(first(Ok(connection)));
        while answers.len() < GROUP && !connection.is_autocommit() {
            match queue.try_recv() {
                Ok(job) => {
                    waiting.fetch_sub(1, Ordering::Relaxed);
                    answers.push(job(Ok(connection)));
                }
                Err(_) => break,
            }
        }
        let committed = commit(connection);
        match &committed {
            Ok(()) => {
                counts.commits.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) => tracing::error!("metadata: a commit failed: {e}"),
        }
        for answer in answers {
            answer(committed.clone());
        }
    }
}

fn commit(connection: &Connection) -> Result<()> {
    if connection.is_autocommit() {
        // SQLite rolled the whole transaction back by itself, as it does when the disk is full.
        return Err(Error::Full);
    }
    let done = connection.execute_batch("COMMIT").map_err(Error::from);
    if done.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    done
}
