//! Where databases are made for tenants, and how they are named there.

use crate::files::Dialect;
use crate::prepare::invalid;
use crate::tenant::{Error, Target};
use grey_core::database;
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_database_url::{DatabaseUrl, Place};
use grey_proto::control::DatabaseKind;
use grey_proto::schema::{Provision, ProvisionState};
use grey_proto::status::ApiError;
use grey_runtime::{Faults, Secret, Validate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use url::Url;

/// What stands for the tenant, the service, and what no other database has, in templates of names.
const WORDS: [&str; 3] = ["tenant", "service", "id"];

/// Hexadecimal digits that tell one database from all others that were ever made.
const ID_DIGITS: usize = 12;

/// Longest names of PostgreSQL, in bytes; it cuts longer ones off without an error.
const POSTGRES_NAME: usize = 63;
/// Longest names of databases and of users of the MySQL family.
const MYSQL_NAME: usize = 64;
const MYSQL_USER: usize = 32;
/// Longest name of a file that leaves room for what is kept beside it.
const FILE_NAME: usize = 200;

/// Sites by name.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Sites(BTreeMap<String, Site>);

/// A server, a database or a folder that databases are made in.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// How tenants are kept apart there.
    pub kind: Kind,
    /// How the migrator connects to make them, with credentials; for files the folder.
    pub url: Secret,
    /// The template of their names.
    #[serde(default = "default_name")]
    pub name: String,
    /// The template of the names of the roles that are made with them. Unused for files.
    #[serde(default = "default_role")]
    pub role: String,
    /// Roles or users that are there and get the rights of each role that is made, such as the service's own.
    #[serde(default)]
    pub members: Vec<String>,
}

/// How tenants are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// By a database of their own.
    Database,
    /// By a schema of their own in one PostgreSQL database.
    Schema,
    /// By a SQLite file of their own.
    File,
}

fn default_name() -> String {
    "{service}_{tenant}".to_owned()
}

fn default_role() -> String {
    "grey_{id}".to_owned()
}

impl Sites {
    /// These.
    #[must_use]
    pub fn new(sites: BTreeMap<String, Site>) -> Self {
        Self(sites)
    }

    /// The site of this name; of none: the only one there is.
    ///
    /// # Errors
    /// There is no such site, or more than one.
    pub fn choose(&self, name: &str) -> Result<(&str, &Site), ApiError> {
        let known = || self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let mut all = self.0.iter();
        match (name, all.next(), all.next()) {
            (_, None, _) => {
                let text =
                    "no site is configured to make databases at: configure [provisioning] of the migrator";
                Err(ApiError::new(Reason::MigrationRefused, text))
            }
            ("", Some((only, site)), None) => Ok((only.as_str(), site)),
            ("", Some(_), Some(_)) => Err(invalid("site", format!("must be one of {}", known()))),
            (name, Some(_), _) => {
                let found = self.0.get_key_value(name).map(|(name, site)| (name.as_str(), site));
                found.ok_or_else(|| invalid("site", format!("is not one of {}", known())))
            }
        }
    }
}

impl Validate for Sites {
    fn validate(&self, faults: &mut Faults) {
        for (name, site) in &self.0 {
            faults.section(name, site);
        }
    }
}

impl Validate for Site {
    fn validate(&self, faults: &mut Faults) {
        match DatabaseUrl::parse(self.url.expose()) {
            Err(why) => faults.add("url", why.to_string()),
            Ok(url) => {
                let fits = match self.kind {
                    Kind::Database => url.dialect() != database::Dialect::Sqlite,
                    Kind::Schema => url.dialect() == database::Dialect::Postgres,
                    Kind::File => url.dialect() == database::Dialect::Sqlite,
                };
                faults.check(fits, "kind", "does not fit the url");
                if let Place::File { path, .. } = &url.place {
                    // So that it is the same in a URL.
                    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
                    let plain = path.to_str().is_some_and(|path| path.bytes().all(plain));
                    faults.check(
                        plain,
                        "url",
                        "must name a folder by letters, digits, `/`, `.`, `_` and `-`",
                    );
                }
            }
        }
        if let Err(why) = check_template(&self.name, "tenant", self.kind == Kind::File) {
            faults.add("name", why);
        }
        if let Err(why) = check_template(&self.role, "id", false) {
            faults.add("role", why);
        }
        let sane =
            |member: &String| !member.is_empty() && !member.contains(['\0', '\'', '"', '`', '\\', '@']);
        faults.check(
            self.members.iter().all(sane),
            "members",
            "must be names of roles, without quotes and hosts",
        );
    }
}

