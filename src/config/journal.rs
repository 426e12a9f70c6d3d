//! Settings of the journal: where it is kept, how much of it, what a damaged one means.

use std::path::PathBuf;

use super::Reader;

/// Where the journal is kept: `configmap`, `file:DIR` or `memory`; default `configmap` where Kubernetes is used.
pub const JOURNAL: &str = "JOURNAL";
/// What a damaged journal means at start: `halt` (default: stand still until a person has looked) or `continue`.
pub const JOURNAL_ON_DAMAGE: &str = "JOURNAL_ON_DAMAGE";
/// Bytes after which a journal file is closed and the next one begun.
pub const JOURNAL_FILE_BYTES: &str = "JOURNAL_FILE_BYTES";
/// Journal files that are kept.
pub const JOURNAL_FILES: &str = "JOURNAL_FILES";

/// Where the journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalBackend {
    /// In memory only: gone with the process.
    Memory,
    /// In files of a directory.
    File(PathBuf),
    /// In a ConfigMap.
    ConfigMap,
}

/// What a damaged journal means at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// The agent starts in a safe halt; the damaged journal stays as it is, new entries stay in memory.
    Halt,
    /// The damaged journal is set aside and a new one is begun.
    Continue,
}

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSettings {
    /// Where.
    pub backend: JournalBackend,
    /// What a damaged journal means.
    pub on_damage: OnDamage,
    /// Size bound of one file in bytes.
    pub file_bytes: u64,
    /// Files that are kept, the open one included.
    pub files: usize,
}

/// Reads the section; `kube` says whether the agent uses Kubernetes at all.
pub fn read(reader: &mut Reader<'_>, kube: bool) -> JournalSettings {
    let backend = match reader.text(JOURNAL).as_deref() {
        None if kube => JournalBackend::ConfigMap,
        None | Some("memory") => JournalBackend::Memory,
        Some("configmap") if kube => JournalBackend::ConfigMap,
        Some("configmap") => {
            reader.problem(JOURNAL, Some("configmap"), "memory or file:DIR where Kubernetes is not used");
            JournalBackend::Memory
        }
        Some(text) => match text.strip_prefix("file:").filter(|dir| !dir.is_empty()) {
            Some(dir) => JournalBackend::File(PathBuf::from(dir)),
            None => {
                let text = text.to_owned();
                reader.problem(JOURNAL, Some(&text), "configmap, memory or file:DIR");
                JournalBackend::Memory
            }
        },
    };
    let on_damage = match reader.text(JOURNAL_ON_DAMAGE).as_deref() {
        None | Some("halt") => OnDamage::Halt,
        Some("continue") => OnDamage::Continue,
        Some(text) => {
            let text = text.to_owned();
            reader.problem(JOURNAL_ON_DAMAGE, Some(&text), "halt or continue");
            OnDamage::Halt
        }
    };
    JournalSettings {
        backend,
        on_damage,
        file_bytes: reader.integer(JOURNAL_FILE_BYTES, 4 << 20, 64 << 10, 1 << 30),
        files: reader.integer(JOURNAL_FILES, 8, 2, 1000) as usize,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read_one(value: Option<&str>, kube: bool) -> (JournalBackend, usize) {
        let env: BTreeMap<String, String> =
            value.map(|value| (JOURNAL.to_owned(), value.to_owned())).into_iter().collect();
        let mut reader = Reader::new(&env);
        let backend = read(&mut reader, kube).backend;
        (backend, reader.into_problems().len())
    }

    #[test]
    fn the_default_follows_kubernetes() {
        assert_eq!(read_one(None, true), (JournalBackend::ConfigMap, 0));
        assert_eq!(read_one(None, false), (JournalBackend::Memory, 0));
        assert_eq!(read_one(Some("file:/var/j"), true), (JournalBackend::File("/var/j".into()), 0));
    }

    #[test]
    fn a_backend_that_cannot_work_is_a_problem() {
        for (value, kube) in [("configmap", false), ("file:", true), ("disk", true)] {
            assert_eq!(read_one(Some(value), kube).1, 1, "{value}");
        }
    }
}
