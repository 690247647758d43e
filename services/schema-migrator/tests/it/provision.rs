//! Databases that are made for tenants: used in the end, or gone without a trace; and what was there before stays.

use crate::app_replicas::process;
use crate::run_world::{is_on_mysql, mariadb, patient, postgres};
use crate::service_world::{PLAIN, Replica, SOON, Stage, reason, unique};
use grey_core::change::Principal;
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_proto::control::{
    Canary, DatabaseKind, ListDatabasesRequest, Overlay, PutOverlayRequest, Tenant, TenantStatus, overlay,
};
use grey_proto::schema::{
    GetUpgradeRequest, Provision, ProvisionRequest, ProvisionResponse, ProvisionState, StepState, Target,
    Upgrade, UpgradeDirection, UpgradeOptions, UpgradeState,
};
use grey_runtime::Secret;
use grey_runtime::access::{Token, TokenHash};
use grey_schema_migrator::Config;
use grey_schema_migrator::jobs::{Database, Filter, Limits, Queue, Wanted};
use grey_schema_migrator::provision::{Kind, Maker, Site, Sites, name};
use grey_testkit::eventually;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tonic::{Request, Status};

/// One site of each kind.
const SITES: [&str; 4] = ["database", "schema", "family", "file"];

/// A third migration, which fails in the middle of what MariaDB does not roll back.
const FAILING: (&str, &str) =
    ("V1.3__fail.sql", "CREATE TABLE more (id INT NOT NULL PRIMARY KEY);\nINSERT INTO nowhere VALUES (1);");

async fn site(kind: &str, stage: &Stage) -> Site {
    let (kind, url) = match kind {
        "database" => (Kind::Database, postgres().await.url()),
        "schema" => (Kind::Schema, postgres().await.url()),
        "family" => (Kind::Database, format!("mysql://grey:grey@{}/grey", mariadb().await.addr())),
        _ => (Kind::File, format!("sqlite://{}/tenants", stage.folder.path().display())),
    };
    let (name, role) = ("{service}_{tenant}".to_owned(), "grey_{id}".to_owned());
    Site { kind, url: Secret::new(url), name, role, members: Vec::new() }
}

/// A stage with one site.
struct World {
    stage: Stage,
    site: Site,
    tenant: String,
}

impl World {
    /// A suspended tenant without a database.
    async fn new(kind: &str, files: &[(&str, &str)]) -> Self {
        let stage = Stage::new(files).await;
        let site = site(kind, &stage).await;
        std::fs::create_dir(stage.folder.path().join("tenants")).unwrap();
        let world = Self { stage, site, tenant: unique("acme") };
        let tenant =
            Tenant { id: world.tenant.clone(), status: TenantStatus::Suspended.into(), ..Tenant::default() };
        world.stage.plane.put(tenant).await;
        world
    }

    fn config(&self) -> Config {
        let mut config = self.stage.config();
        config.provisioning = Sites::new(BTreeMap::from([("main".to_owned(), self.site.clone())]));
        config.tenants = patient();
        config
    }

    fn request(&self) -> ProvisionRequest {
        ProvisionRequest {
            tenant: self.tenant.clone(),
            service: "shop".to_owned(),
            ..ProvisionRequest::default()
        }
    }

    async fn ask(&self, replica: &Replica) -> Result<ProvisionResponse, Status> {
        replica.grpc().provision(self.request()).await.map(tonic::Response::into_inner)
    }

    /// The database as it would be made.
    fn planned(&self) -> Provision {
        let (tenant, service) = self.ids();
        self.site.provision("main", &tenant, &service, true).unwrap()
    }

    fn ids(&self) -> (TenantId, ServiceId) {
        (TenantId::new(&self.tenant).unwrap(), ServiceId::new("shop").unwrap())
    }

