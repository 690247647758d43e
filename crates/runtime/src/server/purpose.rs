//! What a request is for, as far as that says what it may take.

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether the service lives: it is answered whatever else is under way, and whoever asks.
    Health,
    /// The contracts of gRPC, which everyone may read.
    Reflection,
    /// The service itself.
    Service,
}

impl Purpose {
    /// What the path leads to, of gRPC or not.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path.starts_with("/health/") || path.starts_with("/grpc.health.v1.Health/") {
            Self::Health
        } else if path.starts_with("/grpc.reflection.") {
            Self::Reflection
        } else {
            Self::Service
        }
    }
}
