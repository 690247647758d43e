//! The grey binary: every service in one process, the demo, and the command line.
