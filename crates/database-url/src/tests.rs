#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
use super::*;

fn server_of(url: &str) -> Server {
    let Place::Server(server) = DatabaseUrl::parse(url).unwrap().place else { panic!("{url} is a file") };
    server
}

fn refused(url: &str) -> String {
    DatabaseUrl::parse(url).map(|url| format!("{:?}", url.server())).unwrap_err().to_string()
}

#[test]
fn a_url_tells_where_the_database_is() {
    use Dialect::{MySql, Postgres, Sqlite};
    let told = |url| {
        let url = DatabaseUrl::parse(url).unwrap();
        (url.dialect(), url.server(), url.database().to_owned())
    };
    let place = |dialect, server: &str, name: &str| (dialect, server.to_owned(), name.to_owned());
    assert_eq!(told("postgres://app:s3cret@Db/acme"), place(Postgres, "db:5432", "acme"));
    assert_eq!(told("postgresql://app:p%40ss%2F@db:6000/acme"), place(Postgres, "db:6000", "acme"));
    assert_eq!(told("postgres://app@%2Fvar%2Frun/a%20b"), place(Postgres, "/var/run", "a b"));
    assert_eq!(told("mysql://app:s3cret@db/acme?ssl-mode=REQUIRED"), place(MySql, "db:3306", "acme"));
    assert_eq!(told("sqlite:///data/acme%20orders.db?mode=rwc"), place(Sqlite, "/data/acme orders.db", ""));
    let server = server_of("postgres://gr%65y:p%40ss%23@db/acme");
    assert_eq!((server.user.as_str(), server.password.expose()), ("grey", "p@ss#"));
}

#[test]
fn an_ipv6_address_is_told_with_brackets_and_connected_to_without() {
    for (url, told) in [
        ("postgres://app:x@[::1]/acme", "[::1]:5432"),
        ("mysql://app:x@[2001:DB8::7]:3307/acme", "[2001:db8::7]:3307"),
    ] {
        assert_eq!(DatabaseUrl::parse(url).unwrap().server(), told);
        assert!(!server_of(url).host.bare().contains('['), "{url}");
    }
    assert_eq!(server_of("postgres://app:x@[::1]/acme").host.bare(), "::1");
}

#[test]
fn options_that_no_driver_obeys_are_refused() {
    for url in [
        "postgres://u:x@h/d?sslmod=verify-full",
        "postgres://u:x@h/d?SSLMODE=verify-full",
        "postgres://u:x@h/d?ssl=true",
        "postgres://u:x@h/d?useSSL=true",
        "postgres://u:x@h/d?sslmode=bogus",
        "postgres://u:x@h/d?sslmode=allow",
        "postgres://u:x@h/d?sslmode=",
        "postgres://u:x@h/d?sslmode",
        "postgres://u:x@h/d?sslmode=require&sslmode=disable",
        "postgres://u:x@h/d?sslmode=require&ssl-mode=disable",
        "postgres://u:x@h/d?options=-c%20search_path%3Dother",
        "postgres://u:x@h/d?options[search_path]=other",
        "postgres://u:x@h/d?host=other",
        "postgres://u:x@h/d?sslmode=verify-full&sslrootcert=ca.pem",
        "postgres://u:x@h/d?sslmode=verify-full&sslrootcert=/etc/grey/../shadow",
        "postgres://u:x@h/d?sslmode=verify-full&sslrootcert=-----BEGIN%20CERTIFICATE-----",
        "postgres://u:x@h/d?sslmode=verify-full&sslcert=/etc/grey/c",
        "postgres://u:x@h/d?sslrootcert=/etc/grey/ca.pem",
        "mysql://u:x@h/d?useSSL=true",
        "mysql://u:x@h/d?ssl-mode=TRUE",
        "mysql://u:x@h/d?charset=utf8;x",
        "mysql://u:x@h/d?socket=/tmp/other",
        "sqlite:///d.db?mode=ro",
        "sqlite:///d.db?immutable=1",
        "sqlite:///d.db?vfs=unix-none",
    ] {
        let why = refused(url);
        assert!(!why.contains("bogus") && !why.contains("other"), "{url}: {why}");
    }
    let read = |url: &str| DatabaseUrl::parse(url).unwrap().encryption;
    let full = "postgres://u:p@h/d?sslmode=verify-full&sslrootcert=%2Fetc%2Fmy%20ca.pem&sslcert=/c&sslkey=/k";
    assert!(read(full).is_required() && read(full).is_verified());
    let expected = [("ssl-ca", "/etc/my ca.pem"), ("ssl-cert", "/c"), ("ssl-key", "/k")];
    assert_eq!(read(full).files().collect::<Vec<_>>(), expected.map(|(name, file)| (name, Path::new(file))));
    for (mode, expected) in [
        ("ssl-mode=VERIFY_CA", Strength::Authority),
        ("ssl-mode=REQUIRED", Strength::Required),
        ("sslmode=require", Strength::Required),
        ("ssl-mode=disabled", Strength::Off),
        ("charset=utf8mb4", Strength::Preferred),
    ] {
        assert_eq!(read(&format!("mysql://u@h/d?{mode}")).strength, expected, "{mode}");
    }
}

