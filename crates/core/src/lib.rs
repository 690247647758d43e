//! The routing decision and everything it depends on: no I/O, no async, no clock.