/// Whether names that come of a template are plain, and tell apart what they must.
fn check_template(template: &str, needed: &str, of_file: bool) -> Result<(), String> {
    let mut rest = template.to_owned();
    for word in WORDS {
        rest = rest.replace(&format!("{{{word}}}"), "");
    }
    let plain = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || (of_file && matches!(c, '.' | '-'))
    };
    if !rest.chars().all(plain) {
        let words = WORDS.map(|word| format!("{{{word}}}")).join(", ");
        return Err(format!("must consist of lower-case letters, digits, `_` and {words}"));
    }
    if template.starts_with('.') {
        return Err("must not begin with a dot".to_owned());
    }
    if !template.contains(&format!("{{{needed}}}")) {
        return Err(format!("must have {{{needed}}} in it"));
    }
    Ok(())
}

/// A name. What an id has besides letters and digits is `_`: two tenants that thereby come to the same name do not share
/// a database, since what is there is refused.
fn filled(template: &str, tenant: &TenantId, service: &ServiceId, id: &str) -> String {
    let plain = |text: &str| {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect::<String>()
    };
    let values = [plain(tenant.as_str()), plain(service.as_str()), id.to_owned()];
    let fill = |name: String, (word, value): (&str, String)| name.replace(&format!("{{{word}}}"), &value);
    WORDS.into_iter().zip(values).fold(template.to_owned(), fill)
}

impl Site {
    /// What is made here for a tenant, under names of which that of the role is unique.
    ///
    /// # Errors
    /// The names are too long.
    pub fn provision(
        &self,
        site: &str,
        tenant: &TenantId,
        service: &ServiceId,
        activate: bool,
    ) -> Result<Provision, ApiError> {
        let id: String = uuid::Uuid::new_v4().simple().to_string().chars().take(ID_DIGITS).collect();
        let name = filled(&self.name, tenant, service, &id);
        let role = filled(&self.role, tenant, service, &id);
        let url = self.parsed()?;
        let dialect = dialect(url.dialect());
        let (longest, longest_role) = match dialect {
            Dialect::Postgres => (POSTGRES_NAME, POSTGRES_NAME),
            Dialect::MySql => (MYSQL_NAME, MYSQL_USER),
            Dialect::Sqlite => (FILE_NAME, FILE_NAME),
        };
        for (name, longest) in [(&name, longest), (&role, longest_role)] {
            if name.len() > longest {
                let why = format!("would make the name `{name}`, of which {dialect} takes {longest} bytes");
                return Err(invalid("site", format!("{site} {why}: make its templates shorter")));
            }
        }
        let (server, database, schema) = match (self.kind, &url.place) {
            (Kind::File, Place::File { path, .. }) => {
                (path.join(name).display().to_string(), String::new(), String::new())
            }
            (Kind::Schema, _) => (url.server(), url.database().to_owned(), name),
            _ => (url.server(), name, String::new()),
        };
        Ok(Provision {
            site: site.to_owned(),
            kind: DatabaseKind::from(self.kind).into(),
            dialect: dialect.to_string(),
            server,
            database,
            schema,
            role,
            activate,
            state: ProvisionState::Waiting.into(),
        })
    }

    /// Which kind of database it is.
    ///
    /// # Errors
    /// The URL is not usable.
    pub fn dialect(&self) -> Result<Dialect, ApiError> {
        Ok(dialect(self.parsed()?.dialect()))
    }

    fn parsed(&self) -> Result<DatabaseUrl, ApiError> {
        DatabaseUrl::parse(self.url.expose())
            .map_err(|why| ApiError::new(Reason::DatabaseRefused, format!("the site's url {why}")))
    }

    /// How to connect to what was made, as the role that was made for it.
    ///
    /// # Errors
    /// The URL is not usable.
    pub fn url_of(&self, provision: &Provision, password: &str) -> Result<Secret, Error> {
        if self.kind == Kind::File {
            return Ok(Secret::new(format!("sqlite://{}", provision.server)));
        }
        let unusable = || Error::Refused {
            attempted: "connect to the database that was made",
            why: "the site's url is not usable".to_owned(),
        };
        let mut url = Url::parse(self.url.expose()).map_err(|_| unusable())?;
        url.set_username(&provision.role).map_err(|()| unusable())?;
        url.set_password(Some(password)).map_err(|()| unusable())?;
        if self.kind == Kind::Database {
            url.set_path(&format!("/{}", provision.database));
        }
        Ok(Secret::new(String::from(url)))
    }

