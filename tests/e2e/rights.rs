//! Who may enter a real guest, and how that is taken away: kick and revoke, a guest's own settings, and what ends with
//! the guest itself.

use std::time::Duration;

use serde_json::Value;

use crate::host::{Guest, SOON, User, sh, state_of, virsh, wait_until};
use crate::ws::{Session, Ws, ask, get};

/// The session that a new ticket for a guest buys.
#[track_caller]
pub fn session(guest: &Guest) -> Session {
    let port = guest.port();
    let bearer = guest.ticket_with("--user ann");
    let request = format!(
        "POST /api/session HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: https://localhost:{port}\r\n\
         Authorization: Bearer {bearer}\r\n"
    );
    Session::of(&ask(port, &request))
}

/// What a page's own request for the guest's description is answered.
#[track_caller]
pub fn described(port: u16, session: &Session) -> (u16, String) {
    let shown = session.lines();
    let (status, _, body) = ask(port, &format!("GET /api/guest HTTP/1.1\r\nHost: localhost:{port}\r\n{shown}"));
    (status, body)
}

/// A websocket of a page with that session.
#[track_caller]
fn with_session(port: u16, path: &str, session: &Session) -> Ws {
    let origin = format!("https://localhost:{port}");
    let [cookie, secret] = session.headers();
    Ws::connect_with(port, path, "", &[cookie, secret, ("origin", &origin)]).unwrap()
}

#[test]
fn who_is_kicked_out_is_out_at_once_and_what_is_revoked_counts_nowhere() {
    let guest = Guest::define("kicked").with_vnc().with_pty_serial().started();
    let port = guest.port();
    let session = session(&guest);
    let mut vnc = with_session(port, "/vnc", &session);
    vnc.read_until("RFB 003.008\n", SOON);
    let listed: Value = serde_json::from_str(&sh("console-proxy sessions kicked --json")).unwrap();
    let row = &listed["sessions"][0];
    assert_eq!((&row["person"], &row["consoles"]), (&"ann".into(), &serde_json::json!(["vnc"])), "{listed}");
    let said = sh("console-proxy kick kicked --person ann");
    assert!(said.contains("kicked: ended what ann had (vnc)"), "{said}");
    assert_eq!(vnc.wait_for_close(SOON), (4401, "the administrator ended the session".to_owned()));
    assert_eq!(described(port, &session), (401, "the administrator ended the session\n".to_owned()));

    let ticket = guest.ticket_with("--user ann");
    let mut vnc = Ws::connect(port, "/vnc", &ticket).unwrap();
    vnc.read_until("RFB 003.008\n", SOON);
    let other = guest.ticket_with("--user bob");
    sh("console-proxy revoke --person ann");
    assert_eq!(vnc.wait_for_close(SOON), (4401, "what this person had was revoked".to_owned()));
    assert_eq!(get(port, "/api/guest", &ticket).0, 401);
    assert_eq!(get(port, "/api/guest", &other).0, 200, "bob has done nothing");
    let operator = User::in_groups("e2e-operator", "libvirt");
    let why = operator.run("console-proxy kick kicked").unwrap_err();
    assert!(why.contains("takes root"), "{why}");
}

#[test]
fn a_guests_own_settings_narrow_what_people_may_and_publish_makes_that_so_at_once() {
    let guest = Guest::define("narrowed").with_vnc().with_pty_serial().started();
    let port = guest.port();
    let mut vnc = guest.open("vnc");
    vnc.read_until("RFB 003.008\n", SOON);
    let settings = |inside: &str| {
        virsh(&format!(
            "metadata narrowed --live --config --uri urn:console-proxy:1 --key console-proxy --set '<settings>{inside}</settings>'"
        ));
        sh("console-proxy publish narrowed")
    };
    settings("<allow consoles=\"serial/0\" mode=\"view\"/>");
    assert_eq!(vnc.wait_for_close(SOON), (4403, "the right to vnc was taken away".to_owned()));
    let refused = Ws::connect(port, "/vnc", &guest.ticket()).unwrap_err();
    assert_eq!((refused.status(), refused.words()), (403, "the guest's own settings keep vnc from root\n"));
    let (_, told) = get(port, "/api/guest", &guest.ticket());
    let told: Value = serde_json::from_str(&told).unwrap();
    let consoles: Vec<_> = told["consoles"].as_array().unwrap().iter().map(|c| (&c["console"], &c["mode"])).collect();
    assert_eq!(consoles, [(&"serial/0".into(), &"view".into())]);
    let said = settings("<allow usrs=\"ann\"/>");
    assert!(said.contains("an <allow> in its metadata allows nothing"), "{said}");
    assert_eq!(Ws::connect(port, "/serial/0", &guest.ticket()).unwrap_err().status(), 403);
    settings("");
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
}

