//! Sessions on disk: a file each in the guest's own folder, named by the SHA-256 of the cookie and with that of the
//! second secret in it, so that they survive the proxy's idle exit and nobody who reads them can use them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::Dir;

use super::files;
use crate::rules::route::hex;
use crate::rules::session::{Bought, MOST, Session, Standing};
use crate::rules::shares::{Keeping, Kept, may_keep};

/// A session's name: the SHA-256 of its cookie in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(String);

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Id {
    /// Its text, 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the session that a cookie stands for.
    #[must_use]
    pub fn of_cookie(cookie: impl AsRef<[u8]>) -> Self {
        Self(sha256(cookie.as_ref()))
    }
}

/// What is kept of a secret, in hex.
#[must_use]
pub fn sha256(secret: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, secret).as_ref())
}

/// What a browser is given of a new session, 32 random bytes each in base64url.
#[derive(Clone)]
pub struct Secrets {
    /// The cookie's value.
    pub cookie: String,
    /// The one that the page keeps.
    pub second: String,
}

/// 32 random bytes in base64url.
fn random() -> io::Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Records of sessions that are over and whose tickets are not: a panel may open and leave consoles by the minute.
const MOST_SPENT: usize = 3 * MOST;
/// Of one record, in bytes.
const LARGEST: u64 = 256 << 10;
/// And of all whom one issuer vouches for, and of one of them.
const MOST_SPENT_BY_ONE: usize = MOST_SPENT / 4 * 3;
const MOST_SPENT_OF_ONE: usize = MOST_SPENT / 2;

/// The folder of one guest's sessions.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// Why no session is made.
#[derive(Debug, thiserror::Error)]
pub enum NoSession {
    /// A ticket buys one.
    #[error("this ticket has bought its session already: get another one")]
    Bought,
    /// [`MOST`] are alive, or a person's share is in use.
    #[error("too many sessions are open")]
    TooMany,
    /// The disk.
    #[error("the session cannot be kept: {0}")]
    Io(#[from] io::Error),
}

impl Store {
    /// The sessions below a guest's state folder.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("sessions") }
    }

    /// Keeps a new session; returns its secrets, and the session that made room for it, if one
    /// did. `is_alive` clears out those that have ended; one that `is_in_use` makes no room.
    pub fn add(
        &self,
        session: &Session,
        is_alive: impl Fn(&Id, &Session) -> bool,
        is_in_use: impl Fn(&Id) -> bool,
    ) -> Result<(Secrets, Option<Session>), NoSession> {
        // For the group, which all proxies run in: the next one of this guest may have another user. The unit
        // forbids a set-group-ID bit (RestrictSUIDSGID=).
        files::make_folder(&self.folder, 0o770)?;
        let who = session.who();
        let (mut alive, mut spent, mut by_own, mut own_spent) = (Vec::new(), 0, 0, 0);
        for (id, old) in self.records() {
            if session.ticket().is_some() && old.ticket() == session.ticket() {
                return Err(NoSession::Bought);
            }
            if !old.is_logged_out() && is_alive(&id, &old) {
                alive.push((id, old.who(), old));
            } else if old.keeps_its_ticket_spent(session.began) {
                spent += 1;
                by_own += usize::from(old.who().voucher() == who.voucher());
                own_spent += usize::from(old.who() == who);
            } else {
                files::remove(&self.folder.join(&id.0))?;
            }
        }
        let is_spent = spent >= MOST_SPENT || by_own >= MOST_SPENT_BY_ONE || own_spent >= MOST_SPENT_OF_ONE;
        if session.ticket().is_some() && is_spent {
            return Err(NoSession::TooMany);
        }
        let kept = alive.iter().map(|(id, who, old)| Kept {
            who,
            last_used: (old.last_used, old.began),
            in_use: is_in_use(id),
        });
        let goes = match may_keep(&kept.collect::<Vec<_>>(), &who, MOST) {
            Keeping::Room => None,
            Keeping::Instead(index) => Some(alive.swap_remove(index)),
            Keeping::Full => return Err(NoSession::TooMany),
        };
        if let Some((id, ..)) = &goes {
            self.remove(id)?;
        }
        let secrets = Secrets { cookie: random()?, second: random()? };
        let session = Session { secret: sha256(secrets.second.as_bytes()), ..session.clone() };
        self.write(&Id::of_cookie(&secrets.cookie), &session)?;
        Ok((secrets, goes.map(|(_, _, session)| session)))
    }

    /// The session of that name, alive or not; none where somebody logged out.
    #[must_use]
    pub fn get(&self, id: &Id) -> Option<Session> {
        self.record(id).filter(|session| !session.is_logged_out())
    }

