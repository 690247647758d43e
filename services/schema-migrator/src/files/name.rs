//! Names of migration files.

use super::{Dialect, FaultKind};
use grey_core::schema::SchemaVersion;

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Role {
    /// It migrates.
    Migrate,
    /// It undoes.
    Undo,
    /// It checks.
    Check,
}

/// A name, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Name {
    pub(super) role: Role,
    pub(super) version: SchemaVersion,
    pub(super) description: String,
    pub(super) variant: Option<Dialect>,
}

/// What a file in a service's folder is by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Named {
    /// It belongs to a version.
    Versioned(Name),
    /// It is run whenever it has changed.
    Repeatable { description: String, variant: Option<Dialect> },
    /// It is not meant for the migrator: no SQL, or what an editor has left.
    Other,
}

impl Named {
    /// Takes a file's name apart.
    pub(super) fn parse(file: &str) -> Result<Self, FaultKind> {
        if file.starts_with('.') || !file.to_ascii_lowercase().ends_with(".sql") {
            return Ok(Self::Other);
        }
        let stem = file.strip_suffix(".sql").ok_or(FaultKind::Name)?;
        let (role, rest) = match stem.split_at_checked(1) {
            Some(("V", rest)) => (Role::Migrate, rest),
            Some(("U", rest)) => (Role::Undo, rest),
            Some(("C", rest)) => (Role::Check, rest),
            Some(("R", rest)) if rest.starts_with("__") => {
                let rest = rest.strip_prefix("__").unwrap_or_default();
                let (description, variant) = described(rest)?;
                return Ok(Self::Repeatable { description, variant });
            }
            _ => return Err(unsupported(stem)),
        };
        let (version, rest) = rest.split_once("__").ok_or(FaultKind::Name)?;
        // As in Flyway, an underscore separates as a dot does.
        let version = SchemaVersion::new(&version.replace('_', "."))
            .map_err(|error| FaultKind::Version(error.to_string()))?;
        let (description, variant) = described(rest)?;
        Ok(Self::Versioned(Name { role, version, description, variant }))
    }
}

/// The description and the dialect that come after `__`.
fn described(rest: &str) -> Result<(String, Option<Dialect>), FaultKind> {
    let (description, variant) = match rest.split_once('.') {
        None => (rest, None),
        Some((description, variant)) => {
            let known =
                variant.parse().map_err(|_| FaultKind::Variant(variant.chars().take(32).collect()))?;
            (description, Some(known))
        }
    };
    let description = description.replace('_', " ").trim().to_owned();
    if description.is_empty() { Err(FaultKind::Name) } else { Ok((description, variant)) }
}

/// Whether the name is one that other tools know.
fn unsupported(stem: &str) -> FaultKind {
    let after = |word: &str| {
        let rest = stem.strip_prefix(word).and_then(|rest| rest.chars().next());
        rest.is_some_and(|next| next.is_ascii_uppercase())
    };
    if after("before") || after("after") || stem.starts_with("createSchema") {
        return FaultKind::Unsupported("Flyway's callbacks");
    }
    let baseline = stem.strip_prefix('B').and_then(|rest| rest.split_once("__"));
    match baseline {
        Some((version, _)) if SchemaVersion::new(&version.replace('_', ".")).is_ok() => {
            FaultKind::Unsupported(
                "Flyway's baseline files (B): name it V…, and declare where old databases are by \
                 `grey migrate baseline`; they",
            )
        }
        _ => FaultKind::Name,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
    use super::*;

    fn versioned(file: &str) -> Name {
        match Named::parse(file) {
            Ok(Named::Versioned(name)) => name,
            other => panic!("{file}: {other:?}"),
        }
    }

    #[test]
    fn names_are_flyways() {
        let name = versioned("V1_1__add_user_preferences.postgres.sql");
        assert_eq!(name.role, Role::Migrate);
        assert_eq!(name.version.to_string(), "1.1");
        assert_eq!(name.description, "add user preferences");
        assert_eq!(name.variant, Some(Dialect::Postgres));
        assert_eq!(versioned("U20240320001__x.sql").version.to_string(), "20240320001");
        assert_eq!(versioned("C1.2__x.sql").role, Role::Check);
        let views = Named::Repeatable { description: "all views".to_owned(), variant: Some(Dialect::MySql) };
        assert_eq!(Named::parse("R__all_views.mysql.sql"), Ok(views));
    }

    #[test]
    fn other_names_are_refused() {
        for file in ["R1__views.sql", "V1.1_x.sql", "V1.1__.sql", "v1__x.sql", "V1__x.SQL", "notes.sql"] {
            assert_eq!(Named::parse(file), Err(FaultKind::Name), "{file}");
        }
        assert!(matches!(Named::parse("V1.a__x.sql"), Err(FaultKind::Version(_))));
        assert_eq!(Named::parse("V1__x.oracle.sql"), Err(FaultKind::Variant("oracle".to_owned())));
        for file in ["B1.2__start.sql", "afterMigrate.sql", "beforeEachMigrate__x.sql", "createSchema.sql"] {
            assert!(matches!(Named::parse(file), Err(FaultKind::Unsupported(_))), "{file}");
        }
    }

    #[test]
    fn what_is_no_sql_is_left_alone() {
        for file in [
            "README",
            "README.md",
            "V1__x.sql~",
            "V1__x.sql.bak",
            "#V1__x.sql#",
            ".V1__x.sql.swp",
            ".sql",
            "é",
        ] {
            assert_eq!(Named::parse(file), Ok(Named::Other), "{file}");
        }
    }
}
