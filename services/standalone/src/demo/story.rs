//! The steps of the story, each of which asserts what it tells.

mod doubt;
mod gate;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use grey_proto::control::WriteResult;
use grey_proto::control::change::Change as Kind;
use grey_proto::router::DecisionReason;
use grey_proto::status::ApiError;

use super::Mode;
use super::admin::Admin;
use super::backends::Backends;
use super::calls::Caller;
use super::databases::{Databases, Migrator};
use super::registry::{Mirror, RegistryFile};
use super::screen::Screen;
use super::world;
use crate::cli::explain::tree;

/// For anything that the story waits for.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(5);
/// Calls that must go the new way after the first one did.
const CONFIRM: usize = 20;
/// Calls of the traffic after which none is left that was decided before.
const TURNOVER: u64 = 100;

/// The story and everybody in it.
pub(super) struct Story {
    admin: Admin,
    caller: Caller,
    backends: Backends,
    registry: RegistryFile,
    mirror: Mirror,
    databases: Databases,
    migrator: Migrator,
    screen: Screen,
}

/// Everybody in a story.
pub(super) struct Cast {
    pub(super) admin: Admin,
    pub(super) caller: Caller,
    pub(super) backends: Backends,
    pub(super) registry: RegistryFile,
    pub(super) mirror: Mirror,
    pub(super) databases: Databases,
    pub(super) migrator: Migrator,
}

impl Story {
    pub(super) fn new(cast: Cast, screen: Screen) -> Self {
        let Cast { admin, caller, backends, registry, mirror, databases, migrator } = cast;
        Self { admin, caller, backends, registry, mirror, databases, migrator, screen }
    }

