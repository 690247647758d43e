//! One live connection of whichever kind.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{Cmd, Pipeline, RedisResult, Value, cmd};

/// Commands of one batch under way at once in a cluster, where a pipeline cannot span slots.
const CLUSTER_IN_FLIGHT: usize = 128;

/// A connection to a server or to a cluster; clones share it.
#[derive(Clone)]
pub(super) enum Wire {
    Single(MultiplexedConnection),
    Cluster(Box<ClusterConnection>),
}

/// A server that holds data, by a slot that it serves; none: the only server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Master(Option<u16>);

impl Wire {
    pub(super) fn cluster(connection: ClusterConnection) -> Self {
        Self::Cluster(Box::new(connection))
    }

    /// Whether it finds its way to other servers by itself.
    pub(super) fn recovers(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Carries a command out; an error answer is an error.
    pub(super) async fn command(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::Single(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        };
        answer?.extract_error()
    }

    /// Carries commands out, in no promised order; an error answer to one is a value among the others.
    pub(super) async fn batch(&mut self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(commands, 0, commands.len()).await,
            Self::Cluster(connection) => {
                let one = |command| {
                    let mut connection = connection.clone();
                    async move {
                        match connection.req_packed_command(command).await {
                            Err(error) => match server_error(&error) {
                                Some(answer) => Ok(answer),
                                None => Err(error),
                            },
                            answer => answer,
                        }
                    }
                };
                let answers: Vec<_> = commands.cmd_iter().map(one).collect();
                stream::iter(answers).buffered(CLUSTER_IN_FLIGHT).try_collect().await
            }
        }
    }

    /// Every server that holds data.
    pub(super) async fn masters(&mut self) -> RedisResult<Vec<Master>> {
        if matches!(self, Self::Single(_)) {
            return Ok(vec![Master(None)]);
        }
        let slots = self.command(cmd("CLUSTER").arg("SLOTS")).await?;
        let ranges: Vec<Vec<Value>> = redis::from_redis_value(slots)?;
        let mut masters: Vec<(Value, u16)> = Vec::new();
        for range in ranges {
            if let [Value::Int(start), _, master, ..] = range.as_slice()
                && let Ok(start) = u16::try_from(*start)
                && !masters.iter().any(|(known, _)| known == master)
            {
                masters.push((master.clone(), start));
            }
        }
        let mut masters: Vec<Master> = masters.into_iter().map(|(_, slot)| Master(Some(slot))).collect();
        masters.sort_unstable();
        Ok(masters)
    }

    /// Carries a command out on one server.
    pub(super) async fn command_on(&mut self, master: Master, command: &Cmd) -> RedisResult<Value> {
        match (self, master) {
            (Self::Cluster(connection), Master(Some(slot))) => {
                let route = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
                connection
                    .route_command(command.clone(), RoutingInfo::SingleNode(route))
                    .await?
                    .extract_error()
            }
            (wire, _) => wire.command(command).await,
        }
    }
}

/// The answer behind an error that one server gave to one command.
fn server_error(error: &redis::RedisError) -> Option<Value> {
    let mut errors = error.clone().into_server_errors()?.to_vec();
    errors.pop().map(|(_, error)| Value::ServerError(error))
}
