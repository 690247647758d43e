//! Writes instances where no registry mirror does.

use std::time::Duration;

use grey_core::ids::Name;
use grey_state::State;
use grey_state::instances::{ServiceInstances, WRITER_LEASE};

/// How long one write may take before somebody else may write.
const LEASE: Duration = Duration::from_secs(10);

/// Writes instances under the lease of the one writer that they have.
pub struct Registrar {
    state: State,
    lease: Name,
    holder: String,
}

/// Why instances were not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A registry mirror, or another person, writes them.
    #[error("write instances: another writer holds the lease; register them in the registry that it mirrors")]
    LeaseHeld,
    /// Shared state is away.
    #[error("write instances")]
    State(#[from] grey_state::Error),
}

impl Registrar {
    /// Writes to `state`.
    #[must_use]
    pub fn new(state: State) -> Self {
        let lease = Name::new(WRITER_LEASE).expect("the lease has a valid name");
        Self { state, lease, holder: format!("grey-{}", uuid::Uuid::new_v4().simple()) }
    }

    /// Replaces all instances of one service.
    ///
    /// # Errors
    /// Somebody else is the writer, or shared state is away.
    pub async fn replace(&self, list: &ServiceInstances) -> Result<(), Error> {
        let token = self.state.leases.acquire(&self.lease, &self.holder, LEASE).await?;
        let token = token.ok_or(Error::LeaseHeld)?;
        Ok(self.state.instances.replace(token, list).await?)
    }

    /// Lets the next writer begin at once.
    ///
    /// # Errors
    /// Shared state is away; the lease then expires by itself.
    pub async fn release(self) -> Result<(), Error> {
        Ok(self.state.leases.release(&self.lease, &self.holder).await?)
    }
}
