//! Who talks to the records for a run, beside the loop: one claims what is about to start, one writes what is done. Each takes
//! all that has come together since it last asked, so that a task costs at most two transactions, and many share them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use runner_contract::Digest;
use runner_store::{Claim, Claimed, Entry, LogLine, Metric, Records, StoreError, TaskRecord};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    message::{Message, Reply, Vanished},
    outcome::read_outcome,
    runtime::Runtime,
};

/// Claims and tasks in one transaction.
const AT_ONCE: usize = 1_000;
/// How long lines of log and values of series may wait for others.
const LINGER: Duration = Duration::from_millis(500);

/// A task that is about to start.
pub(crate) struct Ask {
    pub(crate) task: usize,
    pub(crate) turn: u32,
    pub(crate) claim: Claim,
    /// The fold or job whose result it makes.
    pub(crate) result_of: Option<usize>,
}

/// Something to write.
pub(crate) enum Write {
    /// A task is done, and what it made. Answered.
    Done {
        task: usize,
        turn: u32,
        record: TaskRecord,
        made: Vec<Entry>,
    },
    /// Where a task stands.
    Task(TaskRecord),
    /// Keys that others may have.
    Release(Vec<Digest>),
    Metrics(Vec<Metric>),
    Log(LogLine),
}

/// Both, and the way to them.
pub(crate) struct Recorder {
    asks: UnboundedSender<Ask>,
    writes: UnboundedSender<Write>,
    asking: JoinHandle<()>,
    writing: JoinHandle<Option<StoreError>>,
}

impl Recorder {
    /// Starts them for a run. Answers go to `answers`.
    pub(crate) fn start(runtime: &Arc<Runtime>, run: &str, answers: &UnboundedSender<Message>) -> Self {
        let (asks, asked) = unbounded_channel();
        let (writes, written) = unbounded_channel();
        let records = runtime.store.records().clone();
        let writer = Writer {
            records: records.clone(),
            run: run.to_owned(),
            answers: answers.clone(),
            trouble: None,
            metrics: Vec::new(),
            lines: Vec::new(),
        };
        Self {
            asks,
            writes,
            asking: tokio::spawn(ask(runtime.clone(), records, run.to_owned(), asked, answers.clone())),
            writing: tokio::spawn(writer.run(written)),
        }
    }

    pub(crate) fn ask(&self, ask: Ask) {
        // They live as long as this does.
        let _ = self.asks.send(ask);
    }

    pub(crate) fn write(&self, write: Write) {
        let _ = self.writes.send(write);
    }

    /// Waits until everything is written. The first thing that was not.
    pub(crate) async fn end(self) -> Option<StoreError> {
        drop((self.asks, self.writes));
        let _ = self.asking.await;
        self.writing.await.ok().flatten()
    }
}

/// The next, and all that wait behind it.
async fn all<T>(from: &mut UnboundedReceiver<T>) -> Vec<T> {
    let mut all = Vec::new();
    from.recv_many(&mut all, AT_ONCE).await;
    all
}

// -------------------------------------------------------------------------------------------------------------- claims

async fn ask(
    runtime: Arc<Runtime>,
    records: Records,
    run: String,
    mut asked: UnboundedReceiver<Ask>,
    answers: UnboundedSender<Message>,
) {
    loop {
        let asks = all(&mut asked).await;
        if asks.is_empty() {
            return;
        }
        let (whose, claims): (Vec<_>, Vec<Claim>) =
            asks.into_iter().map(|ask| ((ask.task, ask.turn, ask.result_of), ask.claim)).unzip();
        match records.claim(&run, &claims).await {
            Ok(claimed) => {
                for ((task, turn, result_of), claimed) in whose.into_iter().zip(claimed) {
                    let answer = reply(&runtime, claimed, result_of).await;
                    let _ = answers.send(Message::Asked { task, turn, answer });
                }
            }
            Err(error) => drop(answers.send(Message::Broken(error))),
        }
    }
}

/// What a claim's answer means. What others made is looked at where it must be known what it is.
async fn reply(runtime: &Runtime, claimed: Claimed, result_of: Option<usize>) -> Reply {
    let entries = match claimed {
        Claimed::Yours { made } => return Reply::Yours(made),
        Claimed::Held { by } => return Reply::Held(by),
        Claimed::Made(entries) => entries,
    };
    if let (Some(stage), Some(entry)) = (result_of, entries.first()) {
        let file = runtime.store.artifacts().get(&entry.digest).await;
        let Some(outcome) = file.ok().and_then(|file| read_outcome(&file).ok()) else {
            // Damaged or gone: to be made anew, by whoever asks first.
            let _ = runtime.store.records().forget(&[entry.key]).await;
            return Reply::Held(String::new());
        };
        runtime.add_outcome(stage, outcome);
    }
    Reply::Made(entries)
}

