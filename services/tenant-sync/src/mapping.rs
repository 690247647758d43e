//! From an entry of the tenant API's list to a tenant's attributes, as the operator maps them. Pure.

mod band;
mod compile;
mod options;
mod pointer;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use grey_core::ids::{InvalidId, Name, TenantId};
use grey_core::tenant::{MAX_LABEL_VALUE, MAX_TENANT_NAME, TenantStatus};
use grey_core::text::plain;
use grey_proto::convert::MAX_RESIDENCY;
use serde_json::Value;

use band::Bands;
pub use options::{Band, Options, Step, UnknownStatus};
pub use pointer::{InvalidPointer, Pointer};

/// Labels that the synchronisation itself writes; none of them can be mapped.
pub const RESERVED_LABELS: [&str; 2] = ["deleted-at", "managed-by"];
/// Most bytes of an id, a value or a reason that are told of an entry that fits no tenant.
const MAX_TOLD: usize = 200;

/// What the tenant API says of a tenant. An attribute that is `None` is not mapped, or not told: it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sourced {
    /// The name that people read, cut to the length that the control plane takes.
    pub name: Option<String>,
    /// Whether calls are routed.
    pub status: Option<TenantStatus>,
    /// Commercial tier; `Some(None)`: it has none.
    pub tier: Option<Option<Name>>,
    /// Home region; `Some(None)`: it has none.
    pub region: Option<Option<Name>>,
    /// Regions that its calls are held to, most wanted first; `Some` of nothing: any.
    pub residency: Option<Vec<Name>>,
    /// Every label that is mapped: its value, or `None` if the tenant is not to have it.
    pub labels: BTreeMap<Name, Option<String>>,
}

/// An entry that fits no tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The id as the API gives it, cut; empty if there is none.
    pub id: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A tenant.
    Tenant(TenantId, Arc<Sourced>),
    /// None; its id, if at least that can be read, tells which tenant must stay as it is.
    Unfit(Option<TenantId>, Invalid),
}

/// Reads tenants' attributes from entries.
#[derive(Debug, Clone)]
pub struct Mapping {
    items: Pointer,
    id: Pointer,
    lowercase_ids: bool,
    name: Option<Pointer>,
    status: Option<Pointer>,
    statuses: HashMap<String, TenantStatus>,
    unknown_status: UnknownStatus,
    tier: Option<Pointer>,
    tiers: HashMap<String, Name>,
    region: Option<Pointer>,
    regions: HashMap<String, Name>,
    residency: Option<Pointer>,
    labels: Vec<(Name, Pointer)>,
    bands: Vec<(Name, Pointer, Bands)>,
}

/// Why an entry fits no tenant.
#[derive(Debug, thiserror::Error)]
enum Misfit {
    #[error("`{0}` is absent")]
    Absent(Pointer),
    #[error("`{pointer}` is {found}, not {wanted}")]
    Kind { pointer: Pointer, found: &'static str, wanted: &'static str },
    #[error("`{pointer}` does not fit")]
    Id { pointer: Pointer, source: InvalidId },
    #[error("`{pointer}` is `{word}`, which mapping.statuses does not list")]
    Status { pointer: Pointer, word: String },
    #[error("`{pointer}` has {length} bytes, at most {MAX_LABEL_VALUE} are allowed in a label")]
    Label { pointer: Pointer, length: usize },
    #[error("`{pointer}` lists {count} regions, at most {MAX_RESIDENCY} are allowed")]
    Regions { pointer: Pointer, count: usize },
}

impl Mapping {
    /// Where the list stands within a document.
    #[must_use]
    pub fn items(&self) -> &Pointer {
        &self.items
    }

    /// Reads an entry.
    #[must_use]
    pub fn map(&self, entry: &Value) -> Entry {
        let id = match self.read_id(entry) {
            Ok(id) => id,
            Err(misfit) => {
                let given = self.id.find(entry).and_then(|value| word(value).ok().flatten());
                return Entry::Unfit(None, Invalid::new(&given.unwrap_or_default(), &misfit));
            }
        };
        match self.read(entry) {
            Ok(sourced) => Entry::Tenant(id, Arc::new(sourced)),
            Err(misfit) => {
                let invalid = Invalid::new(id.as_str(), &misfit);
                Entry::Unfit(Some(id), invalid)
            }
        }
    }

    fn read_id(&self, entry: &Value) -> Result<TenantId, Misfit> {
        let value = self.id.find(entry).ok_or_else(|| Misfit::Absent(self.id.clone()))?;
        let wanted = "a string or a whole number";
        let mut text = match value {
            Value::Bool(_) | Value::Null => None,
            value => word(value).ok().flatten(),
        }
        .ok_or_else(|| misfit(&self.id, value, wanted))?;
        if self.lowercase_ids {
            text = text.to_ascii_lowercase().into();
        }
        TenantId::new(&text).map_err(|source| Misfit::Id { pointer: self.id.clone(), source })
    }

    fn read(&self, entry: &Value) -> Result<Sourced, Misfit> {
        let mut labels = BTreeMap::new();
        for (key, pointer) in &self.labels {
            labels.insert(key.clone(), read_label(pointer, entry)?);
        }
        for (key, pointer, bands) in &self.bands {
            labels.insert(key.clone(), read_band(pointer, bands, entry)?);
        }
        Ok(Sourced {
            name: self.name.as_ref().map(|pointer| read_name(pointer, entry)).transpose()?.flatten(),
            status: self
                .status
                .as_ref()
                .map(|pointer| self.read_status(pointer, entry))
                .transpose()?
                .flatten(),
            tier: self.tier.as_ref().map(|pointer| read_named(pointer, &self.tiers, entry)).transpose()?,
            region: self
                .region
                .as_ref()
                .map(|pointer| read_named(pointer, &self.regions, entry))
                .transpose()?,
            residency: self.residency.as_ref().map(|p| self.read_residency(p, entry)).transpose()?.flatten(),
            labels,
        })
    }

