//! An upgrade whose database is made first, and registered last.
//!
//! What is made is written down before and after; registering it, recording its schema and making the tenant active are one
//! event of the control plane. So after a crash either that event is there, and the database is the tenant's, or nobody
//! knows of it, and it is gone on with. Whatever fails before the event takes away what was made. Nothing is taken away
//! that may be registered: the control plane has to say first that it is not.

use super::{Cause, Execution, PAUSE, Verdict};
use crate::control::is_transient;
use crate::prepare::{Registered, database_error};
use crate::provision::{Maker, described, settle};
use crate::tenant::Stop;
use grey_core::error::Reason;
use grey_database_url::{DatabaseUrl, Place};
use grey_proto::control::{DatabaseKind, PutDatabaseRequest, TenantDatabase, WriteOptions};
use grey_proto::schema::{Provision, ProvisionState, UpgradeState};
use grey_proto::status::ApiError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Attempts to register a database while others change its tenant.
const ATTEMPTS: u32 = 8;

/// Why a database is not known to be registered.
enum Unregistered {
    /// The control plane has refused it.
    Refused(ApiError),
    /// It has not said whether it took it.
    Unknown(ApiError),
}

/// What is registered for the tenant's service.
enum Holder {
    /// Nothing, or another database.
    Other,
    /// The database that is made here, by its own role.
    Ours {
        /// The revision at which it was registered.
        revision: u64,
    },
    /// A database of that name, by another role: somebody has registered it by hand.
    Person,
}

impl Execution {
    /// Makes the database, upgrades it, registers it; or takes it away again.
    pub(super) async fn provision(&self, mut provision: Provision, stop: &Stop) -> Verdict {
        let mut maker = None;
        if provision.state() == ProvisionState::Registered {
            // Only the end was not noted.
            return self.upgrade(stop, None).await;
        }
        let verdict = match Box::pin(self.stand(&mut provision, &mut maker, stop)).await {
            Ok(None) => return self.upgrade(stop, None).await,
            Ok(Some(made)) => {
                let verdict = self.upgrade(stop, Some(&made)).await;
                if verdict.state == UpgradeState::Succeeded {
                    match self.register(&mut provision, &made, &verdict).await {
                        Ok(()) => return verdict,
                        Err(Unregistered::Refused(error)) => self.unsuccessful(&error),
                        Err(Unregistered::Unknown(error)) => return self.unsettled(&provision, &error),
                    }
                } else {
                    verdict
                }
            }
            Err(error) => self.unsuccessful(&error),
        };
        if self.is_gone_on_with(&verdict) {
            return verdict;
        }
        Box::pin(self.take_back(provision, maker, verdict)).await
    }

    /// Brings the database to where it can be migrated; none: it is registered already.
    async fn stand(
        &self,
        provision: &mut Provision,
        maker: &mut Option<Maker>,
        stop: &Stop,
    ) -> Result<Option<Registered>, ApiError> {
        let begun = begun(provision);
        if begun && self.was_registered(provision, stop).await? {
            return Ok(None);
        }
        if provision.state() == ProvisionState::Removed {
            let text = "it failed, and the migrator went away before it could tell why";
            return Err(ApiError::new(Reason::Unavailable, text));
        }
        stop.check().map_err(|error| database_error(&error))?;
        let maker = maker.insert(self.open_in_turn(provision, stop).await?);
        if !begun {
            maker.refuse_present().await.map_err(|error| database_error(&error))?;
            self.note(provision, ProvisionState::Making).await?;
        }
        let proven = provision.state() == ProvisionState::Made;
        let target = maker.make(proven).await.map_err(|error| database_error(&error))?;
        self.note(provision, ProvisionState::Made).await?;
        tracing::info!(upgrade.id = self.lease.id, made = described(provision), "tenant's database is made");
        Ok(Some(Registered { target, server: self.job.server.clone() }))
    }

    /// As [`Self::open`], and waits for the session of the replica that died, which may still be there.
    async fn open_in_turn(&self, provision: &Provision, stop: &Stop) -> Result<Maker, ApiError> {
        loop {
            match self.open(provision).await {
                Err(error)
                    if error.reason == Reason::UpgradeRunning && self.resumed && stop.check().is_ok() =>
                {
                    sleep(PAUSE).await;
                }
                opened => return opened,
            }
        }
    }

    async fn open(&self, provision: &Provision) -> Result<Maker, ApiError> {
        let (tenant, service) = self.names()?;
        let grounds = &self.around.grounds;
        let (_, site) = grounds.sites().choose(&provision.site)?;
        let opened = Box::pin(Maker::open(site, provision, (&tenant, &service), grounds.timeouts())).await;
        opened.map_err(|error| database_error(&error))
    }

