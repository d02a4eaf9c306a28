//! `runner schema`

use crate::{Exit, app::App, failure::Failure};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let registry = runner_stages::registry(&app.services(&app.folder)?);
    app.output.document(&runner_spec::schema(&registry))?;
    Ok(Exit::Done)
}
