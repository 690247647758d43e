//! No code: tests of the workspace's own rules.
