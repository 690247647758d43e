//! Services, their versions, policies and overlays.

use grey_core::change::{Change, Position};
use grey_core::ids::{OverlayId, ServiceId};
use grey_core::key::{Fact, Key};
use grey_core::policy::{Overlay, Policy};
use grey_core::service::{Service, ServiceVersion};
use grey_edge::Caller;
use grey_proto::control::overlay::Kind;
use grey_proto::control::{
    self, DeleteOverlayRequest, DeleteOverlayResponse, DeleteServiceRequest, DeleteServiceResponse,
    DeleteVersionRequest, DeleteVersionResponse, GetServiceRequest, GetServiceResponse, ListServicesRequest,
    ListServicesResponse, PutOverlayRequest, PutOverlayResponse, PutPolicyRequest, PutPolicyResponse,
    PutServiceRequest, PutServiceResponse, PutVersionRequest, PutVersionResponse, WriteOptions,
};
use grey_proto::convert::{InvalidMessage, mask};
use grey_proto::status::ApiError;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::{Api, Written, cut, id, one_more, optional_id, page_size, partial, required};
use crate::command::{unknown_overlay, unknown_service, unknown_version};
use crate::database::head;
use crate::entity::{overlays, policies, services, versions};

impl Api {
    /// Reads one service with its versions, oldest first, its policy and its overlays, as of one moment.
    ///
    /// # Errors
    /// A malformed id, an unknown service, or the database is away.
    pub async fn get_service(
        &self,
        _: &Caller,
        request: GetServiceRequest,
    ) -> Result<GetServiceResponse, ApiError> {
        let service: ServiceId = id("id", &request.id)?;
        let database = &self.0.database;
        let snapshot = database.begin_snapshot().await?;
        let head = database.read("read the log's head", head(&snapshot)).await?;
        let row = services::dated(services::Entity::find_by_id(service.as_str())).one(&snapshot);
        let row = database.read("read a service", row).await?;
        let row = row.ok_or_else(|| unknown_service(service.as_str()))?;
        let declared = versions::Entity::find().filter(versions::Column::Service.eq(service.as_str()));
        let declared = database.read("read a service's versions", declared.all(&snapshot)).await?;
        let policy = policies::Entity::find_by_id(service.as_str()).one(&snapshot);
        let policy = database.read("read a service's policy", policy).await?;
        let laid = overlays::Entity::find()
            .filter(overlays::Column::Service.eq(service.as_str()))
            .order_by_asc(overlays::Column::Id);
        let laid = database.read("read a service's overlays", laid.all(&snapshot)).await?;
        database.read("end a snapshot", snapshot.commit()).await?;
        let mut ordered = Vec::with_capacity(declared.len());
        for row in &declared {
            ordered.push((row.version()?.version, row.message()?));
        }
        ordered.sort_by(|(one, _), (other, _)| one.cmp(other));
        let policy = match policy {
            Some(row) => row.message()?,
            None => control::Policy::from((&service, &Policy::default())),
        };
        Ok(GetServiceResponse {
            service: Some(row.message()?),
            versions: ordered.into_iter().map(|(_, message)| message).collect(),
            policy: Some(policy),
            overlays: laid.iter().map(overlays::Model::message).collect::<Result<_, _>>()?,
            epoch: Position::try_from(head)?.epoch.0,
        })
    }

    /// Lists services by id.
    ///
    /// # Errors
    /// A malformed page, or the database is away.
    pub async fn list_services(
        &self,
        _: &Caller,
        request: ListServicesRequest,
    ) -> Result<ListServicesResponse, ApiError> {
        let size = page_size("page_size", request.page_size)?;
        let mut query = services::Entity::find().order_by_asc(services::Column::Id).limit(one_more(size));
        if let Some(after) = optional_id::<ServiceId>("page_token", &request.page_token)? {
            query = query.filter(services::Column::Id.gt(after.as_str()));
        }
        let lists = &self.0.lanes.lists;
        let rows = services::dated(query).all(lists.database().readers());
        let rows = lists.read("list services", rows).await?;
        let mut services: Vec<control::Service> =
            rows.iter().map(services::Dated::message).collect::<Result<_, _>>()?;
        let more = cut(&mut services, size);
        let last = services.last().map(|service| service.id.clone()).filter(|_| more);
        Ok(ListServicesResponse { services, next_page_token: last.unwrap_or_default() })
    }

