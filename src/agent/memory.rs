//! What an agent remembers when it starts: the journal opened, the state to go on from.
//!
//! Says in the log what was found. Never decides what a damaged journal means beyond `JOURNAL_ON_DAMAGE`.

use super::StartError;
use crate::adapters::kube::Kube;
use crate::config::Config;
use crate::config::journal::OnDamage;
use crate::journal::broken_disk::BrokenDisk;
use crate::journal::{ConfigMapStore, Disk, Journal, RealDisk, Recovered};
use crate::model::{Mono, Wall};
use crate::rules::policy::Policy;
use crate::rules::state::State;
use crate::tasks::clock::wall_now;
use crate::tasks::diary::{Diary, recover};
use crate::tasks::kube_store::KubeStore;

/// The memory.
pub(crate) struct Memory {
    /// The journal, open for writing.
    pub diary: Diary,
    /// The state to go on from.
    pub state: State,
    /// The monotonic count to go on from.
    pub mono: Mono,
}

/// Opens the journal and reads it.
pub(super) async fn open(config: &Config, kube: Option<Kube>, policy: &Policy) -> Result<Memory, StartError> {
    let store = kube.map(|kube| {
        let name = format!("switchover-journal-{}", config.site.environment);
        let store = KubeStore::new(kube, config.kube.health_namespace.clone(), name);
        Box::new(store) as Box<dyn ConfigMapStore>
    });
    let disk: Box<dyn Disk> = match config.faults.journal {
        Some(fault) => Box::new(BrokenDisk::new(fault)),
        None => Box::new(RealDisk),
    };
    let (journal, recovered) = Journal::open(&config.journal, store, disk)
        .await
        .map_err(|error| StartError::new("the journal (JOURNAL)", &error))?;
    if let Some(damage) = &recovered.damage {
        tracing::error!(%damage, "the journal is damaged; nothing is resumed from it");
    }
    if let Some(torn) = &recovered.torn {
        let (bytes, moved_to) = (torn.bytes, torn.moved_to.display());
        tracing::warn!(bytes, %moved_to, "the journal's last write was torn; it never took effect and was moved");
    }
    Ok(take_up(journal, recovered, policy, config.journal.on_damage, wall_now()))
}

/// The state that an agent starts with: what the journal holds, or nothing yet.
pub(crate) fn take_up(
    journal: Journal,
    recovered: Recovered,
    policy: &Policy,
    on_damage: OnDamage,
    wall: Wall,
) -> Memory {
    let resumed = recovered.damage.is_none().then(|| recover(&recovered, wall)).flatten();
    if let Some(resumed) = &resumed {
        let at = where_it_stood(&resumed.state);
        tracing::info!(entry = resumed.entry, generation = resumed.state.generation.0, "resumed: {at}");
    }
    let diary = Diary::new(journal, resumed.as_ref());
    let (mut state, mono) = match resumed {
        Some(resumed) => (resumed.state, resumed.mono),
        None => (State::new(policy.dns.agree_samples, policy.dns.agree_ms), Mono(0)),
    };
    if on_damage == OnDamage::Halt {
        state.safe_halt = recovered.damage.map(|damage| damage.to_string()).or(state.safe_halt);
    }
    Memory { diary, state, mono }
}

/// Where a resumed agent goes on, in a few words.
fn where_it_stood(state: &State) -> String {
    match &state.run {
        Some(run) => {
            let step = run.lane.current().map_or("its end", |step| step.step.name.as_str());
            format!("{} goes on at {step}", run.transition)
        }
        None => "no transition was under way".to_owned(),
    }
}
