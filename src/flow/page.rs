//! The page, its files, and other people's clients, as a browser asks for them. They need no right and tell nothing
//! of the guest.

use bytes::Bytes;

use super::guest::Guest;
use super::refused::{Refused, refuse};
use crate::edges::http::{Asked, Reply};
use crate::edges::web::Content;
use crate::rules::web::{Encoding, Owner, Place, accepted, etag, has_already, inline_style, media_type, policy};

/// What `/` says where the page is not installed.
const WITHOUT_PAGE: &str = include_str!("page.html");

/// What a page may ask a browser for.
const FEATURES: &str = "camera=(), geolocation=(), microphone=(), payment=(), usb=()";

/// Answers a GET or a HEAD.
pub(super) fn serve(guest: &Guest, place: Place<'_>, asked: &Asked) -> Result<Reply, Refused> {
    let config = guest.config();
    let nothing = || refuse(404, "there is nothing at this path");
    let folder = match place {
        Place::Client(name, _) => config.web.clients.get(name).ok_or_else(nothing)?,
        _ => &config.web.folder,
    };
    let (folder, file) = (guest.paths.below_root(folder), place.file());
    let shared = guest.paths.below_root("/usr");
    let wanted = accepted(asked.headers("accept-encoding"));
    let found = guest.shelf.read(&folder, &shared, &file, &wanted).map_err(|why| {
        // Whoever asks has shown no right: the path is for the journal.
        tracing::debug!("cannot read {}: {why}", folder.join(&file).display());
        refuse(500, "this file cannot be read: `console-proxy doctor` on the host may say why")
    })?;
    let (Content { encoding, tag, bytes }, style) = match (found, place) {
        (Some(content), _) => (content, ""),
        (None, Place::Page) => (without_page(), inline_style(WITHOUT_PAGE)),
        (None, _) => return Err(nothing()),
    };
    let has_already = has_already(asked.headers("if-none-match"), &tag);
    let mut headers = vec![
        ("cache-control", place.cache_control().to_owned()),
        ("etag", tag),
        ("vary", "accept-encoding".to_owned()),
    ];
    let owner = if matches!(place, Place::Client(..)) { Owner::Others } else { Owner::Us(style) };
    headers.extend(protection(guest, owner, asked));
    if has_already {
        return Ok(Reply { status: 304, headers, ..Reply::default() });
    }
    headers.push(("content-type", media_type(&file).to_owned()));
    headers.extend(encoding.name().map(|name| ("content-encoding", name.to_owned())));
    Ok(Reply { status: 200, headers, body: bytes })
}

fn without_page() -> Content {
    let bytes = Bytes::from_static(WITHOUT_PAGE.as_bytes());
    Content { encoding: Encoding::Identity, tag: etag(&bytes), bytes }
}

/// What a browser is told to keep from a page, and a page from others.
fn protection(guest: &Guest, owner: Owner<'_>, asked: &Asked) -> Vec<(&'static str, String)> {
    let config = guest.config();
    let frames = &config.access.embed_origins;
    let scheme = guest.scheme_of(asked);
    let host = asked.host.as_deref().filter(|_| scheme.is_some());
    vec![
        ("content-security-policy", policy(owner, frames, scheme.unwrap_or_default(), host)),
        ("x-content-type-options", "nosniff".to_owned()),
        ("referrer-policy", "no-referrer".to_owned()),
        ("cross-origin-opener-policy", "same-origin".to_owned()),
        ("cross-origin-resource-policy", (if frames.is_empty() { "same-origin" } else { "cross-origin" }).to_owned()),
        ("permissions-policy", FEATURES.to_owned()),
    ]
}
