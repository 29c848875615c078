//! What servers tell of themselves, for an operator who is about to trust them with sessions: `cloakroom check
//! --connect`.

use std::collections::HashMap;

use redis::{Cmd, FromRedisValue};

use super::link::connect;
use super::topology::{Topology, address_of};
use super::{Unavailable, reason};
use crate::config;

/// What a primary says of itself. What it does not tell this user is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerReport {
    /// Where it is.
    pub address: String,
    /// Of Redis, as it is or as it is compatible with.
    pub version: Option<String>,
    /// Bytes that it may use; nothing where there is no limit.
    pub maxmemory: Option<u64>,
    /// What it does at the limit.
    pub maxmemory_policy: Option<String>,
    /// Whether each write is logged (AOF).
    pub appends: Option<bool>,
    /// When a snapshot is taken; empty where none is.
    pub saves: Option<String>,
    /// How many replicas are connected.
    pub replicas: Option<u64>,
    /// With how few replicas it still takes writes.
    pub min_replicas_to_write: Option<u64>,
}

/// Asks each primary there is.
///
/// # Errors
/// Where they are not to be found, or one does not answer.
pub async fn survey(config: &config::Redis) -> Result<Vec<ServerReport>, Unavailable> {
    let unavailable = |error: &redis::RedisError| Unavailable(reason(error));
    let topology = Topology::new(config).map_err(|error| unavailable(&error))?;
    let mut reports = Vec::new();
    for client in topology.primaries().await.map_err(|error| unavailable(&error))? {
        let address = address_of(&client).map(|address| address.to_string()).unwrap_or_default();
        let mut connection = connect(client).await.map_err(|error| unavailable(&error))?.connection;
        // Whoever may not ask for one of these is told nothing by it, and goes on.
        let info: String = ask(redis::cmd("INFO"), &mut connection).await.unwrap_or_default();
        let said = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim().to_owned())
        };
        let number = |name: &str| said(name)?.parse().ok();
        let mut setting = async |name: &str| {
            let mut command = redis::cmd("CONFIG");
            command.arg("GET").arg(name);
            let mut settings: HashMap<String, String> = ask(command, &mut connection).await?;
            settings.remove(name)
        };
        reports.push(ServerReport {
            address,
            version: said("redis_version"),
            maxmemory: number("maxmemory"),
            maxmemory_policy: said("maxmemory_policy"),
            appends: said("aof_enabled").map(|enabled| enabled == "1"),
            saves: setting("save").await,
            replicas: number("connected_slaves"),
            min_replicas_to_write: setting("min-replicas-to-write").await.and_then(|few| few.parse().ok()),
        });
    }
    Ok(reports)
}

async fn ask<T: FromRedisValue>(
    command: Cmd,
    connection: &mut redis::aio::MultiplexedConnection,
) -> Option<T> {
    command.query_async(connection).await.ok()
}