    /// Creates a service, declaring its default version, or changes its default.
    ///
    /// # Errors
    /// As for every write, or the default of an existing service is not declared.
    pub async fn put_service(
        &self,
        caller: &Caller,
        request: PutServiceRequest,
    ) -> Result<PutServiceResponse, ApiError> {
        let service: Service = required("service", request.service)?;
        let mut message = control::Service::from(&service);
        let change = Change::Put(Fact::Service(service));
        let Written { result, revision, .. } = self.write(caller, change, request.write).await?;
        message.revision = revision;
        Ok(PutServiceResponse { result: Some(result), service: Some(message) })
    }

    /// Removes a service that no pin refers to.
    ///
    /// # Errors
    /// As for every write, or the service is unknown or in use.
    pub async fn delete_service(
        &self,
        caller: &Caller,
        request: DeleteServiceRequest,
    ) -> Result<DeleteServiceResponse, ApiError> {
        let change = Change::Removed(Key::Service(id("id", &request.id)?));
        let written = self.write(caller, change, request.write).await?;
        Ok(DeleteServiceResponse { result: Some(written.result) })
    }

    /// What is declared of a service, to be merged with.
    async fn present(&self, caller: &Caller, service: &str) -> Result<GetServiceResponse, ApiError> {
        self.get_service(caller, GetServiceRequest { id: service.to_owned() }).await
    }

    /// Declares a version or replaces its schema window; with a mask, sets what it names.
    ///
    /// # Errors
    /// As for every write, or the service is unknown; with a mask, a version that is unknown too.
    pub async fn put_version(
        &self,
        caller: &Caller,
        request: PutVersionRequest,
    ) -> Result<PutVersionResponse, ApiError> {
        let PutVersionRequest { version, write, update_mask } = request;
        if update_mask.is_empty() {
            return self.replace_version(caller, version, write).await;
        }
        let given = version.ok_or_else(|| InvalidMessage::missing("version"))?;
        let named: ServiceVersion = required("version", Some(given.clone()))?;
        let mut attempts = partial::Attempts::of(write.as_ref());
        loop {
            let GetServiceResponse { versions, epoch, .. } = self.present(caller, &given.service).await?;
            let present = versions.into_iter().find(|present| present.version == named.version.as_str());
            let present = present.ok_or_else(|| unknown_version(&named.service, &named.version))?;
            let tag = (epoch, present.revision);
            let merged = mask::merge(&present, &given, &update_mask, partial::VERSION)?;
            let written =
                self.replace_version(caller, Some(merged), partial::conditional(write.clone(), tag)).await;
            if !attempts.again(&written) {
                return written;
            }
        }
    }

    async fn replace_version(
        &self,
        caller: &Caller,
        version: Option<control::ServiceVersion>,
        write: Option<WriteOptions>,
    ) -> Result<PutVersionResponse, ApiError> {
        let version: ServiceVersion = required("version", version)?;
        let mut message = control::ServiceVersion::from(&version);
        let change = Change::Put(Fact::Version(Box::new(version)));
        let Written { result, revision, .. } = self.write(caller, change, write).await?;
        message.revision = revision;
        Ok(PutVersionResponse { result: Some(result), version: Some(message) })
    }

    /// Removes a version that nothing refers to.
    ///
    /// # Errors
    /// As for every write, or the version is unknown or in use.
    pub async fn delete_version(
        &self,
        caller: &Caller,
        request: DeleteVersionRequest,
    ) -> Result<DeleteVersionResponse, ApiError> {
        let (service, version) = (id("service", &request.service)?, id("version", &request.version)?);
        let change = Change::Removed(Key::Version(service, version));
        let written = self.write(caller, change, request.write).await?;
        Ok(DeleteVersionResponse { result: Some(written.result) })
    }

    /// Replaces a service's policy; with a mask, sets what it names.
    ///
    /// # Errors
    /// As for every write, or the service or a version that the policy names is unknown.
    pub async fn put_policy(
        &self,
        caller: &Caller,
        request: PutPolicyRequest,
    ) -> Result<PutPolicyResponse, ApiError> {
        let PutPolicyRequest { policy, write, update_mask } = request;
        if update_mask.is_empty() {
            return self.replace_policy(caller, policy, write).await;
        }
        let given = policy.ok_or_else(|| InvalidMessage::missing("policy"))?;
        let mut attempts = partial::Attempts::of(write.as_ref());
        loop {
            let GetServiceResponse { policy, epoch, .. } = self.present(caller, &given.service).await?;
            let present = policy.unwrap_or_default();
            let tag = (epoch, present.revision);
            let merged = mask::merge(&present, &given, &update_mask, partial::POLICY)?;
            let written =
                self.replace_policy(caller, Some(merged), partial::conditional(write.clone(), tag)).await;
            if !attempts.again(&written) {
                return written;
            }
        }
    }

