//! What may become of single records in Redis by other hands than a gateway's.

use std::collections::BTreeSet;

use redis::aio::MultiplexedConnection;

use super::redis::Redis;

/// The names of all records.
pub async fn records(redis: &Redis) -> BTreeSet<String> {
    redis.command(&["KEYS", "cloakroom:session:*}"]).await
}

/// Leaves the first bytes of a sealed record.
pub async fn truncate(redis: &Redis, name: &str) {
    let mut connection = connect(redis).await;
    let sealed: Vec<u8> =
        redis::cmd("HGET").arg(name).arg("sealed").query_async(&mut connection).await.unwrap();
    let mut command = redis::cmd("HSET");
    command.arg(name).arg("sealed").arg(&sealed[..sealed.len() / 2]);
    command.exec_async(&mut connection).await.unwrap();
}

/// Puts one user's record, whole, in the place of another's.
pub async fn put_over(redis: &Redis, name: &str, victim: &str) {
    redis.command::<u64>(&["COPY", name, victim, "REPLACE"]).await;
}

/// Has Redis throw this record away for want of memory, and no other.
pub async fn evict(redis: &Redis, name: &str) {
    let mut connection = connect(redis).await;
    redis.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).await;
    let mut others = Vec::new();
    for other in records(redis).await.into_iter().filter(|other| other != name) {
        let time_to_live: u64 = redis.command(&["PTTL", &other]).await;
        // Without one it is not thrown away.
        redis.command::<u64>(&["PERSIST", &other]).await;
        others.push((other, time_to_live));
    }
    while redis.command::<u64>(&["EXISTS", name]).await == 1 {
        let most = used_memory(&mut connection).await - 1024;
        let mut commands = redis::pipe();
        commands.cmd("CONFIG").arg(&["SET", "maxmemory", &most.to_string()]).ignore();
        commands.cmd("PING").ignore();
        commands.cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).ignore();
        commands.exec_async(&mut connection).await.unwrap();
    }
    for (other, time_to_live) in others {
        redis.command::<u64>(&["PEXPIRE", &other, &time_to_live.to_string()]).await;
    }
}

async fn used_memory(connection: &mut MultiplexedConnection) -> u64 {
    let info: String = redis::cmd("INFO").arg("memory").query_async(connection).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("how much is used");
    line.trim().parse().unwrap()
}

async fn connect(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}
