//! What the two sync services share: leadership, requests to the leader, status, and the sync API.
