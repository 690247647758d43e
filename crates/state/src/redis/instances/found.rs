//! A service's list as it was found, and what is damaged of it.

use super::super::connection::failure;
use super::super::keys;
use super::super::values::{corrupt, fields, items, parsed, text};
use super::READ;
use crate::Error;
use crate::instances::{ServiceInstances, by_id};
use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use grey_proto::codec;
use redis::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The field of an index that holds the digest of the list. Every field that begins like it is no version.
const DIGEST: &str = "#digest";

/// A list as far as it reads.
pub(super) struct Found {
    pub(super) list: ServiceInstances,
    /// Its digest, as it was written.
    pub(super) written: Option<u64>,
    /// What is damaged first, and how.
    pub(super) damage: Option<String>,
}

/// Whether the field of an index can name a version: what cannot is not taken for one by the scripts either.
pub(super) fn is_version(field: &str) -> bool {
    !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-".contains(&byte))
}

/// A digest as it is stored.
pub(super) fn digest_of(key: &str, value: &Value) -> Result<u64, Error> {
    let text = text(key, value)?;
    let digest = u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
    digest.ok_or_else(|| corrupt(key, "a digest is no number of 16 digits"))
}

impl Found {
    /// Reads index and hashes; none if the versions are not those that were asked for.
    pub(super) fn read(
        id: &ServiceId,
        versions: &BTreeSet<String>,
        answer: Value,
    ) -> Result<Option<Self>, Error> {
        let index = keys::instance_index(id.as_str());
        let list = ServiceInstances { service: id.clone(), instances: Vec::new() };
        let mut found = Self { list, written: None, damage: None };
        let hashes = match answer {
            Value::ServerError(error) => Err(failure(READ, &index, error.into())),
            answer => items(&index, answer),
        };
        let mut hashes = match hashes {
            Ok(hashes) => hashes.into_iter(),
            Err(why @ Error::Corrupt { .. }) => {
                found.damaged(&why);
                return Ok(Some(found));
            }
            Err(error) => return Err(error),
        };
        let counts = found.index(&index, &hashes.next().unwrap_or_default());
        if !counts.keys().eq(versions.iter()) {
            return Ok(None);
        }
        for ((version, count), hash) in counts.iter().zip(hashes) {
            found.version(&index, version, count, &hash);
        }
        found.list.instances.sort_by(by_id);
        if found.written != Some(found.list.digest()) {
            found.damaged(&corrupt(&index, "the list is not the one that was written"));
        }
        Ok(Some(found))
    }

    fn damaged(&mut self, why: &Error) {
        self.damage.get_or_insert_with(|| why.to_string());
    }

    fn sound<T>(&mut self, read: Result<T, Error>) -> Option<T> {
        read.inspect_err(|why| self.damaged(why)).ok()
    }

    /// The versions and how many instances each has.
    fn index(&mut self, key: &str, index: &Value) -> BTreeMap<String, String> {
        let mut counts = BTreeMap::new();
        let Some(index) = self.sound(fields(key, index)) else { return counts };
        for (field, value) in index {
            let Some(name) = self.sound(text(key, field)) else { continue };
            if name == DIGEST {
                self.written = self.sound(digest_of(key, value));
            } else if is_version(name) {
                counts.insert(name.to_owned(), text(key, value).unwrap_or_default().to_owned());
            } else if !name.starts_with('#') {
                self.damaged(&corrupt(key, &format!("`{name}` is no version")));
            }
        }
        counts
    }

    fn version(&mut self, index: &str, version: &str, count: &str, hash: &Value) {
        let key = keys::version_instances(self.list.service.as_str(), version);
        let Some(hash) = self.sound(fields(&key, hash)) else { return };
        let mut held = 0;
        for (field, value) in hash {
            held += 1;
            let read = instance(&key, version, field, value);
            let instance = self.sound(read);
            self.list.instances.extend(instance);
        }
        if let Some(count) = self.sound(parsed::<usize>(index, "a count", count))
            && count != held
        {
            self.damaged(&corrupt(&key, &format!("it holds {held} of {count} instances")));
        }
    }
}

fn instance(key: &str, version: &str, field: &Value, value: &Value) -> Result<Instance, Error> {
    let instance = codec::decode_instance(text(key, value)?).map_err(|why| corrupt(key, &why))?;
    if instance.version.as_str() != version || instance.id.as_str() != text(key, field)? {
        let why = format!("it holds instance `{}` of {}", instance.id, instance.version);
        return Err(corrupt(key, &why));
    }
    Ok(instance)
}
