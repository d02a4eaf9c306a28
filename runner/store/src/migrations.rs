//! The tables' history, embedded. Forward only; a file that was released never changes.

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

/// Number, name and SQL of each file below `migrations/`.
macro_rules! migrations {
    ($folder:literal: $($version:literal $file:literal,)*) => {
        Migrator::with_migrations(vec![$(Migration::new(
            $version,
            $file.into(),
            MigrationType::Simple,
            include_str!(concat!("../../../migrations/", $folder, "/", $file, ".sql")).into_sql_str(),
            false,
        ),)*])
    };
}

/// Those of SQLite.
pub(crate) fn sqlite() -> Migrator {
    migrations!("sqlite": 1 "0001_runs_and_artifacts", 2 "0002_wall_time", 3 "0003_leases_and_logs",)
}

/// Those of PostgreSQL.
pub(crate) fn postgres() -> Migrator {
    migrations!("postgres": 1 "0001_records",)
}
