//! The tenants, services and instances that measurements run on.

use anyhow::{Context as _, Result};
use grey_core::change::{Epoch, FormatLevel, Position, Revision};
use grey_core::ids::{InstanceId, Name, ServiceId, TenantId};
use grey_core::instance::Instance;
use grey_core::policy::Policy;
use grey_core::record::{Record, ServiceRecord, TenantRecord};
use grey_core::schema::SchemaWindow;
use grey_core::service::{Pin, Service, ServiceVersion};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use grey_proto::router::RouteRequest;
use grey_state::instances::ServiceInstances;
use grey_state::projection::ProjectionStatus;
use grey_state::{Digests, State};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::time::Duration;

/// Tenants written to the projection at once.
const BATCH: usize = 500;

/// How much of everything there is. Every tenant is pinned in every service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) tenants: usize,
    pub(crate) services: usize,
    pub(crate) versions: usize,
    pub(crate) instances: usize,
}

/// What is measured on unless a measurement says otherwise.
pub(crate) const USUAL: World = World { tenants: 1_000, services: 20, versions: 3, instances: 5 };

impl World {
    pub(crate) fn tenant(tenant: usize) -> String {
        format!("tenant-{tenant:07}")
    }

    pub(crate) fn service(service: usize) -> String {
        format!("service-{service:03}")
    }

    /// The version that a tenant is pinned to.
    pub(crate) fn pinned(&self, tenant: usize, service: usize) -> String {
        version((tenant + service) % self.versions)
    }

    pub(crate) fn pins(&self) -> usize {
        self.tenants * self.services
    }

    pub(crate) fn service_records(&self) -> Result<Vec<ServiceRecord>> {
        (0..self.services).map(|service| self.service_record(service)).collect()
    }

    fn service_record(&self, service: usize) -> Result<ServiceRecord> {
        let id = ServiceId::new(&Self::service(service))?;
        let versions = (0..self.versions).map(|number| {
            let version = Version::new(&version(number))?;
            Ok(ServiceVersion { service: id.clone(), version, window: SchemaWindow::default() })
        });
        Ok(ServiceRecord {
            service: Service { id: id.clone(), default: Version::new(&version(0))? },
            versions: versions.collect::<Result<_>>()?,
            policy: Policy::default(),
            overlays: Vec::new(),
        })
    }

    /// A tenant with all its pins; `services` are the service records' ids, `versions` all versions in order.
    pub(crate) fn tenant_records(&self) -> Result<impl Iterator<Item = TenantRecord>> {
        let world = *self;
        let services: Vec<_> =
            (0..self.services).map(|s| ServiceId::new(&Self::service(s))).collect::<Result<_, _>>()?;
        let pins: Vec<_> = (0..self.versions)
            .map(|number| Ok(Pin { version: Version::new(&version(number))?, locked: false }))
            .collect::<Result<_>>()?;
        Ok((0..self.tenants).map(move |tenant| {
            let id = TenantId::new(&Self::tenant(tenant)).expect("made of lower-case letters and digits");
            let pin = |(at, service): (usize, &ServiceId)| {
                (service.clone(), pins[(tenant + at) % world.versions].clone())
            };
            let pins = services.iter().enumerate().map(pin).collect();
            TenantRecord { pins, ..Tenant::new(id).into() }
        }))
    }

    pub(crate) fn instance_lists(&self) -> Result<Vec<ServiceInstances>> {
        (0..self.services)
            .map(|service| {
                let all = (0..self.versions).flat_map(|v| (0..self.instances).map(move |i| (v, i)));
                let instances =
                    all.map(|(version, at)| instance(service, version, at)).collect::<Result<_>>()?;
                Ok(ServiceInstances { service: ServiceId::new(&Self::service(service))?, instances })
            })
            .collect()
    }

    /// The routing table of this world.
    pub(crate) fn table(&self) -> Result<Table> {
        let mut table = Table::default();
        for record in self.service_records()? {
            table.insert(Record::Service(record));
        }
        for record in self.tenant_records()? {
            table.insert(Record::Tenant(record));
        }
        for list in self.instance_lists()? {
            table.set_instances(&list.service, list.instances);
        }
        table.set_position(position());
        Ok(table)
    }

    /// Writes this world to shared state as a publisher and a registry mirror would, without a database.
    pub(crate) async fn publish(&self, state: &State) -> Result<()> {
        self.publish_records(state).await?;
        self.publish_instances(state).await
    }

    /// Writes all of this world but its instances, as a publisher would.
    pub(crate) async fn publish_records(&self, state: &State) -> Result<()> {
        let ttl = Duration::from_secs(600);
        let lease = state.leases.acquire(&Name::new("publisher")?, "bench", ttl).await?;
        let token = lease.context("take the publisher's lease")?;
        state.feed.reset(token, &position()).await?;
        let mut rebuild = state.projection.rebuild(token, &position()).await?;
        rebuild.write(self.service_records()?.into_iter().map(Record::Service).collect()).await?;
        let mut tenants = self.tenant_records()?;
        loop {
            let batch: Vec<_> = tenants.by_ref().take(BATCH).map(Record::Tenant).collect();
            if batch.is_empty() {
                break;
            }
            rebuild.write(batch).await?;
        }
        let (digests, level) = (Digests::of(&self.table()?), FormatLevel::FIRST);
        Ok(rebuild.finish(&ProjectionStatus { position: position(), digests, level }).await?)
    }

    /// Writes the instances of this world as a registry mirror would.
    pub(crate) async fn publish_instances(&self, state: &State) -> Result<()> {
        let ttl = Duration::from_secs(600);
        let lease = state.leases.acquire(&Name::new("registry")?, "bench", ttl).await?;
        let token = lease.context("take the registry mirror's lease")?;
        for list in self.instance_lists()? {
            state.instances.replace(token, &list).await?;
        }
        Ok(())
    }

    /// Calls of random tenants to random services, the same ones each time: about 100 bytes, three entries of metadata.
    pub(crate) fn calls(&self, count: usize) -> Vec<RouteRequest> {
        let mut random = SmallRng::seed_from_u64(7);
        let call = |_| RouteRequest {
            tenant: Self::tenant(random.random_range(0..self.tenants)),
            service: Self::service(random.random_range(0..self.services)),
            metadata: [("channel", "web"), ("app-version", "5.2.1"), ("locale", "de-DE")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            user: format!("user-{}", random.random_range(0..10_000)),
            ..RouteRequest::default()
        };
        (0..count).map(call).collect()
    }
}

/// The name of the version with this number.
pub(crate) fn version(number: usize) -> String {
    format!("v{}.{}", 1 + number / 10, number % 10)
}

/// An instance of one version of a service.
pub(crate) fn instance(service: usize, number: usize, at: usize) -> Result<Instance> {
    let version = version(number);
    Ok(Instance {
        id: InstanceId::new(&format!("{}-{version}-{at}", World::service(service)))?,
        version: Version::new(&version)?,
        address: format!("10.{service}.{number}.{at}:8080").into(),
        region: Some(Name::new("eu-west-1")?),
        zone: Some(Name::new(["eu-west-1a", "eu-west-1b", "eu-west-1c"][at % 3])?),
        weight: 100,
        enabled: true,
        healthy: true,
        ephemeral: true,
        source: None,
        metadata: [("protocol".to_owned(), "grpc".to_owned())].into(),
    })
}

/// Where every world's history stands.
pub(crate) fn position() -> Position {
    Position { epoch: Epoch(1), revision: Revision(100) }
}
