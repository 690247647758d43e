//! One registry, as an operator sets it.

use grey_core::ids::Name;
use grey_runtime::{Faults, Validate};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::mirror;
use crate::registry::Registry;
use crate::registry::file::{self, FileRegistry};
use crate::registry::nacos::{self, Nacos};

/// One registry: what is common to all, and beside it the settings of its kind.
#[derive(Debug, Clone, Serialize)]
pub struct Source {
    /// Names it in instances and reports; unique.
    pub name: String,
    /// Whatever it says is believed at once; unless it is set, a file is trusted and Nacos is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted: Option<bool>,
    /// The region of instances that tell none; empty: none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Its services are called here by lower-case letters, whatever they are there.
    pub lowercase_names: bool,
    /// What it is.
    #[serde(flatten)]
    pub kind: Kind,
}

/// The kinds of registries, with their settings.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    /// A Nacos cluster.
    Nacos(Box<nacos::Options>),
    /// A file that is followed.
    File(file::Options),
}

impl Kind {
    /// Whether it is trusted unless the operator says otherwise: a person edits a file, and means what it says.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        match self {
            Self::Nacos(_) => false,
            Self::File(_) => true,
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Nacos(_) => "nacos",
            Self::File(_) => "file",
        }
    }
}

impl Source {
    /// A registry called `name`, with defaults for what is common to all.
    #[must_use]
    pub fn new(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), trusted: None, region: String::new(), lowercase_names: false, kind }
    }

    /// The registry itself.
    pub(crate) fn open(&self) -> Box<dyn Registry> {
        match &self.kind {
            Kind::Nacos(options) => Box::new(Nacos::new(options.as_ref().clone())),
            Kind::File(options) => Box::new(FileRegistry::new(options.clone())),
        }
    }

    /// What the mirror has to know of it.
    ///
    /// # Errors
    /// A name is none; validation has found that out before.
    pub(crate) fn mirrored(&self) -> anyhow::Result<mirror::Source> {
        let region = match self.region.as_str() {
            "" => None,
            region => Some(Name::new(region)?),
        };
        Ok(mirror::Source {
            name: Name::new(&self.name)?,
            kind: self.kind.as_str(),
            trusted: self.trusted.unwrap_or_else(|| self.kind.is_trusted()),
            region,
            lowercase_names: self.lowercase_names,
        })
    }
}

impl Validate for Source {
    fn validate(&self, faults: &mut Faults) {
        if let Err(why) = Name::new(&self.name) {
            faults.add("name", why.to_string());
        }
        faults.check(
            self.name != mirror::FORMER,
            "name",
            "is what instances without a source are shown under",
        );
        if !self.region.is_empty()
            && let Err(why) = Name::new(&self.region)
        {
            faults.add("region", why.to_string());
        }
        match &self.kind {
            Kind::Nacos(options) => options.validate(faults),
            Kind::File(options) => options.validate(faults),
        }
    }
}

/// Read from one table, flat. Serde's own way to do so lets unknown keys pass.
impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = Map::deserialize(deserializer)?;
        let name: String = take(&mut table, "name")?.ok_or_else(|| D::Error::missing_field("name"))?;
        let kind: String = take(&mut table, "kind")?.ok_or_else(|| D::Error::missing_field("kind"))?;
        let trusted = take(&mut table, "trusted")?;
        let region = take(&mut table, "region")?.unwrap_or_default();
        let lowercase_names = take(&mut table, "lowercase_names")?.unwrap_or_default();
        let kind = match kind.as_str() {
            "nacos" => Kind::Nacos(Box::new(rest(&name, table)?)),
            "file" => Kind::File(rest(&name, table)?),
            _ => return Err(D::Error::custom(format!("`{name}`: kind must be nacos or file"))),
        };
        Ok(Self { name, trusted, region, lowercase_names, kind })
    }
}

fn take<T: DeserializeOwned, E: serde::de::Error>(
    table: &mut Map<String, Value>,
    key: &str,
) -> Result<Option<T>, E> {
    let value = table.remove(key).map(serde_json::from_value).transpose();
    value.map_err(|why| E::custom(format!("{key}: {why}")))
}

fn rest<T: DeserializeOwned, E: serde::de::Error>(name: &str, table: Map<String, Value>) -> Result<T, E> {
    serde_json::from_value(Value::Object(table)).map_err(|why| E::custom(format!("`{name}`: {why}")))
}
