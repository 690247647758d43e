//! Mirrors tenants from the tenant-management API into the control plane.

pub mod mapping;
pub mod source;
