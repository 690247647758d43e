//! Directives in comments: `-- grey: …`.

use super::head::{FileTimeouts, Phase, Setting};
use super::split::{Cut, Remark};
use super::step::{Backfill, External, Shape, SqlName, Statement, Step, Tool, Views};
use super::{Dialect, FaultKind, lexis};
use grey_core::schema::SchemaVersion;
use sqlparser::tokenizer::Token;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

/// Most keys of one range.
const MAX_BATCH: u32 = 100_000;
/// Longest pause between two ranges.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Shortest and longest timeout of a file.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);

/// A directive as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Directive {
    /// About the file as a whole.
    Head(Setting),
    Backfill {
        table: SqlName,
        key: SqlName,
        batch: u32,
        pause: Duration,
    },
    Online {
        tool: Tool,
        table: SqlName,
    },
    /// No tables: the schema of views is dropped.
    Views {
        of: Vec<SqlName>,
        version: Option<SchemaVersion>,
    },
    View {
        of: SqlName,
    },
}

impl Directive {
    /// Reads a comment; `None` if it is not a directive.
    pub(super) fn read(remark: &Remark) -> Option<Result<Self, FaultKind>> {
        let (head, rest) = remark.text.split_at_checked(5)?;
        head.eq_ignore_ascii_case("grey:").then(|| Self::parse(rest).map_err(FaultKind::Directive))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let mut arguments = Arguments::read(name, words)?;
        let directive = match name {
            "no-transaction" => Self::Head(Setting::NoTransaction),
            "no-placeholders" => Self::Head(Setting::NoPlaceholders),
            "expand" => Self::Head(Setting::Phase(Phase::Expand)),
            "contract" => Self::Head(Setting::Phase(Phase::Contract)),
            "timeout" => {
                let (lock, statement) = (arguments.timeout("lock")?, arguments.timeout("statement")?);
                if lock.is_none() && statement.is_none() {
                    return Err("`timeout` needs lock= or statement=".to_owned());
                }
                Self::Head(Setting::Timeouts(FileTimeouts { lock, statement }))
            }
            "backfill" => Self::Backfill {
                table: arguments.required("table")?,
                key: arguments.required("key")?,
                batch: arguments.number("batch", 1000, MAX_BATCH)?,
                pause: arguments.pause()?,
            },
            "online" => {
                let tool = match arguments.take("tool").as_deref() {
                    Some("gh-ost") => Tool::GhOst,
                    Some("pt-online-schema-change" | "pt-osc") => Tool::PtOnlineSchemaChange,
                    _ => return Err("`online` needs tool=gh-ost or tool=pt-online-schema-change".to_owned()),
                };
                Self::Online { tool, table: arguments.required("table")? }
            }
            "views" => {
                let of = arguments.take("of").ok_or("`views` needs of=, a list of tables")?;
                let of = of.split(',').map(plain_name).collect::<Result<Vec<_>, _>>()?;
                Self::Views { of, version: arguments.version()? }
            }
            "drop-views" => Self::Views { of: Vec::new(), version: arguments.version()? },
            "view" => Self::View { of: arguments.required("of")? },
            _ => return Err(format!("`{name}` is not known")),
        };
        arguments.end(directive)
    }
}

fn plain_name(text: &str) -> Result<SqlName, String> {
    SqlName::from_str(text).map_err(|error| error.to_string())
}

/// The `key=value` words of a directive that were not taken yet.
struct Arguments<'a> {
    name: &'a str,
    left: Vec<(&'a str, &'a str)>,
}

impl<'a> Arguments<'a> {
    fn read(name: &'a str, words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut left: Vec<(&str, &str)> = Vec::new();
        for word in words {
            let (key, value) =
                word.split_once('=').ok_or_else(|| format!("`{name}` takes key=value, not `{word}`"))?;
            if left.iter().any(|(other, _)| *other == key) {
                return Err(format!("`{name}` has {key}= twice"));
            }
            left.push((key, value));
        }
        Ok(Self { name, left })
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let index = self.left.iter().position(|(other, _)| *other == key)?;
        Some(self.left.remove(index).1.to_owned())
    }