    fn record(&self, id: &Id) -> Option<Session> {
        read(&files::open_folder(&self.folder).ok()?, id)
    }

    /// Notes when a session was used last.
    pub fn touch(&self, id: &Id, now: u64) -> io::Result<()> {
        self.change(id, |session| session.last_used = now)
    }

    /// Notes what was found out of the user whose password bought a session.
    pub fn found(&self, id: &Id, standing: &Standing) -> io::Result<()> {
        self.change(id, |session| session.bought = Bought::Password(standing.clone()))
    }

    /// A session that has ended meanwhile stays ended.
    fn change(&self, id: &Id, change: impl FnOnce(&mut Session)) -> io::Result<()> {
        let Some(mut session) = self.get(id) else { return Ok(()) };
        change(&mut session);
        self.write(id, &session)
    }

    /// Ends a session; that there is none is fine. Of one that a ticket bought the record stays for as long as the
    /// ticket could buy another.
    pub fn remove(&self, id: &Id) -> io::Result<()> {
        match self.get(id) {
            Some(session) if session.ticket().is_some() => self.write(id, &session.logged_out()),
            _ => files::remove(&self.folder.join(&id.0)).map(drop),
        }
    }

    fn write(&self, id: &Id, session: &Session) -> io::Result<()> {
        files::replace(&self.folder.join(&id.0), &serde_json::to_vec(session)?, 0o660)
    }

    /// All sessions, alive or not, without those that somebody logged out of.
    #[must_use]
    pub fn all(&self) -> Vec<(Id, Session)> {
        self.records().into_iter().filter(|(_, session)| !session.is_logged_out()).collect()
    }

    /// What a proxy that was taken over may have left there has an end.
    fn records(&self) -> Vec<(Id, Session)> {
        // Held open, so that a link in its place leads root nowhere.
        let Ok(folder) = files::open_folder(&self.folder) else { return Vec::new() };
        let Ok(entries) = Dir::read_from(&folder) else { return Vec::new() };
        let named = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        let ids = named.filter(|name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())).map(Id);
        ids.take(2 * MOST + MOST_SPENT).filter_map(|id| read(&folder, &id).map(|session| (id, session))).collect()
    }
}