    /// How the site itself is connected to.
    pub(super) fn target(&self, tenant: &TenantId, service: &ServiceId) -> Result<Target, Error> {
        let why = |error: ApiError| Error::Refused { attempted: "connect to the site", why: error.message };
        let (tenant, service) = (tenant.clone(), service.clone());
        Ok(Target {
            tenant,
            service,
            dialect: self.dialect().map_err(why)?,
            url: self.url.clone(),
            schema: None,
        })
    }
}

impl From<Kind> for DatabaseKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Database => Self::Database,
            Kind::Schema => Self::Schema,
            Kind::File => Self::File,
        }
    }
}

fn dialect(dialect: database::Dialect) -> Dialect {
    match dialect {
        database::Dialect::Postgres => Dialect::Postgres,
        database::Dialect::MySql => Dialect::MySql,
        database::Dialect::Sqlite => Dialect::Sqlite,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    fn site(kind: Kind, url: &str) -> Site {
        Site { kind, url: Secret::new(url), name: default_name(), role: default_role(), members: Vec::new() }
    }

    fn made(site: &Site, tenant: &str) -> Result<Provision, ApiError> {
        let (tenant, service) = (TenantId::new(tenant).unwrap(), ServiceId::new("web-shop").unwrap());
        site.provision("main", &tenant, &service, true)
    }

    #[test]
    fn names_are_plain_and_the_role_is_unique() {
        let site = site(Kind::Database, "postgres://admin:s3cret@db/postgres?sslmode=require");
        let (one, other) = (made(&site, "acme.eu").unwrap(), made(&site, "acme.eu").unwrap());
        assert_eq!(one.database, "web_shop_acme_eu");
        assert!(one.role.starts_with("grey_") && one.role != other.role, "{one:?}");
        let url = site.url_of(&one, "pw").unwrap();
        let expected = format!("postgres://{}:pw@db/web_shop_acme_eu?sslmode=require", one.role);
        assert_eq!(url.expose(), expected);
        assert!(made(&site, &"x".repeat(60)).unwrap_err().message.contains("63 bytes"));
    }

    #[test]
    fn schemas_and_files_have_the_name_where_theirs_is() {
        let schema = made(&site(Kind::Schema, "postgres://admin@db/all"), "acme").unwrap();
        assert_eq!((schema.database.as_str(), schema.schema.as_str()), ("all", "web_shop_acme"));
        let folder = site(Kind::File, "sqlite:///data/tenants");
        let file = made(&folder, "acme").unwrap();
        assert_eq!((file.server.as_str(), file.database.as_str()), ("/data/tenants/web_shop_acme", ""));
        let url = folder.url_of(&file, "pw").unwrap();
        assert_eq!(url.expose(), "sqlite:///data/tenants/web_shop_acme");
    }

    #[test]
    fn a_site_is_named_unless_there_is_one_only() {
        let one = || site(Kind::Schema, "postgres://admin@db/all");
        let sites = |names: &[&str]| Sites(names.iter().map(|name| ((*name).to_owned(), one())).collect());
        assert_eq!(sites(&["a"]).choose("").unwrap().0, "a");
        assert_eq!(sites(&["a", "b"]).choose("b").unwrap().0, "b");
        for (names, name) in [(&["a", "b"][..], ""), (&["a"], "b"), (&[], ""), (&[], "a")] {
            assert!(sites(names).choose(name).is_err(), "{names:?} {name}");
        }
    }

    #[test]
    fn templates_that_mix_tenants_up_are_refused() {
        for (template, needed) in [
            ("orders", "tenant"),
            ("{service}", "tenant"),
            ("{tenant}-x", "tenant"),
            ("{tenant}{x}", "tenant"),
            ("X{tenant}", "tenant"),
            ("app_{tenant}", "id"),
        ] {
            assert!(check_template(template, needed, false).is_err(), "{template}");
        }
        assert!(check_template(".{tenant}", "tenant", true).is_err());
        assert!(check_template("{tenant}-{service}.db", "tenant", true).is_ok());
        assert!(check_template("grey_{id}", "id", false).is_ok());
    }
}
