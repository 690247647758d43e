//! The arguments that every service understands.

use std::fs;

use grey_runtime::config::{Error, Invocation, parse_args};

use crate::config::{Config, DEFAULTS};

fn parse(args: &[&str]) -> Result<Invocation<Config>, Error> {
    let env = [("GREY__STORE__PASSWORD".to_owned(), "hunter2".to_owned())];
    parse_args("grey-test", DEFAULTS, args.iter().map(|arg| (*arg).to_owned()), env)
}

fn printed(args: &[&str]) -> String {
    match parse(args).unwrap() {
        Invocation::Print(text) => text,
        Invocation::Run(_) => panic!("expected text"),
    }
}

#[test]
fn config_file_is_read_in_both_spellings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grey.toml");
    fs::write(&path, "server.threads = 7").unwrap();
    let path = path.to_str().unwrap();
    for args in [vec!["--config", path], vec![&format!("--config={path}")]] {
        match parse(&args).unwrap() {
            Invocation::Run(config) => assert_eq!(config.server.threads, 7),
            Invocation::Print(text) => panic!("expected a configuration, got {text}"),
        }
    }
}

#[test]
fn print_config_masks_secrets_and_can_be_read_back() {
    let text = printed(&["--print-config"]);
    assert!(text.contains("password = \"***\""), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let again = parse_args::<Config>("grey-test", &text, [], []).unwrap();
    assert!(matches!(again, Invocation::Run(_)));
}

#[test]
fn help_version_and_defaults_are_printed() {
    assert!(printed(&["--help"]).contains("--print-config"));
    assert_eq!(printed(&["-h"]), printed(&["--help"]));
    assert_eq!(printed(&["--version"]), format!("grey-test {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(printed(&["--print-defaults"]), DEFAULTS);
}

#[test]
fn unknown_and_incomplete_arguments_are_refused() {
    insta::assert_snapshot!(parse(&["--verbose"]).unwrap_err(), @"understand argument `--verbose`, see --help");
    insta::assert_snapshot!(parse(&["--config"]).unwrap_err(), @"understand argument `--config`, see --help");
}
