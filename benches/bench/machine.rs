//! The machine: which core is whose, what a tree of processes has used, and who listens. Linux's /proc
//! is known here alone.

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroU64;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};

/// Which core is the measured tool's and which one the measuring side's; the same one where there is but one.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The tool's alone.
    pub tool: usize,
    /// That of clients and backends.
    pub ours: usize,
}

impl Cores {
    /// The first and the last core that this process may use.
    pub fn find() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot ask for the cores")?;
        let cores: Vec<_> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let [ours, .., tool] = cores[..] else {
            return Ok(Self { tool: cores[0], ours: cores[0] });
        };
        Ok(Self { tool, ours })
    }

    /// Puts this thread, and those that it starts from now on, where the measuring side is; it wakes
    /// when it asked to, not 50 us later.
    pub fn take_ours(self) -> Result<()> {
        set_current_timer_slack(NonZeroU64::new(1)).context("cannot set the timer slack")?;
        pin(self.ours)
    }

    /// Starts a process on the tool's core, as the leader of a group of its own.
    pub fn start(self, command: &mut Command, log: &Path) -> Result<Running> {
        // What a thread starts inherits its core and its timer slack.
        let slack = rustix::thread::current_timer_slack().ok().and_then(NonZeroU64::new);
        set_current_timer_slack(None)?;
        pin(self.tool)?;
        let started = start(command, log);
        pin(self.ours)?;
        set_current_timer_slack(slack)?;
        started
    }
}

/// Starts a process on this thread's core, as the leader of a group of its own.
pub fn start(command: &mut Command, log: &Path) -> Result<Running> {
    let log_file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file).process_group(0);
    let child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    Ok(Running { child, log: log.to_owned() })
}

fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core} alone"))
}

/// A tool's process with all that it starts; ended when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: std::path::PathBuf,
}

impl Running {
    /// Waits until the port is listened on.
    pub fn wait_for(&mut self, port: u16) -> Result<()> {
        let begun = Instant::now();
        while !is_listening(port)? {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}) and said:\n{}", self.said());
            }
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("it does not listen on port {port} after 20 s; it said:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// All that it printed.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU seconds of all its living processes and threads so far: what the scheduler counted, to the
    /// nanosecond, not the ticks of /proc/PID/stat.
    pub fn cpu(&self) -> Result<f64> {
        cpu_of(&tree(self.pid())?)
    }

    /// Proportional set size of all its processes, in KiB.
    pub fn pss(&self) -> Result<u64> {
        tree(self.pid())?.iter().map(|pid| pss_of(*pid)).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A process and all its descendants.
pub fn tree(root: u32) -> Result<Vec<u32>> {
    let mut children = HashMap::<u32, Vec<u32>>::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // One that has just gone is nobody's child.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        children.entry(parent.and_then(|text| text.parse().ok()).unwrap_or(0)).or_default().push(pid);
    }
    let mut all = vec![root];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        all.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(all)
}

/// CPU seconds of a process's threads whose name is `wanted`.
pub fn cpu_of_threads(pid: u32, wanted: impl Fn(&str) -> bool) -> Result<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} has gone"))? {
        let task = task?.path();
        // A thread may end while the folder is read.
        let (Ok(name), Ok(text)) = (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
        else {
            continue;
        };
        if wanted(name.trim()) {
            nanoseconds += text.split_whitespace().next().and_then(|run| run.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// CPU seconds of these processes' threads.
pub fn cpu_of(pids: &[u32]) -> Result<f64> {
    let mut nanoseconds = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} has gone"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let run = text.split_whitespace().next().and_then(|run| run.parse::<u64>().ok());
            nanoseconds += run.with_context(|| format!("/proc/{pid}/task/*/schedstat is not understood: {text}"))?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// Proportional set size of a process, in KiB.
pub fn pss_of(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("smaps_rollup has no Pss")
}

/// Whether somebody listens on a TCP port, found without connecting to it.
pub fn is_listening(port: u16) -> Result<bool> {
    let wanted = format!(":{port:04X}");
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).with_context(|| format!("cannot read {table}"))?;
        let listens = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|local| local.ends_with(&wanted)) && words.nth(1) == Some("0A")
        };
        if text.lines().any(listens) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
