//! `runner plan PIPELINE`

use runner_engine::{PlannedStage, PlannedState};
use serde_json::json;

use crate::{
    Exit,
    app::App,
    args::RunArgs,
    failure::Failure,
    output::{count, table},
};

pub(crate) async fn run(args: &RunArgs, app: &App<'_>) -> Result<Exit, Failure> {
    let services = app.services(&app.folder);
    let pipeline = app.pipeline(&args.pipeline, &services)?;
    let engine = app.engine(&services, app.open_store().await?);
    let plan = engine.plan(pipeline, args.limit()).await?;
    let (cached, compute) = plan.counts();
    if app.output.json {
        let document = json!({
            "pipeline": plan.pipeline().name,
            "stages": plan.stages(),
            "tasks": plan.tasks(),
            "results": {"cached": cached, "compute": compute},
        });
        app.output.document(&document)?;
    } else {
        let rows: Vec<_> = plan.stages().iter().map(row).collect();
        let columns = [
            ("stage", false),
            ("kind", false),
            ("cached", true),
            ("to compute", true),
            ("on the way", true),
            ("rows", true),
            ("why", false),
        ];
        app.output.text(&table(&columns, &rows, app.output.paint))?;
        let tasks = plan.tasks();
        app.output.text(&format!("{cached} results cached, {compute} to compute in {tasks} tasks\n"))?;
    }
    Ok(Exit::Done)
}

fn row(stage: &PlannedStage) -> Vec<String> {
    let of = |state| stage.results.iter().filter(move |result| result.state == state);
    let number = |state| match of(state).count() {
        0 => String::new(),
        n => n.to_string(),
    };
    let rows = stage.results.iter().filter_map(|result| result.rows).sum::<u64>();
    // Why the work that there is, or why there is none.
    let why = of(PlannedState::Compute).next().or_else(|| stage.results.first());
    vec![
        stage.name.clone(),
        stage.kind.clone(),
        number(PlannedState::Cached),
        number(PlannedState::Compute),
        number(PlannedState::Pass),
        if rows > 0 { count(rows) } else { String::new() },
        why.map(|result| result.why.to_string()).unwrap_or_default(),
    ]
}
