//! YAML text to a typed, validated pipeline, with diagnostics that know line and column.
