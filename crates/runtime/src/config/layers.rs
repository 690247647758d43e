//! The three layers, read and merged, and which of them a value came from.

use std::{collections::BTreeMap, fs, path::Path};

use toml::{Table, Value};

use super::{Error, Fault, Source};

const PREFIX: &str = "GREY__";

/// A variable that was set: its name and its text as the operator wrote it.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) text: String,
}

#[derive(Debug)]
pub(super) struct Layers {
    pub(super) defaults: Table,
    pub(super) merged: Table,
    file: Option<(String, Table)>,
    /// By dotted path.
    variables: BTreeMap<String, Variable>,
}

impl Layers {
    pub(super) fn read(
        source: Source<'_, impl IntoIterator<Item = (String, String)>>,
        faults: &mut Vec<Fault>,
    ) -> Result<Self, Error> {
        let defaults = parse(source.defaults, "compiled-in defaults")?;
        let mut merged = defaults.clone();
        let file = match source.file {
            Some(path) => {
                let table = read_file(path)?;
                merge(&mut merged, table.clone());
                Some((path.display().to_string(), table))
            }
            None => None,
        };
        let mut layers = Self { defaults, merged, file, variables: BTreeMap::new() };
        let mut variables: Vec<(String, String)> =
            source.env.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        variables.sort();
        for (name, text) in variables {
            layers.set_variable(name, text, faults);
        }
        Ok(layers)
    }

    fn set_variable(&mut self, name: String, text: String, faults: &mut Vec<Fault>) {
        let path = name.strip_prefix(PREFIX).unwrap_or(&name).to_lowercase();
        let keys: Vec<&str> = path.split("__").collect();
        let dotted = keys.join(".");
        let mut refuse = |message: &str| {
            let origin = Some(format!("environment {name}"));
            faults.push(Fault { path: String::new(), message: message.to_owned(), origin });
        };
        if keys.iter().any(|key| key.is_empty()) {
            return refuse("a variable is spelled GREY__SECTION__KEY");
        }
        if self.variables.contains_key(&dotted) {
            return refuse("another variable, different only in case, sets the same key");
        }
        // Sorted order visits a section before its keys, so the section cannot overwrite them.
        let mut patch = Table::new();
        insert(&mut patch, &keys, typed(&text));
        merge(&mut self.merged, patch);
        self.variables.insert(dotted, Variable { name, text });
    }

    /// The variable that set exactly this path.
    pub(super) fn variable(&self, path: &str) -> Option<&Variable> {
        self.variables.get(path)
    }

    /// The layer whose value won at `path`; none if the key is set nowhere.
    pub(super) fn origin(&self, path: &str) -> Option<String> {
        if path.is_empty() {
            return None;
        }
        let keys: Vec<&str> = path.split('.').collect();
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let from_variables = |matches: &dyn Fn(&str) -> bool| {
            let names: Vec<&str> = self
                .variables
                .iter()
                .filter(|(set, _)| matches(set))
                .map(|(_, set)| set.name.as_str())
                .collect();
            (!names.is_empty()).then(|| format!("environment {}", names.join(", ")))
        };
        let from_file = || {
            let (name, table) = self.file.as_ref()?;
            get(table, &keys).map(|_| format!("file {name}"))
        };
        from_variables(&|set| within(path, set))
            .or_else(from_file)
            .or_else(|| from_variables(&|set| within(set, path)))
            .or_else(|| get(&self.defaults, &keys).map(|_| "default".to_owned()))
    }
}

fn read_file(path: &Path) -> Result<Table, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&text, &format!("configuration file {}", path.display()))
}

fn parse(text: &str, origin: &str) -> Result<Table, Error> {
    text.parse().map_err(|error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        Error::Syntax { origin: origin.to_owned(), line, message: error.message().to_owned() }
    })
}

/// A TOML scalar, array or inline table if the text is one, else a string. Dates stay strings: no setting is a date.
fn typed(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    let value = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    match value {
        None | Some(Value::Datetime(_)) => Value::String(text.to_owned()),
        Some(value) => value,
    }
}

/// Tables merge key by key; anything else, arrays included, is replaced whole.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

pub(super) fn get<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| match value {
        Value::Table(table) => table.get(*key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The table that holds the last of `keys`.
pub(super) fn parent<'a>(table: &'a mut Table, keys: &[&str]) -> Option<&'a mut Table> {
    let Some((first, rest)) = keys.split_first() else { return Some(table) };
    let mut value = table.get_mut(*first)?;
    for key in rest {
        value = match value {
            Value::Table(table) => table.get_mut(*key)?,
            Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    value.as_table_mut()
}

fn insert(table: &mut Table, keys: &[&str], value: Value) {
    match keys {
        [] => {}
        [last] => {
            table.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let mut inner = Table::new();
            insert(&mut inner, rest, value);
            table.insert((*first).to_owned(), Value::Table(inner));
        }
    }
}