    fn required(&mut self, key: &str) -> Result<SqlName, String> {
        let value = self.take(key).ok_or_else(|| format!("`{}` needs {key}=", self.name))?;
        plain_name(&value)
    }

    fn version(&mut self) -> Result<Option<SchemaVersion>, String> {
        let version = self.take("version").map(|it| it.parse()).transpose();
        version.map_err(|error: grey_core::schema::InvalidSchemaVersion| error.to_string())
    }

    fn number(&mut self, key: &str, default: u32, most: u32) -> Result<u32, String> {
        let Some(text) = self.take(key) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| format!("`{}` needs {key}= a number from 1 to {most}", self.name))
    }

    fn pause(&mut self) -> Result<Duration, String> {
        let Some(text) = self.take("pause") else { return Ok(Duration::ZERO) };
        let fits = time(&text).filter(|duration| *duration <= MAX_PAUSE);
        fits.ok_or_else(|| format!("`{}` needs pause= a time of at most 60s, such as 50ms", self.name))
    }

    fn timeout(&mut self, key: &str) -> Result<Option<Duration>, String> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let fits = time(&text).filter(|duration| TIMEOUTS.contains(duration));
        let wrong = || format!("`{}` needs {key}= a time from 10ms to 24h, such as 30s", self.name);
        fits.map(Some).ok_or_else(wrong)
    }

    fn end(self, directive: Directive) -> Result<Directive, String> {
        match self.left.first() {
            None => Ok(directive),
            Some((key, _)) => Err(format!("`{}` does not know {key}=", self.name)),
        }
    }
}

/// Reads `50ms`, `30s`, `10m` and `2h`.
fn time(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3_600).map(Duration::from_secs),
        _ => None,
    }
}

/// Makes the step that a directive and the statement below it are.
pub(super) fn step(
    directive: Directive,
    statement: Statement,
    dialect: Dialect,
) -> Result<Step, (u32, FaultKind)> {
    let line = statement.line;
    let fault = |text: &str| (line, FaultKind::Directive(text.to_owned()));
    match directive {
        Directive::Backfill { table, key, batch, pause } => {
            let (low, high) = bounds(&statement.sql, dialect, &key).map_err(fault)?;
            Ok(Step::Backfill(Backfill { statement, table, key, batch, pause, low, high }))
        }
        Directive::Online { .. } if dialect != Dialect::MySql => {
            Err(fault("`online` is for the MySQL family: this dialect changes tables online by itself"))
        }
        Directive::Online { tool, table } => {
            let clause = clause(&statement.sql, dialect, &table).map_err(fault)?;
            Ok(Step::External(External { tool, table, clause, statement }))
        }
        Directive::Head(_) | Directive::Views { .. } | Directive::View { .. } => Ok(Step::Sql(statement)),
    }
}

/// Makes the step of a `views` directive.
pub(super) fn views(
    of: Vec<SqlName>,
    version: SchemaVersion,
    line: u32,
    dialect: Dialect,
) -> Result<Step, FaultKind> {
    if dialect == Dialect::Postgres {
        Ok(Step::Views(Views { version, of, shapes: Vec::new(), line }))
    } else {
        Err(FaultKind::Directive("`views` is for PostgreSQL: other dialects have no search path".to_owned()))
    }
}

/// Gives the views that were made last the shape of one of them.
pub(super) fn shape(
    of: SqlName,
    statement: Statement,
    is_query: bool,
    steps: &mut [Step],
) -> Result<(), (u32, FaultKind)> {
    let fault = |line: u32, text: &str| Err((line, FaultKind::Directive(text.to_owned())));
    let line = statement.line;
    let (pieces, _) = lexis::pieces(&statement.sql, Dialect::Postgres);
    let mut words = pieces.iter().filter(|piece| !piece.is_blank());
    let alters =
        words.next().is_some_and(|it| it.is("ALTER")) && words.next().is_some_and(|it| it.is("VIEW"));
    if !is_query && !alters {
        return fault(line, "`view` belongs to a query, or to an ALTER VIEW");
    }
    let Some(Step::Views(views)) = steps.last_mut().filter(|step| matches!(step, Step::Views(_))) else {
        return fault(line, "`view` belongs below `views`");
    };
    if !views.of.contains(&of) {
        return fault(line, "`view` is of a table that `views` does not name");
    }
    if is_query && views.shapes.iter().any(|shape| shape.of == of) {
        return fault(line, "`view` has one query for a table, before any ALTER VIEW");
    }
    views.shapes.push(Shape { of, statement, is_query });
    Ok(())
}

