//! Coordination between the services: feed, projection, instances, leases, counters and heartbeats, in memory or in Redis.