fn read(folder: &OwnedFd, id: &Id) -> Option<Session> {
    let text = files::read_untrusted_in(folder, &id.0, LARGEST).ok()??;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ticket::{Mode, Pattern};
    use std::fs;

    fn session(jti: &str) -> Session {
        let (iss, jti) = ("host".to_owned(), jti.to_owned());
        let bought = Bought::Ticket { iss, jti, consoles: vec![Pattern::All], mode: Mode::Control };
        Session { sub: "ann".into(), bought, began: 0, ends: 10, last_used: 0, secret: String::new() }
    }

    fn add(store: &Store, session: &Session, are_alive: bool) -> Result<Secrets, NoSession> {
        store.add(session, |_, _| are_alive, |_| false).map(|(secrets, _)| secrets)
    }

    #[test]
    fn a_cookie_finds_its_session_and_the_folder_knows_neither_of_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let Secrets { cookie, second } = add(&store, &session("a"), true).unwrap();
        assert_eq!((cookie.len(), second.len(), cookie == second), (43, 43, false));
        let id = Id::of_cookie(&cookie);
        let kept = store.get(&id).unwrap();
        assert!(kept.has_secret(&sha256(second.as_bytes())) && !kept.has_secret(&sha256(cookie.as_bytes())));
        assert_eq!(Session { secret: String::new(), ..kept }, session("a"));
        let file = fs::read_dir(folder.path().join("sessions")).unwrap().next().unwrap().unwrap();
        for secret in [&cookie, &second] {
            assert!(!file.file_name().to_str().unwrap().contains(secret));
            assert!(!fs::read_to_string(file.path()).unwrap().contains(secret));
        }
        store.touch(&id, 7).unwrap();
        assert_eq!(store.get(&id).unwrap().last_used, 7);
        store.remove(&id).unwrap();
        assert_eq!(store.get(&id), None);
        assert_eq!(store.get(&Id::of_cookie("../../x")), None);
    }

    #[test]
    fn a_link_in_the_folders_place_leads_to_no_other_guests_sessions() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = Id::of_cookie(&add(&Store::new(other.path()), &session("a"), true).unwrap().cookie);
        std::os::unix::fs::symlink(other.path().join("sessions"), own.path().join("sessions")).unwrap();
        let store = Store::new(own.path());
        assert_eq!((store.all().len(), store.get(&id)), (0, None));
        assert_eq!(Store::new(other.path()).all().len(), 1);
    }

    #[test]
    fn a_ticket_buys_no_other_session_after_the_administrator_ended_it_or_by_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        add(&store, &session("a"), true).unwrap();
        add(&store, &session("b"), false).unwrap();
        assert!(matches!(add(&store, &session("a"), false), Err(NoSession::Bought)));
    }

    #[test]
    fn a_ticket_buys_no_other_session_after_a_log_out_for_as_long_as_it_counts() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let at = |seconds: u64, jti| Session { began: seconds * 1000, ends: seconds + 60, ..session(jti) };
        let id = Id::of_cookie(add(&store, &at(100, "a"), true).unwrap().cookie);
        store.remove(&id).unwrap();
        assert_eq!((store.get(&id), store.all().len()), (None, 0));
        store.touch(&id, 101).unwrap();
        assert_eq!(store.get(&id), None, "it stays ended");
        assert!(matches!(add(&store, &at(409, "a"), true), Err(NoSession::Bought)));
        add(&store, &at(410, "b"), true).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("sessions")).unwrap().count(), 1, "it is kept no longer");
    }

    #[test]
    fn a_ticket_buys_one_session_and_ended_ones_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        add(&store, &session("a"), true).unwrap();
        assert!(matches!(add(&store, &session("a"), true), Err(NoSession::Bought)));
        for i in 0..MOST - 1 {
            add(&store, &Session { sub: i.to_string(), ..session(&i.to_string()) }, true).unwrap();
        }
        let last = Session { sub: "last".into(), ..session("last") };
        assert!(matches!(add(&store, &last, true), Err(NoSession::TooMany)));
        let later = Session { began: 310_000, ..session("last") };
        add(&store, &later, false).unwrap();
        assert_eq!(store.all().len(), 1);
    }

    #[test]
    fn a_password_buys_as_many_as_it_is_given_and_what_is_found_out_later_revives_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let session = Session::by_password(
            "ann".into(),
            Standing { groups: vec!["libvirt".into()], ..Standing::default() },
            5000,
            60,
        );
        let ids = [(); 2].map(|()| Id::of_cookie(add(&store, &session, true).unwrap().cookie));
        let later = Standing { checked: 7, ..Standing::default() };
        store.found(&ids[0], &later).unwrap();
        assert_eq!(store.get(&ids[0]).unwrap().bought, Bought::Password(later.clone()));
        store.remove(&ids[0]).unwrap();
        store.found(&ids[0], &later).unwrap();
        assert_eq!(store.get(&ids[0]), None);
        assert_eq!(store.get(&ids[1]).unwrap().bought, session.bought);
    }

    #[test]
    fn a_person_ends_their_own_oldest_session_with_one_more_than_their_share_and_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let of = |user: &str, at: u64| Session::by_password(user.into(), Standing::default(), at * 1000, 60);
        let in_use = Id::of_cookie(add(&store, &of("ann", 0), true).unwrap().cookie);
        let bob = Id::of_cookie(add(&store, &of("bob", 0), true).unwrap().cookie);
        let ids: Vec<_> = (1..16).map(|at| Id::of_cookie(add(&store, &of("ann", at), true).unwrap().cookie)).collect();
        let (_, ended) = store.add(&of("ann", 16), |_, _| true, |id| *id == in_use).unwrap();
        assert_eq!(ended.map(|session| session.began), Some(1000));
        assert_eq!((store.get(&ids[0]), store.all().len()), (None, 17));
        assert!(store.get(&in_use).is_some() && store.get(&bob).is_some());
        assert!(matches!(store.add(&of("ann", 17), |_, _| true, |_| true), Err(NoSession::TooMany)));
    }

    #[test]
    fn the_tickets_that_one_person_spends_leave_room_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        for n in 0..MOST_SPENT_OF_ONE {
            add(&store, &session(&n.to_string()), false).unwrap();
        }
        assert!(matches!(add(&store, &session("more"), false), Err(NoSession::TooMany)));
        let of = |sub: &str, jti: &str| Session { sub: sub.to_owned(), ..session(jti) };
        // People whom the same issuer makes up leave a quarter to others.
        for n in MOST_SPENT_OF_ONE..MOST_SPENT_BY_ONE {
            add(&store, &of(&format!("p{n}"), &n.to_string()), false).unwrap();
        }
        assert!(matches!(add(&store, &of("p", "more"), false), Err(NoSession::TooMany)));
        let bought = Bought::Ticket { iss: "panel".into(), jti: "1".into(), consoles: vec![], mode: Mode::View };
        add(&store, &Session { bought, ..of("p", "") }, false).unwrap();
    }
}