/// Finds `:low` and `:high` in an UPDATE, each once, bounding `key` with both ends included.
fn bounds(sql: &str, dialect: Dialect, key: &SqlName) -> Result<(Range<usize>, Range<usize>), &'static str> {
    let (pieces, _) = lexis::pieces(sql, dialect);
    let pieces: Vec<_> = pieces.iter().filter(|piece| !piece.is_blank()).collect();
    if !pieces.first().is_some_and(|first| first.is("UPDATE")) {
        return Err("`backfill` belongs to an UPDATE");
    }
    let place = |name: &str| {
        let mut places = pieces.windows(2).enumerate().filter_map(|(index, pair)| {
            let [colon, word] = pair else { return None };
            let here = colon.token == Token::Colon && word.is(name) && colon.range.end == word.range.start;
            here.then_some((index, colon.range.start..word.range.end))
        });
        places.next().filter(|_| places.next().is_none())
    };
    let (Some((low_at, low)), Some((high_at, high))) = (place("low"), place("high")) else {
        return Err("`backfill` needs :low and :high in the UPDATE, each once");
    };
    let at = |index: Option<usize>| index.and_then(|index| pieces.get(index));
    let is_key = |index: Option<usize>| {
        at(index).is_some_and(|piece| match &piece.token {
            Token::Word(word) => word.value.eq_ignore_ascii_case(key.last()),
            _ => false,
        })
    };
    let is = |index: Option<usize>, token: &Token| at(index).is_some_and(|piece| piece.token == *token);
    let between = at(low_at.checked_sub(1)).is_some_and(|piece| piece.is("BETWEEN"))
        && is_key(low_at.checked_sub(2))
        && at(high_at.checked_sub(1)).is_some_and(|piece| piece.is("AND"))
        && high_at == low_at + 3;
    let compared = is(low_at.checked_sub(1), &Token::GtEq)
        && is_key(low_at.checked_sub(2))
        && is(high_at.checked_sub(1), &Token::LtEq)
        && is_key(high_at.checked_sub(2));
    if between || compared {
        Ok((low, high))
    } else {
        Err("`backfill` needs the key BETWEEN :low AND :high: both ends belong to a range")
    }
}

/// What follows the table's name in an ALTER TABLE.
fn clause(sql: &str, dialect: Dialect, table: &SqlName) -> Result<String, &'static str> {
    let (pieces, _) = lexis::pieces(sql, dialect);
    let pieces: Vec<_> = pieces.iter().filter(|piece| !piece.is_blank()).collect();
    let [alter, keyword, rest @ ..] = pieces.as_slice() else {
        return Err("`online` belongs to an ALTER TABLE");
    };
    if !alter.is("ALTER") || !keyword.is("TABLE") {
        return Err("`online` belongs to an ALTER TABLE");
    }
    let mut name = String::new();
    let mut used = 0;
    for piece in rest {
        match &piece.token {
            Token::Word(word) if name.is_empty() || name.ends_with('.') => name.push_str(&word.value),
            Token::Period => name.push('.'),
            _ => break,
        }
        used += 1;
    }
    if !name.eq_ignore_ascii_case(table.as_str()) {
        return Err("`online` has another table= than the ALTER TABLE");
    }
    let from = rest.get(used).ok_or("`online` needs an ALTER TABLE that changes something")?;
    Ok(sql.get(from.range.start..).unwrap_or_default().to_owned())
}

/// Whether a comment inside a statement looks like a directive, which it cannot be there.
pub(super) fn misplaced(sql: &str, cut: &Cut, dialect: Dialect) -> Option<u32> {
    let text = sql.get(cut.range.clone()).unwrap_or_default();
    let (pieces, _) = lexis::pieces(text, dialect);
    let named = |comment: &str| comment.trim_start().to_ascii_lowercase().starts_with("grey:");
    let found = pieces.iter().find(|piece| piece.comment().is_some_and(named));
    found.map(|piece| cut.line + piece.line - 1)
}
