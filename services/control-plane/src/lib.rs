//! The control plane: tenants, services, versions, pins, policies and events; the truth and its publisher.
