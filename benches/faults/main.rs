//! What users notice while the store suffers: `cargo bench --bench faults`, some minutes. Real servers, two real
//! gateway processes, and some dozens of users who go on all the while. Writes its tables into docs/faults.md;
//! with a word, as in `cargo bench --bench faults -- frozen`, it runs the faults that have it in their names,
//! and writes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement fails by them")]
#![allow(clippy::print_stdout, reason = "it is a program for a terminal")]
#![allow(clippy::disallowed_methods, reason = "it measures time, and has an environment")]

use std::time::{Duration, Instant};

use measure::{Row, measure};
use support::damage;
use support::redis::Redis;
use support::redis_cluster::RedisCluster;
use support::redis_sentinel::{MASTER, RedisSentinel};
use support::wait::until;
use tables::Table;
use world::World;

mod ends;
mod load;
mod measure;
#[path = "../support/tables.rs"]
mod tables;
mod world;

#[allow(dead_code, unused_imports, unreachable_pub, reason = "the tests use all of it")]
#[path = "../../tests/it"]
mod tests_of_the_gateway {
    pub mod support;
}
use tests_of_the_gateway::support;

const DOCUMENT: &str = "docs/faults.md";

/// How long a fault lasts that has an end of its own.
const LASTING: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let chosen = |name: &str| filter.as_ref().is_none_or(|word| name.contains(word.as_str()));
    let mut rows = Vec::new();
    for name in NAMES {
        if chosen(name) {
            let row = run(name).await;
            println!("{name}: {row:?}");
            rows.push(row);
        }
    }
    let table = faults(&rows);
    println!("\n{table}");
    if filter.is_none() {
        tables::put_into(DOCUMENT, "faults", &table);
    }
    if chosen("ends") {
        let table = ends::measured().await;
        println!("{table}");
        if filter.is_none() {
            tables::put_into(DOCUMENT, "ends", &table);
        }
    }
}

const NAMES: [&str; 10] = [
    "a cluster loses a master (`kill -9`)",
    "Sentinel: the master is lost (`kill -9`)",
    "Sentinel: an ordered failover",
    "Redis is frozen for 10 s",
    "Redis is restarted, with persistence, after 3 s",
    "Redis is made a replica for 10 s (`READONLY`)",
    "Redis is out of memory for 10 s (`OOM`)",
    "one record is evicted",
    "one record is truncated",
    "one user's record lies under another's key",
];

async fn run(name: &'static str) -> Row {
    match NAMES.iter().position(|known| *known == name).expect("one of them") {
        0 => cluster_loses_a_master(name).await,
        1 => master_is_killed(name).await,
        2 => failover_is_ordered(name).await,
        3 => frozen(name).await,
        4 => restarted(name).await,
        5 => read_only(name).await,
        6 => out_of_memory(name).await,
        7 => {
            damaged(name, async |redis, world| {
                damage::evict(redis, &world.users[0].record).await;
                vec![0]
            })
            .await
        }
        8 => {
            damaged(name, async |redis, world| {
                damage::truncate(redis, &world.users[0].record).await;
                vec![0]
            })
            .await
        }
        _ => {
            damaged(name, async |redis, world| {
                damage::put_over(redis, &world.users[0].record, &world.users[1].record).await;
                vec![1]
            })
            .await
        }
    }
}

async fn cluster_loses_a_master(name: &'static str) -> Row {
    let mut cluster = RedisCluster::start().await;
    let urls = [0, 4].map(|node| format!("\"{}\"", cluster.node(node).url())).join(", ");
    let world = World::start(&format!("redis: {{cluster: [{urls}]}}"), None).await;
    measure(name, &world, async || {
        cluster.kill(0);
        until(async || {
            let info: String = cluster.node(1).command(&["CLUSTER", "INFO"]).await;
            let replication: String = cluster.node(3).command(&["INFO", "replication"]).await;
            info.contains("cluster_state:ok") && replication.contains("role:master")
        })
        .await;
        Vec::new()
    })
    .await
}

