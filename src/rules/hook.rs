//! The contract of libvirt's qemu hook, as far as it needs no looking: its operations, what each asks
//! for, and the exit code. Source: libvirt's hooks documentation and FACTS of this project.

/// What libvirt says is happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Before resources are taken; ports may still be -1.
    Prepare,
    /// Before QEMU runs; nothing is left to look at that `Prepare` did not show.
    Start,
    /// QEMU runs; the XML has the real ports and ptys.
    Started,
    /// As `Started`, for each running guest when the daemon starts again.
    Reconnect,
    /// QEMU has ended.
    Stopped,
    /// All resources were given back.
    Release,
    /// An incoming migration: what is printed replaces the XML.
    Migrate,
    /// A restore from a saved image: what is printed replaces the XML.
    Restore,
    /// `attach`, or one that libvirt has added since.
    Other,
}

/// What an operation asks of the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Look whether the guest could start, and leave a note where it should be wired and is not.
    Check,
    /// Write the guest's route.
    Publish,
    /// Take the guest's route away.
    Withdraw,
    /// Print the XML with this host's ports.
    Filter,
    /// Nothing.
    Nothing,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Done,
    /// It failed, or panicked.
    Failed,
}

impl Operation {
    /// From the hook's second argument.
    #[must_use]
    pub fn from_argument(argument: &str) -> Self {
        match argument {
            "prepare" => Self::Prepare,
            "start" => Self::Start,
            "started" => Self::Started,
            "reconnect" => Self::Reconnect,
            "stopped" => Self::Stopped,
            "release" => Self::Release,
            "migrate" => Self::Migrate,
            "restore" => Self::Restore,
            _ => Self::Other,
        }
    }

    /// What is to be done.
    #[must_use]
    pub fn task(self) -> Task {
        match self {
            Self::Prepare => Task::Check,
            Self::Started | Self::Reconnect => Task::Publish,
            Self::Stopped | Self::Release => Task::Withdraw,
            Self::Migrate | Self::Restore => Task::Filter,
            Self::Start | Self::Other => Task::Nothing,
        }
    }
}

/// The exit code: 0 lets libvirt go on. A failed filter answers 1, which tells the hook file not to
/// pass its output on; the hook file itself answers 0 whatever comes. Nothing that this project could
/// get wrong is worth a guest: at `started` and `reconnect` another code would kill a running one.
#[must_use]
pub fn exit_code(operation: Operation, outcome: Outcome) -> u8 {
    match (operation.task(), outcome) {
        (Task::Filter, Outcome::Failed) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_filter_answers_anything_but_zero() {
        use Outcome::{Done, Failed};
        for (argument, task, failed) in [
            ("prepare", Task::Check, 0),
            ("start", Task::Nothing, 0),
            ("started", Task::Publish, 0),
            ("reconnect", Task::Publish, 0),
            ("stopped", Task::Withdraw, 0),
            ("release", Task::Withdraw, 0),
            ("migrate", Task::Filter, 1),
            ("restore", Task::Filter, 1),
            ("attach", Task::Nothing, 0),
            ("", Task::Nothing, 0),
            ("Started", Task::Nothing, 0),
        ] {
            let operation = Operation::from_argument(argument);
            assert_eq!(
                (operation.task(), exit_code(operation, Done), exit_code(operation, Failed)),
                (task, 0, failed),
                "{argument}"
            );
        }
    }
}
