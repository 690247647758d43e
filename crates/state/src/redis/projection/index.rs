//! The index sets. Unlike a record they have no guard against late writes: the publisher compares them instead.

use super::super::connection::Link;
use super::super::keys;
use super::super::values::{bytes, items};
use super::all_written;
use crate::Error;
use crate::projection::Indexes;
use redis::{Pipeline, cmd};
use std::collections::BTreeSet;

/// Members added to or taken from an index at once.
pub(super) const MEMBERS: usize = 1_000;

pub(super) async fn read(link: &Link) -> Result<Indexes, Error> {
    let texts = |members: Option<BTreeSet<Vec<u8>>>| {
        let members = members.unwrap_or_default().into_iter();
        members.map(|member| String::from_utf8_lossy(&member).into_owned()).collect()
    };
    Ok(Indexes {
        services: texts(members(link, keys::SERVICES).await?),
        tenants: texts(members(link, keys::TENANTS).await?),
        active_tenants: texts(members(link, keys::ACTIVE_TENANTS).await?),
    })
}

pub(super) async fn write(link: &Link, indexes: &Indexes) -> Result<(), Error> {
    let sets = [
        (keys::SERVICES, &indexes.services),
        (keys::TENANTS, &indexes.tenants),
        (keys::ACTIVE_TENANTS, &indexes.active_tenants),
    ];
    let mut commands = Pipeline::new();
    for (key, wanted) in sets {
        let held = match members(link, key).await? {
            Some(held) => held,
            None => {
                commands.cmd("UNLINK").arg(key);
                BTreeSet::new()
            }
        };
        let missing: Vec<&str> =
            wanted.iter().map(String::as_str).filter(|id| !held.contains(id.as_bytes())).collect();
        let is_stray =
            |member: &&Vec<u8>| std::str::from_utf8(member).map_or(true, |id| !wanted.contains(id));
        let strays: Vec<&Vec<u8>> = held.iter().filter(is_stray).collect();
        for ids in missing.chunks(MEMBERS) {
            commands.cmd("SADD").arg(key).arg(ids);
        }
        for ids in strays.chunks(MEMBERS) {
            let remove = commands.cmd("SREM").arg(key);
            for id in ids {
                remove.arg(id.as_slice());
            }
        }
    }
    let attempted = "repair the indexes";
    all_written(attempted, link.batch(attempted, &commands).await?, |_| "the indexes".to_owned())
}

/// The members of a set; none if the key holds something else.
async fn members(link: &Link, key: &str) -> Result<Option<BTreeSet<Vec<u8>>>, Error> {
    match link.run("read the indexes", key, cmd("SMEMBERS").arg(key)).await {
        Ok(members) => Ok(Some(
            items(key, members)?.iter().filter_map(|member| bytes(member).map(<[u8]>::to_vec)).collect(),
        )),
        Err(Error::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
