//! A process of its own that writes, for others to kill and to starve: this program again, with one test in it.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use cloakroom::clock::{Clock, SystemClock};
use cloakroom::random::Random;
use cloakroom::session::cookie::SessionId;
use cloakroom::session::store::file::FileStore;
use cloakroom::session::store::outbox::{Errand, Outbox};
use cloakroom::session::store::{IndexKey, Record, RecordKey, Replaced, Store, Unavailable, Version};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::store::{MINUTE, key};
use crate::support::wait::in_time;

/// Names the folder to the process that writes, and tells it that it is one.
const FOLDER: &str = "CLOAKROOM_TEST_FOLDER";

const WRITERS: u64 = 16;

thread_local! {
    /// What a session's id is made of, so that both processes know the keys of the records.
    static NEXT_ID: Cell<[u8; 16]> = const { Cell::new([0; 16]) };
}

/// The process that writes, and what it says.
struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Runs one of the parts below, by a shell that has run these commands first.
    fn start(part: &str, folder: &Path, commands: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("{commands} exec \"$0\" --exact store::file::crash::{part} --ignored --nocapture"))
            .arg(program)
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { stdin: child.stdin.take().unwrap(), child, lines }
    }

    /// What it says next of its own accord: the test harness says something as well.
    async fn says(&mut self) -> Option<String> {
        in_time(async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if let Some((_, said)) = line.split_once("SAYS ") {
                    return Some(said.to_owned());
                }
            }
            None
        })
        .await
    }

    /// It reads all that was written, or says that it cannot; and at last it can.
    async fn reads_all_once_available(&mut self, written: usize) {
        loop {
            self.tell("read").await;
            let read = self.says().await.unwrap();
            if read == format!("found {written} of {written}") {
                return;
            }
            assert!(read.starts_with("unavailable"), "{read} of {written}");
        }
    }

    async fn tell(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// SIGKILL, and waits for its end.
    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn whatever_was_answered_before_a_kill_is_there_and_nothing_is_half_written() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let mut process = Process::start("writes_until_it_is_killed", folder.path(), "");
        let mut answered = HashMap::new();
        for _ in 0..40 + 17 * round {
            note(&mut answered, &process.says().await.expect("it writes until it is killed"));
        }
        process.kill().await;
        while let Some(line) = process.says().await {
            note(&mut answered, &line);
        }
        let clock = Arc::new(SystemClock);
        let store = FileStore::open(folder.path(), clock.clone()).unwrap();
        has_all_that_was_answered(&store, &answered).await;

        for key in store.list(&the_index()).await.unwrap() {
            store.take(&key).await.unwrap().expect("what is listed is there");
        }
        while let Some(errand) = store.fetch_due(clock.now(), clock.now() + MINUTE).await.unwrap() {
            store.strike(&errand.id).await.unwrap();
        }
    }
}

/// Of each record the last version that was answered; none where it was taken out.
async fn has_all_that_was_answered(store: &FileStore, answered: &HashMap<String, Option<u64>>) {
    let listed = store.list(&the_index()).await.unwrap();
    for (name, version) in answered {
        let key = key_of(name);
        let record = store.read(&key).await.unwrap();
        assert_eq!(listed.contains(&key), record.is_some(), "{name} is listed if it is there");
        match (record, version) {
            (None, None) => {}
            // The next write took it out, and the answer was cut off.
            (None, Some(version)) => assert_eq!(*version, LAST, "{name} is lost"),
            (Some(record), None) => panic!("{name} was taken out and is there: {:?}", record.version),
            (Some(record), Some(version)) => {
                let written = record.version.0;
                assert!(written == *version || written == version + 1, "{name}: {written} after {version}");
                assert!(record.sealed == sealed(name, written), "{name} is whole");
            }
        }
    }
    let errands = store.count_errands().await.unwrap();
    assert!(errands >= answered.len() as u64, "{errands} errands are left of {}", answered.len());
}

#[tokio::test]
async fn a_full_disk_is_unavailable_never_absent_and_used_again_once_there_is_room() {
    in_time(a_disk_fills_up_and_has_room_again()).await;
}

