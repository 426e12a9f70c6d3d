//! What a run has done and has yet to do, read off its steps. Pure; decides nothing.

use super::state::Run;
use crate::model::{Effect, Phase};
use crate::plan;

impl Run {
    /// Whether the record may show this phase because of this run: where it began, or what it has written or is
    /// writing.
    pub(super) fn may_show(&self, phase: Phase) -> bool {
        let written = self.lane.steps.iter().take(self.lane.cursor + 1).any(|step| {
            matches!(&step.step.work, plan::Work::Record { phase: Some(wrote), .. } if *wrote == phase)
        });
        phase == self.from || written
    }

    /// Whether the local database was stopped by this run, so that its position is the last one.
    pub(super) fn has_stopped_database(&self) -> bool {
        let stopping = Effect::ScaleDatabase { replicas: 0 };
        let stop = self.lane.steps.iter().position(|step| step.step.work == plan::Work::Do(stopping.clone()));
        stop.is_some_and(|stop| self.lane.cursor > stop)
    }

    /// Whether data is still to be deleted.
    pub(super) fn destroys_data_later(&self) -> bool {
        self.lane.steps.iter().skip(self.lane.cursor).any(|step| step.step.is_destructive())
    }
}
