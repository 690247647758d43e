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

impl Name {
    /// Takes a file's name apart.
    pub(super) fn parse(file: &str) -> Result<Self, FaultKind> {
        let stem = file.strip_suffix(".sql").ok_or(FaultKind::Name)?;
        let (role, rest) = match stem.split_at_checked(1) {
            Some(("V", rest)) => (Role::Migrate, rest),
            Some(("U", rest)) => (Role::Undo, rest),
            Some(("C", rest)) => (Role::Check, rest),
            _ => return Err(FaultKind::Name),
        };
        let (version, rest) = rest.split_once("__").ok_or(FaultKind::Name)?;
        // As in Flyway, an underscore separates as a dot does.
        let version = SchemaVersion::new(&version.replace('_', "."))
            .map_err(|error| FaultKind::Version(error.to_string()))?;
        let (description, variant) = match rest.split_once('.') {
            None => (rest, None),
            Some((description, variant)) => {
                let known =
                    variant.parse().map_err(|_| FaultKind::Variant(variant.chars().take(32).collect()))?;
                (description, Some(known))
            }
        };
        let description = description.replace('_', " ").trim().to_owned();
        if description.is_empty() {
            return Err(FaultKind::Name);
        }
        Ok(Self { role, version, description, variant })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn names_are_flyways() {
        let name = Name::parse("V1_1__add_user_preferences.postgres.sql").unwrap();
        assert_eq!(name.role, Role::Migrate);
        assert_eq!(name.version.to_string(), "1.1");
        assert_eq!(name.description, "add user preferences");
        assert_eq!(name.variant, Some(Dialect::Postgres));
        assert_eq!(Name::parse("U20240320001__x.sql").unwrap().version.to_string(), "20240320001");
        assert_eq!(Name::parse("C1.2__x.sql").unwrap().role, Role::Check);
    }

    #[test]
    fn other_names_are_refused() {
        for file in
            ["R__views.sql", "V1.1_x.sql", "V1.1__.sql", "v1__x.sql", "V1__x.txt", "notes.sql", ".sql", "é"]
        {
            assert_eq!(Name::parse(file), Err(FaultKind::Name), "{file}");
        }
        assert!(matches!(Name::parse("V1.a__x.sql"), Err(FaultKind::Version(_))));
        assert_eq!(Name::parse("V1__x.oracle.sql"), Err(FaultKind::Variant("oracle".to_owned())));
    }
}