    async fn maker(&self, provision: &Provision) -> Maker {
        let (tenant, service) = self.ids();
        Maker::open(&self.site, provision, (&tenant, &service), &patient()).await.unwrap()
    }

    /// Asks the site's server.
    async fn sql(&self, sql: &str) -> String {
        if self.site.url.expose().starts_with("mysql") {
            mariadb().await.query("grey", sql).await.unwrap()
        } else {
            postgres().await.query("postgres", sql).await.unwrap()
        }
    }

    /// What there is of it at the site.
    async fn left(&self, provision: &Provision) -> Vec<String> {
        let (name, role) = (name(provision), &provision.role);
        let found = match (self.site.kind, self.site.url.expose().starts_with("mysql")) {
            (Kind::File, _) => {
                let folder = Path::new(name).parent().unwrap();
                let entries = std::fs::read_dir(folder).unwrap();
                let entries = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
                return entries.collect();
            }
            (_, true) => {
                let query = format!(
                    "SELECT schema_name FROM information_schema.schemata WHERE schema_name = '{name}'"
                );
                let users = format!("SELECT user FROM mysql.user WHERE user = '{role}'");
                format!("{}\n{}", self.sql(&query).await, self.sql(&users).await).trim().to_owned()
            }
            (Kind::Schema, _) => {
                self.sql(&format!(
                    "SELECT nspname::text FROM pg_namespace WHERE nspname = '{name}' \
                     UNION ALL SELECT rolname::text FROM pg_roles WHERE rolname = '{role}'"
                ))
                .await
            }
            (Kind::Database, _) => {
                self.sql(&format!(
                    "SELECT datname::text FROM pg_database WHERE datname = '{name}' \
                     UNION ALL SELECT rolname::text FROM pg_roles WHERE rolname = '{role}'"
                ))
                .await
            }
        };
        found.lines().map(str::to_owned).collect()
    }

    /// Makes something of the same name that is nobody's business.
    async fn occupy(&self, provision: &Provision) {
        let name = name(provision);
        match self.site.kind {
            Kind::File => std::fs::write(name, "precious").unwrap(),
            Kind::Schema => drop(self.sql(&format!("CREATE SCHEMA {name}")).await),
            Kind::Database => drop(self.sql(&format!("CREATE DATABASE {name}")).await),
        }
    }

    async fn is_active(&self) -> bool {
        self.stage.plane.tenant(&self.tenant).await.status() == TenantStatus::Active
    }

    async fn is_registered(&self) -> bool {
        let request = ListDatabasesRequest { tenant: self.tenant.clone(), ..ListDatabasesRequest::default() };
        let listed = self.stage.plane.databases().list_databases(request).await.unwrap().into_inner();
        !listed.databases.is_empty()
    }

    /// The tenant has its database: it is registered with its schema, active, and can be migrated on.
    async fn is_provisioned(&self, replica: &Replica, ended: &Upgrade, what: &str) {
        assert_eq!(ended.state(), UpgradeState::Succeeded, "{what}: {}", ended.error);
        let provision = ended.provision.clone().unwrap();
        assert_eq!(provision.state(), ProvisionState::Registered, "{what}");
        assert!(self.is_registered().await, "{what}");
        assert_eq!(self.stage.plane.observed(&self.tenant).await, ended.schema, "{what}");
        self.stage.write("V1.9__later.sql", "CREATE TABLE later (id INT NOT NULL PRIMARY KEY);");
        let on = replica.ended(&replica.up(&self.tenant).await.id).await;
        assert_eq!(
            (on.state(), on.schema.as_str()),
            (UpgradeState::Succeeded, "1.9"),
            "{what}: {}",
            on.error
        );
    }

