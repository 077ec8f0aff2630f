//! What a proxy forbids itself once it has all that it needs. Its sockets were made outside its sandbox, and live where
//! they were made: whoever takes the proxy over could dissolve one and connect it to anything that this host reaches.
//!
//! Two layers. Landlock refuses TCP (`connect`, `bind`) whatever the way there, and also abstract unix sockets and
//! signals outside; kernels have it from 6.7 on, the latter from 6.12. A filter of system calls refuses every call that
//! connects, listens, or makes a socket, also where Landlock does not look: `MSG_FASTOPEN` connects a socket that was
//! shut down. Both are inherited by every later thread and program, and nothing takes them away again.
//!
//! The filter keeps whole what a proxy was lent, too: a terminal, a connection, a recording are one object for all who have
//! a descriptor of it, and what is done to one with an `ioctl`, `fcntl`, `setsockopt` or `ftruncate` outlives the proxy.

use std::collections::BTreeMap;
use std::io;

use landlock::{ABI, Access, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};

/// Calls that are refused whatever they are about.
const REFUSED: [libc::c_long; 10] = [
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_socket,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Made for debuggers: takes descriptors out of other processes.
    libc::SYS_pidfd_getfd,
    // Files only ever grow: a recording keeps what it has.
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
];
/// The `ioctl`s that a proxy needs. Others would, for example, close a terminal to everybody else (`TIOCEXCL`), stop it
/// (`TCXONC`) or change its line discipline (`TIOCSETD`).
const IOCTLS: [u64; 6] = [libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX, libc::FIONCLEX, libc::TCGETS, libc::TCGETS2];
/// The `fcntl`s. Not `F_SETFL`, which takes a recording's `O_APPEND` away.
const FCNTLS: [libc::c_int; 5] = [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL];
/// Options of `SOL_SOCKET` that are refused: filters, which hide from the broker what comes in.
const OPTIONS: [libc::c_int; 4] =
    [libc::SO_ATTACH_FILTER, libc::SO_ATTACH_BPF, libc::SO_ATTACH_REUSEPORT_CBPF, libc::SO_ATTACH_REUSEPORT_EBPF];
/// Calls that are refused with [`MSG_FASTOPEN`], and which argument has their flags.
const SENDING: [(libc::c_long, u8); 3] = [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)];
/// `linux/socket.h`: sending connects.
const MSG_FASTOPEN: u64 = 0x2000_0000;
/// `__X32_SYSCALL_BIT`: on x86-64 the same calls once more, for programs of the x32 kind, in a filter's eyes of the same
/// architecture; a few of them have numbers of their own (`sendmsg`, `sendmmsg`).
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const X32_SENDING: [(i64, u8); 2] = [(X32 | 0x206, 2), (X32 | 0x21a, 3)];
/// Likewise `ioctl` and `setsockopt`: refused altogether, no program of ours is of that kind.
#[cfg(target_arch = "x86_64")]
const X32_REFUSED: [i64; 2] = [X32 | 0x202, X32 | 0x21d];

/// Why a proxy is not in its cage.
#[derive(Debug, thiserror::Error)]
#[error("the proxy cannot forbid itself to connect to other places ({what}), and serves nobody without that: {why}")]
pub struct Open {
    what: &'static str,
    why: String,
}

/// What this kernel's Landlock offers of what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landlock {
    /// TCP can be refused.
    pub network: bool,
    /// Abstract unix sockets and signals can be kept inside.
    pub scope: bool,
}

impl Landlock {
    /// What the kernel offers, without asking for it.
    #[must_use]
    pub fn offered() -> Self {
        let hard = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let network = hard().handle_access(AccessNet::from_all(ABI::V4)).and_then(Ruleset::create);
        let scope = hard().scope(Scope::from_all(ABI::V6)).and_then(Ruleset::create);
        Self { network: network.is_ok(), scope: scope.is_ok() }
    }

