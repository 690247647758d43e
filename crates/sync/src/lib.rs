//! What the two sync services share: leadership, requests to the leader, status, and the sync API.
//!
//! Every replica campaigns ([`Leadership`]); the one that leads mirrors, and has a [`Tenure`]: that tells how it stands and
//! takes requests, through its [`Desk`]; the others [`stand_by`]. Any replica answers [`grpc`] and [`rest`], by what the leader told last and by leaving requests
//! for it. [`Gauges`] turns a status into metrics.
//!
//! What it does *not* do: it mirrors nothing and knows neither registries nor tenants. It does not make a late write of
//! an old leader harmless: whoever writes brings the token of [`Lead::token`], and the store refuses an old one.

mod api;
mod desk;
mod gauges;
mod grpc;
mod leadership;
mod request;
mod rest;
mod status;
mod tenure;
mod time;

pub use api::{MAX_WAIT, REQUEST_TIMEOUT};
pub use desk::Desk;
pub use gauges::Gauges;
pub use grpc::grpc;
pub use leadership::{Lead, Leadership};
pub use request::{Action, Request};
pub use rest::rest;
pub use status::{MAX_HANDLED, MAX_HELD, MAX_ITEMS, MAX_QUARANTINED, MAX_RUNS};
pub use tenure::{Tenure, stand_by};
pub use time::timestamp;
