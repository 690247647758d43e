//! What a request is for, as far as that says what it may take.

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether the service lives: it is answered whatever else is under way, and whoever asks.
    Health,
    /// What else everyone may ask by gRPC, for as long as they like: watched health, and reflection.
    Open,
    /// The service itself.
    Service,
}

impl Purpose {
    /// What the path leads to, of gRPC or not.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path.starts_with("/health/") || path == "/grpc.health.v1.Health/Check" {
            Self::Health
        } else if path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/grpc.reflection.") {
            Self::Open
        } else {
            Self::Service
        }
    }
}
