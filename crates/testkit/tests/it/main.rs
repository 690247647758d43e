//! Every server starts, answers, bears its verbs, and is gone afterwards.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod cluster;
mod eventually;
mod killed;
mod mariadb;
mod mysql;
mod nacos;
mod port;
mod postgres;
mod proxy;
mod redis;
mod sentinel;
mod spawned;