    /// Nothing has come of it, and there is no trace.
    async fn is_as_before(&self, ended: &Upgrade, what: &str) {
        assert_eq!(ended.state(), UpgradeState::Failed, "{what}: {}", ended.error);
        let provision = ended.provision.clone().unwrap();
        assert_eq!(provision.state(), ProvisionState::Removed, "{what}");
        assert_eq!(ended.schema, "", "{what}");
        assert_eq!(self.left(&provision).await, Vec::<String>::new(), "{what}");
        assert!(!self.is_registered().await && !self.is_active().await, "{what}");
        assert_eq!(self.stage.plane.observed(&self.tenant).await, "", "{what}");
    }

    fn wanted(&self, provision: &Provision, asker: &str, role: &str) -> Wanted {
        let (tenant, service) = self.ids();
        Wanted {
            tenant,
            service,
            direction: UpgradeDirection::Up,
            target: Target::default(),
            options: UpgradeOptions::default(),
            asker: Principal { id: asker.to_owned(), role: role.to_owned(), via: "portal".to_owned() },
            reason: String::new(),
            from: String::new(),
            steps: Vec::new(),
            server: "s".to_owned(),
            flip: None,
            provision: Some(provision.clone()),
            idempotency_key: String::new(),
        }
    }

    /// Leaves an upgrade behind as a replica does that dies when the database is `state`.
    async fn abandoned(&self, queue: &Queue, provision: &Provision, state: ProvisionState) -> String {
        let wanted = self.wanted(provision, "ann", "admin");
        let id = queue.enqueue(&wanted).await.unwrap().upgrade.id;
        let limits = Limits { overall: 9, per_server: 9 };
        let taken = queue.take("dead", Duration::ZERO, limits).await.unwrap().unwrap();
        assert_eq!(taken.job.upgrade.id, id);
        let mut provision = provision.clone();
        provision.set_state(state);
        assert!(queue.save_provision(&taken.lease, &provision).await.unwrap());
        id
    }

    async fn queue(&self) -> Queue {
        Queue::new(Box::pin(Database::open(&self.config().database)).await.unwrap())
    }
}

#[tokio::test]
async fn a_tenant_has_its_database_and_is_active_once_it_is_provisioned() {
    for kind in SITES {
        let world = World::new(kind, &PLAIN).await;
        let replica = Replica::start(world.config()).await;
        let dry = ProvisionRequest { dry_run: true, ..world.request() };
        let told = replica.grpc().provision(dry).await.unwrap().into_inner();
        assert_eq!(told.plan.unwrap().to_schema, "1.2", "{kind}");
        assert!(told.upgrade.is_none() && world.left(&told.provision.unwrap()).await.is_empty(), "{kind}");
        let asked = world.ask(&replica).await.unwrap().upgrade.unwrap();
        let told = replica.follow(&asked.id).await;
        let ended = told.last().unwrap();
        assert_eq!(ended.schema, "1.2", "{kind}: {}", ended.error);
        assert!(world.is_active().await, "{kind}");
        // One event tells all of it.
        let event = world.stage.plane.newest_event().await;
        assert_eq!(event.changes.len(), 3, "{kind}: {event:?}");
        assert_eq!(event.cause, format!("upgrade/{}", asked.id));
        assert_eq!(reason(world.ask(&replica).await), Reason::DatabaseRefused, "{kind}");
        world.is_provisioned(&replica, ended, kind).await;
        replica.stop().await;
    }
}

