//! How a run gets on: bars on a terminal, plain lines otherwise.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use runner_engine::{Event, StagePlan};
use runner_store::{Level, TaskStatus};

use crate::output::{Output, count, span};

/// How often a stage says something where there are no bars.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Hears the events of a run and shows them on stderr.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    show: Show,
    stages: Vec<Stage>,
    /// Of the longest name, in characters.
    width: usize,
}

enum Show {
    Nothing,
    Bars(MultiProgress),
    Lines,
}

/// A stage on its way.
struct Stage {
    plan: StagePlan,
    begun: Option<Instant>,
    spoken: Instant,
    rows: u64,
    bad: u64,
    /// Steps done and in all, and a note; of a job.
    steps: Option<(u64, u64, String)>,
    bar: Option<ProgressBar>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(output: &'a Output) -> Self {
        let show = if output.quiet {
            Show::Nothing
        } else if io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") {
            Show::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
        } else {
            Show::Lines
        };
        Self { output, show, stages: Vec::new(), width: 0 }
    }

    /// Shows what happened.
    pub(crate) fn hear(&mut self, event: &Event) {
        match event {
            Event::Started { run, stages } => self.start(run, stages),
            Event::Rows { stage, rows, bad } => self.at(*stage, |it| {
                it.rows += rows;
                it.bad += bad;
            }),
            Event::Progress { stage, done, total, note } => {
                self.at(*stage, |it| it.steps = Some((*done, *total, note.clone())));
            }
            Event::TaskStarted { stages, .. } => {
                for &stage in stages {
                    if let Some(stage) = self.stages.get_mut(stage) {
                        stage.begun.get_or_insert_with(Instant::now);
                    }
                }
            }
            Event::Warning { stage, message } => {
                let name = self.stages.get(*stage).map_or("", |stage| &stage.plan.name);
                self.say(|output| output.warning(&format!("{name}: {message}")));
            }
            Event::StageFinished { stage, status } => self.finish(*stage, *status),
            Event::TaskFinished { task, stages, shard, status, error } if self.output.verbose => {
                let what = self.names(stages, *shard);
                let error = error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                self.say(|output| output.note(&format!("task {task} ({what}) {status}{error}")));
            }
            Event::Retry { stages, shard, attempt, after, error, .. } => {
                let (what, after) = (self.names(stages, *shard), span(*after));
                self.say(|output| {
                    output.warning(&format!("{what}: attempt {attempt} failed, again in {after}: {error}"))
                });
            }
            // What is grave is told in other ways, too.
            Event::Log { stage, shard, level: Level::Info, text } if self.output.verbose => {
                let stages: Vec<usize> = stage.iter().copied().collect();
                let what = self.names(&stages, shard.map(|shard| shard as usize));
                let gap = if what.is_empty() { "" } else { ": " };
                self.say(|output| output.note(&format!("{what}{gap}{text}")));
            }
            Event::Log { .. } | Event::Metric { .. } | Event::TaskFinished { .. } | Event::Finished(_) => {}
        }
    }

    /// `image, text, shard 3`
    fn names(&self, stages: &[usize], shard: Option<usize>) -> String {
        let names = stages.iter().filter_map(|&it| Some(self.stages.get(it)?.plan.name.clone()));
        names.chain(shard.map(|shard| format!("shard {shard}"))).collect::<Vec<_>>().join(", ")
    }

    /// Takes the bars away.
    pub(crate) fn end(self) {
        if let Show::Bars(bars) = self.show {
            let _ = bars.clear();
        }
    }

    fn start(&mut self, run: &str, stages: &[StagePlan]) {
        self.width = stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
        self.stages = stages
            .iter()
            .map(|plan| Stage {
                bar: match &self.show {
                    Show::Bars(bars) if plan.to_compute > 0 => {
                        Some(bars.add(bar(plan, self.width, self.output.paint_errors.0)))
                    }
                    _ => None,
                },
                plan: plan.clone(),
                begun: None,
                spoken: Instant::now(),
                rows: 0,
                bad: 0,
                steps: None,
            })
            .collect();
        let cached: usize = stages.iter().map(|stage| stage.cached).sum();
        let to_compute: usize = stages.iter().map(|stage| stage.to_compute).sum();
        self.say(|output| output.note(&format!("run {run}: {cached} results cached, {to_compute} to compute")));
    }

    fn at(&mut self, stage: usize, change: impl FnOnce(&mut Stage)) {
        let Some(stage) = self.stages.get_mut(stage) else { return };
        stage.begun.get_or_insert_with(Instant::now);
        change(stage);
        let due = stage.spoken.elapsed() >= BETWEEN_LINES;
        match &stage.bar {
            Some(bar) => stage.move_bar(bar),
            None if due && matches!(self.show, Show::Lines) && stage.plan.to_compute > 0 => {
                stage.spoken = Instant::now();
                self.output.note(&format!("{}: {}", stage.plan.name, stage.text()));
            }
            None => {}
        }
    }

    fn finish(&mut self, stage: usize, status: TaskStatus) {
        let Some(stage) = self.stages.get_mut(stage) else { return };
        // What neither had to be computed nor failed is no news.
        let news = stage.plan.to_compute > 0 || !matches!(status, TaskStatus::Cached | TaskStatus::Done);
        let text = match status {
            TaskStatus::Done if stage.rows > 0 => format!("{status}, {}", stage.text()),
            TaskStatus::Done => {
                stage.begun.map_or("done".to_owned(), |begun| format!("done in {}", span(begun.elapsed())))
            }
            _ => status.to_string(),
        };
        match &stage.bar {
            Some(bar) => {
                stage.move_bar(bar);
                if let Ok(style) = ProgressStyle::with_template(&format!("  {{prefix:{}}} {{wide_msg}}", self.width)) {
                    bar.set_style(style);
                }
                bar.abandon_with_message(text);
            }
            None if news && matches!(self.show, Show::Lines) => {
                self.output.note(&format!("{}: {text}", stage.plan.name));
            }
            None => {}
        }
    }

    /// Writes between the bars.
    fn say(&self, write: impl FnOnce(&Output)) {
        match &self.show {
            Show::Bars(bars) => bars.suspend(|| write(self.output)),
            Show::Lines => write(self.output),
            Show::Nothing => {}
        }
    }
}

