//! Tasks.

use crate::fault::Fault;
use crate::types::ManagedObjectReference;
use crate::value::{Any, DateTime};

data_object! {
    /// A task as it stands.
    TaskInfo = "TaskInfo" {
        /// Key.
        key: String = "key",
        /// The task.
        task: ManagedObjectReference = "task",
        /// Method without `_Task`.
        name: Option<String> = "name",
        /// `VirtualMachine.powerOn`.
        description_id: String = "descriptionId",
        /// What it works on.
        entity: Option<ManagedObjectReference> = "entity",
        /// Name of that.
        entity_name: Option<String> = "entityName",
        /// Queued, running, done or failed.
        state: TaskInfoState = "state",
        /// It was asked to stop.
        cancelled: bool = "cancelled",
        /// It can be asked to stop.
        cancelable: bool = "cancelable",
        /// Why it failed.
        error: Option<Fault> = "error",
        /// What it made.
        result: Option<Any> = "result",
        /// Percent.
        progress: Option<i32> = "progress",
        /// Who started it.
        reason: TaskReason = "reason",
        /// When it was asked for.
        queue_time: DateTime = "queueTime",
        /// When it began.
        start_time: Option<DateTime> = "startTime",
        /// When it ended.
        complete_time: Option<DateTime> = "completeTime",
        /// Chain of its events.
        event_chain_id: i32 = "eventChainId",
    }
}

string_enum! {
    /// State of a task.
    TaskInfoState = "TaskInfoState" {
        /// Not begun.
        Queued = "queued",
        /// At work.
        Running = "running",
        /// Done.
        Success = "success",
        /// Failed; see `TaskInfo::error`.
        Error = "error",
    }
}

impl TaskInfoState {
    /// Whether the task has ended.
    pub fn is_final(self) -> bool {
        matches!(self, TaskInfoState::Success | TaskInfoState::Error)
    }
}

/// Who started a task: a user, or the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskReason {
    /// The user's name, where it was one.
    pub user_name: Option<String>,
}

impl crate::value::Value for TaskReason {
    const TYPE: &'static str = "TaskReason";
    fn to_element(&self, name: &'static str) -> crate::xml::Element {
        let mut element = crate::xml::Element::new(name);
        let kind = if self.user_name.is_some() {
            "TaskReasonUser"
        } else {
            "TaskReasonSystem"
        };
        element.xsi_type = Some(kind.into());
        crate::value::Field::write(&self.user_name, "userName", &mut element.children);
        element
    }
    fn from_element(element: &crate::xml::Element) -> Result<Self, crate::value::DecodeError> {
        Ok(TaskReason {
            user_name: crate::value::Field::read(element, "userName")?,
        })
    }
}