#[tokio::test]
async fn the_schema_is_one_on_which_what_serves_the_tenant_works() {
    let world = World::new("file", &PLAIN).await;
    let replica = Replica::start(world.config()).await;
    let plan = async |version: &str| {
        let target = Some(Target { service_version: version.to_owned(), ..Target::default() });
        let request = ProvisionRequest { dry_run: true, target, ..world.request() };
        let answer = replica.grpc().provision(request).await;
        answer.map(|answer| answer.into_inner().plan.unwrap().to_schema)
    };
    assert_eq!(plan("").await.unwrap(), "1.2");
    assert_eq!(plan("1.5").await.unwrap(), "1.1");
    // Some of its calls would go to 1.5, which works on 1.1 only; the default works on any.
    let canary = Canary { baseline: "1.0".into(), canary: "1.5".into(), weight: 100, buckets: Vec::new() };
    let overlay = Overlay {
        service: "shop".into(),
        id: "next".into(),
        kind: Some(overlay::Kind::Canary(canary)),
        ..Overlay::default()
    };
    let put = PutOverlayRequest { overlay: Some(overlay), ..PutOverlayRequest::default() };
    world.stage.plane.catalog().put_overlay(put).await.unwrap();
    assert_eq!(plan("").await.unwrap(), "1.1");
    // What serves everyone counts more than what is tried out.
    world.stage.plane.put_version("1.0", "1.2", "").await;
    assert_eq!(plan("").await.unwrap(), "1.2");
    world.stage.plane.put_version("3.0", "3.0", "").await;
    assert_eq!(reason(plan("3.0").await), Reason::MigrationRefused);
    assert_eq!(reason(plan("9.9").await), Reason::UnknownVersion);
    replica.stop().await;
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_behind() {
    for kind in SITES {
        let world = World::new(kind, &[&PLAIN[..], &[FAILING]].concat()).await;
        let replica = Replica::start(world.config()).await;
        let asked = world.ask(&replica).await.unwrap().upgrade.unwrap();
        let ended = replica.ended(&asked.id).await;
        assert!(ended.error.contains("nowhere"), "{kind}: {}", ended.error);
        world.is_as_before(&ended, kind).await;
        // And nothing is in the way of another attempt.
        world.stage.write(FAILING.0, "CREATE TABLE more (id INT NOT NULL PRIMARY KEY);");
        let asked = world.ask(&replica).await.unwrap().upgrade.unwrap();
        let ended = replica.ended(&asked.id).await;
        world.is_provisioned(&replica, &ended, kind).await;
        replica.stop().await;
    }
}

#[tokio::test]
async fn what_is_there_is_refused_before_anything_and_stays() {
    for kind in SITES {
        let world = World::new(kind, &PLAIN).await;
        let replica = Replica::start(world.config()).await;
        let planned = world.planned();
        world.occupy(&planned).await;
        let there = world.left(&planned).await;
        assert_eq!(there.len(), 1, "{kind}");
        assert_eq!(reason(world.ask(&replica).await), Reason::DatabaseRefused, "{kind}");
        let queue = world.queue().await;
        assert!(queue.list(&Filter { limit: 9, ..Filter::default() }).await.unwrap().is_empty(), "{kind}");
        assert_eq!(world.left(&planned).await, there, "{kind}");
        // It came between the question and the making.
        let id = queue.enqueue(&world.wanted(&planned, "ann", "admin")).await.unwrap().upgrade.id;
        let ended = replica.ended(&id).await;
        assert_eq!(ended.state(), UpgradeState::Failed, "{kind}: {}", ended.error);
        assert_eq!(world.left(&planned).await, there, "{kind}");
        replica.stop().await;
    }
}

#[tokio::test]
async fn what_came_in_the_way_of_a_crash_is_not_taken_for_what_was_made() {
    for kind in SITES {
        let world = World::new(kind, &PLAIN).await;
        let (queue, planned) = (world.queue().await, world.planned());
        world.occupy(&planned).await;
        let id = world.abandoned(&queue, &planned, ProvisionState::Making).await;
        let replica = Replica::start(world.config()).await;
        let ended = replica.ended(&id).await;
        let undecided = kind == "family" && is_on_mysql();
        let expected = if undecided { UpgradeState::NeedsRepair } else { UpgradeState::Failed };
        assert_eq!(ended.state(), expected, "{kind}: {}", ended.error);
        assert_eq!(world.left(&planned).await.len(), 1, "{kind}");
        assert!(!world.is_registered().await, "{kind}");
        replica.stop().await;
    }
}

/// How far a replica came that died.
const DEATHS: [(&str, ProvisionState); 5] = [
    ("asked", ProvisionState::Waiting),
    ("before it made anything", ProvisionState::Making),
    ("with a role alone", ProvisionState::Making),
    ("with all made and not noted", ProvisionState::Making),
    ("made", ProvisionState::Made),
];

/// Leaves a database behind as such a replica does; tells the upgrade.
async fn died(world: &World, death: (&str, ProvisionState)) -> String {
    let (queue, planned) = (world.queue().await, world.planned());
    let role = &planned.role;
    match death.0 {
        "asked" | "before it made anything" => {}
        "with a role alone" => match (world.site.kind, world.site.url.expose().starts_with("mysql")) {
            (Kind::File, _) => {
                let path = Path::new(&planned.server);
                let file = path.file_name().unwrap().to_string_lossy();
                std::fs::write(path.with_file_name(format!(".{file}.{role}")), "").unwrap();
            }
            (_, true) => drop(world.sql(&format!("CREATE USER '{role}'@'%' IDENTIFIED BY 'x'")).await),
            _ => drop(world.sql(&format!("CREATE ROLE {role}; GRANT {role} TO CURRENT_USER")).await),
        },
        _ => drop(world.maker(&planned).await.make(false).await.unwrap()),
    }
    world.abandoned(&queue, &planned, death.1).await
}

#[tokio::test]
async fn wherever_a_replica_dies_another_one_finishes() {
    for kind in SITES {
        for death in DEATHS {
            if kind == "family" && is_on_mysql() && death.0 == "with all made and not noted" {
                // MySQL does not tell that it was made here, and a person has to.
                continue;
            }
            let world = World::new(kind, &PLAIN).await;
            let id = died(&world, death).await;
            let replica = Replica::start(world.config()).await;
            let (ended, what) = (replica.ended(&id).await, format!("{kind}, {}", death.0));
            assert!(world.is_active().await, "{what}: {}", ended.error);
            world.is_provisioned(&replica, &ended, &what).await;
            replica.stop().await;
        }
    }
}

#[tokio::test]
async fn wherever_a_replica_dies_another_one_leaves_nothing_of_what_fails() {
    for kind in SITES {
        for death in DEATHS {
            if kind == "family" && is_on_mysql() && death.0 == "with all made and not noted" {
                continue;
            }
            let world = World::new(kind, &[&PLAIN[..], &[FAILING]].concat()).await;
            let id = died(&world, death).await;
            let replica = Replica::start(world.config()).await;
            let (ended, what) = (replica.ended(&id).await, format!("{kind}, {}", death.0));
            world.is_as_before(&ended, &what).await;
            replica.stop().await;
        }
    }
}

#[tokio::test]
async fn what_is_registered_is_never_taken_away() {
    for kind in SITES {
        let world = World::new(kind, &[&PLAIN[..], &[FAILING]].concat()).await;
        let (queue, planned) = (world.queue().await, world.planned());
        let target = world.maker(&planned).await.make(false).await.unwrap();
        let (how, schema) = (DatabaseKind::from(world.site.kind), target.schema.clone().unwrap_or_default());
        world.stage.plane.register(&world.tenant, how, &schema, target.url.expose()).await;
        let id = world.abandoned(&queue, &planned, ProvisionState::Made).await;
        let replica = Replica::start(world.config()).await;
        let ended = replica.ended(&id).await;
        assert_ne!(ended.state(), UpgradeState::Succeeded, "{kind}");
        assert_eq!(ended.provision.unwrap().state(), ProvisionState::Registered, "{kind}");
        assert!(!world.left(&planned).await.is_empty() && world.is_registered().await, "{kind}");
        replica.stop().await;
    }
}

#[tokio::test]
async fn what_is_registered_by_another_role_is_never_taken_away() {
    for kind in ["database", "schema", "family"] {
        let world = World::new(kind, &[&PLAIN[..], &[FAILING]].concat()).await;
        let (queue, planned) = (world.queue().await, world.planned());
        let target = world.maker(&planned).await.make(false).await.unwrap();
        let (how, schema) = (DatabaseKind::from(world.site.kind), target.schema.clone().unwrap_or_default());
        let url = target.url.expose().replacen(&planned.role, "somebody", 1);
        world.stage.plane.register(&world.tenant, how, &schema, &url).await;
        let there = world.left(&planned).await;
        let id = world.abandoned(&queue, &planned, ProvisionState::Made).await;
        let replica = Replica::start(world.config()).await;
        let ended = replica.ended(&id).await;
        assert_ne!(ended.state(), UpgradeState::Succeeded, "{kind}");
        assert_eq!(world.left(&planned).await, there, "{kind}");
        assert!(world.is_registered().await, "{kind}");
        replica.stop().await;
    }
}

#[tokio::test]
async fn the_database_of_a_killed_replica_is_finished_or_taken_away() {
    for (rest, finishes) in [("SELECT 1;", true), ("SELECT nothing FROM nowhere;", false)] {
        let world = World::new("database", &PLAIN).await;
        world.stage.write("V1.3__held.sql", "SELECT pg_sleep(600);");
        let config = world.config();
        let url = [("GREY__PROVISIONING__MAIN__URL", world.site.url.expose())];
        let (first, mut client) = process(&config, world.stage.folder.path(), &url).await;
        let asked = client.provision(world.request()).await.unwrap().into_inner().upgrade.unwrap();
        let held = async || {
            let request = GetUpgradeRequest { id: asked.id.clone() };
            let upgrade = client.clone().get_upgrade(request).await.unwrap().into_inner().upgrade.unwrap();
            upgrade.steps.iter().any(|it| it.schema == "1.3" && it.state() == StepState::Running)
        };
        eventually(SOON, "the held step runs", held).await;
        first.kill9().unwrap();
        // The server would sleep on for the dead.
        let database = name(&asked.provision.clone().unwrap()).to_owned();
        world
            .sql(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
            ))
            .await;
        world.stage.write("V1.3__held.sql", rest);
        let second = Replica::start(config).await;
        let ended = second.ended(&asked.id).await;
        if finishes {
            world.is_provisioned(&second, &ended, rest).await;
            assert_eq!(ended.attempts, 2);
        } else {
            world.is_as_before(&ended, rest).await;
        }
        second.stop().await;
    }
}