    /// Which of its layers is missing, in words.
    #[must_use]
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Self { network: false, .. } => Some(
                "this kernel has no Landlock for TCP (Linux 6.7, CONFIG_SECURITY_LANDLOCK, lsm=): a proxy is kept from \
                 connecting by its filter of system calls alone",
            ),
            Self { scope: false, .. } => Some(
                "this kernel's Landlock keeps no abstract unix sockets and signals inside (Linux 6.12): a proxy's unit \
                 alone does that",
            ),
            Self { .. } => None,
        }
    }
}

/// Whether the kernel has filters of system calls that refuse with an error.
#[must_use]
pub fn has_filters() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail")
        .is_ok_and(|actions| actions.split_whitespace().any(|action| action == "errno"))
}

/// Forbids it to this process, for good. Call it when everything that takes a connection has one, and before the first
/// thread is made: Landlock is each thread's own. What is missing of it is in the answer.
pub fn enter() -> Result<Landlock, Open> {
    let open = |why: io::Error| Open { what: "threads", why: why.to_string() };
    let threads = std::fs::read_dir("/proc/self/task").map_err(open)?.count();
    if threads != 1 {
        return Err(open(io::Error::other(format!("there are {threads} already"))));
    }
    restrict()
}

/// The same for this thread; the filter of system calls for all of them.
pub fn restrict() -> Result<Landlock, Open> {
    let landlock = restrict_by_landlock().map_err(|why| Open { what: "Landlock", why: why.to_string() })?;
    let filter = filter().map_err(|why| Open { what: "seccomp", why: why.to_string() })?;
    apply_filter_all_threads(&filter).map_err(|why| Open { what: "seccomp", why: why.to_string() })?;
    Ok(landlock)
}

