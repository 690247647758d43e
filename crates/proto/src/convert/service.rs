//! Services, their versions, and pins.

use super::{Checked, InvalidMessage, convert_list, convert_required, read, read_optional, text_of};
use crate::control;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::policy::{Overlay, Policy};
use grey_core::record::ServiceRecord;
use grey_core::schema::SchemaWindow;
use grey_core::service::{Pin, Service, ServiceVersion};

impl From<&Service> for control::Service {
    fn from(service: &Service) -> Self {
        Self { id: service.id.to_string(), default_version: service.default.to_string(), revision: 0 }
    }
}

impl TryFrom<control::Service> for Service {
    type Error = InvalidMessage;

    fn try_from(message: control::Service) -> Checked<Self> {
        Ok(Self { id: read("id", &message.id)?, default: read("default_version", &message.default_version)? })
    }
}

impl From<&SchemaWindow> for control::SchemaWindow {
    fn from(window: &SchemaWindow) -> Self {
        Self { min: text_of(window.min.as_ref()), max: text_of(window.max.as_ref()) }
    }
}

impl TryFrom<control::SchemaWindow> for SchemaWindow {
    type Error = InvalidMessage;

    fn try_from(message: control::SchemaWindow) -> Checked<Self> {
        let window =
            Self { min: read_optional("min", &message.min)?, max: read_optional("max", &message.max)? };
        match (&window.min, &window.max) {
            (Some(min), Some(max)) if min > max => {
                Err(InvalidMessage::new("min", format!("{min} is newer than max {max}")))
            }
            _ => Ok(window),
        }
    }
}

impl From<&ServiceVersion> for control::ServiceVersion {
    fn from(version: &ServiceVersion) -> Self {
        let open = version.window == SchemaWindow::default();
        Self {
            service: version.service.to_string(),
            version: version.version.to_string(),
            schema: (!open).then(|| (&version.window).into()),
            revision: 0,
        }
    }
}

impl TryFrom<control::ServiceVersion> for ServiceVersion {
    type Error = InvalidMessage;

    fn try_from(message: control::ServiceVersion) -> Checked<Self> {
        let window = message.schema.unwrap_or_default().try_into();
        Ok(Self {
            service: read("service", &message.service)?,
            version: read("version", &message.version)?,
            window: window.map_err(|e: InvalidMessage| e.under("schema"))?,
        })
    }
}

impl From<(&TenantId, &ServiceId, &Pin)> for control::Pin {
    fn from((tenant, service, pin): (&TenantId, &ServiceId, &Pin)) -> Self {
        Self {
            tenant: tenant.to_string(),
            service: service.to_string(),
            version: pin.version.to_string(),
            locked: pin.locked,
            revision: 0,
        }
    }
}

impl TryFrom<control::Pin> for (TenantId, ServiceId, Pin) {
    type Error = InvalidMessage;

    fn try_from(message: control::Pin) -> Checked<Self> {
        Ok((
            read("tenant", &message.tenant)?,
            read("service", &message.service)?,
            Pin { version: read("version", &message.version)?, locked: message.locked },
        ))
    }
}

impl From<&ServiceRecord> for control::ServiceRecord {
    fn from(record: &ServiceRecord) -> Self {
        let mut versions: Vec<control::ServiceVersion> = record.versions.iter().map(Into::into).collect();
        for version in &mut versions {
            version.service.clear();
        }
        let policy =
            (record.policy != Policy::default()).then(|| (&record.service.id, &record.policy).into());
        let overlays = record.overlays.iter().map(Into::into).collect();
        Self { service: Some((&record.service).into()), versions, policy, overlays }
    }
}

impl TryFrom<control::ServiceRecord> for ServiceRecord {
    type Error = InvalidMessage;

    fn try_from(message: control::ServiceRecord) -> Checked<Self> {
        let service: Service = convert_required("service", message.service)?;
        let mut versions = message.versions;
        for (i, version) in versions.iter_mut().enumerate() {
            adopt(&service, &mut version.service, &format!("versions[{i}].service"))?;
        }
        let policy = match message.policy {
            None => Policy::default(),
            Some(mut policy) => {
                adopt(&service, &mut policy.service, "policy.service")?;
                convert_required::<_, (ServiceId, Policy)>("policy", Some(policy))?.1
            }
        };
        let mut overlays = message.overlays;
        for (i, overlay) in overlays.iter_mut().enumerate() {
            adopt(&service, &mut overlay.service, &format!("overlays[{i}].service"))?;
        }
        let mut overlays: Vec<Overlay> = convert_list("overlays", overlays, usize::MAX)?;
        overlays.sort_by(|a, b| a.id.cmp(&b.id));
        let twice = overlays.array_windows().find(|[one, next]| one.id == next.id);
        if let Some([overlay, _]) = twice {
            return Err(InvalidMessage::new("overlays", format!("`{}` is there twice", overlay.id)));
        }
        let versions = convert_list("versions", versions, usize::MAX)?;
        Ok(Self { service, versions, policy, overlays })
    }
}

/// Inside a record the service is named once.
fn adopt(service: &Service, named: &mut String, field: &str) -> Checked<()> {
    if named.is_empty() {
        *named = service.id.to_string();
    }
    if *named == service.id.as_str() {
        return Ok(());
    }
    Err(InvalidMessage::new(field, "names another service than the record"))
}
