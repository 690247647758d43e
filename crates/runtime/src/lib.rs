//! The chassis of every service: configuration, telemetry, admin endpoint, access, TLS, servers and graceful shutdown.
