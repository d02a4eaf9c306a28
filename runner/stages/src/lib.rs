//! The built-in stage kinds, one file each.
