//! Damage to whatever is really in Redis, whatever it is for: what a key holds is not looked at, so that no kind of key can
//! be forgotten.

use grey_testkit::Redis;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, cmd, pipe};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is done to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Damage {
    /// It is deleted.
    Deleted,
    /// It is of another type.
    Retyped,
    /// Nothing in it reads back.
    Garbled,
    /// It holds what another key of its kind holds, which reads well; of a kind with one key, as `Reverted`.
    Swapped,
    /// It holds what it held when the test began.
    Reverted,
}

impl Damage {
    pub(crate) const ALL: [Self; 5] =
        [Self::Deleted, Self::Retyped, Self::Garbled, Self::Swapped, Self::Reverted];
}

/// The keys of a Redis.
pub(crate) struct Keys {
    redis: MultiplexedConnection,
    /// What keys held once.
    kept: BTreeMap<String, Vec<u8>>,
}

impl Keys {
    pub(crate) async fn of(redis: &Redis) -> Self {
        Self { redis: redis.connection().await.unwrap(), kept: BTreeMap::new() }
    }

    /// All keys there are, by kind.
    pub(crate) async fn by_kind(&mut self) -> BTreeMap<String, BTreeSet<String>> {
        let keys: Vec<String> = self.ask(cmd("KEYS").arg("*")).await;
        let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for key in keys {
            kinds.entry(kind(&key)).or_default().insert(key);
        }
        kinds
    }

    /// Remembers what every key holds that was not seen before.
    pub(crate) async fn keep(&mut self) {
        for key in self.by_kind().await.into_values().flatten() {
            let dump: Option<Vec<u8>> = self.ask(cmd("DUMP").arg(&key)).await;
            if let Some(dump) = dump {
                self.kept.entry(key).or_insert(dump);
            }
        }
    }

    /// Damages a key of a kind, at once.
    pub(crate) async fn inflict(&mut self, keys: &BTreeSet<String>, damage: Damage) {
        let mut keys = keys.iter();
        let (key, other) = (keys.next().unwrap(), keys.next());
        let mut together = pipe();
        together.atomic();
        match (damage, other) {
            (Damage::Deleted, _) => {
                together.del(key);
            }
            (Damage::Retyped, _) => {
                let retyped = if self.type_of(key).await == "set" { "SET" } else { "SADD" };
                together.del(key).cmd(retyped).arg(key).arg("x");
            }
            (Damage::Garbled, _) => self.garble(key, &mut together).await,
            (Damage::Swapped, Some(other)) => {
                together.cmd("COPY").arg(other).arg(key).arg("REPLACE");
            }
            (Damage::Swapped | Damage::Reverted, _) => match self.kept.get(key) {
                Some(kept) => {
                    together.cmd("RESTORE").arg(key).arg(0).arg(kept).arg("REPLACE");
                }
                None => {
                    together.del(key);
                }
            },
        }
        together
            .exec_async(&mut self.redis)
            .await
            .unwrap_or_else(|error| panic!("{key} {damage:?}: {error}"));
    }

    async fn type_of(&mut self, key: &str) -> String {
        self.ask(cmd("TYPE").arg(key)).await
    }

    async fn garble(&mut self, key: &str, together: &mut Pipeline) {
        match self.type_of(key).await.as_str() {
            "hash" => {
                let fields: Vec<Vec<u8>> = self.ask(cmd("HKEYS").arg(key)).await;
                for field in fields {
                    together.hset(key, field, "?");
                }
            }
            "set" => {
                let member: Option<Vec<u8>> = self.ask(cmd("SRANDMEMBER").arg(key)).await;
                together.srem(key, member).sadd(key, "?");
            }
            "zset" => {
                let members: Vec<Vec<u8>> = self.ask(cmd("ZRANGE").arg(key).arg(0).arg(-1)).await;
                for member in members {
                    together.zadd(key, member, 1);
                }
                together.zadd(key, "?", 1);
            }
            "stream" => {
                together.cmd("XADD").arg(key).arg("*").arg("?").arg("?");
            }
            "list" => {
                together.rpush(key, "?");
            }
            // A string; or it has gone meanwhile.
            _ => {
                together.set(key, "?");
            }
        }
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, command: &mut Cmd) -> T {
        command.query_async(&mut self.redis).await.unwrap()
    }
}

/// The kind of a key: what is named in it is left out.
pub(crate) fn kind(key: &str) -> String {
    let hidden = |text: &str| text.split_once('}').map_or("", |(_, rest)| rest).to_owned();
    if let Some(rest) = key.strip_prefix("tenant:{") {
        return format!("tenant:*{}", hidden(rest));
    }
    if let Some(rest) = key.strip_prefix("service:{") {
        let rest = hidden(rest);
        return match rest.strip_prefix(":version:").and_then(|of| of.rsplit_once(':')) {
            Some((_, part)) => format!("service:*:version:*:{part}"),
            None => format!("service:*{rest}"),
        };
    }
    let named = ["lease", "requests", "status", "router"].iter().map(|what| format!("grey:{what}:"));
    match named.into_iter().find(|prefix| key.starts_with(prefix)) {
        Some(prefix) => format!("{prefix}*"),
        None => key.to_owned(),
    }
}

/// The kinds of keys that ARCHITECTURE.md lists.
pub(crate) fn documented() -> BTreeSet<String> {
    let file = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../ARCHITECTURE.md");
    let text = std::fs::read_to_string(file).unwrap();
    let table = text.split("\n## Redis keys\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(kind).collect()
}
