//! A `RouteRequest` read where it lies: texts are borrowed from the message, nothing is allocated.
//!
//! [`RouteCall::decode`] reads what well-behaved encoders write. Whatever else a message may hold by the rules of
//! protobuf (fields that are not known here, groups, numbers that are longer than they need be, many attributes) it leaves
//! to the generated type, which also tells what is wrong with a message that is no message. What it does read, it reads
//! as the generated type does.

use crate::router::RouteRequest;
use crate::wire::{bytes, text, varint};
use grey_core::decide::Metadata;

/// Most attributes of a call that are read without a map.
pub const MAX_ENTRIES: usize = 16;

/// Where [`RouteCall::decode`] notes a call's attributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entries<'a> {
    slots: [(&'a str, &'a str); MAX_ENTRIES],
    taken: usize,
}

/// A call to be decided, as its caller sent it. Empty texts mean "not given".
#[derive(Clone, Copy, Debug)]
pub struct RouteCall<'a> {
    /// Who the call is made for.
    pub tenant: &'a str,
    /// The service that is called.
    pub service: &'a str,
    /// Attributes that rules may look at.
    pub metadata: Metadata<'a>,
    /// The user within the tenant.
    pub user: &'a str,
    /// A key of the call.
    pub request_key: &'a str,
    /// The caller's region.
    pub region: &'a str,
    /// The caller's zone.
    pub zone: &'a str,
    /// The least revision to decide on.
    pub min_revision: u64,
    /// The version that the call asks for.
    pub override_version: &'a str,
    /// The history that the revision belongs to.
    pub min_epoch: u64,
}

impl<'a> RouteCall<'a> {
    /// Reads an encoded `RouteRequest`; none if it takes the generated type to read it, or to say why it cannot be read.
    ///
    /// ```
    /// use grey_proto::route_call::{Entries, RouteCall};
    ///
    /// let (message, mut entries) = (b"\x0a\x04acme\x12\x07billing", Entries::default());
    /// let call = RouteCall::decode(message, &mut entries).ok_or("unusual")?;
    /// assert_eq!((call.tenant, call.service), ("acme", "billing"));
    /// assert!(RouteCall::decode(b"\x0a\x05acme", &mut Entries::default()).is_none());
    /// # Ok::<(), &str>(())
    /// ```
    #[must_use]
    pub fn decode(message: &'a [u8], entries: &'a mut Entries<'a>) -> Option<Self> {
        let mut call = Self::default();
        let mut rest = message;
        while let Some((key, after)) = rest.split_first() {
            rest = after;
            match key {
                // Keys of one byte: the field's number, and how it is encoded.
                0x0a => call.tenant = text(&mut rest)?,
                0x12 => call.service = text(&mut rest)?,
                0x1a => entries.read(bytes(&mut rest)?)?,
                0x22 => call.user = text(&mut rest)?,
                0x2a => call.request_key = text(&mut rest)?,
                0x32 => call.region = text(&mut rest)?,
                0x3a => call.zone = text(&mut rest)?,
                0x40 => call.min_revision = varint(&mut rest)?,
                0x4a => call.override_version = text(&mut rest)?,
                0x50 => call.min_epoch = varint(&mut rest)?,
                _ => return None,
            }
        }
        call.metadata = Metadata::Entries(entries.noted());
        Some(call)
    }
}

impl Default for RouteCall<'_> {
    fn default() -> Self {
        Self {
            tenant: "",
            service: "",
            metadata: Metadata::NONE,
            user: "",
            request_key: "",
            region: "",
            zone: "",
            min_revision: 0,
            override_version: "",
            min_epoch: 0,
        }
    }
}

impl<'a> From<&'a RouteRequest> for RouteCall<'a> {
    fn from(request: &'a RouteRequest) -> Self {
        Self {
            tenant: &request.tenant,
            service: &request.service,
            metadata: Metadata::Map(&request.metadata),
            user: &request.user,
            request_key: &request.request_key,
            region: &request.region,
            zone: &request.zone,
            min_revision: request.min_revision,
            override_version: &request.override_version,
            min_epoch: request.min_epoch,
        }
    }
}

impl<'a> Entries<'a> {
    /// Notes an entry of the map; none if it is unusual, its key is there already, or there are too many.
    fn read(&mut self, mut entry: &'a [u8]) -> Option<()> {
        let (mut key, mut value) = ("", "");
        while let Some((field, after)) = entry.split_first() {
            entry = after;
            match field {
                0x0a => key = text(&mut entry)?,
                0x12 => value = text(&mut entry)?,
                _ => return None,
            }
        }
        if self.noted().iter().any(|(known, _)| *known == key) {
            return None;
        }
        *self.slots.get_mut(self.taken)? = (key, value);
        self.taken += 1;
        Some(())
    }

    fn noted(&self) -> &[(&'a str, &'a str)] {
        self.slots.get(..self.taken).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
