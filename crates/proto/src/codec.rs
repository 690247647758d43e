//! The stored encodings: binary protobuf for feeds and snapshot files, proto3 JSON where people read with
//! `redis-cli` or SQL.
//!
//! Readers skip fields that they do not know, in JSON too: what such a field decides is guarded by the event's format
//! level. Callers of the API, in contrast, are told of fields that do not exist.

mod event;
mod lenient;

pub use event::{decode_event, encode_event};

use crate::convert::{InvalidMessage, json_fault};
use crate::{control, router};
use grey_core::change::FormatLevel;
use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use grey_core::policy::{Overlay, Policy};
use grey_core::record::{ServiceRecord, TenantRecord};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why something stored does not read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("decode {what}: {why}")]
pub struct DecodeError {
    /// What was read.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

fn from_binary<M, T>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError>
where
    M: Message + Default,
    T: TryFrom<M, Error = InvalidMessage>,
{
    let message = M::decode(bytes).map_err(|why| DecodeError { what, why: why.to_string() })?;
    message.try_into().map_err(|why: InvalidMessage| DecodeError { what, why: why.to_string() })
}

fn to_json<M: Serialize>(message: &M) -> String {
    serde_json::to_string(message).expect("what core's types convert to has only known values")
}

fn from_json<M, T>(what: &'static str, text: &str) -> Result<T, DecodeError>
where
    M: DeserializeOwned,
    T: TryFrom<M, Error = InvalidMessage>,
{
    let message: M = lenient::from_str(text).map_err(|why| DecodeError { what, why: json_fault(&why) })?;
    message.try_into().map_err(|why: InvalidMessage| DecodeError { what, why: why.to_string() })
}

/// The one field of an event that every release reads, whatever the others have come to hold.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(uint32, tag = "7")]
    level: u32,
}

/// The level that a reader of the event needs, read without its changes.
///
/// # Errors
/// When the bytes are no message.
pub fn event_level(bytes: &[u8]) -> Result<FormatLevel, DecodeError> {
    let envelope = Envelope::decode(bytes);
    let envelope = envelope.map_err(|why| DecodeError { what: "event", why: why.to_string() })?;
    Ok(FormatLevel(envelope.level).max(FormatLevel::FIRST))
}

/// All instances of one service, as the instance feed carries them: binary.
#[must_use]
pub fn encode_service_instances(service: &ServiceId, instances: &[Instance]) -> Vec<u8> {
    router::ServiceInstances::from((service, instances)).encode_to_vec()
}

/// Reads what [`encode_service_instances`] wrote; the instances come out in the order of their ids.
///
/// # Errors
/// When the bytes are no valid list of instances.
pub fn decode_service_instances(bytes: &[u8]) -> Result<(ServiceId, Vec<Instance>), DecodeError> {
    from_binary::<router::ServiceInstances, _>("service instances", bytes)
}

/// One instance, as the projection holds it: proto3 JSON.
#[must_use]
pub fn encode_instance(instance: &Instance) -> String {
    to_json(&router::Instance::from(instance))
}

/// Reads what [`encode_instance`] wrote.
///
/// # Errors
/// When the text is no valid instance.
pub fn decode_instance(text: &str) -> Result<Instance, DecodeError> {
    from_json::<router::Instance, _>("instance", text)
}

/// A policy with the service it is for: proto3 JSON.
#[must_use]
pub fn encode_policy(service: &ServiceId, policy: &Policy) -> String {
    to_json(&control::Policy::from((service, policy)))
}

/// Reads what [`encode_policy`] wrote.
///
/// # Errors
/// When the text is no valid policy.
pub fn decode_policy(text: &str) -> Result<(ServiceId, Policy), DecodeError> {
    from_json::<control::Policy, _>("policy", text)
}

/// An overlay with the service it is for: proto3 JSON.
#[must_use]
pub fn encode_overlay(service: &ServiceId, overlay: &Overlay) -> String {
    to_json(&control::Overlay::from((service, overlay)))
}

/// Reads what [`encode_overlay`] wrote.
///
/// # Errors
/// When the text is no valid overlay.
pub fn decode_overlay(text: &str) -> Result<(ServiceId, Overlay), DecodeError> {
    from_json::<control::Overlay, _>("overlay", text)
}

/// A service with its default, versions, policy and overlays, as the projection holds it: proto3 JSON.
#[must_use]
pub fn encode_service_record(record: &ServiceRecord) -> String {
    to_json(&control::ServiceRecord::from(record))
}

/// Reads what [`encode_service_record`] wrote.
///
/// # Errors
/// When the text is no valid service record.
pub fn decode_service_record(text: &str) -> Result<ServiceRecord, DecodeError> {
    from_json::<control::ServiceRecord, _>("service record", text)
}

/// A tenant with its pins and schemas: proto3 JSON.
#[must_use]
pub fn encode_tenant_record(record: &TenantRecord) -> String {
    to_json(&control::TenantRecord::from(record))
}

/// Reads what [`encode_tenant_record`] wrote.
///
/// # Errors
/// When the text is no valid tenant record.
pub fn decode_tenant_record(text: &str) -> Result<TenantRecord, DecodeError> {
    from_json::<control::TenantRecord, _>("tenant record", text)
}

/// What a router says of itself: proto3 JSON.
#[must_use]
pub fn encode_router_state(state: &control::RouterState) -> String {
    to_json(state)
}

/// Reads what [`encode_router_state`] wrote.
///
/// # Errors
/// When the text is no state of a router.
pub fn decode_router_state(text: &str) -> Result<control::RouterState, DecodeError> {
    lenient::from_str(text).map_err(|why| DecodeError { what: "router state", why: json_fault(&why) })
}

#[cfg(test)]
mod tests;