    async fn replace_policy(
        &self,
        caller: &Caller,
        policy: Option<control::Policy>,
        write: Option<WriteOptions>,
    ) -> Result<PutPolicyResponse, ApiError> {
        let (service, policy): (ServiceId, Policy) = required("policy", policy)?;
        let mut message = control::Policy::from((&service, &policy));
        let change = Change::Put(Fact::Policy(service, policy));
        let Written { result, revision, .. } = self.write(caller, change, write).await?;
        message.revision = revision;
        Ok(PutPolicyResponse { result: Some(result), policy: Some(message) })
    }

    /// Sets an experiment or a canary: its arms get their place in its layer, and keep the units that they had.
    ///
    /// # Errors
    /// As for every write, or the service or a version that the overlay names is unknown, its layer has no room, or
    /// it splits more finely than the service's policy allows.
    pub async fn put_overlay(
        &self,
        caller: &Caller,
        request: PutOverlayRequest,
    ) -> Result<PutOverlayResponse, ApiError> {
        let PutOverlayRequest { overlay, write, update_mask } = request;
        let given = overlay.ok_or_else(|| InvalidMessage::missing("overlay"))?;
        if update_mask.is_empty() {
            return self.replace_overlay(caller, given, write).await;
        }
        let (service, overlay): (ServiceId, OverlayId) =
            (id("overlay.service", &given.service)?, id("overlay.id", &given.id)?);
        let mut attempts = partial::Attempts::of(write.as_ref());
        loop {
            let GetServiceResponse { overlays, epoch, .. } = self.present(caller, &given.service).await?;
            let present = overlays.into_iter().find(|present| present.id == given.id);
            let mut present = present.ok_or_else(|| unknown_overlay(&service, &overlay))?;
            let tag = (epoch, present.revision);
            partial::make_room(&mut present, &given, &update_mask)?;
            let mut merged = mask::merge(&present, &given, &update_mask, partial::OVERLAY)?;
            if merged.service.is_empty() {
                merged.service.clone_from(&given.service);
            }
            let written =
                self.replace_overlay(caller, merged, partial::conditional(write.clone(), tag)).await;
            if !attempts.again(&written) {
                return written;
            }
        }
    }

    async fn replace_overlay(
        &self,
        caller: &Caller,
        mut asked: control::Overlay,
        write: Option<WriteOptions>,
    ) -> Result<PutOverlayResponse, ApiError> {
        clear_output(&mut asked);
        let (service, overlay): (ServiceId, Overlay) = required("overlay", Some(asked))?;
        let change = Change::Put(Fact::Overlay(service, Box::new(overlay)));
        let Written { result, revision, completed } = self.write(caller, change, write).await?;
        let overlay = completed.and_then(|fact| match fact {
            Fact::Overlay(service, overlay) => {
                Some(control::Overlay { revision, ..(&service, &*overlay).into() })
            }
            _ => None,
        });
        Ok(PutOverlayResponse { result: Some(result), overlay })
    }

    /// Removes an experiment or a canary.
    ///
    /// # Errors
    /// As for every write, or the service or the overlay is unknown.
    pub async fn delete_overlay(
        &self,
        caller: &Caller,
        request: DeleteOverlayRequest,
    ) -> Result<DeleteOverlayResponse, ApiError> {
        let (service, overlay) = (id("service", &request.service)?, id("id", &request.id)?);
        let change = Change::Removed(Key::Overlay(service, overlay));
        let written = self.write(caller, change, request.write).await?;
        Ok(DeleteOverlayResponse { result: Some(written.result) })
    }
}

/// What is told of an overlay and never taken: whoever reads one, changes a weight and puts it back means the weight.
pub(super) fn clear_output(overlay: &mut control::Overlay) {
    overlay.salt.clear();
    match &mut overlay.kind {
        Some(Kind::Canary(canary)) => canary.buckets.clear(),
        Some(Kind::Experiment(experiment)) => {
            experiment.variants.iter_mut().for_each(|variant| variant.buckets.clear());
        }
        None => {}
    }
}
