//! Finding a service's files and putting them together.

use super::name::{Name, Named, Role};
use super::placeholder::Placeholders;
use super::read::Reader;
use super::step::Step;
use super::{Checksum, Dialect, Fault, FaultKind, FilesError, Migration, Repeatable, Scripts, Undo};
use crate::lint::Understood;
use grey_core::ids::ServiceId;
use grey_core::schema::SchemaVersion;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Most bytes of one file.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Most bytes of one service's files for one dialect.
pub const MAX_SERVICE_BYTES: u64 = 64 * 1024 * 1024;
/// Most files of one service.
pub const MAX_FILES: usize = 10_000;

/// Services whose files are kept in memory; beyond, all are read anew.
const MAX_KEPT: usize = 1_000;

/// A file that was changed less long ago is read anew: its clock may not tell the next change from this one.
const UNSETTLED: Duration = Duration::from_secs(2);

/// The folder that holds one folder of migrations per service. Cheap to clone.
///
/// Files that were read without a fault are kept, and read anew once one of them is another one.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    placeholders: Arc<Placeholders>,
    kept: Arc<Mutex<Kept>>,
}

/// The scripts of services, with what their files were like.
type Kept = BTreeMap<(ServiceId, Dialect), (Stamp, Scripts)>;

/// Every file of a service, by its name.
type Stamp = BTreeMap<String, Option<Found>>;

/// What tells a file from what it was: an edit that keeps its size, or a copy that keeps its times, still has another inode
/// or another time of change, which nobody can set.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Found {
    bytes: u64,
    device: u64,
    inode: u64,
    changed: SystemTime,
}

impl Found {
    fn at(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        let seconds = u64::try_from(file.ctime()).map_err(io::Error::other)?;
        let nanos = u32::try_from(file.ctime_nsec()).map_err(io::Error::other)?;
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        Ok(Self { bytes: file.len(), device: file.dev(), inode: file.ino(), changed })
    }
}

impl Folder {
    /// The folder at `root`, which is looked at only when something is loaded.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), placeholders: Arc::default(), kept: Arc::default() }
    }

    /// The same folder, where placeholders in files have these values.
    #[must_use]
    pub fn with_placeholders(self, placeholders: Placeholders) -> Self {
        Self { placeholders: Arc::new(placeholders), kept: Arc::default(), ..self }
    }

    /// Reads a service's migrations for one dialect. It reads files, so it blocks.
    ///
    /// A file that leads outside the root through a link is a fault; links that stay inside are followed.
    /// Folders, files that are no `.sql` and those whose names begin with a dot are left alone.
    ///
    /// # Errors
    /// When the folder cannot be read, or with everything that is wrong with the files.
    pub fn load(&self, service: &ServiceId, dialect: Dialect) -> Result<Scripts, FilesError> {
        let read = |path: &Path, source| FilesError::Read { path: path.to_owned(), source };
        let root = self.root.canonicalize().map_err(|source| read(&self.root, source))?;
        let path = root.join(service.as_str());
        let folder = match path.canonicalize() {
            Ok(folder) if !folder.starts_with(&root) => {
                return Err(FilesError::Outside { service: service.clone() });
            }
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FilesError::NoFolder { service: service.clone() });
            }
            Err(source) => return Err(read(&path, source)),
        };
        let mut stamp = Stamp::new();
        for entry in fs::read_dir(&folder).map_err(|source| read(&folder, source))? {
            let name = entry.map_err(|source| read(&folder, source))?.file_name();
            let name = name.to_string_lossy().into_owned();
            let found = Found::at(&folder.join(&name)).ok();
            stamp.insert(name, found);
            if stamp.len() > MAX_FILES {
                return Err(FilesError::TooMany { service: service.clone(), limit: MAX_FILES });
            }
        }
        if let Some(scripts) = self.kept(service, dialect, &stamp) {
            return Ok(scripts);
        }
        let (service_id, placeholders) = (service.clone(), Arc::clone(&self.placeholders));
        let (faults, ignored) = (Vec::new(), Vec::new());
        let mut loading =
            Loading { root, folder, dialect, service: service_id, placeholders, bytes: 0, faults, ignored };
        let (migrations, repeatables) = loading.all(stamp.keys().cloned().collect());
        let Loading { mut faults, ignored, .. } = loading;
        if faults.is_empty() {
            let scripts = Scripts { service: service.clone(), dialect, migrations, repeatables, ignored };
            self.keep(stamp, &scripts);
            return Ok(scripts);
        }
        faults.sort();
        Err(FilesError::Faulty { service: service.clone(), dialect, faults })
    }

    fn kept(&self, service: &ServiceId, dialect: Dialect, stamp: &Stamp) -> Option<Scripts> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (when, scripts) = kept.get(&(service.clone(), dialect))?;
        (when == stamp).then(|| scripts.clone())
    }

    fn keep(&self, stamp: Stamp, scripts: &Scripts) {
        let now = SystemTime::now();
        let old = |changed| now.duration_since(changed).is_ok_and(|age| age >= UNSETTLED);
        let settled = |found: &Option<Found>| found.as_ref().is_some_and(|found| old(found.changed));
        if !stamp.values().all(settled) {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert((scripts.service.clone(), scripts.dialect), (stamp, scripts.clone()));
    }
}

