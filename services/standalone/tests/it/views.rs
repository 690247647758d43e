//! `grey migrate views`: two versions on the same tables of a PostgreSQL database.

use grey_testkit::Postgres;

use crate::migrate_stage::Stage;

const FILES: [(&str, &str); 4] = [
    ("V1.1__customers.sql", "CREATE TABLE customers (id INTEGER PRIMARY KEY, state TEXT);"),
    ("U1.1__customers.sql", "DROP TABLE customers;"),
    (
        "V1.2__notes.postgres.sql",
        "-- grey: views version=1.1 of=customers\n\
         ALTER TABLE customers ADD COLUMN note TEXT;\n\
         -- grey: views of=customers\n",
    ),
    (
        "U1.2__notes.postgres.sql",
        "-- grey: drop-views\n-- grey: drop-views version=1.1\nALTER TABLE customers DROP COLUMN note;\n",
    ),
];

#[tokio::test]
async fn views_are_listed_switched_and_dropped_once_nothing_uses_them() {
    let postgres = Postgres::start().await.unwrap();
    let stage = Stage::start(&FILES).await;
    for tenant in ["acme", "bluth"] {
        stage.tenant(tenant, &postgres.database(tenant).await.unwrap()).await;
    }
    stage.grey.run(&["tenant", "put", "nobase"]).await.ok();
    let old = ["version", "put", "shop", "v1.1"];
    stage.grey.run(&[&old[..], &["--schema-min", "1.1", "--schema-max", "1.1"]].concat()).await.ok();
    stage.grey.run(&["version", "put", "shop", "v1.2", "--schema-min", "1.2"]).await.ok();
    stage.migrate(&["up", "shop", "--tenants", "all", "--yes"]).await.ok();

    let listed = stage.migrate(&["views", "list", "shop", "--tenants", "all"]).await.ok();
    insta::assert_snapshot!(listed.out, @"
    TENANT  SERVICE  SCHEMA  VIEWS           CURRENT  USED BY  ROLES
    acme    shop     1.1     grey_shop_v1_1  -        v1.1     -
    acme    shop     1.2     grey_shop_v1_2  yes      v1.2     -
    bluth   shop     1.1     grey_shop_v1_1  -        v1.1     -
    bluth   shop     1.2     grey_shop_v1_2  yes      v1.2     -
    ");
    postgres.query("acme", "CREATE ROLE app LOGIN").await.unwrap();
    let switch = ["views", "switch", "shop", "--to", "1.1", "--role", "app", "--tenants", "acme", "--json"];
    let switched = stage.migrate(&switch).await.ok().json();
    let first = &switched["views"][0];
    assert_eq!((&first["current"], &first["roles"][0]), (&true.into(), &"app".into()), "{switched}");
    stage
        .migrate(&["views", "switch", "shop", "--to", "7", "--tenants", "acme"])
        .await
        .refused(1, "MIGRATION_REFUSED");

    // In use by a declared version: they stay, by name and without.
    let drop_all = ["views", "drop", "shop", "--tenants", "all"];
    stage.migrate(&drop_all).await.refused(2, "--yes");
    let kept = stage.migrate(&[&drop_all[..], &["--yes"]].concat()).await.ok();
    assert_eq!(kept.out, "0 schemas of views dropped, 4 kept\n");
    let drop_one = ["views", "drop", "shop", "--tenants", "bluth", "--of", "1.1"];
    stage.migrate(&drop_one).await.refused(1, "a declared version of the service works on them");

    stage.grey.run(&[&old[..], &["--schema-min", "1.2"]].concat()).await.ok();
    let refused = stage.migrate_in_terminal(&drop_all, "n\n").await;
    assert_eq!(refused.code, 2, "{refused}");
    assert!(refused.out.contains("drop views of shop: 3 tenants. Go on? [y/N]"), "{refused}");
    // Acme's are the ones that it was switched to.
    let dropped = stage.migrate_in_terminal(&drop_all, "y\n").await.ok();
    assert!(dropped.out.contains("bluth") && !dropped.out.contains("acme"), "{dropped}");
    assert!(dropped.out.contains("1 schemas of views dropped, 3 kept"), "{dropped}");
}
