//! `runner graph PIPELINE`

use std::{fs, path::PathBuf};

use clap::ValueEnum;
use runner_spec::drawing;

use crate::{Exit, app::App, args::PipelineArgs, failure::Failure};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// How to draw it [default: by the file's ending, else mermaid]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For Markdown
    Mermaid,
    /// For Graphviz
    Dot,
    /// A picture
    Svg,
}

pub(crate) fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let ending = args.output.as_deref().and_then(|path| path.extension()).and_then(|ending| ending.to_str());
    let format = args.format.unwrap_or(match ending {
        Some("svg") => Format::Svg,
        Some("dot" | "gv") => Format::Dot,
        _ => Format::Mermaid,
    });
    let services = app.services(&app.folder)?;
    let pipeline = app.pipeline(&args.pipeline, &services)?;
    let text = match format {
        Format::Mermaid => drawing::mermaid(&pipeline),
        Format::Dot => drawing::dot(&pipeline),
        Format::Svg => drawing::svg(&pipeline),
    };
    match &args.output {
        Some(path) => {
            fs::write(path, text).map_err(Failure::file("write", path))?;
            if app.output.json {
                app.output.document(&serde_json::json!({"file": path}))?;
            }
        }
        None if app.output.json => app.output.document(&serde_json::json!({"graph": text}))?,
        None => app.output.raw(text.as_bytes())?,
    }
    Ok(Exit::Done)
}
