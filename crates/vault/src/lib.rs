//! Seals credentials: a data key per tenant under rotating master keys.
