//! `/api/guest`: what a page learns of its guest.

use console_proxy::rules::ticket::Mode;
use serde_json::{Value, json};

use crate::backends::Backend;
use crate::client::headers;
use crate::host::{Host, Proxy, now, until};

fn told(proxy: &Proxy, headers: &[(&str, &str)]) -> Value {
    let answer = proxy.ask("GET", "/api/guest", headers);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    serde_json::from_str(&answer.body).unwrap()
}

fn bearer(proxy: &Proxy, mode: Mode) -> String {
    format!("Bearer {}", proxy.ticket_with(|claims| claims.mode = mode))
}

#[test]
fn it_says_when_the_session_ends_and_of_a_ticket_nothing() {
    let proxy = Proxy::activated(Host::new().raw("vnc", &Backend::echo()).config("[access]\nsession-life = \"1h\"\n"));
    let ticket = bearer(&proxy, Mode::Control);
    assert_eq!(told(&proxy, &[("Authorization", &ticket)])["session"], Value::Null);
    let session = proxy.ask("POST", "/api/session", &[("Authorization", &ticket)]).session("");
    let ends = told(&proxy, &headers(&session)[..2])["session"]["ends"].as_u64().unwrap();
    assert!((now() + 3500..=now() + 3600).contains(&ends), "{ends}");
}

#[test]
fn it_says_which_port_wiring_added() {
    let mut host = Host::new().raw("serial/0", &Backend::echo()).raw("serial/1", &Backend::echo());
    host.route.consoles[1].added = true;
    host.write_route();
    let proxy = Proxy::activated(host);
    let consoles = &told(&proxy, &[("Authorization", &bearer(&proxy, Mode::Control))])["consoles"];
    assert_eq!((&consoles[0]["added"], &consoles[1]["added"]), (&json!(false), &json!(true)));
}

#[test]
fn it_says_how_long_ago_an_open_port_spoke_and_else_when_its_log_was_written() {
    const LOG: &str = "/var/log/libvirt/qemu/g1-b50bdc9f-490b-4b9b-8641-7573c0eba77c-serial-1.log";
    let host = Host::new().raw("serial/0", &Backend::says("login: ")).logged("serial/1", &Backend::silent(), LOG);
    host.write(&LOG[1..], "hello");
    let file = std::fs::File::options().append(true).open(host.path(&LOG[1..])).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(5000)).unwrap();
    let proxy = Proxy::activated(host);
    let ticket = bearer(&proxy, Mode::Control);
    let spoke = |console: usize| told(&proxy, &[("Authorization", &ticket)])["consoles"][console]["spoke"].as_u64();
    assert_eq!(spoke(0), None, "nobody has it open, and it has no log");
    assert!((5000..5100).contains(&spoke(1).unwrap()));
    let mut ws = proxy.open("/serial/0");
    assert_eq!(ws.read(7), b"login: ");
    assert!(spoke(0).unwrap() < 60);
    drop(ws);
    until("the port is closed", || spoke(0).is_none());
    file.set_len(0).unwrap();
    assert_eq!(spoke(1), None, "an empty log says nothing");
}

#[test]
fn it_says_what_cannot_be_opened_view_only_and_why() {
    let proxy = Proxy::activated(Host::new().raw("spice", &Backend::echo()).raw("serial/0", &Backend::echo()));
    let view = bearer(&proxy, Mode::View);
    let about = told(&proxy, &[("Authorization", &view)]);
    assert_eq!(about["mode"], "view");
    let refused = about["consoles"][0]["refused"].as_str().unwrap();
    assert_eq!(about["consoles"][1].get("refused"), None);
    let answer = proxy.refusal("/spice", &[("Authorization", &view)]);
    assert_eq!((answer.status, answer.body), (403, format!("{refused}\n")), "the same words as its refusal");
    let consoles = &told(&proxy, &[("Authorization", &bearer(&proxy, Mode::Control))])["consoles"];
    assert_eq!(consoles[0].get("refused"), None);
}
