//! A disk that breaks on purpose, for tests with the real binary (`FAULT_JOURNAL`): a write that the process does not
//! survive, and a disk without room.

use std::fs::File;
use std::io::{self, Write};

use super::file::{Disk, RealDisk};
use crate::config::faults::DiskFault;

/// The disk.
#[derive(Debug)]
pub struct BrokenDisk {
    fault: DiskFault,
    writes: u64,
}

impl BrokenDisk {
    /// A disk with this fault.
    pub fn new(fault: DiskFault) -> Self {
        Self { fault, writes: 0 }
    }
}

impl Disk for BrokenDisk {
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.writes += 1;
        match self.fault {
            DiskFault::Torn(at) if at == self.writes => {
                file.write_all(&bytes[..bytes.len() / 2])?;
                file.sync_data()?;
                let this = nix::unistd::Pid::this();
                nix::sys::signal::kill(this, nix::sys::signal::Signal::SIGKILL).map_err(io::Error::from)
            }
            DiskFault::Full(from) if from <= self.writes => {
                // Some of it fits, as on a real disk.
                file.write_all(&bytes[..bytes.len() / 3])?;
                Err(io::ErrorKind::StorageFull.into())
            }
            DiskFault::Torn(_) | DiskFault::Full(_) => RealDisk.append(file, bytes),
        }
    }
}