async fn a_disk_fills_up_and_has_room_again() {
    let folder = tempfile::tempdir().unwrap();
    // In units of 512 bytes, as POSIX has it. A write beyond it fails where its signal is ignored.
    let mut process =
        Process::start("writes_as_it_is_told", folder.path(), "trap '' XFSZ; ulimit -S -f 800;");
    assert_eq!(process.says().await.as_deref(), Some("open"));
    let mut written = 0;
    let full = loop {
        process.tell("write").await;
        match process.says().await.unwrap().as_str() {
            "written" => written += 1,
            other => break other.to_owned(),
        }
        assert!(written < 1000, "the limit is a limit");
    };
    assert!(full.starts_with("unavailable"), "{full}");
    assert!(written > 3, "{written}");
    process.reads_all_once_available(written).await;

    let (database, elsewhere) = (folder.path().join("sessions.redb"), folder.path().join("elsewhere"));
    fs::rename(&database, &elsewhere).unwrap();
    loop {
        // What is opened anew may have some room.
        process.tell("write").await;
        written += usize::from(process.says().await.unwrap() == "written");
        process.tell("read").await;
        let read = process.says().await.unwrap();
        if read.starts_with("unavailable") && read.contains("sessions.redb") {
            break;
        }
        assert!(read.starts_with("unavailable") || read == format!("found {written} of {written}"), "{read}");
    }
    assert!(!database.exists(), "what has gone is not made anew");
    fs::rename(&elsewhere, &database).unwrap();
    process.reads_all_once_available(written).await;

    let pid = process.child.id().unwrap().to_string();
    let room = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().await.unwrap();
    assert!(room.success());
    loop {
        process.tell("write").await;
        let said = process.says().await.unwrap();
        if said == "written" {
            break;
        }
        assert!(said.starts_with("unavailable"), "{said}");
    }
    process.reads_all_once_available(written + 1).await;
    process.kill().await;
}

/// Which version of a record is the last: the next write takes it out.
const LAST: u64 = 5;

fn note(answered: &mut HashMap<String, Option<u64>>, line: &str) {
    let (name, version) = line.split_once(' ').unwrap();
    answered.insert(name.to_owned(), version.parse().ok());
}

/// Each record's own, and of another length with each version.
fn sealed(name: &str, version: u64) -> Vec<u8> {
    format!("{name} {version} ").repeat(100 * usize::try_from(version).unwrap()).into_bytes()
}

fn key_of(name: &str) -> RecordKey {
    let mut id = [0; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    NEXT_ID.set(id);
    SessionId::generate(Random::from_source(|bytes| bytes.copy_from_slice(&NEXT_ID.get()))).record_key()
}

fn the_index() -> IndexKey {
    IndexKey("0123".to_owned())
}

/// No test of its own: what the test above kills. Says of each write that it was answered.
#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Arc::new(FileStore::open(Path::new(&folder), Arc::clone(&clock)).unwrap());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
        writers.spawn(async move {
            for number in 0.. {
                let name = format!("{writer}-{number}");
                let key = key_of(&name);
                let errand = Errand { id: name.clone(), sealed: sealed(&name, 1), due_at: clock.now() };
                store.post(&errand).await.unwrap();
                let record = Record {
                    sealed: sealed(&name, 1),
                    version: Version(1),
                    expires_at: clock.now() + MINUTE * 60,
                    indexes: vec![the_index()],
                };
                store.create(&key, &record).await.unwrap();
                println!("SAYS {name} 1");
                for version in 1..LAST {
                    let next = sealed(&name, version + 1);
                    let replaced =
                        store.replace(&key, Version(version), &next, Version(version + 1)).await.unwrap();
                    assert_eq!(replaced, Replaced::Written);
                    println!("SAYS {name} {}", version + 1);
                }
                if number % 2 == 0 {
                    store.take(&key).await.unwrap().expect("the record");
                    println!("SAYS {name} gone");
                }
            }
        });
    }
    writers.join_all().await;
}

/// The same, for the disk that is full. Does what its standard input says, and says what came of it.
#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn writes_as_it_is_told() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = FileStore::open(Path::new(&folder), Arc::clone(&clock)).unwrap();
    let record = Record {
        sealed: vec![7; 20_000],
        version: Version(1),
        expires_at: clock.now() + MINUTE * 60,
        indexes: vec![the_index()],
    };
    let mut keys = Vec::new();
    println!("SAYS open");
    for line in std::io::stdin().lines() {
        let said = match line.unwrap().as_str() {
            "write" => {
                let key = key();
                let created = store.create(&key, &record).await;
                created.map(|()| keys.push(key)).map(|()| "written".to_owned())
            }
            "read" => read_all(&store, &keys, &record).await,
            line => panic!("{line}"),
        };
        println!("SAYS {}", said.unwrap_or_else(|unavailable| format!("unavailable: {unavailable}")));
    }
}

async fn read_all(store: &FileStore, keys: &[RecordKey], expected: &Record) -> Result<String, Unavailable> {
    let mut found = 0;
    for key in keys {
        found += usize::from(store.read(key).await?.as_ref() == Some(expected));
    }
    Ok(format!("found {found} of {}", keys.len()))
}
