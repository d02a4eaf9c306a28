//! Plans, schedules, executes, caches and resumes pipelines.
