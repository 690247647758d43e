//! A standalone with migrations of a service `shop`; tenants' databases as a test adds them.

use serde_json::Value;
use tempfile::TempDir;

use crate::grey::{Done, Grey, file};

pub(crate) struct Stage {
    pub(crate) grey: Grey,
    pub(crate) dir: TempDir,
}

impl Stage {
    pub(crate) async fn start(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("migrations");
        std::fs::create_dir_all(folder.join("shop")).unwrap();
        for (name, text) in files {
            file(&folder.join("shop"), name, text);
        }
        let env = [("GREY__SCHEMA_MIGRATOR__MIGRATIONS", folder.to_str().unwrap())];
        let grey = Grey::start_with(&[], &env).await;
        grey.run(&["service", "put", "shop", "--default", "v1.1"]).await.ok();
        Self { grey, dir }
    }

    /// A tenant with this database.
    pub(crate) async fn tenant(&self, tenant: &str, url: &str) {
        self.grey.run(&["tenant", "put", tenant]).await.ok();
        self.grey.run(&["database", "put", tenant, "shop", "--url", url]).await.ok();
    }

    /// A tenant with an empty SQLite file; tells the database's URL.
    pub(crate) async fn sqlite(&self, tenant: &str) -> String {
        let database = file(self.dir.path(), &format!("{tenant}.db"), "");
        let url = format!("sqlite://{}", database.display());
        self.tenant(tenant, &url).await;
        url
    }

    pub(crate) async fn migrate(&self, args: &[&str]) -> Done {
        self.grey.run(&[&["migrate"], args].concat()).await
    }

    /// The same in a terminal, where a person types `input`.
    pub(crate) async fn migrate_in_terminal(&self, args: &[&str], input: &str) -> Done {
        self.grey.run_in_terminal(&[&["migrate"], args].concat(), input).await
    }

    pub(crate) async fn schema_of(&self, tenant: &str) -> Value {
        let args = ["migrate", "status", "shop", "--tenants", tenant, "--live"];
        self.grey.json(&args).await["schemas"][0]["schema"].clone()
    }
}
