//! Where server programs are found.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

/// Places that are often missing from the search path of an ordinary user.
const USUAL_PLACES: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Where the install script puts the Nacos server, below the user's cache.
const RNACOS: &str = "grey-router/tools/rnacos-0.8.8/bin/rnacos";

/// Where it puts Alibaba's server, if asked for.
const ALIBABA_NACOS: &str = "grey-router/tools/nacos-3.1.0";

/// Where it puts MySQL and gh-ost, where it can have them.
const MYSQLD: &str = "grey-router/tools/mysql/bin/mysqld";
const GH_OST: &str = "grey-router/tools/gh-ost-1.1.8/gh-ost";

/// Returns the path of the program `name`, looked for on `PATH` and then in the usual places.
///
/// # Errors
/// Names the command that installs the servers when the program is absent.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    search_path()
        .chain(USUAL_PLACES.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| missing(name))
}

/// Returns the directory that holds the PostgreSQL server programs.
///
/// Debian keeps them off `PATH`, one directory per major version; the newest wins.
///
/// # Errors
/// Names the command that installs the servers when there is none.
pub(crate) fn postgres_dir() -> Result<PathBuf> {
    // A link on `PATH` may lead to one program only, so its target's directory is what counts.
    let linked = find("initdb").ok().and_then(|path| path.canonicalize().ok());
    let linked = linked.and_then(|path| path.parent().map(Path::to_path_buf));
    linked
        .into_iter()
        .chain(debian_postgres_dirs())
        .chain(pg_config_dir())
        .find(|dir| dir.join("postgres").is_file() && dir.join("initdb").is_file())
        .ok_or_else(|| missing("postgres"))
}

/// Returns the path of the Nacos server `rnacos`: `GREY_RNACOS` if set, else one on the search path, else the one that
/// the install script built.
///
/// # Errors
/// Names the command that installs the servers when the program is absent.
pub(crate) fn rnacos() -> Result<PathBuf> {
    if let Some(chosen) = std::env::var_os("GREY_RNACOS") {
        let chosen = PathBuf::from(chosen);
        return if chosen.is_file() { Ok(chosen) } else { Err(missing("rnacos")) };
    }
    let found = find("rnacos");
    if found.is_ok() {
        return found;
    }
    cached(RNACOS).filter(|path| path.is_file()).ok_or_else(|| missing("rnacos"))
}

/// Returns the directory that holds the launcher and the jars of Alibaba's Nacos.
///
/// # Errors
/// Names the command that installs it when it is absent.
pub(crate) fn alibaba_nacos() -> Result<PathBuf> {
    let found = cached(ALIBABA_NACOS).filter(|path| path.join("grey/Launcher.class").is_file());
    found.ok_or_else(|| anyhow!("find Alibaba's Nacos: run NACOS=alibaba ./scripts/install-servers.sh"))
}

/// Returns the path of MySQL's server: `GREY_MYSQLD` if set, else the one that the install script put down. One that is
/// found by its name may be MariaDB.
pub(crate) fn mysqld() -> Option<PathBuf> {
    chosen_or_cached("GREY_MYSQLD", MYSQLD)
}

/// Returns the path of the tool gh-ost: `GREY_GH_OST` if set, else the one that the install script built, if it could.
pub fn gh_ost() -> Option<PathBuf> {
    chosen_or_cached("GREY_GH_OST", GH_OST)
}

fn chosen_or_cached(variable: &str, path: &str) -> Option<PathBuf> {
    let chosen = std::env::var_os(variable).map(PathBuf::from);
    chosen.or_else(|| cached(path)).filter(|path| path.is_file())
}

fn cached(path: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Some(cache?.join(path))
}

fn debian_postgres_dirs() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let mut versions: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect()
}

fn pg_config_dir() -> Option<PathBuf> {
    let output = std::process::Command::new(find("pg_config").ok()?).arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn missing(name: &str) -> anyhow::Error {
    anyhow!("find the program `{name}`: it is not installed; run ./scripts/install-servers.sh")
}
