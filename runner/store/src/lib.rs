//! Records of runs and content-addressed artifacts.
