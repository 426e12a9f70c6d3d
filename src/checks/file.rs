//! `file`: a file is there, or must not be there.

use std::path::PathBuf;

use super::{Boxed, Check, Report};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The file.
    pub path: PathBuf,
    /// Passes when the file is absent.
    pub absent: bool,
}

/// The check.
#[derive(Debug)]
pub struct FileCheck {
    spec: Spec,
}

impl FileCheck {
    /// A check for the file.
    pub fn new(spec: Spec) -> Self {
        Self { spec }
    }
}

impl Check for FileCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(async {
            let path = self.spec.path.display();
            // A look at one inode: not worth a trip to the blocking pool, and it can't block on a local file system.
            match self.spec.path.try_exists() {
                Ok(there) if there != self.spec.absent => Report::pass(),
                Ok(true) => Report::fail(format!("{path} is there")),
                Ok(false) => Report::fail(format!("{path} is not there")),
                Err(error) => Report::unknown(format!("can't look for {path}: {error}")),
            }
        })
    }
}
