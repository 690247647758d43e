//! Mirrors tenants from the tenant-management API into the control plane.
