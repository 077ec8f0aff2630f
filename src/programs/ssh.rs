//! `ssh console@HOST GUEST`. Two programs of small rights: sshd runs `console-proxy ssh`, which knows the person's
//! key and may ask; systemd runs `console-proxy ssh-ticket`, which may read the host's ticket key and hears one question
//! over a socket that is that user's alone. What it gives opens one text console of one guest, for a person whose key is in
//! the list.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};

use super::console::{self, LIFE, Manner};
use super::lookup;
use super::ticket::{self, Order};
use crate::edges::paths::Paths;
use crate::edges::{files, publish, ssh};
use crate::rules::escape::Escape;
use crate::rules::guest::printable;
use crate::rules::ssh::{Answer, Granted, Request, VERSION, guest_word, is_guest_word, keys_used, owner};
use crate::rules::ticket::{Mode, Pattern};

/// By sshd, whatever was typed after the host: opens the guest that this names, or says what to type.
pub fn run(paths: &Paths) -> Result<ExitCode> {
    let granted = ask(paths).inspect_err(|why| {
        tracing::warn!("refused {} by ssh: {}", printable(&ssh::from()), printable(&format!("{why:#}")));
    })?;
    if !ssh::has_terminal() {
        let _ = writeln!(std::io::stderr(), "console-proxy: no terminal was asked for; `ssh -t` does");
    }
    let manner = Manner { view: false, escape: Escape::default(), silence: std::time::Duration::from_secs(2) };
    console::open(&granted, &manner)
}

fn ask(paths: &Paths) -> Result<Granted> {
    let command = ssh::original_command();
    let guest = guest_word(command.as_deref()).map_err(anyhow::Error::msg)?;
    let info = ssh::user_auth().context("cannot read what sshd says of the key")?;
    let info =
        info.context("sshd does not say which key it was: `ExposeAuthInfo yes` is missing in its configuration")?;
    let keys = keys_used(&info);
    let key = keys.first().context("only a key opens consoles")?;
    let request = Request { version: VERSION, guest: guest.to_owned(), key: (*key).to_owned(), from: ssh::from() };
    let socket = paths.ssh_socket();
    // As text: see `console::connect`.
    let answer = ssh::ask(&socket, &request).map_err(|why| {
        anyhow!("this host makes no ticket ({}: {why}); on it, `console-proxy doctor` says why", socket.display())
    })?;
    if answer.version != VERSION {
        bail!("this host's programs are of two versions: `systemctl restart console-proxy-ssh.socket`");
    }
    answer.granted.ok_or_else(|| anyhow!("{}", answer.refusal.unwrap_or_else(|| "refused".to_owned())))
}

/// By systemd, for one connection to the socket, which is standard input and output.
pub fn ticket(paths: &Paths) -> Result<()> {
    let request: Request = ssh::read_line(std::io::stdin()).context("the question cannot be read")?;
    let answer = match grant(paths, &request) {
        Ok(granted) => Answer { version: VERSION, refusal: None, granted: Some(granted) },
        Err(why) => {
            let why = format!("{why:#}");
            tracing::warn!(from = %printable(&request.from), "refused a ticket for ssh: {}", printable(&why));
            Answer { version: VERSION, refusal: Some(why), granted: None }
        }
    };
    ssh::write_line(std::io::stdout(), &answer).context("the answer cannot be written")
}

/// Nothing is taken from whoever asks but which key it was, and that one must be in the list: the worst that
/// somebody who has taken over that user can do is to open text consoles under a name that is in it.
fn grant(paths: &Paths, request: &Request) -> Result<Granted> {
    if request.version != VERSION {
        bail!("the question has version {}, this program knows version {VERSION}", request.version);
    }
    let list = paths.ssh_keys();
    let keys = files::read(&list, 1 << 20)
        .with_context(|| format!("cannot read {}", list.display()))?
        .with_context(|| format!("there is no {}: nobody may come in by ssh", list.display()))?;
    let person = owner(&keys, &request.key).with_context(|| list.display().to_string())?;
    if !is_guest_word(&request.guest) {
        bail!("that names no guest");
    }
    let name = &request.guest;
    let uuid = lookup::published(paths, name).with_context(|| format!("no guest {name} runs here"))?;
    let route = publish::read_route(paths, &uuid)?.with_context(|| format!("no guest {name} runs here"))?;
    let console = route.text_console(None).map_err(anyhow::Error::msg)?;
    let config = files::config(paths)?;
    let certificate = paths.below_root(&config.tls.certificate);
    let certificate = files::read(&certificate, 128 << 10)
        .with_context(|| format!("cannot read {}", certificate.display()))?
        .with_context(|| format!("{} does not exist", certificate.display()))?;
    let consoles = [Pattern::One(console)];
    let order = Order { consoles: &consoles, mode: Mode::Control, life: LIFE, person: &person };
    let token = ticket::issue(paths, &route, &order)?;
    tracing::info!(
        guest = %route.uuid, guest_name = %printable(&route.name), person = %person, console = %console, from = %printable(&request.from),
        "{person} came by ssh from {} for {console} of {}", printable(&request.from), printable(&route.name)
    );
    Ok(Granted { address: config.listen.from_here(route.port), name: route.name, console, token, certificate })
}
