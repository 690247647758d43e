//! Makes one database, and takes it away again.

use super::{Kind, Site, file, mysql, name, postgres};
use crate::files::Dialect;
use crate::tenant::{Connection, Error, Target, Timeouts};
use grey_core::ids::{ServiceId, TenantId};
use grey_proto::schema::Provision;
use std::sync::atomic::{AtomicBool, Ordering};

/// What errors of this module say first.
pub(super) const MAKE: &str = "make the tenant's database";
pub(super) const REMOVE: &str = "take away what was made for the tenant";

/// What is at the site under the name that something shall have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Present {
    /// Nothing.
    Nothing,
    /// What was made for this tenant.
    Ours,
    /// Something that was not made for it, or of which that cannot be told.
    Foreign,
}

/// Makes one database. On a server it holds a lock, so that nobody else makes or removes the same one: all that it does
/// there it does in the session that has the lock.
#[derive(Debug)]
pub struct Maker {
    site: Site,
    provision: Provision,
    tenant: TenantId,
    service: ServiceId,
    on: On,
    /// Whether this session has made a database of the MySQL family.
    made: AtomicBool,
}

/// Where it is made.
#[derive(Debug)]
enum On {
    Postgres(Box<Connection>),
    MySql(Box<Connection>),
    Folder,
}

impl Maker {
    /// Connects to the site, and waits for whoever makes or removes the same there.
    ///
    /// # Errors
    /// The server does not answer or does not let the migrator in, or somebody else is at it for too long.
    pub async fn open(
        site: &Site,
        provision: &Provision,
        (tenant, service): (&TenantId, &ServiceId),
        timeouts: &Timeouts,
    ) -> Result<Self, Error> {
        let on = if site.kind == Kind::File {
            On::Folder
        } else {
            let target = site.target(tenant, service)?;
            let connection = Box::new(Box::pin(Connection::open(&target, timeouts)).await?);
            connection.lock_name(name(provision)).await?;
            if target.dialect == Dialect::Postgres { On::Postgres(connection) } else { On::MySql(connection) }
        };
        let (tenant, service) = (tenant.clone(), service.clone());
        Ok(Self {
            site: site.clone(),
            provision: provision.clone(),
            tenant,
            service,
            on,
            made: AtomicBool::new(false),
        })
    }

    /// Refuses what is there already.
    ///
    /// # Errors
    /// Something is there under the name.
    pub async fn refuse_present(&self) -> Result<(), Error> {
        match self.present().await? {
            Present::Nothing => Ok(()),
            Present::Ours | Present::Foreign => Err(self.taken()),
        }
    }

    /// Makes what is missing of it, and gives its role another password. `proven`: it is known to have been made.
    ///
    /// # Errors
    /// Something else is there under the name, or the server refuses.
    pub async fn make(&self, proven: bool) -> Result<Target, Error> {
        // Also of the kinds of characters that servers may insist on.
        let password = format!("{}-G{}", random(), random());
        let (site, provision) = (&self.site, &self.provision);
        let present = self.present().await?;
        if present == Present::Foreign && !self.is_ours(present, proven) {
            return Err(self.taken());
        }
        let missing = present == Present::Nothing;
        match &self.on {
            On::Postgres(on) => postgres::make(on, site, provision, &password, missing).await?,
            On::MySql(on) => {
                let made = missing.then_some(&self.made);
                mysql::make(on, site, provision, &password, made).await?;
            }
            On::Folder => file::make(provision)?,
        }
        let schema = (site.kind == Kind::Schema).then(|| provision.schema.clone());
        let url = site.url_of(provision, &password)?;
        let (tenant, service) = (self.tenant.clone(), self.service.clone());
        let dialect = site.target(&tenant, &service)?.dialect;
        Ok(Target { tenant, service, dialect, url, schema })
    }

    /// Takes away what was made, and nothing else. `proven`: it is known to have been made.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn remove(&self, proven: bool) -> Result<(), Error> {
        let present = self.present().await?;
        let ours = self.is_ours(present, proven);
        match &self.on {
            On::Postgres(on) => postgres::remove(on, &self.provision, ours).await,
            On::MySql(on) => {
                mysql::remove(on, &self.site, &self.provision, ours).await?;
                // It may have been made in the moment of a crash.
                let undecided = present == Present::Foreign && !ours && !on.marks_databases();
                if undecided { Err(self.undecided()) } else { Ok(()) }
            }
            On::Folder => file::remove(&self.provision),
        }
    }

    /// Whether what is there was made for the tenant. Only where databases bear no mark it has to be `proven`, or this
    /// session has made it.
    fn is_ours(&self, present: Present, proven: bool) -> bool {
        let markless = matches!(&self.on, On::MySql(on) if !on.marks_databases());
        let proven = proven || self.made.load(Ordering::Relaxed);
        present == Present::Ours || (present == Present::Foreign && proven && markless)
    }

    async fn present(&self) -> Result<Present, Error> {
        match &self.on {
            On::Postgres(on) => postgres::present(on, &self.provision).await,
            On::MySql(on) => mysql::present(on, &self.provision).await,
            On::Folder => Ok(file::present(&self.provision)),
        }
    }

    fn taken(&self) -> Error {
        let why = format!("`{}` is there already, and was not made for it", name(&self.provision));
        Error::Refused { attempted: MAKE, why }
    }

    fn undecided(&self) -> Error {
        let why = format!(
            "`{}` is there, and nothing tells that it was made for the tenant, so it is left alone; look at it, and drop \
             it by hand if nobody needs it",
            name(&self.provision)
        );
        Error::Refused { attempted: REMOVE, why }
    }
}

/// Takes away what told whose work it was, once it is registered.
pub(crate) fn settle(provision: &Provision) {
    if provision.kind() == grey_proto::control::DatabaseKind::File {
        file::settle(provision);
    }
}

fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