/// The files of one version that count for a dialect.
#[derive(Default)]
struct Set {
    files: BTreeMap<Role, (String, Name)>,
    /// Whether any dialect has a migration to the version.
    migrates: bool,
}

struct Loading {
    root: PathBuf,
    folder: PathBuf,
    dialect: Dialect,
    service: ServiceId,
    placeholders: Arc<Placeholders>,
    /// Bytes that were read, or would have been.
    bytes: u64,
    faults: Vec<Fault>,
    ignored: Vec<String>,
}

/// Repeatable files by what they are called, each with its variant.
type Repeated = BTreeMap<String, (String, Option<Dialect>)>;

impl Loading {
    fn all(&mut self, files: Vec<String>) -> (Vec<Arc<Migration>>, Vec<Arc<Repeatable>>) {
        let (sets, repeated) = self.sets(files);
        let migrations = sets.into_iter().filter_map(|(version, set)| self.migration(version, set));
        let migrations = migrations.map(Arc::new).collect();
        let repeatables =
            repeated.into_iter().filter_map(|(description, (file, _))| self.repeatable(description, file));
        (migrations, repeatables.map(Arc::new).collect())
    }

    /// Keeps the dialect's variant of a repeatable file.
    fn repeated(
        &mut self,
        repeated: &mut Repeated,
        file: String,
        description: String,
        variant: Option<Dialect>,
    ) {
        if variant.is_some_and(|variant| variant != self.dialect) {
            return;
        }
        match repeated.get(&description) {
            Some((other, present)) if *present == variant => {
                let other = other.clone();
                self.fault(&file, 0, FaultKind::Twice { other });
            }
            Some((_, Some(_))) => {}
            _ => drop(repeated.insert(description, (file, variant))),
        }
    }

    fn repeatable(&mut self, description: String, file: String) -> Option<Repeatable> {
        let (text, checksum) = self.text(&file)?;
        // Directives that name a version by default have no place here.
        let none = SchemaVersion::new("0").ok()?;
        let script = Reader::new(&file, &text, self.dialect, &mut self.faults).script(&none);
        if !script.steps.iter().all(|step| matches!(step, Step::Sql(_))) {
            self.fault(
                &file,
                0,
                FaultKind::Repeatable("has statements only, without backfills, tools and views"),
            );
        }
        if script.phase.is_some() {
            self.fault(&file, 0, FaultKind::Repeatable("is neither `expand` nor `contract`"));
        }
        let (transactional, timeouts, steps) = (script.transactional, script.timeouts, script.steps);
        let understood = Understood::default();
        Some(Repeatable { description, file, checksum, transactional, timeouts, steps, understood })
    }

    /// Groups files by version, and picks the dialect's variant where there is one.
    fn sets(&mut self, files: Vec<String>) -> (BTreeMap<SchemaVersion, Set>, Repeated) {
        let mut repeated = Repeated::new();
        let mut sets: BTreeMap<SchemaVersion, Set> = BTreeMap::new();
        let mut seen: BTreeMap<(SchemaVersion, Role, Option<Dialect>), String> = BTreeMap::new();
        let mut described: BTreeMap<SchemaVersion, (String, String)> = BTreeMap::new();
        for file in files {
            if self.folder.join(&file).is_dir() {
                continue;
            }
            let name = match Named::parse(&file) {
                Ok(Named::Versioned(name)) => name,
                Ok(Named::Repeatable { description, variant }) => {
                    self.repeated(&mut repeated, file, description, variant);
                    continue;
                }
                Ok(Named::Other) => {
                    if !file.starts_with('.') && !file.starts_with("README") {
                        self.ignored.push(file);
                    }
                    continue;
                }
                Err(kind) => {
                    self.fault(&file, 0, kind);
                    continue;
                }
            };
            let key = (name.version.clone(), name.role, name.variant);
            if let Some(other) = seen.insert(key, file.clone()) {
                self.fault(&file, 0, FaultKind::Twice { other });
                continue;
            }
            let set = sets.entry(name.version.clone()).or_default();
            if name.role == Role::Migrate {
                set.migrates = true;
                let (other, description) = described
                    .entry(name.version.clone())
                    .or_insert_with(|| (file.clone(), name.description.clone()));
                if *description != name.description {
                    let other = other.clone();
                    self.fault(&file, 0, FaultKind::Description { other });
                }
            }
            let counts = name.variant.is_none_or(|variant| variant == self.dialect);
            let better = set.files.get(&name.role).is_none_or(|(_, present)| present.variant.is_none());
            if counts && better {
                set.files.insert(name.role, (file, name));
            }
        }
        (sets, repeated)
    }

