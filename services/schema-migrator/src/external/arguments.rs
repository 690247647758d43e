//! The vector of arguments that a tool is started with, and the names of what it makes.

use super::login::Login;
use crate::files::{External, Tool};
use std::path::Path;

/// Longest clause of an ALTER TABLE that is handed on; the kernel limits one argument to 128 KiB.
const LONGEST_CLAUSE: usize = 64 * 1024;

/// Longest name of a table that gh-ost can still put its endings to.
const LONGEST_GH_OST_TABLE: usize = 59;

/// Longest path of a socket, in bytes, that the kernel takes.
const LONGEST_SOCKET: usize = 107;

/// Arguments that the migrator itself gives, or that would make a success something else than a changed table.
const OWN: [&str; 38] = [
    "alter",
    "ask-pass",
    "assume-master-host",
    "conf",
    "config",
    "database",
    "debug",
    "defaults-file",
    "drop-new-table",
    "drop-old-table",
    "drop-triggers",
    "dry-run",
    "execute",
    "force-table-names",
    "help",
    "host",
    "initially-drop-ghost-table",
    "initially-drop-old-table",
    "master-password",
    "master-user",
    "migrate-on-replica",
    "new-table-name",
    "ok-to-drop-table",
    "old-table-name",
    "password",
    "pid",
    "port",
    "preserve-triggers",
    "progress",
    "reverse-triggers",
    "socket",
    "stack",
    "swap-tables",
    "table",
    "test-on-replica",
    "timestamp-old-table",
    "user",
    "version",
];

/// Why an argument of the configuration is not given to a tool, if it is not.
pub(super) fn objection(argument: &str) -> Option<String> {
    let shown: String = argument.split('=').next().unwrap_or_default().chars().take(64).collect();
    let name = shown.strip_prefix("--").filter(|name| !name.is_empty());
    let Some(name) = name.filter(|_| !argument.chars().any(char::is_control)) else {
        return Some(format!("`{shown}` is not of the form --name or --name=value"));
    };
    let positive = name.strip_prefix("no-").or_else(|| name.strip_prefix("no")).unwrap_or(name);
    // One of the tools takes names that are cut short.
    let own = OWN.iter().any(|own| own.starts_with(name) || own.starts_with(positive));
    own.then(|| format!("`{shown}` is for the migrator to say"))
}

/// The arguments, each of which the tool gets as it is.
pub(super) fn of(
    step: &External,
    login: &Login,
    credentials: &Path,
    further: &[String],
) -> Result<Vec<String>, String> {
    let clause = step.clause.trim();
    if clause.is_empty() || clause.contains('\0') || clause.len() > LONGEST_CLAUSE {
        return Err("the change is empty, not text or too long".to_owned());
    }
    let place = step.table.as_str().split_once('.').map_or(login.database(), |(place, _)| place);
    let table = step.table.last();
    let socket = credentials.with_file_name("gh-ost.sock");
    if step.tool == Tool::GhOst && socket.as_os_str().len() > LONGEST_SOCKET {
        return Err("the folder for temporary files has too long a name for a socket in it".to_owned());
    }
    let credentials = credentials.to_str().ok_or("the folder for temporary files is not text")?;
    let (host, port) = (login.host(), login.port());
    let alter = format!("--alter={clause}");
    let mut arguments: Vec<String> = match step.tool {
        Tool::GhOst if table.len() > LONGEST_GH_OST_TABLE => {
            return Err(format!("the name {table} is longer than {LONGEST_GH_OST_TABLE} characters"));
        }
        Tool::GhOst => [
            format!("--conf={credentials}"),
            format!("--host={host}"),
            format!("--port={port}"),
            format!("--database={place}"),
            format!("--table={table}"),
            alter,
            "--allow-on-master".to_owned(),
            "--initially-drop-ghost-table".to_owned(),
            "--initially-drop-old-table".to_owned(),
            "--ok-to-drop-table".to_owned(),
            "--verbose".to_owned(),
            "--execute".to_owned(),
            // Its own choice is the same for tables of the same name on two servers, and is in the way after a crash.
            format!("--serve-socket-file={}", socket.display()),
            format!("--replica-server-id={}", replica_id()),
        ]
        .into_iter()
        .chain(login.gh_ost_arguments())
        .collect(),
        Tool::PtOnlineSchemaChange => {
            // These are joined by commas into one argument.
            if [host, place, credentials].iter().any(|part| part.contains([',', '='])) {
                return Err("the host, the database or the folder for temporary files has a comma".to_owned());
            }
            vec![
                alter,
                format!("--new-table-name={}", pt_copy(table)),
                "--progress=percentage,1".to_owned(),
                "--no-version-check".to_owned(),
                "--execute".to_owned(),
            ]
        }
    };
    arguments.extend_from_slice(further);
    if step.tool == Tool::PtOnlineSchemaChange {
        arguments.push(format!("h={host},P={port},D={place},t={table},F={credentials}"));
    }
    Ok(arguments)
}

