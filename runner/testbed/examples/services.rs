//! A PostgreSQL server and an S3 server to try things against: prints what to put into the environment and runs until
//! Enter or Ctrl-C. Nothing is kept.

use std::io::{Write, stdin, stdout};

use runner_testbed::{Postgres, S3};

fn main() -> std::io::Result<()> {
    let (postgres, s3) = (Postgres::alone(), S3::start());
    let mut out = stdout();
    writeln!(out, "export RUNNER_RECORDS={}", postgres.url())?;
    writeln!(out, "export RUNNER_ARTIFACTS={}", s3.url())?;
    for (name, value) in s3.environment() {
        writeln!(out, "export {name}={value}")?;
    }
    writeln!(out, "# both end with this process: Enter or Ctrl-C")?;
    out.flush()?;
    stdin().read_line(&mut String::new())?;
    Ok(())
}