#[tokio::test]
async fn only_administrators_have_databases_made() {
    let world = World::new("file", &PLAIN).await;
    let mut config = world.config();
    let roles = ["viewer", "operator", "admin"];
    let token =
        |role: &str| Token { name: role.to_owned(), role: role.to_owned(), sha256: TokenHash::of(role) };
    config.access.tokens = roles.map(token).to_vec();
    let replica = Replica::start(config.clone()).await;
    for role in roles {
        let mut request = Request::new(ProvisionRequest { dry_run: true, ..world.request() });
        request.metadata_mut().insert("authorization", format!("Bearer {role}").parse().unwrap());
        let answer = replica.grpc().provision(request).await;
        assert_eq!(answer.is_ok(), role == "admin", "{role}: {answer:?}");
        if role != "admin" {
            assert_eq!(reason(answer), Reason::Denied, "{role}");
        }
    }
    replica.stop().await;

    // Whoever asked is judged again where it is registered.
    let (queue, planned) = (world.queue().await, world.planned());
    let wanted = world.wanted(&planned, "otto", "operator");
    let id = queue.enqueue(&wanted).await.unwrap().upgrade.id;
    let replica = Replica::start(world.config()).await;
    let ended = replica.ended(&id).await;
    assert!(ended.error.contains("`otto`"), "{}", ended.error);
    world.is_as_before(&ended, "an operator's").await;
    replica.stop().await;
}
