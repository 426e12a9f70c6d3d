//! SQL against a member, and a writer that remembers which rows were acknowledged.
//!
//! Owns: the table `ledger` and its row ids. Never: decides where the primary is; the caller points the writer.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Runs one statement by psql as superuser; the unaligned output, or what went wrong.
pub fn query(host: &str, sql: &str) -> Result<String, String> {
    let target =
        format!("host={host} port=5432 user=postgres password=pgsu dbname=postgres connect_timeout=2");
    let out = Command::new("/usr/bin/timeout")
        .args(["10", "/usr/bin/psql", "-AtqX", "-v", "ON_ERROR_STOP=1", "-c", sql, &target])
        .output()
        .map_err(|error| error.to_string())?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
    }
}

/// Whether the member accepts writes.
pub fn writable(host: &str) -> bool {
    query(host, "select pg_is_in_recovery()").as_deref() == Ok("f")
}

/// Inserts rows without pause into whichever host it is pointed at, until it is stopped or dropped.
pub struct Writer {
    target: Arc<Mutex<String>>,
    acknowledged: Arc<Mutex<BTreeSet<u64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Makes the table at `host` and starts to write.
    pub fn start(host: &str) -> Self {
        query(host, "create table if not exists ledger (id bigint primary key)").expect("make the table");
        let target = Arc::new(Mutex::new(host.to_owned()));
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (t, a, s) = (Arc::clone(&target), Arc::clone(&acknowledged), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for id in 1.. {
                if s.load(Ordering::Relaxed) {
                    return;
                }
                let host = t.lock().expect("target").clone();
                match query(&host, &format!("insert into ledger values ({id})")) {
                    Ok(_) => a.lock().expect("rows").extend([id]),
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
            }
        });
        Self { target, acknowledged, stop, thread: Some(thread) }
    }

    /// Sends the following rows to another host.
    pub fn point_to(&self, host: &str) {
        host.clone_into(&mut self.target.lock().expect("target"));
    }

    /// Ids acknowledged so far.
    pub fn acknowledged(&self) -> BTreeSet<u64> {
        self.acknowledged.lock().expect("rows").clone()
    }

    /// Stops writing and gives every acknowledged id.
    pub fn finish(mut self) -> BTreeSet<u64> {
        self.end();
        self.acknowledged()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The acknowledged rows that `host` does not have. An error is an error, never "none missing".
pub fn missing_rows(host: &str, acknowledged: &BTreeSet<u64>) -> Result<BTreeSet<u64>, String> {
    let text = query(host, "select id from ledger")?;
    let there: BTreeSet<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    Ok(acknowledged.difference(&there).copied().collect())
}