/// The number under which gh-ost reads the server's log of changes. A server cuts off one of two that have the same.
fn replica_id() -> u32 {
    // Servers are mostly given small numbers.
    uuid::Uuid::new_v4().as_fields().0 | 0x8000_0000
}

/// The tables that gh-ost copies into and keeps its notes and its checkpoints in.
pub(super) fn gh_ost_tables(table: &str) -> [String; 3] {
    ["gho", "ghc", "ghk"].map(|ending| format!("_{table}_{ending}"))
}

/// The table that pt-online-schema-change copies into. A name of our own, so that nobody else's table is dropped.
pub(super) fn pt_copy(table: &str) -> String {
    let kept: String = table.chars().take(54).collect();
    format!("_{kept}_grey_new")
}

/// The trigger that pt-online-schema-change makes for an event: `ins`, `upd` or `del`.
pub(super) fn pt_trigger(place: &str, table: &str, event: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let prefix: String = format!("pt_osc_{place}_{table}").chars().map(plain).take(60).collect();
    format!("{prefix}_{event}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
    use super::*;
    use crate::files::Statement;

    fn step(tool: Tool, clause: &str) -> External {
        External {
            tool,
            table: "orders".parse().unwrap(),
            clause: clause.to_owned(),
            statement: Statement { sql: format!("ALTER TABLE orders {clause}"), line: 3 },
        }
    }

    fn login() -> Login {
        Login::read("mysql://grey:s3cret@db.example:3307/tenant_7", "tenant_7").unwrap()
    }

    #[test]
    fn arguments_are_whole_whatever_the_change_says_and_hold_no_password() {
        let evil = "ADD COLUMN `a b` int; $(reboot) --host=elsewhere 'x' \"y\"";
        for tool in [Tool::GhOst, Tool::PtOnlineSchemaChange] {
            let further = ["--max-load=Threads_running=25".to_owned()];
            let arguments = of(&step(tool, evil), &login(), Path::new("/tmp/f"), &further).unwrap();
            assert!(arguments.contains(&format!("--alter={evil}")), "{arguments:?}");
            assert!(arguments.contains(&further[0]) && arguments.contains(&"--execute".to_owned()));
            assert!(
                !arguments.iter().any(|it| it.contains("s3cret")
                    || it.contains("--host=elsewhere ") && !it.starts_with("--alter=")),
                "{arguments:?}"
            );
        }
        let arguments = of(&step(Tool::PtOnlineSchemaChange, "FORCE"), &login(), Path::new("/tmp/f"), &[]);
        assert_eq!(arguments.unwrap().last().unwrap(), "h=db.example,P=3307,D=tenant_7,t=orders,F=/tmp/f");
        assert!(of(&step(Tool::GhOst, " "), &login(), Path::new("/tmp/f"), &[]).is_err());
        assert!(of(&step(Tool::PtOnlineSchemaChange, "FORCE"), &login(), Path::new("/a,b"), &[]).is_err());
    }

    #[test]
    fn configured_arguments_cannot_say_what_the_migrator_says() {
        for fine in [
            "--max-load=Threads_running=25",
            "--chunk-time=0.2",
            "--recursion-method=none",
            "--ssl",
            "--alter-foreign-keys-method=auto",
            "--no-check-replication-filters",
            "--throttle-query=SELECT 1",
        ] {
            assert_eq!(objection(fine), None, "{fine}");
        }
        for wrong in [
            "--password=x",
            "--pass=x",
            "-p",
            "x",
            "--",
            "--no-drop-old-table",
            "--nodrop-old-table",
            "--execute",
            "--alter=x",
            "--conf=/etc/x",
            "--a\nb",
            "",
            "--noswap-tables",
        ] {
            let text = objection(wrong).unwrap_or_else(|| panic!("{wrong}"));
            assert!(!text.contains("=x"), "{text}");
        }
    }

    #[test]
    fn names_are_those_of_the_tools_and_fit() {
        assert_eq!(gh_ost_tables("orders"), ["_orders_gho", "_orders_ghc", "_orders_ghk"]);
        assert_eq!(pt_trigger("my-shop", "orders", "del"), "pt_osc_my_shop_orders_del");
        let long = "t".repeat(63);
        assert!(pt_copy(&long).len() <= 64 && pt_trigger("d", &long, "upd").len() <= 64);
    }
}
