//! A websocket's upgrade request and the answer to it, be it that a console is open or that it is refused: the
//! browser's pages are not told what status a refused upgrade got, so those that understand it hear it afterwards.

use std::rc::Rc;

use super::guest::Guest;
use super::identity::asks_for_websocket;
use super::live::Connection;
use super::refused::{Refused, refuse};
use crate::edges::http::{Asked, Reply, Upgrade};
use crate::edges::websocket;
use crate::rules::close::End;
use crate::rules::request::{self, Endpoint};
use crate::rules::told::PROTOCOL;

/// The rules of RFC 6455, 4.2.1, for an upgrade request. Returns its key.
pub(super) fn check(asked: &Asked) -> Result<Vec<u8>, Refused> {
    if !asked.is_http_1_1 || !asks_for_websocket(asked) || !request::has_word(asked.headers("connection"), "upgrade") {
        let mut refused =
            refuse(426, "this is a console: open it as a websocket (wss://), for example with noVNC or xterm.js");
        refused.headers.extend([("upgrade", "websocket".to_owned()), ("connection", "Upgrade".to_owned())]);
        return Err(refused);
    }
    if asked.once("sec-websocket-version") != Ok(Some(b"13")) {
        let mut refused = refuse(426, "only version 13 of the websocket protocol is spoken here");
        refused.headers.extend([
            ("sec-websocket-version", "13".to_owned()),
            ("upgrade", "websocket".to_owned()),
            ("connection", "Upgrade".to_owned()),
        ]);
        return Err(refused);
    }
    let key = asked.once("sec-websocket-key")?.filter(|key| request::is_websocket_key(key));
    key.map(<[u8]>::to_vec).ok_or_else(|| refuse(400, "Sec-WebSocket-Key is not 16 bytes in base64"))
}

/// Whether the client understands what it is told beside a console's bytes, and refusals as close frames.
pub(super) fn listens(asked: &Asked) -> bool {
    request::offers(asked.headers("sec-websocket-protocol"), PROTOCOL)
}

/// The answer to a request with this key: from now on it is a websocket.
pub(super) fn accept(key: &[u8], asked: &Asked) -> Reply {
    let offered = asked.headers("sec-websocket-protocol");
    let protocol = if listens(asked) { Some(PROTOCOL) } else { request::subprotocol(offered) };
    let mut headers = vec![
        ("upgrade", "websocket".to_owned()),
        ("connection", "Upgrade".to_owned()),
        ("sec-websocket-accept", websocket::derive_accept_key(key)),
    ];
    headers.extend(protocol.map(|protocol| ("sec-websocket-protocol", protocol.to_owned())));
    Reply { status: 101, headers, ..Reply::default() }
}

/// Refuses a console: with a close frame where the client understands that and its request is a good one, else by
/// HTTP. The connection stays counted until it is closed.
pub(super) fn refuse_console(
    guest: &Rc<Guest>,
    connection: Rc<Connection>,
    asked: &mut Asked,
    refused: Refused,
) -> Reply {
    let is_console = asked.method == "GET"
        && matches!(Endpoint::from_path(&asked.path), Some(Endpoint::FirstDisplay | Endpoint::Console(_)));
    if !is_console || !listens(asked) {
        return refused.reply();
    }
    let (Ok(key), Some(upgrade)) = (check(asked), asked.take_upgrade()) else { return refused.reply() };
    let (guest, end) = (guest.clone(), End::Refused(refused.status, refused.words));
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = say(&guest, upgrade, &end) => {}
            () = connection.lost() => {}
        }
    });
    accept(&key, asked)
}

/// Says why, on a websocket that ends with it.
async fn say(guest: &Guest, upgrade: Upgrade, end: &End) {
    let config = guest.config();
    let proxy = &config.proxy;
    if let Ok(Ok((client, early))) = tokio::time::timeout(proxy.handshake_timeout, upgrade.finish()).await {
        let (sender, receiver) = websocket::accept(client, &early, proxy.max_frame);
        websocket::close(sender, receiver, end).await;
    }
}