    fn read_status(&self, pointer: &Pointer, entry: &Value) -> Result<Option<TenantStatus>, Misfit> {
        let word = match pointer.find(entry) {
            None => return Ok(None),
            // Whoever says that there is none says something that nobody has listed.
            Some(Value::Null) => "null".into(),
            Some(_) => read_word(pointer, entry)?.unwrap_or_default(),
        };
        if let Some(status) = self.statuses.get(&word.to_lowercase()) {
            return Ok(Some(*status));
        }
        match self.unknown_status {
            UnknownStatus::Active => Ok(Some(TenantStatus::Active)),
            UnknownStatus::Suspended => Ok(Some(TenantStatus::Suspended)),
            UnknownStatus::Invalid => {
                Err(Misfit::Status { pointer: pointer.clone(), word: cut(&word, MAX_TOLD).to_owned() })
            }
        }
    }

    fn read_residency(&self, pointer: &Pointer, entry: &Value) -> Result<Option<Vec<Name>>, Misfit> {
        let given = match pointer.find(entry) {
            None => return Ok(None),
            Some(Value::Null) => &[],
            Some(Value::Array(regions)) => regions.as_slice(),
            Some(region) => std::slice::from_ref(region),
        };
        let mut regions = Vec::new();
        for value in given {
            let Value::String(text) = value else {
                return Err(misfit(pointer, value, "a string or a list of strings"));
            };
            let region = named(pointer, &self.regions, text)?;
            if !regions.contains(&region) {
                regions.push(region);
            }
            if regions.len() > MAX_RESIDENCY {
                return Err(Misfit::Regions { pointer: pointer.clone(), count: given.len() });
            }
        }
        Ok(Some(regions))
    }
}

impl Invalid {
    fn new(id: &str, misfit: &Misfit) -> Self {
        let reason = match misfit {
            Misfit::Id { source, .. } => format!("{misfit}: {source}"),
            misfit => misfit.to_string(),
        };
        // Both may repeat what the list says.
        let told = |text: &str, most| plain(cut(text, most)).into_owned();
        Self { id: told(id, MAX_TOLD), reason: told(&reason, 2 * MAX_TOLD) }
    }
}

/// The name is only ever shown, so one that is too long or not plain is mended rather than refused: its tenant's status
/// matters more.
fn read_name(pointer: &Pointer, entry: &Value) -> Result<Option<String>, Misfit> {
    let word = read_word(pointer, entry)?;
    Ok(word
        .map(|name| cut(plain(&name).trim(), MAX_TENANT_NAME).trim_end().to_owned())
        .filter(|name| !name.is_empty()))
}

fn read_named(
    pointer: &Pointer,
    names: &HashMap<String, Name>,
    entry: &Value,
) -> Result<Option<Name>, Misfit> {
    match read_word(pointer, entry)? {
        Some(word) if !word.is_empty() => named(pointer, names, &word).map(Some),
        _ => Ok(None),
    }
}

fn named(pointer: &Pointer, names: &HashMap<String, Name>, word: &str) -> Result<Name, Misfit> {
    match names.get(word) {
        Some(name) => Ok(name.clone()),
        None => Name::new(word).map_err(|source| Misfit::Id { pointer: pointer.clone(), source }),
    }
}

fn read_label(pointer: &Pointer, entry: &Value) -> Result<Option<String>, Misfit> {
    let text = match pointer.find(entry) {
        // Unlike elsewhere, any number will do.
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(_) => read_word(pointer, entry)?.map(|word| plain(&word).into_owned()),
        None => None,
    };
    match text {
        Some(text) if text.len() > MAX_LABEL_VALUE => {
            Err(Misfit::Label { pointer: pointer.clone(), length: text.len() })
        }
        text => Ok(text),
    }
}

fn read_band(pointer: &Pointer, bands: &Bands, entry: &Value) -> Result<Option<String>, Misfit> {
    let number = match pointer.find(entry) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        Some(_) => None,
    };
    match (number, pointer.find(entry)) {
        (Some(number), _) => Ok(Some(bands.of(number).to_owned())),
        (None, value) => Err(misfit(pointer, value.unwrap_or(&Value::Null), "a number")),
    }
}

fn read_word<'v>(pointer: &Pointer, entry: &'v Value) -> Result<Option<Cow<'v, str>>, Misfit> {
    let Some(value) = pointer.find(entry) else { return Ok(None) };
    word(value).map_err(|_| misfit(pointer, value, "a string, a whole number or a boolean"))
}

/// A value that is not one word.
struct NotAWord;

/// The value as one word; `null` is none.
fn word(value: &Value) -> Result<Option<Cow<'_, str>>, NotAWord> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.into())),
        Value::Bool(truth) => Ok(Some(if *truth { "true" } else { "false" }.into())),
        Value::Number(number) if !number.is_f64() => Ok(Some(number.to_string().into())),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => Err(NotAWord),
    }
}

fn misfit(pointer: &Pointer, value: &Value, wanted: &'static str) -> Misfit {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Misfit::Kind { pointer: pointer.clone(), found, wanted }
}

/// The longest beginning of `text` that has at most `limit` bytes.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
