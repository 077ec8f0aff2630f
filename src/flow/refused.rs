//! Answers that are refusals: a status and words, from whatever refused.

use crate::edges::http::Reply;
use crate::rules::audit::Reason;
use crate::rules::broker::{Kind, Refusal};
use crate::rules::request::BadRequest;
use crate::rules::ticket::BadTicket;

/// An answer that is a refusal.
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) words: String,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Why, for the audit; nothing where it says nothing of the client, such as for who brings no right at all.
    pub(super) reason: Option<Reason>,
    /// Who asked, as far as that is known.
    pub(super) person: Option<String>,
}

pub(super) fn refuse(status: u16, words: impl Into<String>) -> Refused {
    let reason = (status == 429).then_some(Reason::Limit);
    Refused { status, words: words.into(), headers: Vec::new(), reason, person: None }
}

impl Refused {
    /// The audit is to be told this reason.
    pub(super) fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// The audit is to be told who asked.
    pub(super) fn of(mut self, person: &str) -> Self {
        self.person = Some(person.to_owned());
        self
    }

    pub(super) fn reply(self) -> Reply {
        let mut headers = plain_headers();
        headers.push(("content-type", "text/plain; charset=utf-8".to_owned()));
        headers.extend(self.headers);
        if self.status == 401 {
            headers.push(("www-authenticate", "Bearer".to_owned()));
        }
        Reply { status: self.status, headers, body: format!("{}\n", self.words).into() }
    }
}

impl From<BadRequest> for Refused {
    fn from(why: BadRequest) -> Self {
        refuse(400, why.0)
    }
}

impl From<BadTicket> for Refused {
    fn from(why: BadTicket) -> Self {
        let (status, reason) = if why.is_forbidden() { (403, Reason::Right) } else { (401, Reason::Ticket) };
        refuse(status, why.to_string()).because(reason)
    }
}

impl From<Refusal> for Refused {
    fn from(why: Refusal) -> Self {
        let status = match why.kind {
            Kind::Unknown => 404,
            Kind::Busy => 409,
            Kind::Denied | Kind::Refused => 502,
            Kind::Silent => 504,
        };
        refuse(status, why.words)
    }
}

pub(super) fn plain_headers() -> Vec<(&'static str, String)> {
    [
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}