#[test]
fn a_session_ends_with_the_guests_definition_and_another_guest_of_its_uuid_knows_nothing_of_it() {
    let guest = Guest::define("undefined").with_vnc().blank().started();
    let session = session(&guest);
    assert_eq!(described(guest.port(), &session).0, 200);
    let uuid = guest.uuid();
    let folder = format!("/run/console-proxy/guests/{uuid}");
    let state = format!("/run/console-proxy/state/{uuid}");
    assert!(!sh(&format!("ls {state}/sessions")).is_empty());
    drop(guest);
    wait_until("nothing to be left of the guest", Duration::from_secs(60), || {
        !crate::host::exists(&folder) && !crate::host::exists(&state)
    });
    let again = Guest::define("undefined").with_uuid(&uuid).with_vnc().blank().started();
    let port = again.port();
    assert_eq!(described(port, &session).0, 401);
}

#[test]
fn a_cookie_alone_which_every_port_of_this_host_is_sent_opens_nothing_of_a_guest() {
    let guest = Guest::define("cookie-alone").with_vnc().with_pty_serial().started();
    let (port, own) = (guest.port(), format!("https://localhost:{}", guest.port()));
    let [session, another] = [(); 2].map(|()| session(&guest));
    let [cookie, secret] = session.headers();
    let [_, wrong] = another.headers();
    let protocols = |secret: &str| format!("binary, console-proxy.secret.{secret}");
    let (right_item, wrong_item) = (protocols(&session.secret), protocols(&another.secret));
    for shown in [&[cookie][..], &[secret], &[cookie, wrong], &[cookie, ("sec-websocket-protocol", &wrong_item)]] {
        let lines = shown.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
        for request in ["GET /api/guest", "POST /api/logout", "POST /api/session"] {
            let head = format!("{request} HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: {own}\r\n{lines}");
            assert_eq!(ask(port, &head).0, 401, "{request} with {lines}");
        }
        for console in ["/vnc", "/serial/0", "/websockify"] {
            let refused = Ws::connect_with(port, console, "", &[shown, &[("origin", own.as_str())]].concat());
            assert_eq!(refused.unwrap_err().status(), 401, "{console} with {lines}");
        }
    }
    assert_eq!(
        ask(port, &format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\n{}: {}\r\n", cookie.0, cookie.1)).0,
        200
    );
    with_session(port, "/vnc", &session).read_until("RFB 003.008\n", SOON);
    let by_protocol = [cookie, ("sec-websocket-protocol", right_item.as_str()), ("origin", own.as_str())];
    Ws::connect_with(port, "/vnc", "", &by_protocol).unwrap().read_until("RFB 003.008\n", SOON);
    assert_eq!(described(port, &session).0, 200, "nobody logged it out");
}

#[test]
fn a_cookie_under_another_guests_name_opens_nothing_there() {
    let (mine, other) = (Guest::define("mine").with_vnc().started(), Guest::define("other").with_vnc().started());
    let session = session(&mine);
    let port = other.port();
    let (_, value) = session.cookie.split_once('=').unwrap();
    let renamed = format!("__Host-console-proxy-{}={value}", &other.uuid()[..8]);
    let renamed = Session { cookie: renamed, secret: session.secret.clone() };
    assert_eq!(described(mine.port(), &session).0, 200);
    assert_eq!(described(port, &renamed).0, 401);
    assert_eq!(state_of(&other.socket()), "active");
}