    /// Declares the world and waits until the router can serve it.
    pub(super) async fn declare(&mut self) -> anyhow::Result<()> {
        let admin = &self.admin;
        until("a router is there", async || Ok(admin.routers().await? > 0)).await?;
        let services = world::services().into_iter().map(Kind::ServicePut);
        let versions = world::versions().into_iter().map(Kind::VersionPut);
        admin.apply(services.chain(versions).collect(), "demo").await.map_err(told)?;
        admin.apply(world::tenants(), "demo").await.map_err(told)?;
        Box::pin(self.create_databases()).await.context("create the tenants' databases")?;
        let applied = admin.set_overlay(world::canary(10), "canary at 10 %").await.map_err(told)?;
        everywhere(&applied)?;
        let caller = &self.caller;
        until("every instance list is there", async || {
            for service in world::SERVICES {
                for (tenant, ..) in world::TENANTS {
                    if caller.route(tenant, service, world::ZONES[0]).await.is_err() {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        })
        .await
    }

    /// Tells every step, with `pause` between them.
    pub(super) async fn tell(&mut self, pause: Duration) -> anyhow::Result<()> {
        self.screen.say(&format!(
            "the world      {} tenants, {} services in {} versions each, {} instances in a file that registry-sync mirrors; \
             payment has a canary at 10 %, orders has a database for each tenant",
            world::TENANTS.len(),
            world::SERVICES.len(),
            world::VERSIONS,
            self.backends.count()
        ));
        self.traffic_flows().await.context("step 0, traffic")?;
        tokio::time::sleep(pause).await;
        self.pin().await.context("step 1, pin")?;
        tokio::time::sleep(pause).await;
        self.death().await.context("step 2, an instance dies")?;
        tokio::time::sleep(pause).await;
        Box::pin(self.gate()).await.context("step 3, schema gate")?;
        tokio::time::sleep(pause).await;
        self.canary().await.context("step 4, canary")?;
        tokio::time::sleep(pause).await;
        self.rollback().await.context("step 5, rollback")?;
        tokio::time::sleep(pause).await;
        self.doubt().await.context("step 6, a registry in doubt")?;
        self.screen.say("the end        every step held");
        Ok(())
    }

    /// Says what to try now, where the view does not show it anyway.
    pub(super) fn goes_on(&self, introduction: &[String]) {
        self.screen.say("traffic goes on until Ctrl-C (in the live view: q)");
        if self.screen.mode() == Mode::Plain {
            introduction.iter().for_each(|line| self.screen.say(line));
        }
    }

    async fn traffic_flows(&self) -> anyhow::Result<()> {
        let tally = self.caller.tally();
        until("every version serves calls", async || {
            Ok(tally.by_version().iter().flatten().all(|count| *count > 0))
        })
        .await?;
        self.no_failures()
    }

    /// Step 1: a pin takes effect within milliseconds.
    async fn pin(&self) -> anyhow::Result<()> {
        let (tenant, service, version) = (world::MOVED, "payment", "v2.0");
        let before = self.caller.call(tenant, service, world::ZONES[0]).await?;
        ensure!(before.version == world::DEFAULT, "{tenant} begins on {}", before.version);
        let begun = Instant::now();
        let command = self.admin.pin(tenant, service, version, "demo: acme goes first");
        let (written, effect) = tokio::join!(command, self.until_served(tenant, service, version, begun));
        let (written, effect) = (written.map_err(told)?, effect?);
        let routers = everywhere(&written)?;
        self.confirm(tenant, service, version).await?;
        self.screen.say(&format!(
            "1 pin          {tenant}'s {service} -> {version}: first call on {version} {effect:.1?} after the command began; \
             revision {}, {routers}",
            written.revision
        ));
        self.explain(tenant, service).await?;
        self.no_failures()
    }

    /// Step 2: an instance dies under traffic, and no call fails.
    async fn death(&mut self) -> anyhow::Result<()> {
        let victim = format!("payment-{}-1", world::DEFAULT);
        let tally = self.caller.tally();
        self.backends.kill(&victim);
        until("a call notices", async || Ok(tally.unanswered_by(&victim) > 0)).await?;
        self.registry.list(&self.backends.listings())?;
        let removed = Instant::now();
        let caller = &self.caller;
        let victim_is_out = async || {
            for _ in 0..CONFIRM {
                let decision = caller.route(world::UNPINNED, "payment", world::ZONES[0]).await?;
                if decision.instance.is_some_and(|instance| instance.id == victim) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        until("the router leaves it out", victim_is_out).await?;
        let out = removed.elapsed();
        self.turnover().await?;
        let unanswered = tally.unanswered_by(&victim);
        self.turnover().await?;
        ensure!(tally.unanswered_by(&victim) == unanswered, "{victim} still gets calls");
        self.no_failures()?;
        self.screen.say(&format!(
            "2 death        {victim} was killed: {unanswered} calls were routed again, none failed; removed from the registry's \
             file, it was out of the router's table within {out:.1?}"
        ));
        self.replacement().await
    }

    /// Step 2, second part: a new instance takes part as soon as it is registered.
    async fn replacement(&mut self) -> anyhow::Result<()> {
        let (version, zone) = (world::DEFAULT, world::ZONES[0]);
        let new = format!("payment-{version}-4");
        self.backends.start_one("payment", version, &new, zone).await?;
        self.registry.list(&self.backends.listings())?;
        let added = Instant::now();
        let caller = &self.caller;
        let it_answers = async || Ok(caller.call(world::UNPINNED, "payment", zone).await?.instance == new);
        until("the new instance answers a call", it_answers).await?;
        self.screen.say(&format!(
            "               {new} was started and written into that file: its first call came {:.1?} later",
            added.elapsed()
        ));
        self.no_failures()
    }

    /// Step 4: a canary grows, and nobody on it leaves.
    async fn canary(&self) -> anyhow::Result<()> {
        let before = self.on_canary().await?;
        everywhere(&self.admin.set_overlay(world::canary(90), "canary at 90 %").await.map_err(told)?)?;
        let after = self.on_canary().await?;
        let left: Vec<_> = before.difference(&after).collect();
        ensure!(left.is_empty(), "{left:?} left the canary when it grew");
        ensure!(after.len() > before.len(), "the canary has {} tenants at 90 % as at 10 %", after.len());
        let about = world::TENANTS.iter().filter(|(_, tier, _)| world::in_canary_tiers(tier)).count();
        self.screen.say(&format!(
            "4 canary       10 % -> 90 %: {} -> {} of {about} tenants of its tiers, none left ({})",
            before.len(),
            after.len(),
            after.iter().copied().collect::<Vec<_>>().join(", ")
        ));
        if let Some(tenant) = after.first() {
            self.explain(tenant, "payment").await?;
        }
        self.no_failures()
    }

    /// Step 5: a rollback is as quick as the pin was.
    async fn rollback(&self) -> anyhow::Result<()> {
        let (tenant, service, version) = (world::MOVED, "payment", world::DEFAULT);
        let begun = Instant::now();
        let command = self.admin.unpin(tenant, service, "demo: roll back");
        let (written, effect) = tokio::join!(command, self.until_served(tenant, service, version, begun));
        let (written, effect) = (written.map_err(told)?, effect?);
        let routers = everywhere(&written)?;
        self.confirm(tenant, service, version).await?;
        self.screen.say(&format!(
            "5 rollback     {tenant}'s {service} -> {version}: first call on {version} {effect:.1?} after the command began; \
             revision {}, {routers}",
            written.revision
        ));
        self.explain(tenant, service).await?;
        self.no_failures()
    }

    /// Calls until `version` answers; the time since `begun`.
    async fn until_served(
        &self,
        tenant: &str,
        service: &str,
        version: &str,
        begun: Instant,
    ) -> anyhow::Result<Duration> {
        while begun.elapsed() < DEADLINE {
            if self.caller.call(tenant, service, world::ZONES[0]).await?.version == version {
                return Ok(begun.elapsed());
            }
        }
        bail!("{tenant}'s calls of {service} are not served by {version} within {DEADLINE:?}")
    }

    /// Every further call goes to `version`.
    async fn confirm(&self, tenant: &str, service: &str, version: &str) -> anyhow::Result<()> {
        for _ in 0..CONFIRM {
            let answer = self.caller.call(tenant, service, world::ZONES[1]).await?;
            ensure!(answer.version == version, "{tenant}'s call of {service} went to {}", answer.version);
        }
        Ok(())
    }

    /// The tenants that the canary serves; they must be of its tiers.
    async fn on_canary(&self) -> anyhow::Result<BTreeSet<&'static str>> {
        let mut on = BTreeSet::new();
        for (tenant, tier, _) in world::TENANTS {
            let decision = self.caller.route(tenant, "payment", world::ZONES[0]).await?;
            if decision.reason() == DecisionReason::Canary {
                ensure!(world::in_canary_tiers(tier), "{tenant} of tier {tier} is on the canary");
                on.insert(tenant);
            }
        }
        Ok(on)
    }

    /// Waits until every call that is now under way has ended.
    async fn turnover(&self) -> anyhow::Result<()> {
        let tally = self.caller.tally();
        let enough = tally.total() + TURNOVER;
        until("traffic goes on", async || Ok(tally.total() >= enough)).await
    }

    async fn explain(&self, tenant: &str, service: &str) -> anyhow::Result<()> {
        let (call, explanation) = self.caller.explain(tenant, service).await?;
        for line in tree(&call, Some(&explanation)).lines() {
            self.screen.say(&format!("               {line}"));
        }
        Ok(())
    }

    fn no_failures(&self) -> anyhow::Result<()> {
        let failures = self.caller.tally().failures();
        ensure!(failures.count == 0, "{} calls failed, the last one: {}", failures.count, failures.last);
        Ok(())
    }
}

/// Every router has the write.
fn everywhere(written: &WriteResult) -> anyhow::Result<String> {
    let progress = written.routers.as_ref().ok_or_else(|| anyhow!("no word of the routers"))?;
    let (applied, total) = (progress.applied, progress.total);
    ensure!(progress.complete, "{applied} of {total} routers have revision {}", written.revision);
    let elapsed = Duration::try_from(progress.elapsed.unwrap_or_default()).unwrap_or_default();
    Ok(format!("{applied} of {total} routers in {elapsed:.1?}"))
}

fn told(error: ApiError) -> anyhow::Error {
    let reason = error.reason.as_str();
    anyhow::Error::new(error).context(reason)
}

/// Polls `holds` until it does.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + DEADLINE;
    while !holds().await.with_context(|| format!("wait until {what}"))? {
        ensure!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
