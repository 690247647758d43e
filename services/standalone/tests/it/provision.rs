//! `grey tenant provision`: a database where none was, and a tenant that is routed to.

use std::path::{Path, PathBuf};

use grey_testkit::eventually;
use tempfile::TempDir;

use crate::grey::{DEADLINE, Done, Grey, file};

const FILES: [(&str, &str); 3] = [
    ("V1.1__notes.sql", "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY, body TEXT);"),
    // In a database that is in use this would be refused, or stopped before.
    ("V1.2__drop_body.sql", "ALTER TABLE notes DROP COLUMN body;"),
    ("V2.0__tags.sql", "CREATE TABLE tags (id INT NOT NULL PRIMARY KEY);"),
];

struct World {
    grey: Grey,
    dir: TempDir,
}

impl World {
    /// The service `shop` with an instance of v1.2, which is the default and works on schemas 1.2 to 1.9.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (files, tenants) = (dir.path().join("migrations"), dir.path().join("tenants"));
        std::fs::create_dir_all(files.join("shop")).unwrap();
        std::fs::create_dir(&tenants).unwrap();
        for (name, text) in FILES {
            file(&files.join("shop"), name, text);
        }
        let instance = "services: {shop: [{id: s-1, address: \"10.0.0.1:80\", version: v1.2}]}";
        let instances = file(dir.path(), "instances.yaml", instance);
        let site = format!(
            "[provisioning.files]\nkind = \"file\"\nurl = \"sqlite://{}\"\nname = \"{{service}}-{{tenant}}.db\"\n",
            tenants.display()
        );
        let migrator = file(dir.path(), "migrator.toml", &site);
        let env = [
            ("GREY__SCHEMA_MIGRATOR__MIGRATIONS", files.to_str().unwrap()),
            ("GREY__STANDALONE__SCHEMA_MIGRATOR", migrator.to_str().unwrap()),
            ("GREY__STANDALONE__INSTANCES", instances.to_str().unwrap()),
        ];
        let grey = Grey::start_with(&[], &env).await;
        grey.run(&["service", "put", "shop", "--default", "v1.2"]).await.ok();
        let window = ["version", "put", "shop", "v1.2", "--schema-min", "1.2", "--schema-max", "1.9"];
        grey.run(&window).await.ok();
        grey.run(&["tenant", "put", "acme", "--status", "suspended"]).await.ok();
        Self { grey, dir }
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("tenants/shop-acme.db")
    }

    async fn provision(&self, more: &[&str]) -> Done {
        let args = ["tenant", "provision", "acme", "--service", "shop"];
        self.grey.run(&[&args, more].concat()).await
    }

    fn tenants_folder_is_empty(&self) -> bool {
        std::fs::read_dir(self.dir.path().join("tenants")).unwrap().next().is_none()
    }
}

#[tokio::test]
async fn a_tenant_without_a_database_is_routed_to_once_it_is_provisioned() {
    let world = World::start().await;
    let dry = world.provision(&["--dry-run"]).await.ok();
    assert!(dry.out.starts_with("dry run, nothing was made:\n1. make file "), "{dry}");
    assert!(dry.out.contains("2. run 2 files: nothing -> 1.2\n"), "{dry}");
    assert!(dry.out.contains("3. register it for shop, and make acme active\n"), "{dry}");
    assert!(dry.out.contains("ALTER TABLE notes DROP COLUMN body;"), "{dry}");
    assert!(world.tenants_folder_is_empty());
    eventually(DEADLINE, "the tenant is suspended", async || {
        world.grey.run(&["route", "acme", "shop"]).await.err.contains("TENANT_SUSPENDED")
    })
    .await;

    let done = world.provision(&["--reason", "new customer"]).await.ok();
    assert!(done.out.contains("succeeded, nothing -> 1.2"), "{done}");
    assert!(done.out.trim_end().ends_with("shop-acme.db; acme is active"), "{done}");
    eventually(DEADLINE, "the tenant is routed to", async || {
        let routed = world.grey.run(&["route", "acme", "shop", "--json"]).await;
        routed.code == 0 && routed.json()["version"] == "v1.2"
    })
    .await;
    // One name, and nothing beside it but what migrations keep.
    assert!(world.database().exists());
    let hidden = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().starts_with('.')
    };
    assert!(!std::fs::read_dir(world.dir.path().join("tenants")).unwrap().any(hidden));
    world.provision(&[]).await.refused(1, "DATABASE_REFUSED");
    assert!(Path::new(&world.database()).exists());
}

#[tokio::test]
async fn what_fails_or_is_in_the_way_leaves_everything_as_it_was() {
    let world = World::start().await;
    let shop = world.dir.path().join("migrations/shop");
    let right = file(&shop, "V1.2__drop_body.sql", "INSERT INTO nowhere VALUES (1);");
    let failed = world.provision(&["--json"]).await;
    assert_eq!(failed.code, 1, "{failed}");
    let told = failed.json();
    assert_eq!(told["upgrade"]["state"], "UPGRADE_STATE_FAILED", "{failed}");
    assert_eq!(told["provision"]["state"], "PROVISION_STATE_REMOVED", "{failed}");
    assert!(told["upgrade"]["error"].as_str().unwrap().contains("nowhere"), "{failed}");
    assert!(world.tenants_folder_is_empty());
    let listed = world.grey.json(&["database", "list", "--tenant", "acme"]).await;
    assert!(listed.get("databases").is_none(), "{listed}");
    let tenant = world.grey.json(&["tenant", "get", "acme"]).await;
    assert_eq!(tenant["tenant"]["status"], "TENANT_STATUS_SUSPENDED", "{tenant}");

    std::fs::write(right, FILES[1].1).unwrap();
    std::fs::write(world.database(), "precious").unwrap();
    world.provision(&[]).await.refused(1, "is there already");
    assert_eq!(std::fs::read_to_string(world.database()).unwrap(), "precious");
    std::fs::remove_file(world.database()).unwrap();
    world.provision(&["--inactive"]).await.ok();
    let tenant = world.grey.json(&["tenant", "get", "acme"]).await;
    assert_eq!(tenant["tenant"]["status"], "TENANT_STATUS_SUSPENDED", "{tenant}");
    assert_eq!(tenant["schemas"][0]["schema"], "1.2", "{tenant}");
}
