//! `runner gc`

use std::{
    fs,
    time::{Duration, SystemTime},
};

use bytesize::ByteSize;
use runner_store::{Collect, Collected, Store, Time};
use serde_json::json;

use crate::{
    Exit,
    app::App,
    failure::Failure,
    output::{count, size, table},
};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Remove nothing, only show what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Keep at most so much, removing what was used longest ago: 50GB, 800MiB [default: cache_quota of runner.toml]
    #[arg(long, value_name = "SIZE")]
    max_size: Option<ByteSize>,
    /// Remove runs that are older, with what only they refer to: 30d, 12h
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    runs_older_than: Option<Duration>,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let max_bytes = args.max_size.map(|size| size.as_u64()).or(app.config.cache_quota);
    let runs_before = args.runs_older_than.map(|span| {
        let before = SystemTime::now().checked_sub(span);
        before.map(Time::from).ok_or_else(|| Failure::usage("--runs-older-than is longer ago than time goes", "30d"))
    });
    let runs_before = runs_before.transpose()?;
    let Some(store) = app.existing_store().await? else {
        if app.output.json {
            app.output.document(&document(&Collected::default(), args))?;
        }
        app.output.text(&format!("there is no store in {} yet\n", app.store_name()?))?;
        return Ok(Exit::Done);
    };
    let collected = store.collect(&Collect { max_bytes, runs_before, dry_run: args.dry_run }).await?;
    if !args.dry_run {
        remove_copies(&store, &collected)?;
    }
    store.close().await;
    if app.output.json {
        app.output.document(&document(&collected, args))?;
    } else {
        app.output.text(&text(&collected, args, max_bytes, app))?;
    }
    Ok(Exit::Done)
}

/// The copies for people of the runs that went.
fn remove_copies(store: &Store, collected: &Collected) -> Result<(), Failure> {
    for run in &collected.runs {
        let folder = store.root().join("runs").join(run);
        if folder.is_dir() {
            fs::remove_dir_all(&folder).map_err(Failure::file("remove", &folder))?;
        }
    }
    Ok(())
}

fn document(collected: &Collected, args: &Args) -> serde_json::Value {
    let blobs: Vec<_> =
        collected.blobs.iter().map(|(digest, bytes)| json!({"digest": digest, "bytes": bytes})).collect();
    json!({
        "dry_run": args.dry_run,
        "runs": collected.runs,
        "results": collected.entries,
        "artifacts": blobs,
        "bytes": collected.bytes(),
        "leftovers": collected.leftovers,
        "kept": {"artifacts": collected.kept_blobs, "bytes": collected.kept_bytes},
    })
}

fn text(collected: &Collected, args: &Args, quota: Option<u64>, app: &App<'_>) -> String {
    let mut rows = Vec::new();
    let mut say = |what: &str, number: u64, bytes: Option<u64>, why: String| {
        if number > 0 {
            rows.push(vec![what.to_owned(), count(number), bytes.map(size).unwrap_or_default(), why]);
        }
    };
    let older = args.runs_older_than.map(|span| humantime::format_duration(span).to_string()).unwrap_or_default();
    say("runs", collected.runs.len() as u64, None, format!("older than {older}"));
    let quota = quota.map(size).unwrap_or_default();
    say("results", collected.entries, None, format!("used longest ago, more than {quota} in all"));
    say("artifacts", collected.blobs.len() as u64, Some(collected.bytes()), "nothing refers to them".to_owned());
    say("leftovers", collected.leftovers, None, "left half-written by what was killed".to_owned());
    let kept = format!("{} artifacts, {}", count(collected.kept_blobs), size(collected.kept_bytes));
    if rows.is_empty() {
        return format!("nothing to remove: {kept} are in use\n");
    }
    let heading = if args.dry_run { "would go" } else { "removed" };
    let columns = [(heading, false), ("", true), ("", true), ("why", false)];
    format!("{}kept: {kept}\n", table(&columns, &rows, app.output.paint))
}
