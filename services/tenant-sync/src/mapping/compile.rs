//! Checks the options once, so that reading entries cannot meet a faulty one.

use std::collections::{BTreeMap, HashMap};

use grey_core::ids::Name;
use grey_core::tenant::{MAX_LABEL_VALUE, MAX_LABELS, TenantStatus};
use grey_runtime::Faults;

use super::band::Bands;
use super::{Band, Mapping, Options, Pointer, RESERVED_LABELS};

impl Mapping {
    /// Adds every fault of `options` to `faults`. The mapping is fit for use only if there is none.
    pub(crate) fn compile(options: &Options, faults: &mut Faults) -> Self {
        let id = pointer(&options.id, "id", faults);
        faults.check(!options.id.is_empty(), "id", "is empty: every tenant needs an id");
        let count = options.labels.len() + options.bands.len();
        let limit = MAX_LABELS - RESERVED_LABELS.len();
        faults.check(
            count <= limit,
            "labels",
            format!("has {count} labels with bands, at most {limit} are allowed"),
        );
        Self {
            items: pointer(&options.items, "items", faults),
            id,
            lowercase_ids: options.lowercase_ids,
            name: optional(&options.name, "name", faults),
            status: optional(&options.status, "status", faults),
            statuses: statuses(&options.statuses, faults),
            unknown_status: options.unknown_status,
            tier: optional(&options.tier, "tier", faults),
            tiers: names(&options.tiers, "tiers", faults),
            region: optional(&options.region, "region", faults),
            regions: names(&options.regions, "regions", faults),
            residency: optional(&options.residency, "residency", faults),
            labels: labels(&options.labels, faults),
            bands: bands(options, faults),
        }
    }
}

fn pointer(text: &str, key: &str, faults: &mut Faults) -> Pointer {
    Pointer::parse(text).unwrap_or_else(|fault| {
        faults.add(key, fault.to_string());
        Pointer::default()
    })
}

fn optional(text: &str, key: &str, faults: &mut Faults) -> Option<Pointer> {
    if text.is_empty() { None } else { Some(pointer(text, key, faults)) }
}

fn statuses(given: &BTreeMap<String, String>, faults: &mut Faults) -> HashMap<String, TenantStatus> {
    let mut statuses = HashMap::new();
    for (word, meaning) in given {
        let key = format!("statuses.{word}");
        let Some(status) = TenantStatus::from_word(meaning) else {
            faults.add(&key, format!("`{meaning}` is neither active, suspended nor maintenance"));
            continue;
        };
        let before = statuses.insert(word.to_lowercase(), status);
        faults.check(
            before.is_none_or(|before| before == status),
            &key,
            "has another meaning in another letter case",
        );
    }
    statuses
}

fn names(given: &BTreeMap<String, String>, section: &str, faults: &mut Faults) -> HashMap<String, Name> {
    let mut names = HashMap::new();
    for (word, name) in given {
        match Name::new(name) {
            Ok(name) => {
                names.insert(word.clone(), name);
            }
            Err(fault) => faults.add(&format!("{section}.{word}"), fault.to_string()),
        }
    }
    names
}

fn labels(given: &BTreeMap<String, String>, faults: &mut Faults) -> Vec<(Name, Pointer)> {
    let mut labels = Vec::new();
    for (word, field) in given {
        let path = format!("labels.{word}");
        let found = field_pointer(field, &path, faults);
        labels.extend(label_key(word, &path, faults).map(|name| (name, found)));
    }
    labels
}

fn bands(options: &Options, faults: &mut Faults) -> Vec<(Name, Pointer, Bands)> {
    let mut bands = Vec::new();
    for (word, band) in &options.bands {
        let path = format!("bands.{word}");
        faults.check(!options.labels.contains_key(word), &path, "is mapped under [labels] too");
        let found = field_pointer(&band.field, &format!("{path}.field"), faults);
        let steps = steps(band, &path, faults);
        bands.extend(label_key(word, &path, faults).map(|name| (name, found, steps)));
    }
    bands
}

fn steps(band: &Band, path: &str, faults: &mut Faults) -> Bands {
    let limits: Vec<f64> = band.below.iter().map(|step| step.limit).collect();
    let below = format!("{path}.below");
    faults.check(!limits.is_empty(), &below, "is empty: one band tells nothing");
    faults.check(limits.iter().all(|limit| limit.is_finite()), &below, "has a limit that is no number");
    faults.check(limits.is_sorted_by(|a, b| a < b), &below, "must have its limits in ascending order");
    for value in band.below.iter().map(|step| &step.value).chain([&band.above]) {
        let fits = (1..=MAX_LABEL_VALUE).contains(&value.len());
        faults.check(fits, path, format!("needs values of 1 to {MAX_LABEL_VALUE} bytes"));
    }
    let below = band.below.iter().map(|step| (step.limit, step.value.clone()));
    Bands { below: below.collect(), above: band.above.clone() }
}

fn field_pointer(text: &str, path: &str, faults: &mut Faults) -> Pointer {
    faults.check(!text.is_empty(), path, "is empty");
    pointer(text, path, faults)
}

fn label_key(word: &str, path: &str, faults: &mut Faults) -> Option<Name> {
    if RESERVED_LABELS.contains(&word) {
        faults.add(path, "is a label that the synchronisation itself writes");
    }
    Name::new(word).map_err(|fault| faults.add(path, fault.to_string())).ok()
}