#[test]
fn what_leads_nowhere_is_refused_without_repeating_it() {
    for url in [
        "",
        "s3cret",
        "oracle://app:s3cret@db/acme",
        "postgres://app:s3cret@/acme",
        "postgres://:s3cret@db/acme",
        "postgres://db/s3cret",
        "postgres://app:s3cret@db",
        "postgres://app:s3cret@db/",
        "postgres://app:s3cret@db/a/b",
        "postgres://app:s3cret@db:99999/acme",
        "postgres://app:s3cret@db:0/acme",
        "postgres://app:s3cret#1@db/acme",
        "postgres://app:s3?cret@db/acme",
        "postgres://app:s3cret@db/acme#x",
        "postgres://app:s3cret%ff@db/acme",
        "postgres://app:s3cret%zz@db/acme",
        "postgres://app:s3cret%2@db/acme",
        "postgres://app:s3 cret@db/acme",
        "postgres://app:s3\ncret@db/acme",
        "postgres://app@db/acme?password=s3cret",
        "postgres://app:s3cret@2130706433/acme",
        "postgres://app:s3cret@127.1/acme",
        "postgres://app:s3cret@0x7f.0.0.1/acme",
        "postgres://app:s3cret@a..b/acme",
        "mysql://app:s3cret@-h/acme",
        "sqlite://s3cret.db",
        "sqlite:s3cret.db",
        "sqlite:///data/../s3cret.db",
        "sqlite:///data/%2e%2e/s3cret.db",
        "sqlite::memory:",
        "sqlite:///s3cret.db?mode=memory",
    ] {
        let why = refused(url);
        assert!(!why.contains("cret"), "{url}: {why}");
    }
    assert!(DatabaseUrl::parse(&format!("postgres://app@db/{}", "x".repeat(5_000))).is_err());
}

fn check(guard: &Guard, url: &str) -> Result<(), Fault> {
    guard.check(&DatabaseUrl::parse(url).unwrap())
}

#[test]
fn hosts_are_those_that_are_listed() {
    let hosts = ["db.example.com", "*.tenants.internal", "10.1.0.0/16", "2001:db8::/32"];
    let hosts = hosts.map(str::to_owned).to_vec();
    let guard = Guard::new(Rules { hosts, ..Rules::default() }, []);
    for listed in
        ["DB.example.com", "a.tenants.internal", "b.a.tenants.internal", "10.1.200.3", "[2001:db8::9]"]
    {
        check(&guard, &format!("postgres://u:x@{listed}/d")).unwrap();
        check(&guard, &format!("mysql://u:x@{listed}:3307/d")).unwrap();
    }
    for other in
        ["example.com", "tenants.internal", "xtenants.internal", "10.2.0.1", "[2001:db9::1]", "%2Frun"]
    {
        assert!(check(&guard, &format!("postgres://u:x@{other}/d")).is_err(), "{other}");
    }
    check(&Guard::default(), "postgres://u:x@anywhere/d").unwrap();
}

#[test]
fn no_database_is_at_a_link_local_address() {
    let hosts = vec!["169.254.169.254".to_owned(), "0.0.0.0/0".to_owned()];
    let guard = Guard::new(Rules { hosts, ..Rules::default() }, []);
    for address in
        ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "0.0.0.0", "[::]", "224.0.0.1"]
    {
        for guard in [&guard, &Guard::default()] {
            let why = check(guard, &format!("postgres://u:x@{address}/d")).unwrap_err();
            assert!(why.to_string().contains("link-local"), "{address}: {why}");
        }
    }
}

#[test]
fn our_own_databases_are_nobodys() {
    let own = ["postgres://grey:x@db:5432/control?sslmode=verify-full", "sqlite:///var/lib/grey/control.db"];
    let guard = Guard::new(Rules::default(), own);
    for ours in ["postgres://other:y@DB/control", "sqlite:///var/lib/grey/control.db?mode=rwc"] {
        assert!(check(&guard, ours).is_err(), "{ours}");
    }
    for other in ["postgres://grey:x@db/tenants", "mysql://grey:x@db:5432/control", "sqlite:///var/lib/x.db"]
    {
        check(&guard, other).unwrap();
    }
    let local = Guard::new(Rules::default(), ["postgres://grey@localhost/control"]);
    for ours in ["127.0.0.1", "[::1]", "localhost"] {
        assert!(check(&local, &format!("postgres://u:x@{ours}/control")).is_err(), "{ours}");
    }
}

#[test]
fn files_are_in_the_folders_for_them() {
    let rules = Rules { folders: vec!["/data/tenants".into()], ..Rules::default() };
    let guard = Guard::new(rules, []);
    check(&guard, "sqlite:///data/tenants/acme.db").unwrap();
    for outside in ["sqlite:///data/acme.db", "sqlite:///data/tenants2/acme.db", "sqlite:///data/tenants"] {
        assert!(check(&guard, outside).is_err(), "{outside}");
    }
    let key =
        |file: &str| format!("postgres://u:x@h/d?sslmode=require&sslcert=/etc/grey/c.pem&sslkey={file}");
    check(&guard, &key("/etc/grey/k.pem")).unwrap();
    for outside in ["/etc/shadow", "/etc/greyer/k.pem", "/proc/self/environ"] {
        assert!(check(&guard, &key(outside)).is_err(), "{outside}");
    }
}