    /// Writes down how far it is.
    ///
    /// # Errors
    /// The migrator's database is away, or another replica has it now: then nothing more may be done.
    async fn note(&self, provision: &mut Provision, state: ProvisionState) -> Result<(), ApiError> {
        provision.set_state(state);
        if self.around.queue.save_provision(&self.lease, provision).await? {
            return Ok(());
        }
        self.stop_for(Cause::Lost);
        Err(ApiError::new(Reason::UpgradeRunning, "another replica has taken the upgrade over"))
    }

    /// Whether an attempt before this has registered it, once the control plane says so; it is noted then.
    async fn was_registered(&self, provision: &mut Provision, stop: &Stop) -> Result<bool, ApiError> {
        loop {
            match self.holder(provision).await {
                Ok(Holder::Other) => return Ok(false),
                Ok(Holder::Ours { .. } | Holder::Person) => {
                    settle(provision);
                    self.note(provision, ProvisionState::Registered).await?;
                    return Ok(true);
                }
                Err(error) if !is_transient(&error) || stop.check().is_err() => return Err(error),
                Err(error) => {
                    tracing::warn!(upgrade.id = self.lease.id, error = %error, "not known to be registered");
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// What is registered in the place of the database that is made here.
    async fn holder(&self, provision: &Provision) -> Result<Holder, ApiError> {
        let (tenant, service) = self.names()?;
        let grounds = &self.around.grounds;
        let sealed = match grounds.control().database(&tenant, &service).await {
            Ok(sealed) => sealed,
            Err(error) if error.reason == Reason::UnknownDatabase => return Ok(Holder::Other),
            Err(error) => return Err(error),
        };
        let found = grounds.open(&sealed)?;
        let revision = sealed.database.map(|database| database.revision).unwrap_or_default();
        let url = DatabaseUrl::parse(found.target.url.expose());
        let url = url.map_err(|why| ApiError::new(Reason::DatabaseRefused, format!("the url {why}")))?;
        let schema = found.target.schema.unwrap_or_default();
        Ok(match &url.place {
            // No other database has this role.
            Place::Server(server) if server.user == provision.role => Holder::Ours { revision },
            // A server goes by many names, so the host does not tell it from another one.
            Place::Server(server)
                if server.database == provision.database
                    && (provision.schema.is_empty() || schema == provision.schema) =>
            {
                Holder::Person
            }
            Place::File { path, .. }
                if provision.kind() == DatabaseKind::File
                    && path.as_os_str() == provision.server.as_str() =>
            {
                Holder::Ours { revision }
            }
            Place::Server(_) | Place::File { .. } => Holder::Other,
        })
    }

    /// Registers the database with its schema, and makes the tenant active.
    async fn register(
        &self,
        provision: &mut Provision,
        made: &Registered,
        verdict: &Verdict,
    ) -> Result<(), Unregistered> {
        let give_up = Instant::now() + self.around.options.undo_timeout;
        let (mut expected, mut attempts) = (0, 0);
        loop {
            let schema = verdict.schema.as_ref().map(ToString::to_string).unwrap_or_default();
            let request = self.registration(provision, made, schema, expected);
            let error = match self.around.grounds.control().register(&self.job.asker, request).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if error.reason == Reason::RevisionMismatch && attempts < ATTEMPTS {
                attempts += 1;
                // An answer that was lost, or an attempt before this one that had another password.
                match self.holder(provision).await {
                    Ok(Holder::Other) => expected = 0,
                    Ok(Holder::Ours { revision }) => expected = revision,
                    Ok(Holder::Person) => {
                        let text = "a database of this name is registered by another role meanwhile";
                        return Err(Unregistered::Unknown(ApiError::new(Reason::RevisionMismatch, text)));
                    }
                    Err(error) if is_transient(&error) => {}
                    Err(error) => return Err(Unregistered::Unknown(error)),
                }
                sleep(PAUSE).await;
            } else if !is_transient(&error) {
                return Err(Unregistered::Refused(error));
            } else if self.has_to_go() || Instant::now() >= give_up {
                return Err(Unregistered::Unknown(error));
            } else {
                tracing::warn!(upgrade.id = self.lease.id, error = %error, "database is not registered yet");
                sleep(PAUSE).await;
            }
        }
        settle(provision);
        if let Err(error) = self.note(provision, ProvisionState::Registered).await {
            tracing::warn!(upgrade.id = self.lease.id, error = %error, "that it is registered is not noted");
        }
        Ok(())
    }

    fn registration(
        &self,
        provision: &Provision,
        made: &Registered,
        observed_schema: String,
        expected: u64,
    ) -> PutDatabaseRequest {
        let upgrade = &self.job.upgrade;
        let reason = match upgrade.reason.as_str() {
            "" => "provisioned".to_owned(),
            reason => reason.to_owned(),
        };
        let write = WriteOptions {
            expected_revision: Some(expected),
            reason,
            cause: format!("upgrade/{}", upgrade.id),
            ..WriteOptions::default()
        };
        let database = TenantDatabase {
            tenant: upgrade.tenant.clone(),
            service: upgrade.service.clone(),
            kind: provision.kind,
            schema: provision.schema.clone(),
            ..TenantDatabase::default()
        };
        PutDatabaseRequest {
            database: Some(database),
            url: made.target.url.expose().to_owned(),
            write: Some(write),
            observed_schema,
            activate: provision.activate,
            ..PutDatabaseRequest::default()
        }
    }

    /// Takes away what was made, unless it turns out to be registered.
    async fn take_back(
        &self,
        mut provision: Provision,
        mut maker: Option<Maker>,
        verdict: Verdict,
    ) -> Verdict {
        // Nobody is told the schema of a database that is not registered.
        let state = match verdict.state {
            UpgradeState::Cancelled => UpgradeState::Cancelled,
            _ => UpgradeState::Failed,
        };
        let verdict = Verdict { state, schema: None, seen: None, ..verdict };
        if !begun(&provision) || provision.state() == ProvisionState::Removed {
            return verdict;
        }
        let stop = Stop::within(self.around.options.undo_timeout, CancellationToken::new());
        loop {
            let error = match Box::pin(self.remove(&mut provision, &mut maker, &stop)).await {
                Ok(true) => {
                    let error = format!("{}; nothing is left of what was made", verdict.error);
                    return Verdict { error, ..verdict };
                }
                Ok(false) => return self.upgrade(&stop, None).await,
                Err(error) => error,
            };
            if self.cause.get() == Some(&Cause::Lost) {
                return verdict;
            }
            let again = matches!(error.reason, Reason::DatabaseUnavailable | Reason::UpgradeRunning);
            if !(again || is_transient(&error)) || stop.check().is_err() {
                let error = format!(
                    "{}; {} may be left, to be dropped by hand: {}",
                    verdict.error,
                    described(&provision),
                    error.message
                );
                return Verdict { state: UpgradeState::NeedsRepair, error, ..verdict };
            }
            tracing::warn!(upgrade.id = self.lease.id, error = %error, "what was made is not taken away yet");
            // Its session may be lost.
            maker = None;
            sleep(PAUSE).await;
        }
    }

    /// Takes it away; false: it is registered, and stays.
    async fn remove(
        &self,
        provision: &mut Provision,
        maker: &mut Option<Maker>,
        stop: &Stop,
    ) -> Result<bool, ApiError> {
        if self.was_registered(provision, stop).await? {
            return Ok(false);
        }
        let state = provision.state();
        if maker.is_none() {
            *maker = Some(self.open(provision).await?);
        }
        // Whoever has lost the lease finds out here, and whoever goes on waits for this session's lock.
        self.note(provision, state).await?;
        if let Some(maker) = maker {
            let removed = maker.remove(state == ProvisionState::Made).await;
            removed.map_err(|error| database_error(&error))?;
        }
        self.note(provision, ProvisionState::Removed).await?;
        Ok(true)
    }

    /// Whether another attempt, here or elsewhere, goes on with it.
    fn is_gone_on_with(&self, verdict: &Verdict) -> bool {
        match self.cause.get() {
            Some(Cause::Lost) => true,
            Some(Cause::Drain) => verdict.state == UpgradeState::Cancelled,
            Some(Cause::Asked) | None => false,
        }
    }

    /// Whether this replica has to stop without ending it.
    fn has_to_go(&self) -> bool {
        matches!(self.cause.get(), Some(Cause::Lost | Cause::Drain))
    }

    fn unsuccessful(&self, error: &ApiError) -> Verdict {
        let stopped = self.token.is_cancelled();
        let state = if stopped { UpgradeState::Cancelled } else { UpgradeState::Failed };
        Verdict { state, ..self.nothing_done(error) }
    }

    /// It may be registered or not.
    fn unsettled(&self, provision: &Provision, error: &ApiError) -> Verdict {
        if self.has_to_go() {
            return Verdict { state: UpgradeState::Cancelled, ..self.nothing_done(error) };
        }
        let text = format!(
            "the control plane has not said whether it has registered {}: see `grey database list`, and drop it by hand \
             if it is not there: {}",
            described(provision),
            error.message
        );
        let verdict = self.nothing_done(error);
        Verdict { state: UpgradeState::NeedsRepair, error: text, ..verdict }
    }
}

/// Whether something of it may be there.
fn begun(provision: &Provision) -> bool {
    !matches!(provision.state(), ProvisionState::Unspecified | ProvisionState::Waiting)
}
