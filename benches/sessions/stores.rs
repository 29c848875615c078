//! The stores, and how large they are.

use std::path::Path;
use std::sync::Arc;

use cloakroom::clock::SystemClock;
use cloakroom::session::store::Store;
use cloakroom::session::store::file::FileStore;
use cloakroom::session::store::memory::MemoryStore;
use cloakroom::session::store::redis::RedisStore;
use tempfile::TempDir;

use crate::support::redis::Redis;
use crate::support::wait::until;

pub enum Kind {
    Memory,
    File(TempDir),
    Redis(Redis),
}

impl Kind {
    pub async fn start(name: &str) -> (Self, Arc<dyn Store>) {
        let clock = Arc::new(SystemClock);
        match name {
            "memory" => (Self::Memory, Arc::new(MemoryStore::new(clock))),
            "file" => {
                let folder = TempDir::new().unwrap();
                let store = FileStore::open(&folder.path().join("store"), clock).unwrap();
                (Self::File(folder), Arc::new(store))
            }
            "redis" => {
                let redis = Redis::start().await;
                let store = Arc::new(RedisStore::new(&redis.config(), clock).unwrap());
                until(async || *store.changes().are_told().borrow()).await;
                (Self::Redis(redis), store)
            }
            _ => panic!("no store: {name}"),
        }
    }

    /// Bytes outside of this process.
    pub async fn size(&self) -> u64 {
        match self {
            Self::Memory => 0,
            Self::File(folder) => size_of(&folder.path().join("store")),
            Self::Redis(redis) => {
                let info: String = redis.command(&["INFO", "memory"]).await;
                let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
                used.expect("how much is used").trim().parse().unwrap()
            }
        }
    }
}

/// Bytes of memory that this process takes.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    let kibibytes: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kibibytes * 1024
}

fn size_of(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}
