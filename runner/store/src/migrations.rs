//! The tables' history, embedded. Forward only; a file that was released never changes.

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

/// Number, name and SQL of each file below `migrations/`.
macro_rules! migrations {
    ($folder:literal: $($version:literal $name:literal,)*) => {
        Migrator::with_migrations(vec![$(Migration::new(
            $version,
            $name.into(),
            MigrationType::Simple,
            include_str!(concat!("../../../migrations/", $folder, "/", stringify!($version), "_", $name, ".sql")).into_sql_str(),
            false,
        ),)*])
    };
}

/// Those of SQLite.
pub(crate) fn sqlite() -> Migrator {
    migrations!("sqlite": 0001 "runs_and_artifacts", 0002 "wall_time",)
}
