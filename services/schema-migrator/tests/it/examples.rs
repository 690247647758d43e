//! The example services' migrations, as they are in the repository.

use grey_core::ids::ServiceId;
use grey_schema_migrator::files::{Dialect, Folder, Scripts, Step};
use std::path::Path;

/// The repository's own migrations of an example service.
pub(crate) fn example(service: &str, dialect: Dialect) -> Scripts {
    let checkout = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let folder = Folder::new(Path::new(&checkout).join("../../migrations"));
    folder.load(&ServiceId::new(service).unwrap(), dialect).unwrap()
}

#[test]
fn examples_load_for_every_dialect() {
    for dialect in Dialect::ALL {
        for service in ["orders", "payment"] {
            let scripts = example(service, dialect);
            let versions: Vec<_> = scripts.migrations.iter().map(|it| it.schema.to_string()).collect();
            assert_eq!(versions, ["1.1", "1.2"], "{service} {dialect}");
            assert!(scripts.migrations.iter().all(|it| it.undo.is_some()), "{service} {dialect}");
        }
        let orders = example("orders", dialect);
        let last = orders.migrations.last().unwrap();
        assert!(matches!(last.steps.last(), Some(Step::Backfill(_))), "{dialect}: {last:?}");
        assert_eq!(last.checks.len(), 2, "{dialect}");
    }
}

#[test]
fn dialects_have_variants_of_their_own() {
    let create = |dialect| example("orders", dialect).migrations.first().unwrap().clone();
    assert_eq!(create(Dialect::Postgres).steps.len(), 2);
    assert!(create(Dialect::Postgres).transactional);
    assert_eq!(create(Dialect::MySql).steps.len(), 1);
    assert!(!create(Dialect::MySql).transactional);
    assert_ne!(create(Dialect::Sqlite).checksum, create(Dialect::Postgres).checksum);
    let index = |dialect| example("payment", dialect).migrations.last().unwrap().clone();
    assert!(!index(Dialect::Postgres).transactional);
    assert!(index(Dialect::Sqlite).transactional);
}
