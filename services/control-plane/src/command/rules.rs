//! What may become of each kind of key. The modules know none of each other, but that a hold is judged as
//! the pin that it prepares.

pub(super) mod database;
pub(super) mod hold;
pub(super) mod overlay;
pub(super) mod pin;
pub(super) mod pins;
pub(super) mod policy;
pub(super) mod schema;
pub(super) mod service;
pub(super) mod tenant;
pub(super) mod version;
