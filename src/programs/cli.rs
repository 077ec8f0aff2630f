//! `console-proxy`: the administrator's command. Each verb's work is in a module of its own.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::{CommandFactory, Parser, Subcommand};

use super::{console, display, doctor, keys, log, prune, publish, replay, sessions, show, ssh, sync, ticket, wire};
use crate::edges::paths::Paths;
use crate::edges::{files, journal};

/// An encrypted port per libvirt guest for HTML5 clients: VNC, SPICE and the text console.
#[derive(Parser, Debug)]
#[command(name = "console-proxy", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Show the published guests, their ports and consoles, and who is on them.
    List {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Show one guest and who is connected to it.
    Status {
        /// The guest: an id, a name or a UUID.
        guest: String,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Print a URL with a ticket, for a browser.
    Url(ticket::Arguments),
    /// Start a browser with such a URL.
    Open(ticket::Arguments),
    /// Print a ticket alone.
    Ticket(ticket::Arguments),
    /// Show who has a session at which guest, and what it has open.
    Sessions {
        /// This one's alone: an id, a name or a UUID.
        guest: Option<String>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// End sessions and open consoles of a guest at once; who has a right to may come back.
    Kick(sessions::KickArguments),
    /// End at once what a person or a ticket has opened on this host; tickets of that person do not count any more.
    Revoke(sessions::RevokeArguments),
    /// Open a text console in this terminal, or pipe input into it.
    Console(console::Arguments),
    /// Print what libvirt kept of a guest's text console.
    Log(log::Arguments),
    /// Play a recording in this terminal.
    Replay(replay::Arguments),
    /// Look at everything that has to be right, and say what is not and what to do.
    Doctor,
    /// Publish running guests from what libvirt says: after a change of the configuration, or for guests
    /// that ran before.
    Publish(publish::Arguments),
    /// Change guests' definitions so that their consoles can be reached.
    Wire(wire::WireArguments),
    /// Take exactly that back.
    Unwire(wire::UnwireArguments),
    /// Free what is kept for guests that are neither defined nor running; remove recordings that are kept no longer.
    Prune {
        /// Recordings alone (by console-proxy-prune.service, each day).
        #[arg(long)]
        recordings: bool,
    },
    /// Check the configuration with the daemon's own code.
    CheckConfig,
    /// Make sockets, drop-ins and the guard equal to the routes (by console-proxy-sync.service).
    Sync,
    /// Load the guard into the kernel (by console-proxy-guard.service).
    Guard {
        /// Take it out instead, unless a running guest still has a port on loopback that wiring made.
        #[arg(long)]
        remove_unless_needed: bool,
    },
    /// Make keys and certificate where they are missing (by console-proxy-keys.service).
    Keys,
    /// Open the text console that was asked for by ssh (by sshd, for user console).
    Ssh,
    /// Make a ticket for it (by console-proxy-ssh@.service).
    SshTicket,
    /// Have libvirt connect to a guest's display, and hand the connection over (by console-proxy-broker).
    #[command(hide = true)]
    Display {
        /// The guest's UUID.
        guest: crate::rules::guest::Uuid,
        /// Which of its displays.
        index: u32,
    },
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    journal::init("console-proxy");
    let paths = Paths::from_environment();
    match run(&paths, arguments.verb, &mut std::io::stdout().lock()) {
        Ok(code) => code,
        // Nobody reads on: `console-proxy list | head -1`.
        Err(why) if is_broken_pipe(&why) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "console-proxy: {why:#}");
            tracing::debug!("{why:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(why: &anyhow::Error) -> bool {
    why.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Refuses a caller who is not root. The tree of another root (tests) is the caller's own.
pub(super) fn needs_root(paths: &Paths, what: &str) -> Result<()> {
    if paths.is_this_host() && !rustix::process::geteuid().is_root() {
        bail!("{what} takes root");
    }
    Ok(())
}

/// The name of a verb that changes what is root's; `None` where others may use it, too.
fn of_root(verb: &Verb) -> Option<&'static str> {
    Some(match verb {
        Verb::Publish(_) => "publish",
        Verb::Wire(arguments) if arguments.changes_the_host() => "wire",
        Verb::Unwire(arguments) if arguments.changes_the_host() => "unwire",
        Verb::Prune { .. } => "prune",
        Verb::Sync => "sync",
        Verb::Guard { .. } => "guard",
        Verb::Keys => "keys",
        _ => return None,
    })
}

fn run(paths: &Paths, verb: Verb, out: &mut dyn Write) -> Result<ExitCode> {
    if let Some(name) = of_root(&verb) {
        // Before anything is begun: half of it would be done by a member of group libvirt.
        needs_root(paths, &format!("`console-proxy {name}`")).map_err(|why| anyhow!("{why}: nothing was changed"))?;
    }
    match verb {
        Verb::List { json } => show::list(paths, json, out)?,
        Verb::Status { guest, json } => show::status(paths, &guest, json, out)?,
        Verb::Url(arguments) => ticket::url(paths, &arguments, out)?,
        Verb::Open(arguments) => ticket::open(paths, &arguments, out)?,
        Verb::Ticket(arguments) => ticket::ticket(paths, &arguments, out)?,
        Verb::Sessions { guest, json } => sessions::list(paths, guest.as_deref(), json, out)?,
        Verb::Kick(arguments) => sessions::kick(paths, &arguments, out)?,
        Verb::Revoke(arguments) => sessions::revoke(paths, &arguments, out)?,
        Verb::Wire(arguments) => return wire::wire(paths, &arguments, out),
        Verb::Unwire(arguments) => return wire::unwire(paths, &arguments, out),
        Verb::Prune { recordings } => prune::run(paths, recordings, out)?,
        Verb::CheckConfig => {
            files::config(paths)?;
            writeln!(out, "{} and its .d/ folder are in order", paths.config().display()).context("cannot print")?;
        }
        Verb::Console(arguments) => return console::run(paths, &arguments),
        Verb::Log(arguments) => return log::run(paths, &arguments, out),
        Verb::Replay(arguments) => return replay::run(&arguments),
        Verb::Doctor => return doctor::run(paths, out),
        Verb::Publish(arguments) => return publish::run(paths, &arguments, out),
        Verb::Sync => sync::run(paths)?,
        Verb::Guard { remove_unless_needed: false } => sync::load_guard(paths)?,
        Verb::Guard { remove_unless_needed: true } => sync::remove_guard_unless_needed(paths, out)?,
        Verb::Ssh => return ssh::run(paths),
        Verb::SshTicket => ssh::ticket(paths)?,
        Verb::Display { guest, index } => display::run(&guest, index)?,
        Verb::Keys => keys::run(paths)?,
        Verb::Completions { shell } => clap_complete::generate(shell, &mut Arguments::command(), "console-proxy", out),
    }
    Ok(ExitCode::SUCCESS)
}