async fn sentinel() -> (RedisSentinel, World) {
    let sentinel = RedisSentinel::start().await;
    let urls = [0, 1, 2].map(|index| format!("\"{}\"", sentinel.sentinel(index).url())).join(", ");
    let store = format!("redis: {{sentinel: {{master: {MASTER}, urls: [{urls}]}}}}");
    let world = World::start(&store, None).await;
    (sentinel, world)
}

async fn master_is_killed(name: &'static str) -> Row {
    let (mut sentinel, world) = sentinel().await;
    measure(name, &world, async || {
        sentinel.kill(0);
        sentinel.until_master_is(1).await;
        Vec::new()
    })
    .await
}

async fn failover_is_ordered(name: &'static str) -> Row {
    let (sentinel, world) = sentinel().await;
    measure(name, &world, async || {
        sentinel.order_failover().await;
        sentinel.until_master_is(1).await;
        Vec::new()
    })
    .await
}

async fn single(redis: &Redis) -> World {
    World::start(&format!("redis: {{url: \"{}\"}}", redis.url()), Some(redis)).await
}

async fn frozen(name: &'static str) -> Row {
    let redis = Redis::start().await;
    let world = single(&redis).await;
    measure(name, &world, async || {
        redis.freeze();
        tokio::time::sleep(LASTING).await;
        redis.thaw();
        Vec::new()
    })
    .await
}

async fn restarted(name: &'static str) -> Row {
    let persistence = || ["--appendonly", "yes"].map(str::to_owned).to_vec();
    let mut redis = Redis::start_with(persistence).await;
    let world = single(&redis).await;
    measure(name, &world, async || {
        // Its answer is the end of the connection.
        let _ = redis.try_command::<()>(&["SHUTDOWN", "NOSAVE"]).await;
        redis.stop();
        tokio::time::sleep(Duration::from_secs(3)).await;
        redis.restart().await;
        Vec::new()
    })
    .await
}

async fn read_only(name: &'static str) -> Row {
    let redis = Redis::start().await;
    let world = single(&redis).await;
    measure(name, &world, async || {
        redis.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
        tokio::time::sleep(LASTING).await;
        redis.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
        Vec::new()
    })
    .await
}

async fn out_of_memory(name: &'static str) -> Row {
    let redis = Redis::start().await;
    let world = single(&redis).await;
    measure(name, &world, async || {
        redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
        tokio::time::sleep(LASTING).await;
        redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
        Vec::new()
    })
    .await
}

async fn damaged(name: &'static str, damage: impl AsyncFnOnce(&Redis, &World) -> Vec<usize>) -> Row {
    let redis = Redis::start().await;
    let world = single(&redis).await;
    measure(name, &world, async || damage(&redis, &world).await).await
}

fn faults(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "fault",
        "users logged out wrongly",
        "failed requests",
        "of requests",
        "refreshes meanwhile",
        "it took",
        "last failure after its begin",
        "after its end",
    ]);
    for row in rows {
        table.row(vec![
            row.name.to_owned(),
            format!("{} of {}", row.logged_out, row.others),
            failures(row),
            row.requests.to_string(),
            row.refreshes.to_string(),
            tables::spelled(row.lasted),
            row.last_failure.map_or_else(|| "none".to_owned(), tables::spelled),
            row.last_failure_after.map_or_else(|| "none".to_owned(), tables::spelled),
        ]);
    }
    table.markdown()
}

/// How many, by the status of their answers.
fn failures(row: &Row) -> String {
    let counts = row.statuses.iter().map(|(status, count)| match status {
        0 => format!("{count} without an answer"),
        status => format!("{count} ({status})"),
    });
    let counts: Vec<String> = counts.collect();
    if counts.is_empty() { "0".to_owned() } else { counts.join(", ") }
}

/// How long ago, at the moment of `later`.
fn between(earlier: Instant, later: Instant) -> Duration {
    later.saturating_duration_since(earlier)
}
