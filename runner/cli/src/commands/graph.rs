//! `runner graph PIPELINE`

use std::{
    fs,
    path::{Path, PathBuf},
};

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
    let format = args.format.map_or_else(|| by_ending(args.output.as_deref()), Ok)?;
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

/// How a file of that name is drawn. One without an ending may be anything.
fn by_ending(file: Option<&Path>) -> Result<Format, Failure> {
    let Some((file, ending)) = file.and_then(|file| Some((file, file.extension()?))) else {
        return Ok(Format::Mermaid);
    };
    match ending.to_string_lossy().to_ascii_lowercase().as_str() {
        "md" | "mmd" | "mermaid" => Ok(Format::Mermaid),
        "dot" | "gv" => Ok(Format::Dot),
        "svg" => Ok(Format::Svg),
        _ => Err(Failure::usage(
            format!("{}: expected a name that ends in .mmd, .md, .dot, .gv or .svg", file.display()),
            "say how to draw it, whatever its name: --format svg",
        )),
    }
}