/// As much of it as the kernel has.
fn restrict_by_landlock() -> Result<Landlock, landlock::RulesetError> {
    let offered = Landlock::offered();
    if !offered.network && !offered.scope {
        return Ok(offered);
    }
    // What is offered is asked for without any "if possible": it is there, or the proxy does not serve.
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if offered.network {
        ruleset = ruleset.handle_access(AccessNet::from_all(ABI::V4))?;
    }
    if offered.scope {
        ruleset = ruleset.scope(Scope::from_all(ABI::V6))?;
    }
    let status = ruleset.create()?.restrict_self()?;
    debug_assert_eq!(status.ruleset, RulesetStatus::FullyEnforced);
    Ok(offered)
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut refuse = |call: i64, rule: Vec<SeccompRule>| {
        #[cfg(target_arch = "x86_64")]
        rules.insert(call | X32, rule.clone());
        rules.insert(call, rule);
    };
    for call in REFUSED {
        refuse(call, Vec::new());
    }
    let number = |argument, operator, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    let none_of = |argument, values: &mut dyn Iterator<Item = u64>| {
        let conditions: Result<Vec<_>, _> = values.map(|value| number(argument, SeccompCmpOp::Ne, value)).collect();
        Ok::<_, seccompiler::BackendError>(vec![SeccompRule::new(conditions?)?])
    };
    refuse(libc::SYS_ioctl, none_of(1, &mut IOCTLS.into_iter())?);
    refuse(libc::SYS_fcntl, none_of(1, &mut FCNTLS.into_iter().map(|command| command.unsigned_abs().into()))?);
    let option = |option: libc::c_int| {
        let level = number(1, SeccompCmpOp::Eq, libc::SOL_SOCKET.unsigned_abs().into())?;
        SeccompRule::new(vec![level, number(2, SeccompCmpOp::Eq, option.unsigned_abs().into())?])
    };
    refuse(libc::SYS_setsockopt, OPTIONS.into_iter().map(option).collect::<Result<_, _>>()?);
    let with_flag = |argument| {
        // The kernel looks at 32 bits of it.
        let fast_open = SeccompCmpOp::MaskedEq(MSG_FASTOPEN);
        Ok(vec![SeccompRule::new(vec![number(argument, fast_open, MSG_FASTOPEN)?])?])
    };
    for (call, argument) in SENDING {
        refuse(call, with_flag(argument)?);
    }
    #[cfg(target_arch = "x86_64")]
    for (call, argument) in X32_SENDING {
        refuse(call, with_flag(argument)?);
    }
    #[cfg(target_arch = "x86_64")]
    for call in X32_REFUSED {
        refuse(call, Vec::new());
    }
    let refusal = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, std::env::consts::ARCH.try_into()?)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SendFlags, SocketAddrAny, SocketType};
    use std::net::{TcpListener, TcpStream};

    /// Landlock and the filter are the thread's that asks for them; a filter for all threads would catch the other tests.
    fn restricted(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(|| {
            restrict_by_landlock().unwrap();
            seccompiler::apply_filter(&filter().unwrap()).unwrap();
            test();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_socket_can_be_used_but_neither_connected_anew_nor_made() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        restricted(move || {
            let (accepted, _) = listener.accept().unwrap();
            rustix::net::send(&stream, b"x", SendFlags::NOSIGNAL).unwrap();
            let unspecified = SocketAddrAny::from(address);
            assert_eq!(rustix::net::connect(&accepted, &unspecified).unwrap_err(), Errno::PERM);
            assert_eq!(rustix::net::connect_unspec(&accepted).unwrap_err(), Errno::PERM);
            let fast_open = SendFlags::from_bits_retain(MSG_FASTOPEN as u32);
            assert_eq!(rustix::net::send(&stream, b"x", fast_open).unwrap_err(), Errno::PERM);
            assert_eq!(rustix::net::sendto(&stream, b"x", fast_open, &address).unwrap_err(), Errno::PERM);
            assert_eq!(rustix::net::listen(&listener, 1).unwrap_err(), Errno::PERM);
            let made = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None);
            assert_eq!(made.unwrap_err(), Errno::PERM);
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, rustix::net::SocketFlags::empty(), None)
                .unwrap();
        });
    }

    #[test]
    fn what_was_lent_can_be_used_and_is_left_as_it_was_for_everybody_else() {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        let recording = tempfile::tempfile().unwrap();
        rustix::fs::fcntl_setfl(&recording, rustix::fs::OFlags::APPEND).unwrap();
        restricted(move || {
            rustix::io::ioctl_fionbio(&terminal, true).unwrap();
            assert_eq!(rustix::io::ioctl_fionread(&terminal).unwrap(), 0);
            assert!(std::io::IsTerminal::is_terminal(&terminal));
            rustix::io::fcntl_dupfd_cloexec(&terminal, 0).unwrap();
            rustix::io::write(&recording, b"said").unwrap();
            assert_eq!(rustix::termios::ioctl_tiocexcl(&terminal).unwrap_err(), Errno::PERM);
            let stop = rustix::termios::Action::OOff;
            assert_eq!(rustix::termios::tcflow(&terminal, stop).unwrap_err(), Errno::PERM);
            let settings = rustix::termios::tcgetattr(&terminal).unwrap();
            let now = rustix::termios::OptionalActions::Now;
            assert_eq!(rustix::termios::tcsetattr(&terminal, now, &settings).unwrap_err(), Errno::PERM);
            let without = rustix::fs::OFlags::empty();
            assert_eq!(rustix::fs::fcntl_setfl(&recording, without).unwrap_err(), Errno::PERM);
            assert_eq!(rustix::fs::ftruncate(&recording, 0).unwrap_err(), Errno::PERM);
            assert_eq!(recording.metadata().unwrap().len(), 4);
        });
    }

    #[test]
    fn a_process_with_threads_is_not_let_in() {
        std::thread::scope(|scope| {
            let (waits, ends) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || ends.recv());
            let why = enter().unwrap_err().to_string();
            assert!(why.contains("already") && why.contains("serves nobody"), "{why}");
            drop(waits);
        });
    }

    #[test]
    fn what_a_kernel_does_not_offer_is_said() {
        let said = |network, scope| Landlock { network, scope }.missing().unwrap_or_default();
        assert!(said(false, false).contains("6.7") && said(false, true).contains("6.7"));
        assert!(said(true, false).contains("6.12"));
        assert_eq!(said(true, true), "");
    }
}
