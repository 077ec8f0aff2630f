//! Answers that are refusals: a status and words, from whatever refused.

use crate::edges::http::Reply;
use crate::rules::broker::{Kind, Refusal};
use crate::rules::request::BadRequest;
use crate::rules::ticket::BadTicket;

/// An answer that is a refusal.
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) words: String,
    pub(super) headers: Vec<(&'static str, String)>,
}

pub(super) fn refuse(status: u16, words: impl Into<String>) -> Refused {
    Refused { status, words: words.into(), headers: Vec::new() }
}

impl Refused {
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
        refuse(if why.is_forbidden() { 403 } else { 401 }, why.to_string())
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
