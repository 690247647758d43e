//! Services, their versions and policies.

use grey_core::change::Change;
use grey_core::ids::ServiceId;
use grey_core::policy::Policy;
use grey_core::service::{Service, ServiceVersion};
use grey_edge::Caller;
use grey_proto::control::{
    self, DeleteServiceRequest, DeleteServiceResponse, DeleteVersionRequest, DeleteVersionResponse,
    GetServiceRequest, GetServiceResponse, ListServicesRequest, ListServicesResponse, PutPolicyRequest,
    PutPolicyResponse, PutServiceRequest, PutServiceResponse, PutVersionRequest, PutVersionResponse,
};
use grey_proto::status::ApiError;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::{Api, Written, cut, id, one_more, optional_id, page_size, required};
use crate::command::unknown_service;
use crate::entity::{policies, services, versions};

impl Api {
    /// Reads one service with its versions, oldest first, and its policy, as of one moment.
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
        let row = services::Entity::find_by_id(service.as_str()).one(&snapshot);
        let row = database.read("read a service", row).await?;
        let row = row.ok_or_else(|| unknown_service(service.as_str()))?;
        let declared = versions::Entity::find().filter(versions::Column::Service.eq(service.as_str()));
        let declared = database.read("read a service's versions", declared.all(&snapshot)).await?;
        let policy = policies::Entity::find_by_id(service.as_str()).one(&snapshot);
        let policy = database.read("read a service's policy", policy).await?;
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
        let database = &self.0.database;
        let rows = database.read("list services", query.all(database.readers())).await?;
        let mut services: Vec<control::Service> =
            rows.iter().map(services::Model::message).collect::<Result<_, _>>()?;
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
        let Written { result, thing } =
            self.write(caller, Change::ServicePut(service), request.write).await?;
        message.revision = thing;
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
        let change = Change::ServiceRemoved(id("id", &request.id)?);
        let written = self.write(caller, change, request.write).await?;
        Ok(DeleteServiceResponse { result: Some(written.result) })
    }

    /// Declares a version or changes its schema window.
    ///
    /// # Errors
    /// As for every write, or the service is unknown.
    pub async fn put_version(
        &self,
        caller: &Caller,
        request: PutVersionRequest,
    ) -> Result<PutVersionResponse, ApiError> {
        let version: ServiceVersion = required("version", request.version)?;
        let mut message = control::ServiceVersion::from(&version);
        let Written { result, thing } =
            self.write(caller, Change::VersionPut(version), request.write).await?;
        message.revision = thing;
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
        let change = Change::VersionRemoved { service, version };
        let written = self.write(caller, change, request.write).await?;
        Ok(DeleteVersionResponse { result: Some(written.result) })
    }

    /// Replaces a service's policy.
    ///
    /// # Errors
    /// As for every write, or the service or a version that the policy names is unknown.
    pub async fn put_policy(
        &self,
        caller: &Caller,
        request: PutPolicyRequest,
    ) -> Result<PutPolicyResponse, ApiError> {
        let (service, policy): (ServiceId, Policy) = required("policy", request.policy)?;
        let mut message = control::Policy::from((&service, &policy));
        let change = Change::PolicyPut { service, policy };
        let Written { result, thing } = self.write(caller, change, request.write).await?;
        message.revision = thing;
        Ok(PutPolicyResponse { result: Some(result), policy: Some(message) })
    }
}