impl Stage {
    /// `4,096 of 10,000 rows, 812 rows/s`
    fn text(&self) -> String {
        let seconds = self.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        if let Some((done, total, note)) = &self.steps {
            let steps =
                format!("{} of {} steps in {}", count(*done), count(*total), span(Duration::from_secs_f64(seconds)));
            return if note.is_empty() { steps } else { format!("{steps}, {note}") };
        }
        let of = match self.plan.rows {
            Some(rows) if rows > self.rows => format!(" of {}", count(rows)),
            _ => String::new(),
        };
        let mut text = format!("{}{of} rows", count(self.rows));
        if self.bad > 0 {
            text.push_str(&format!(" ({} bad)", count(self.bad)));
        }
        if seconds > 0.05 {
            let rate = self.rows as f64 / seconds;
            text.push_str(&format!(" in {}, {} rows/s", span(Duration::from_secs_f64(seconds)), count(rate as u64)));
        }
        text
    }

    fn move_bar(&self, bar: &ProgressBar) {
        match &self.steps {
            Some((done, total, note)) => {
                bar.set_length(*total);
                bar.set_position(*done);
                bar.set_message(note.clone());
            }
            None => bar.set_position(self.rows),
        }
    }
}

fn bar(plan: &StagePlan, width: usize, colour: bool) -> ProgressBar {
    let fill = if colour { "{bar:24.cyan/dim}" } else { "{bar:24}" };
    let unit =
        if plan.rows.is_some() { "{human_pos}/{human_len} rows, {rate}, {eta} left" } else { "{human_pos} {msg}" };
    let style = ProgressStyle::with_template(&format!("  {{prefix:{width}}} {fill} {unit} {{wide_msg}}"));
    let bar = plan.rows.map_or_else(ProgressBar::no_length, ProgressBar::new);
    // The template is a constant; the default look is no harm either.
    let bar = match style {
        Ok(style) => bar.with_style(style.with_key("rate", rate).progress_chars("━╸─")),
        Err(_) => bar,
    };
    bar.with_prefix(plan.name.clone())
}

/// `812 rows/s`, without the digits that nobody reads.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // There is nobody to tell that a line of progress cannot be made.
    let _ = write!(out, "{} rows/s", count(state.per_sec() as u64));
}
