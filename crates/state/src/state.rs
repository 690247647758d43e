//! One implementation of each trait.

use crate::{Feed, Heartbeats, Instances, Leases, Projection, Requests, Statuses, Turns};
use std::sync::Arc;

/// Shared state, as a service is given it. Cheap to clone.
#[derive(Clone)]
pub struct State {
    /// The feed of events.
    pub feed: Arc<dyn Feed>,
    /// The projection.
    pub projection: Arc<dyn Projection>,
    /// Running instances.
    pub instances: Arc<dyn Instances>,
    /// Leader leases.
    pub leases: Arc<dyn Leases>,
    /// Fleet-wide turns.
    pub turns: Arc<dyn Turns>,
    /// Routers' heartbeats.
    pub heartbeats: Arc<dyn Heartbeats>,
    /// Requests to leaders.
    pub requests: Arc<dyn Requests>,
    /// What leaders tell.
    pub statuses: Arc<dyn Statuses>,
}
