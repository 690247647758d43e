//! The routing decision and everything it depends on.
//!
//! A [`table::Table`] is an immutable snapshot of one revision. [`decide::decide`] answers which
//! version and which instance serve a tenant's call, from that snapshot and the arguments alone:
//! this crate does no I/O, has no async code and reads no clock.
//!
//! Reading order: the nouns ([`ids`], [`version`], [`schema`], [`tenant`], [`service`],
//! [`policy`], [`instance`], [`database`]), the facts that they make ([`key`], [`record`]), what changes them ([`change`]), the
//! [`table`] they fold into, the decision ([`decide`], [`explain`], [`balance`]), and what is asked of a table before
//! it is changed ([`moves`], [`promotion`], [`selector`]).
//!
//! ```
//! use grey_core::balance::Moment;
//! use grey_core::change::{Change, Event, Revision};
//! use grey_core::decide::{Call, Rule, decide};
//! use grey_core::explain::explain;
//! use grey_core::ids::{InstanceId, ServiceId, TenantId};
//! use grey_core::instance::Instance;
//! use grey_core::key::Fact;
//! use grey_core::service::{Pin, Service, ServiceVersion};
//! use grey_core::table::Table;
//! use grey_core::tenant::Tenant;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (acme, billing) = (TenantId::new("acme")?, ServiceId::new("billing")?);
//! let declared = |version: &str| -> Result<Change, Box<dyn std::error::Error>> {
//!     let (service, version) = (billing.clone(), version.parse()?);
//!     Ok(Change::Put(Fact::Version(Box::new(ServiceVersion { service, version, window: Default::default() }))))
//! };
//!
//! // Events make a table ...
//! let mut table = Table::default();
//! table.apply(&Event {
//!     revision: Revision(1),
//!     changes: vec![
//!         Change::Put(Fact::Service(Service { id: billing.clone(), default: "v1.0".parse()? })),
//!         declared("v1.0")?,
//!         declared("v2.0")?,
//!         Change::Put(Fact::Tenant(Box::new(Tenant::new(acme.clone())))),
//!         Change::Put(Fact::Pin(acme, billing.clone(), Pin { version: "v2.0".parse()?, locked: false })),
//!     ],
//!     ..Event::default()
//! })?;
//! // ... instances come from elsewhere ...
//! table.set_instances(&billing, vec![Instance {
//!     id: InstanceId::new("10.0.0.7:8080")?,
//!     version: "v2.0".parse()?,
//!     address: "10.0.0.7:8080".into(),
//!     region: None,
//!     zone: None,
//!     weight: 1,
//!     enabled: true,
//!     healthy: true,
//!     ephemeral: true,
//!     source: None,
//!     metadata: Default::default(),
//! }]);
//!
//! // ... and calls are decided.
//! let call = Call::new("acme", "billing");
//! let decision = decide(&table, &call, &Moment::default())?;
//! assert_eq!(decision.version.as_str(), "v2.0");
//! assert_eq!(decision.rule, Rule::Pin);
//! assert_eq!(decision.instance.address, "10.0.0.7:8080");
//!
//! let steps = explain(&table, &call, &Moment::default()).steps;
//! assert_eq!(steps[1].outcome, "v2.0 by the pin");
//! # Ok(())
//! # }
//! ```
//!
//! What it does *not* do: it knows neither gRPC nor Redis nor SQL, and its types are not
//! serializable on purpose; the wire, the projection and the database have types of their own.

pub mod balance;
pub mod change;
pub mod database;
pub mod decide;
pub mod digest;
pub mod error;
pub mod explain;
pub mod hash;
pub mod ids;
pub mod instance;
pub mod key;
pub mod moves;
pub mod policy;
pub mod promotion;
pub mod record;
pub mod schema;
pub mod selector;
pub mod service;
pub mod table;
pub mod tenant;
pub mod text;
pub mod version;
