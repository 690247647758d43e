//! Types of columns: whether a change of one may lose data.

/// What a type holds, and how much of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Whole numbers of so many bytes.
    Integer(u64),
    /// Decimal numbers of so many digits before and after the point.
    Decimal(u64, u64),
    /// Floating point numbers of so many bytes.
    Float(u64),
    /// Text of so many characters.
    Text(u64),
    /// A moment, with or without the time of day.
    Time(bool),
}

/// More than any bound.
const UNBOUNDED: u64 = u64::MAX;

fn kind(name: &str) -> Option<Kind> {
    let name = name.to_ascii_lowercase();
    let (base, rest) = name.split_once('(').unwrap_or((&name, ""));
    let mut sizes =
        rest.split(')').next().unwrap_or_default().split(',').map(|it| it.trim().parse::<u64>().ok());
    let (first, second) = (sizes.next().flatten(), sizes.next().flatten());
    Some(match base.split_whitespace().next()? {
        "tinyint" => Kind::Integer(1),
        "smallint" | "int2" | "smallserial" => Kind::Integer(2),
        "mediumint" => Kind::Integer(3),
        "int" | "integer" | "int4" | "serial" => Kind::Integer(4),
        "bigint" | "int8" | "bigserial" => Kind::Integer(8),
        "decimal" | "numeric" | "dec" => match (first, second) {
            (None, _) => Kind::Decimal(UNBOUNDED, UNBOUNDED),
            (Some(digits), scale) => {
                let scale = scale.unwrap_or(0);
                Kind::Decimal(digits.saturating_sub(scale), scale)
            }
        },
        "real" | "float4" => Kind::Float(4),
        "float" | "double" | "float8" => Kind::Float(8),
        "char" | "character" | "nchar" if !base.contains("varying") => Kind::Text(first.unwrap_or(1)),
        "varchar" | "character" | "nvarchar" => Kind::Text(first.unwrap_or(UNBOUNDED)),
        "tinytext" => Kind::Text(255),
        "text" => Kind::Text(UNBOUNDED),
        "mediumtext" | "longtext" | "citext" => Kind::Text(UNBOUNDED),
        "date" => Kind::Time(false),
        "timestamp" | "timestamptz" | "datetime" => Kind::Time(true),
        _ => return None,
    })
}

/// Whether a value may be lost when a column of type `from` (`None`: not known) becomes `to`.
pub(super) fn may_narrow(from: Option<&str>, to: &str) -> bool {
    let to_kind = kind(to);
    if to_kind == Some(Kind::Text(UNBOUNDED)) {
        return false;
    }
    let Some(from) = from else {
        // The widest of their kinds lose nothing of it, whatever it was.
        return !matches!(
            to_kind,
            Some(Kind::Integer(8) | Kind::Decimal(UNBOUNDED, _) | Kind::Float(8) | Kind::Time(true))
        );
    };
    if from.eq_ignore_ascii_case(to) {
        return false;
    }
    match (kind(from), to_kind) {
        (Some(Kind::Integer(a)), Some(Kind::Integer(b)))
        | (Some(Kind::Float(a)), Some(Kind::Float(b)))
        | (Some(Kind::Text(a)), Some(Kind::Text(b))) => b < a,
        (Some(Kind::Decimal(a, c)), Some(Kind::Decimal(b, d))) => b < a || d < c,
        (Some(Kind::Integer(_)), Some(Kind::Decimal(UNBOUNDED, _))) => false,
        (Some(Kind::Time(a)), Some(Kind::Time(b))) => a && !b,
        _ => true,
    }
}

/// Whether PostgreSQL has to write the rows anew for the change.
pub(super) fn rewrites(from: Option<&str>, to: &str) -> bool {
    match (from.and_then(kind), kind(to)) {
        (Some(Kind::Text(a)), Some(Kind::Text(b))) => b < a,
        _ => !from.is_some_and(|from| from.eq_ignore_ascii_case(to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_lose_a_value_narrows() {
        let narrow =
            [("bigint", "int"), ("text", "varchar(10)"), ("varchar(20)", "varchar(10)"), ("int", "date")];
        let narrow_too =
            [("numeric(10,2)", "numeric(10,4)"), ("timestamp", "date"), ("double precision", "real")];
        for (from, to) in narrow.into_iter().chain(narrow_too) {
            assert!(may_narrow(Some(from), to), "{from} to {to}");
        }
        let wide = [("int", "BIGINT"), ("varchar(10)", "varchar(20)"), ("uuid", "text"), ("inet", "inet")];
        let wide_too =
            [("numeric(10,2)", "numeric"), ("character varying(3)", "text"), ("date", "timestamptz")];
        for (from, to) in wide.into_iter().chain(wide_too) {
            assert!(!may_narrow(Some(from), to), "{from} to {to}");
        }
        assert!(may_narrow(None, "int") && may_narrow(None, "varchar(3)") && may_narrow(None, "uuid"));
        assert!(!may_narrow(None, "bigint") && !may_narrow(None, "text"));
    }

    #[test]
    fn longer_text_is_not_written_anew() {
        assert!(!rewrites(Some("varchar(10)"), "varchar(20)") && !rewrites(Some("varchar(10)"), "text"));
        assert!(
            rewrites(Some("text"), "varchar(10)")
                && rewrites(Some("int"), "bigint")
                && rewrites(None, "text")
        );
    }
}