// -------------------------------------------------------------------------------------------------------------- writes

struct Writer {
    records: Records,
    run: String,
    answers: UnboundedSender<Message>,
    /// The first thing that could not be written.
    trouble: Option<StoreError>,
    metrics: Vec<Metric>,
    lines: Vec<LogLine>,
}

struct Finished {
    task: usize,
    turn: u32,
    record: TaskRecord,
    made: Vec<Entry>,
}

impl Writer {
    async fn run(mut self, mut written: UnboundedReceiver<Write>) -> Option<StoreError> {
        let mut linger: Option<Instant> = None;
        loop {
            let due = async {
                match linger {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let writes = tokio::select! {
                biased;
                writes = all(&mut written) => writes,
                () = due => {
                    linger = None;
                    self.flush().await;
                    continue;
                }
            };
            if writes.is_empty() {
                self.flush().await;
                return self.trouble;
            }
            self.take(writes).await;
            if self.metrics.len() + self.lines.len() >= AT_ONCE {
                self.flush().await;
            }
            if linger.is_none() && self.metrics.len() + self.lines.len() > 0 {
                linger = Some(Instant::now() + LINGER);
            }
        }
    }

    async fn take(&mut self, writes: Vec<Write>) {
        let (mut done, mut tasks, mut release) = (Vec::new(), Vec::new(), Vec::new());
        for write in writes {
            match write {
                Write::Done { task, turn, record, made } => done.push(Finished { task, turn, record, made }),
                Write::Task(record) => tasks.push(record),
                Write::Release(keys) => release.extend(keys),
                Write::Metrics(values) => self.metrics.extend(values),
                Write::Log(line) => self.lines.push(line),
            }
        }
        if !done.is_empty() || !tasks.is_empty() {
            self.commit(done, tasks).await;
        }
        if !release.is_empty() {
            let released = self.records.release(&self.run, &release).await;
            self.note(released);
        }
    }

    /// One transaction for all; one for each where what some made has vanished.
    async fn commit(&mut self, done: Vec<Finished>, tasks: Vec<TaskRecord>) {
        // The last word about a task counts.
        let mut last: HashMap<u64, TaskRecord> = HashMap::new();
        last.extend(tasks.into_iter().map(|task| (task.task, task)));
        last.extend(done.iter().map(|done| (done.task as u64, done.record.clone())));
        let mut records: Vec<TaskRecord> = last.into_values().collect();
        records.sort_by_key(|record| record.task);
        let made: Vec<Entry> = done.iter().flat_map(|done| &done.made).cloned().collect();
        match self.records.commit(&self.run, &records, &made).await {
            Ok(()) => done.iter().for_each(|done| self.answer(done, Ok(()))),
            Err(StoreError::Vanished(_)) => {
                for one in &done {
                    match self.records.commit(&self.run, std::slice::from_ref(&one.record), &one.made).await {
                        Ok(()) => self.answer(one, Ok(())),
                        Err(error @ StoreError::Vanished(_)) => self.answer(one, Err(Vanished(error))),
                        Err(error) => return self.broken(error),
                    }
                }
                let whose: Vec<u64> = done.iter().map(|done| done.task as u64).collect();
                records.retain(|record| !whose.contains(&record.task));
                let put = self.records.commit(&self.run, &records, &[]).await;
                self.note(put);
            }
            Err(error) => self.broken(error),
        }
    }

    fn answer(&self, done: &Finished, result: Result<(), Vanished>) {
        // Nobody listens any more once the run has ended.
        let _ = self.answers.send(Message::Recorded { task: done.task, turn: done.turn, result });
    }

    fn broken(&self, error: StoreError) {
        let _ = self.answers.send(Message::Broken(error));
    }

    async fn flush(&mut self) {
        let metrics = std::mem::take(&mut self.metrics);
        if !metrics.is_empty() {
            let put = self.records.put_metrics(&self.run, &metrics).await;
            self.note(put);
        }
        let lines = std::mem::take(&mut self.lines);
        if !lines.is_empty() {
            let put = self.records.log(&self.run, &lines).await;
            self.note(put);
        }
    }

    /// A record that cannot be written fails the run, though its work goes on.
    fn note(&mut self, put: Result<(), StoreError>) {
        if let Err(error) = put {
            self.trouble.get_or_insert(error);
        }
    }
}
