//! A program under test: on a core of its own, and asked by way of /proc what it has taken.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::machine::UNDER_TEST;
use crate::support::wait::until;

pub struct Process {
    child: Child,
    /// What ends it at once, and all that it has started.
    last_word: Signal,
}

/// Bytes of memory that a program and all it has started take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident set size; what several processes share counts for each of them.
    pub resident: u64,
    /// Proportional set size; what several processes share counts once.
    pub proportional: u64,
}

impl Process {
    /// Starts a program on the core for what is measured, and waits until it listens there. What it writes
    /// to its standard output goes to a file, as an access log does.
    pub async fn start(
        words: &[String],
        environment: &[(&str, &str)],
        output: &Path,
        address: SocketAddr,
        last_word: Signal,
    ) -> Self {
        let appended = |path: &Path| fs::File::options().create(true).append(true).open(path).unwrap();
        let complaints = output.with_extension("err");
        let child = Command::new("taskset")
            .args(["-c", &UNDER_TEST.to_string()])
            .args(words)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(appended(output))
            .stderr(appended(&complaints))
            .spawn()
            .expect("taskset, of util-linux");
        let mut process = Self { child, last_word };
        until(async || {
            if let Some(status) = process.child.try_wait().unwrap() {
                let said = fs::read_to_string(&complaints).unwrap_or_default();
                panic!("{words:?} has ended with {status}: {said}");
            }
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        process
    }

    /// The processor time it has taken so far, in user and in system mode, with all it has started.
    pub fn cpu(&self) -> Duration {
        let ticks: u64 = self.family().into_iter().map(ticks_of).sum();
        #[expect(clippy::cast_precision_loss, reason = "some thousand ticks")]
        Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64)
    }

    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for pid in self.family() {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let bytes = |name: &str| {
                let line = rollup.lines().find_map(|line| line.strip_prefix(name));
                let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
                1024 * kibibytes.expect("its memory, which root may see")
            };
            memory.resident += bytes("Rss:");
            memory.proportional += bytes("Pss:");
        }
        memory
    }

    /// The process, and all that descend from it.
    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = family.get(next) {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let children =
                threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
            let children: Vec<u32> = children
                .flat_map(|line| line.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
                .collect();
            family.extend(children);
            next += 1;
        }
        family
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _gone = pid.map(|pid| kill_process(pid, self.last_word));
        let _ended = self.child.wait();
    }
}

/// `utime` and `stime` of a process with all of its threads, those that have ended too (proc_pid_stat(5)).
fn ticks_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the fields are counted from behind it.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return 0 };
    let fields: Vec<&str> = fields.split(' ').collect();
    [11, 12].into_iter().map(|place: usize| fields[place].parse::<u64>().unwrap()).sum()
}
