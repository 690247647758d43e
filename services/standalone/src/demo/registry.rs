//! The registry of the demo: a file that registry-sync follows, and what registry-sync says of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use grey_proto::status::from_status;
use grey_proto::sync::sync_service_client::SyncServiceClient;
use grey_proto::sync::{GetStatusRequest, SyncStatus};
use grey_registry_sync::registry::Listing;
use grey_registry_sync::registry::file::render;
use tempfile::TempDir;
use tonic::transport::Channel;

use super::admin;

/// The file with the running instances. It goes when this is dropped.
pub(super) struct RegistryFile {
    dir: TempDir,
    path: PathBuf,
}

impl RegistryFile {
    /// A file that lists `instances`.
    pub(super) fn create(instances: &[Listing]) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("grey-demo-").tempdir();
        let dir = dir.context("create a temporary directory for the registry")?;
        let path = dir.path().join("instances.yaml");
        let file = Self { dir, path };
        file.replace(&render(instances))?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lists `instances` from now on.
    pub(super) fn list(&self, instances: &[Listing]) -> anyhow::Result<()> {
        self.replace(&render(instances))
    }

    /// Says `text` from now on. Whoever reads meanwhile sees the old text or the new one.
    pub(super) fn replace(&self, text: &str) -> anyhow::Result<()> {
        let new = self.dir.path().join("instances.yaml.new");
        let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.path));
        written.with_context(|| format!("write {}", self.path.display()))
    }
}

/// Asks registry-sync how it stands.
#[derive(Clone)]
pub(super) struct Mirror(SyncServiceClient<Channel>);

impl Mirror {
    pub(super) async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self(SyncServiceClient::new(admin::connect(addr).await?)))
    }

    pub(super) async fn status(&self) -> anyhow::Result<SyncStatus> {
        let response = self.0.clone().get_status(GetStatusRequest {}).await;
        let response = response.map_err(|status| from_status(&status)).context("ask registry-sync")?;
        Ok(response.into_inner().status.unwrap_or_default())
    }
}