    fn migration(&mut self, schema: SchemaVersion, mut set: Set) -> Option<Migration> {
        let Some((file, name)) = set.files.remove(&Role::Migrate) else {
            // Otherwise the version exists, but not for this dialect.
            if !set.migrates {
                for (file, _) in set.files.into_values() {
                    self.fault(&file, 0, FaultKind::Alone);
                }
            }
            return None;
        };
        let text = self.text(&file);
        let undo = set.files.remove(&Role::Undo).and_then(|(file, _)| {
            let (text, checksum) = self.text(&file)?;
            let script = Reader::new(&file, &text, self.dialect, &mut self.faults).script(&schema);
            if let Some(phase) = script.phase {
                let text = format!("`{phase}` has no place in an undo file");
                self.fault(&file, 0, FaultKind::Directive(text));
            }
            Some(Undo {
                file,
                checksum,
                transactional: script.transactional,
                timeouts: script.timeouts,
                steps: script.steps,
                understood: Understood::default(),
            })
        });
        let check_file = set.files.remove(&Role::Check).map(|(file, _)| file);
        let checks = check_file.as_ref().and_then(|file| {
            let (text, _) = self.text(file)?;
            Some(Reader::new(file, &text, self.dialect, &mut self.faults).checks())
        });
        let (text, checksum) = text?;
        let script = Reader::new(&file, &text, self.dialect, &mut self.faults).script(&schema);
        Some(Migration {
            schema,
            description: name.description,
            checksum,
            file,
            transactional: script.transactional,
            timeouts: script.timeouts,
            phase: script.phase,
            steps: script.steps,
            undo,
            check_file,
            checks: checks.unwrap_or_default(),
            understood: Understood::default(),
        })
    }

    /// Reads a file's text without a byte order mark and with what is known in the place of placeholders, and the checksum
    /// of the text as it is.
    fn text(&mut self, file: &str) -> Option<(String, Checksum)> {
        match self.bytes(file).map(String::from_utf8) {
            Ok(Ok(text)) if !text.contains('\0') => {
                let checksum = Checksum::of(&text);
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                let raw = |line: &str| line.trim().eq_ignore_ascii_case("-- grey: no-placeholders");
                let literal = text.lines().any(raw);
                let filled =
                    if literal { text.to_owned() } else { self.placeholders.fill(text, &self.service) };
                Some((filled, checksum))
            }
            Ok(_) => {
                self.fault(file, 0, FaultKind::NotText);
                None
            }
            Err(kind) => {
                self.fault(file, 0, kind);
                None
            }
        }
    }

    fn bytes(&mut self, file: &str) -> Result<Vec<u8>, FaultKind> {
        let path = self.folder.join(file).canonicalize().map_err(|_| FaultKind::NotAFile)?;
        if !path.starts_with(&self.root) {
            return Err(FaultKind::Outside);
        }
        let size = fs::metadata(&path).ok().filter(fs::Metadata::is_file).ok_or(FaultKind::NotAFile)?.len();
        let too_large = |bytes| FaultKind::TooLarge { bytes, limit: MAX_FILE_BYTES };
        if size > MAX_FILE_BYTES {
            return Err(too_large(size));
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > MAX_SERVICE_BYTES {
            return Err(FaultKind::TooLargeTogether { limit: MAX_SERVICE_BYTES });
        }
        let opened = fs::File::open(&path).map_err(|_| FaultKind::NotAFile)?;
        let mut bytes = Vec::new();
        // It may grow meanwhile.
        opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|_| FaultKind::NotAFile)?;
        match u64::try_from(bytes.len()) {
            Ok(length) if length <= MAX_FILE_BYTES => Ok(bytes),
            _ => Err(too_large(size.max(MAX_FILE_BYTES + 1))),
        }
    }

    fn fault(&mut self, file: &str, line: u32, kind: FaultKind) {
        self.faults.push(Fault { file: file.chars().take(255).collect(), line, kind });
    }
}
