//! Users of the host log in with their passwords; what they may, and how it is taken away. Who asks PAM is played here.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use console_proxy::rules::auth::{Answer, INTRODUCTION, Question, Request, VERSION, Verdict, introduced};
use console_proxy::rules::rights::Allow;

use crate::backends::Backend;
use crate::client::Answer as Reply;
use crate::client::headers;
use crate::host::{GUEST, Host, Proxy, until};

/// What is answered about user `slow` comes after so long.
const SLOW: Duration = Duration::from_secs(2);

/// A user's groups, or what is answered about them whatever is asked.
type User = Result<Vec<&'static str>, Verdict>;

/// The host's users, and what was asked about them.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<BTreeMap<&'static str, User>>>, Arc<Mutex<Vec<String>>>);

impl Users {
    /// Answers in the place of console-proxy-auth: everybody's password is `right`.
    fn on(host: &Host) -> Self {
        let path = host.path("run/console-proxy/auth/socket");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        let users = Self::default();
        let of_thread = users.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, users) = (stream.unwrap(), of_thread.clone());
                std::thread::spawn(move || {
                    let mut said = [0; INTRODUCTION];
                    stream.read_exact(&mut said).unwrap();
                    assert_eq!(introduced(&said).unwrap().as_str(), GUEST);
                    let mut line = String::new();
                    BufReader::new(&stream).read_line(&mut line).unwrap();
                    let request: Request = serde_json::from_str(&line).unwrap();
                    assert_eq!(request.guest.as_str(), GUEST);
                    let answer = users.answer(&request);
                    // A wrong password takes PAM its time.
                    if request.user == "slow" {
                        std::thread::sleep(SLOW);
                    }
                    if let Some(answer) = answer {
                        let mut text = serde_json::to_vec(&answer).unwrap();
                        text.push(b'\n');
                        stream.write_all(&text).unwrap();
                    }
                    // A module that hangs: neither an answer nor an end.
                    if request.user == "hung" && matches!(request.question, Question::Still { .. }) {
                        std::thread::sleep(Duration::from_secs(60));
                    }
                });
            }
        });
        users
    }

    fn set(&self, user: &'static str, groups: &[&'static str]) {
        self.0.lock().unwrap().insert(user, Ok(groups.to_vec()));
    }

    /// What is answered about a user, whatever is asked; `Denied`: nothing, the program died.
    fn set_verdict(&self, user: &'static str, verdict: Verdict) {
        self.0.lock().unwrap().insert(user, Err(verdict));
    }

    fn asked(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }

    fn answer(&self, request: &Request) -> Option<Answer> {
        let users = self.0.lock().unwrap();
        let known = users.get(request.user.as_str());
        let (what, is_right) = match &request.question {
            Question::Password { password, from } => (format!("password from {from}"), password == "right"),
            Question::Still { from, local: true } => (format!("still {from}"), true),
            Question::Still { .. } => panic!("everybody here is a user of the host's own"),
        };
        self.1.lock().unwrap().push(format!("{}: {what}", request.user));
        Some(match known {
            _ if request.user == "hung" && matches!(request.question, Question::Still { .. }) => return None,
            Some(Err(Verdict::Denied)) => return None,
            Some(Err(verdict)) => Answer { retry_after: 7, ..Answer::no(*verdict, "for a reason") },
            Some(Ok(groups)) if is_right => Answer {
                version: VERSION,
                verdict: Verdict::Right,
                user: request.user.clone(),
                groups: groups.iter().map(|group| (*group).to_owned()).collect(),
                local: true,
                words: String::new(),
                retry_after: 0,
            },
            _ => Answer::no(Verdict::Wrong, ""),
        })
    }
}

fn proxy_with(config: &str) -> (Proxy, Users) {
    let echo = Backend::echo();
    let host = Host::new().raw("vnc", &echo).raw("serial/0", &echo).config(config);
    let users = Users::on(&host);
    (Proxy::activated(host), users)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn log_in(proxy: &Proxy, user: &str, password: &str) -> Reply {
    proxy.ask("POST", "/api/session", &[("Authorization", &basic(user, password)), ("Origin", &own(proxy))])
}

fn own(proxy: &Proxy) -> String {
    format!("https://{}", proxy.address)
}

/// What a logged in browser sends along.
fn cookie(proxy: &Proxy, user: &str) -> [(&'static str, String); 3] {
    log_in(proxy, user, "right").session(&own(proxy))
}

const MINE: &str = "[proxy]\nidle-timeout = \"60s\"\n";

#[test]
fn a_member_of_libvirt_logs_in_and_their_session_opens_every_console() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["users", "libvirt"]);
    let bought = log_in(&proxy, "ann", "right");
    assert_eq!((bought.status, bought.header("content-type")), (200, "application/json"));
    assert!(bought.header("set-cookie").starts_with("__Host-console-proxy-b50bdc9f="), "{bought:?}");
    let ann = bought.session(&own(&proxy));
    for console in ["/vnc", "/serial/0"] {
        proxy.try_open(console, &headers(&ann)).unwrap().echoes("hello");
    }
    let told: serde_json::Value = serde_json::from_str(&proxy.ask("GET", "/api/guest", &headers(&ann)).body).unwrap();
    assert_eq!(
        (&told["person"], &told["mode"], &told["session"]["by"]),
        (&"ann".into(), &"control".into(), &"password".into())
    );
    assert_eq!(users.asked(), ["ann: password from 127.0.0.1"], "once, and not again at once");
}

#[test]
fn a_program_sends_a_password_with_each_request_and_needs_no_session() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    let mut ws = proxy.try_open("/serial/0", &[("Authorization", &basic("ann", "right"))]).unwrap();
    ws.echoes("without an Origin, without a cookie");
    assert_eq!(proxy.refusal("/serial/0", &[("Authorization", &basic("ann", "wrong"))]).status, 401);
    let foreign = [("Authorization", basic("ann", "right")), ("Origin", "https://evil.example".to_owned())];
    assert_eq!(proxy.refusal("/serial/0", &headers(&foreign)).status, 403);
    assert_eq!(users.asked().len(), 2, "another site's page cannot try passwords");
}

#[test]
fn the_audit_has_each_login_and_log_out_and_who_opened_what_by_a_password() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    let ann = cookie(&proxy, "ann");
    proxy.until_logged("login to g1 from 127.0.0.1: ann (password) event=\"login\" guest=b50bdc9f-");
    proxy.try_open("/vnc", &headers(&ann)).unwrap().echoes("hello");
    proxy.until_logged("opened vnc of g1 from 127.0.0.1: ann (password), control, ");
    proxy.until_logged("auth=\"password\"");
    assert_eq!(proxy.ask("POST", "/api/logout", &headers(&ann)).status, 204);
    proxy.until_logged("logout from g1 from 127.0.0.1: ann (password) event=\"logout\" guest=b50bdc9f-");
    let bearer = format!("Bearer {}", proxy.ticket_with(|claims| claims.jti = "j7".into()));
    proxy.ask("POST", "/api/session", &[("Authorization", &bearer)]);
    proxy.until_logged("login to g1 from 127.0.0.1: ann (ticket host/j7)");
    proxy.ask("POST", "/api/session", &[("Authorization", &bearer)]);
    proxy.until_logged("refused 127.0.0.1: ticket: this ticket has bought its session already");
}

#[test]
fn a_refused_password_is_told_without_what_was_typed_for_the_name() {
    let (proxy, users) = proxy_with(MINE);
    users.set("bob", &["users"]);
    users.set_verdict("fast", Verdict::Limited);
    for name in ["ann", "hunter2", "a\nrefused 192.0.2.9: password: x", "refused 192.0.2.9: password: x"] {
        log_in(&proxy, name, "wrong");
    }
    proxy.until_logged("refused 127.0.0.1: password: the user or the password is wrong event=\"refused\"");
    log_in(&proxy, "fast", "wrong");
    proxy.until_logged("refused 127.0.0.1: password: for a reason");
    // Whose password was right is known.
    log_in(&proxy, "bob", "right");
    proxy.until_logged("refused 127.0.0.1: right: bob has no right to this guest (bob)");
    let log = proxy.log();
    assert_eq!(log.matches("event=\"refused\"").count(), 6, "{log}");
    assert!(!log.contains("hunter2") && !log.contains("192.0.2.9") && !log.contains("wrong\","), "{log}");
}

#[test]
fn who_hangs_up_while_a_password_is_checked_is_told_of_and_starts_no_more_checks_than_others() {
    let (proxy, users) = proxy_with(MINE);
    let began = Instant::now();
    for _ in 0..6 {
        let mut client = proxy.client();
        let request = client.request(
            "POST",
            "/api/session",
            &[],
            &[("Host", "localhost"), ("Authorization", &basic("slow", "wrong"))],
        );
        client.send(request.as_bytes());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(began.elapsed() < SLOW, "nobody was answered yet");
    assert_eq!(users.asked().len(), 2, "two of an address at a time, whether they still wait or not");
    until("both to be told of", || proxy.log().matches("refused 127.0.0.1: password: ").count() == 2);
    users.set("slow", &["libvirt"]);
    assert_eq!(log_in(&proxy, "slow", "right").status, 200, "their turns are free again");
    assert_eq!(users.asked().len(), 3, "who hung up before it was their turn has tried nothing");
    assert_eq!(proxy.log().matches("event=\"refused\"").count(), 2);
}

#[test]
fn each_answer_of_the_host_has_its_status_and_wrong_user_and_wrong_password_are_one() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    users.set("bob", &["users"]);
    for (user, verdict) in
        [("old", Verdict::Barred), ("fast", Verdict::Limited), ("far", Verdict::Unknown), ("dead", Verdict::Denied)]
    {
        users.set_verdict(user, verdict);
    }
    let wrong = (401, "the user or the password is wrong\n".to_owned());
    let reply = |user: &str, password: &str| {
        let reply = log_in(&proxy, user, password);
        assert_eq!(reply.header("set-cookie"), "");
        (reply.status, reply.body)
    };
    assert_eq!(reply("ann", "nonsense"), wrong);
    assert_eq!(reply("nobody", "right"), wrong);
    assert_eq!(reply("bob", "right"), (403, "bob has no right to this guest\n".to_owned()));
    assert_eq!(reply("old", "right"), (403, "for a reason\n".to_owned()));
    assert_eq!(reply("fast", "right"), (429, "for a reason\n".to_owned()));
    assert_eq!(log_in(&proxy, "fast", "right").header("retry-after"), "7");
    assert_eq!(reply("far", "right").0, 503);
    assert_eq!(reply("dead", "right").0, 503);
    let asked = users.asked().len();
    for (user, password) in [("", "right"), ("a\nb", "right"), ("a\0", "right"), ("ann", ""), ("ann", "a\0")] {
        assert_eq!(reply(user, password), wrong, "{user:?} {password:?}");
    }
    assert_eq!(reply(&"a".repeat(10_000), "right"), wrong);
    assert_eq!(reply("ann", &"a".repeat(10_000)), wrong);
    assert_eq!(users.asked().len(), asked, "what can be nobody's is not asked about");
    for bad in ["Basic", "Basic ", "Basic !!", "Basic YW5u", "Basic /w=="] {
        let status = proxy.ask("POST", "/api/session", &[("Authorization", bad)]).status;
        assert!(matches!(status, 400 | 401), "{bad}: {status}");
    }
}

#[test]
fn a_thousand_refused_passwords_leave_memory_flat() {
    let (proxy, users) = proxy_with(MINE);
    users.set_verdict("fast", Verdict::Limited);
    let authorization = basic("fast", "wrong");
    let refused = |count: usize| {
        for _ in 0..count {
            assert_eq!(proxy.ask("GET", "/api/guest", &[("Authorization", &authorization)]).status, 429);
        }
    };
    refused(200);
    let before = proxy.memory();
    refused(1000);
    assert!(proxy.memory() < before + 1024, "{} KiB, before {before} KiB", proxy.memory());
}

#[test]
fn a_page_is_told_that_passwords_are_taken_and_only_where_they_are() {
    let (proxy, users) = proxy_with(MINE);
    let refused = proxy.ask("GET", "/api/guest", &[]);
    assert_eq!((refused.status, refused.header("console-proxy-login")), (401, "password"));
    users.set("bob", &["users"]);
    let refused = log_in(&proxy, "bob", "right");
    assert_eq!((refused.status, refused.header("console-proxy-login")), (403, "password"), "somebody else might");
    let (proxy, users) = proxy_with("[access]\npasswords = false\n");
    users.set("ann", &["libvirt"]);
    let refused = proxy.ask("GET", "/api/guest", &[]);
    assert_eq!((refused.status, refused.header("console-proxy-login")), (401, ""));
    let refused = log_in(&proxy, "ann", "right");
    assert_eq!((refused.status, refused.body.as_str()), (401, "passwords are not taken here: a ticket is needed\n"));
    assert_eq!(users.asked().len(), 0);
}

#[test]
fn the_hosts_rules_say_which_console_in_which_mode_and_the_guests_own_settings_narrow_them() {
    let rules = r#"[access]
rights = [{ users = ["ann"], guests = ["g*"] }, { groups = ["ops"], consoles = ["serial/*"], mode = "view" }, { users = ["eve"], guests = ["other"] }]
"#;
    let echo = Backend::echo();
    let host = Host::new().raw("vnc", &echo).raw("serial/0", &echo).config(rules);
    let users = Users::on(&host);
    for (user, groups) in [("ann", &[][..]), ("bob", &["ops"]), ("eve", &["libvirt"])] {
        users.set(user, groups);
    }
    let mut proxy = Proxy::activated(host);
    let status = |proxy: &Proxy, user: &str, console: &str| {
        let authorization = basic(user, "right");
        let headers = [("Authorization", authorization.as_str())];
        proxy.try_open(console, &headers).map_or_else(|refusal| refusal.status, |_| 101)
    };
    assert_eq!((status(&proxy, "ann", "/vnc"), status(&proxy, "ann", "/serial/0")), (101, 101));
    assert_eq!((status(&proxy, "bob", "/vnc"), status(&proxy, "bob", "/serial/0")), (403, 101));
    assert_eq!(
        status(&proxy, "eve", "/serial/0"),
        403,
        "the group libvirt has no right where a configuration has rules"
    );
    let authorization = basic("bob", "right");
    let told = proxy.ask("GET", "/api/guest", &[("Authorization", &authorization)]).body;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let consoles: Vec<_> = told["consoles"].as_array().unwrap().iter().map(|c| (&c["console"], &c["mode"])).collect();
    assert_eq!(consoles, [(&"serial/0".into(), &"view".into())]);

    proxy.host.route.allow =
        Some(vec![Allow::from_attributes([("users", "ann"), ("consoles", "serial/0"), ("mode", "view")]).unwrap()]);
    proxy.write_route();
    assert_eq!(
        (status(&proxy, "ann", "/vnc"), status(&proxy, "ann", "/serial/0"), status(&proxy, "bob", "/serial/0")),
        (403, 101, 403)
    );
    let ticket = proxy.ask("GET", &format!("/api/guest?token={}", proxy.ticket()), &[]);
    assert_eq!(ticket.status, 200);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ticket.body).unwrap()["consoles"], serde_json::json!([]));
    let refused = proxy.refusal(&format!("/vnc?token={}", proxy.ticket()), &[]);
    assert_eq!((refused.status, refused.body.as_str()), (403, "the guest's own settings keep vnc from ann\n"));
    proxy.write("etc/console-proxy/console-proxy.toml", &format!("{rules}guest-settings = \"ignore\"\n"));
    until("the settings to be ignored", || status(&proxy, "ann", "/vnc") == 101);
}

#[test]
fn a_group_that_is_lost_ends_open_consoles_and_the_session() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    users.set("bob", &["libvirt"]);
    let (ann, bob) = (cookie(&proxy, "ann"), cookie(&proxy, "bob"));
    let mut lost = proxy.try_open("/vnc", &headers(&ann)).unwrap();
    let mut program = proxy.try_open("/vnc", &[("Authorization", &basic("ann", "right"))]).unwrap();
    let mut kept = proxy.try_open("/vnc", &headers(&bob)).unwrap();
    users.set("ann", &["users"]);
    // As `publish` has it look; by itself it would look within 20 s.
    proxy.have_it_look();
    for ws in [&mut lost, &mut program] {
        assert_eq!(ws.closed(), (4403, "the right to vnc was taken away".to_owned()));
    }
    kept.echoes("not mine");
    let asked = users.asked();
    assert!(asked.contains(&"ann: still 127.0.0.1".to_owned()), "rules about networks can be asked: {asked:?}");
    assert_eq!(proxy.refusal("/vnc", &headers(&ann)).status, 403);
    assert_eq!(proxy.ask("GET", "/api/guest", &headers(&ann)).status, 403);
    assert_eq!(proxy.ask("POST", "/api/logout", &headers(&ann)).status, 204, "out of it anybody may");
    assert_eq!(proxy.ask("GET", "/api/guest", &headers(&ann)).status, 401);
}

#[test]
fn a_route_that_cannot_be_read_keeps_no_lost_right_alive() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    users.set("bob", &["libvirt"]);
    let (ann, bob) = (cookie(&proxy, "ann"), cookie(&proxy, "bob"));
    let mut lost = proxy.try_open("/vnc", &headers(&ann)).unwrap();
    let mut kept = proxy.try_open("/vnc", &headers(&bob)).unwrap();
    fs::write(proxy.host.route_file(), "nonsense").unwrap();
    users.set("ann", &["users"]);
    proxy.have_it_look();
    assert_eq!(lost.closed(), (4403, "the right to vnc was taken away".to_owned()));
    kept.echoes("by what the route said last");
    proxy.until_logged("rights are looked at by what the guest's route said last");
    assert_eq!(proxy.refusal("/vnc", &headers(&bob)).status, 502, "nobody enters anew");
}

#[test]
fn while_nobody_can_say_what_was_revoked_nobody_enters_and_nobody_is_blamed_or_loses_a_session() {
    let (proxy, users) = proxy_with("[proxy]\nidle-timeout = \"1s\"\n");
    users.set("ann", &["libvirt"]);
    let ann = cookie(&proxy, "ann");
    // One that has read the list before goes on by it.
    until("the proxy to have ended", || !proxy.is_running());
    let orders = "var/lib/console-proxy/revoked/orders.json";
    proxy.host.write(orders, "nonsense");
    let bearer = format!("Bearer {}", proxy.ticket());
    let mine = headers(&ann);
    for headers in [&mine[..], &[("Authorization", bearer.as_str())], &[("Authorization", &basic("ann", "right"))]] {
        let refused = proxy.ask("GET", "/api/guest", headers);
        assert!(refused.status == 503 && refused.body.contains("what was revoked"), "{refused:?}");
    }
    assert_eq!(log_in(&proxy, "ann", "right").status, 503);
    assert!(!proxy.log().contains("event=\"refused\""), "{}", proxy.log());
    fs::remove_file(proxy.host.path(orders)).unwrap();
    assert_eq!(proxy.ask("GET", "/api/guest", &mine).status, 200, "the session is still there");
}

#[test]
fn a_user_about_whom_nobody_answers_keeps_no_other_who_lost_their_right() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    users.set("hung", &["libvirt"]);
    let (hung, ann) = (cookie(&proxy, "hung"), cookie(&proxy, "ann"));
    let mut first = proxy.try_open("/vnc", &headers(&hung)).unwrap();
    let mut lost = proxy.try_open("/vnc", &headers(&ann)).unwrap();
    users.set("ann", &[]);
    proxy.have_it_look();
    assert_eq!(lost.closed().0, 4403);
    first.echoes("nobody has said anything against it yet");
    // While that look still waits for an answer about the one, an order about another counts at once.
    users.set("bob", &["libvirt"]);
    let bob = cookie(&proxy, "bob");
    let mut kicked = proxy.try_open("/vnc", &headers(&bob)).unwrap();
    let begun = Instant::now();
    proxy.run(&["kick", "g1", "--person", "bob"]);
    while !proxy.log().contains("the administrator ended the session") {
        assert!(begun.elapsed() < Duration::from_secs(10), "the look that waits takes longer");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(kicked.closed().0, 4401);
    first.echoes("nor now");
}

#[test]
fn without_a_word_of_publish_a_lost_right_ends_consoles_within_a_minute() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    let ann = cookie(&proxy, "ann");
    let mut ws = proxy.try_open("/vnc", &headers(&ann)).unwrap();
    users.set_verdict("ann", Verdict::Barred);
    let begun = Instant::now();
    while !proxy.log().contains("left vnc") {
        assert!(begun.elapsed() < Duration::from_secs(60), "a minute has gone by");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ws.closed(), (4403, "for a reason".to_owned()));
    let refused = proxy.refusal("/vnc", &headers(&ann));
    assert_eq!(refused.status, 401, "the session itself has ended: {refused:?}");
}

#[test]
fn a_directory_that_is_down_for_a_moment_ends_nothing() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    let ann = cookie(&proxy, "ann");
    let mut ws = proxy.try_open("/vnc", &headers(&ann)).unwrap();
    users.set_verdict("ann", Verdict::Unknown);
    let asked = users.asked().len();
    proxy.have_it_look();
    until("it to be asked", || users.asked().len() > asked);
    ws.echoes("still here");
    assert!(proxy.try_open("/serial/0", &headers(&ann)).is_ok(), "what was known counts for a while");
}

#[test]
fn a_rule_that_is_taken_away_ends_what_it_gave_and_a_rule_for_looking_on_leaves_no_keyboard() {
    let rules = |mode: &str| format!("[access]\nrights = [{{ users = [\"ann\"], mode = \"{mode}\" }}]\n");
    let (proxy, users) = proxy_with(&rules("control"));
    users.set("ann", &[]);
    let ann = cookie(&proxy, "ann");
    let mut ws = proxy.try_open("/serial/0", &headers(&ann)).unwrap();
    proxy.write("etc/console-proxy/console-proxy.toml", &rules("view"));
    proxy.have_it_look();
    assert_eq!(ws.closed(), (4403, "the right to type at serial/0 was taken away".to_owned()));
    let mut ws = proxy.try_open("/serial/0", &headers(&ann)).unwrap();
    proxy.write("etc/console-proxy/console-proxy.toml", "[access]\nrights = [{ users = [\"bob\"] }]\n");
    proxy.have_it_look();
    assert_eq!(ws.closed(), (4403, "the right to serial/0 was taken away".to_owned()));
}

#[test]
fn an_issuer_that_has_gone_ends_what_its_tickets_opened() {
    let (proxy, _) = proxy_with(MINE);
    let mut ticket = proxy.open("/vnc");
    let bought = proxy.ask("POST", "/api/session", &[("Authorization", &format!("Bearer {}", proxy.ticket()))]);
    let session = bought.session(&own(&proxy));
    let mut by_session = proxy.try_open("/vnc", &headers(&session)).unwrap();
    fs::remove_file(proxy.path("etc/console-proxy/issuers.d/host.toml")).unwrap();
    proxy.have_it_look();
    for ws in [&mut ticket, &mut by_session] {
        assert_eq!(ws.closed(), (4403, "the right to vnc was taken away".to_owned()));
    }
    assert_eq!(proxy.refusal("/vnc", &headers(&session)).status, 403);
}

#[test]
fn kick_ends_what_a_person_has_open_at_once_and_lets_them_come_back() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    users.set("bob", &["libvirt"]);
    let (ann, bob) = (cookie(&proxy, "ann"), cookie(&proxy, "bob"));
    let mut lost = proxy.try_open("/vnc", &headers(&ann)).unwrap();
    let mut program = proxy.try_open("/vnc", &[("Authorization", &basic("ann", "right"))]).unwrap();
    let mut kept = proxy.try_open("/vnc", &headers(&bob)).unwrap();
    let out = proxy.run(&["kick", "g1", "--person", "ann"]);
    assert!(out.contains("g1: ended what ann had (vnc)"), "{out}");
    for ws in [&mut lost, &mut program] {
        assert_eq!(ws.closed(), (4401, "the administrator ended the session".to_owned()));
    }
    kept.echoes("not mine");
    let refused = proxy.refusal("/vnc", &headers(&ann));
    assert_eq!((refused.status, refused.body.as_str()), (401, "the administrator ended the session\n"));
    let again = cookie(&proxy, "ann");
    assert!(proxy.try_open("/vnc", &headers(&again)).is_ok());
    // Who was kicked out is there until their last frame is out.
    drop((lost, program));
    let mut rows = Vec::new();
    until("the two that are left to be shown", || {
        let shown: serde_json::Value = serde_json::from_str(&proxy.run(&["sessions", "--json"])).unwrap();
        rows = shown["sessions"].as_array().unwrap().iter().map(ToString::to_string).collect();
        rows.len() == 2
    });
    assert!(rows[0].contains("\"person\":\"ann\"") && rows[0].contains("\"how\":\"password\""), "{rows:?}");
    let bobs: serde_json::Value = serde_json::from_str(&rows[1]).unwrap();
    assert_eq!((&bobs["person"], &bobs["consoles"]), (&"bob".into(), &serde_json::json!(["vnc"])));
    proxy.run(&["kick", "g1", "--session", &bobs["session"].as_str().unwrap()[..8]]);
    assert_eq!(kept.closed().0, 4401);
    assert!(proxy.try_open("/vnc", &headers(&again)).is_ok());
}

#[test]
fn revoke_ends_a_ticket_and_what_it_bought_also_for_a_proxy_that_starts_later() {
    let (proxy, _) = proxy_with("[proxy]\nidle-timeout = \"1s\"\n");
    let (token, other) = (proxy.ticket(), proxy.ticket());
    let jti = jti(&token);
    let bought = proxy.ask("POST", "/api/session", &[("Authorization", &format!("Bearer {token}"))]);
    let session = bought.session(&own(&proxy));
    let mut open = [
        proxy.try_open(&format!("/vnc?token={token}"), &[]).unwrap(),
        proxy.try_open("/vnc", &headers(&session)).unwrap(),
    ];
    proxy.run(&["revoke", "--ticket", &format!("host/{jti}")]);
    for ws in &mut open {
        assert_eq!(ws.closed(), (4401, "the ticket was revoked".to_owned()));
    }
    let starts = proxy.starts();
    until("the proxy to have ended", || !proxy.is_running());
    for headers in [&headers(&session)[..], &[]] {
        let refused = proxy.refusal(
            &format!("/vnc{}", if headers.is_empty() { format!("?token={token}") } else { String::new() }),
            headers,
        );
        assert_eq!((refused.status, refused.body.as_str()), (401, "the ticket was revoked\n"));
    }
    assert!(proxy.starts() > starts);
    assert!(proxy.try_open(&format!("/vnc?token={other}"), &[]).is_ok());
}

#[test]
fn revoke_ends_everything_that_a_person_has() {
    let (proxy, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    let ann = cookie(&proxy, "ann");
    let token = proxy.ticket();
    let mut open = [
        proxy.try_open("/vnc", &headers(&ann)).unwrap(),
        proxy.try_open(&format!("/vnc?token={token}"), &[]).unwrap(),
        proxy.try_open("/vnc", &[("Authorization", &basic("ann", "right"))]).unwrap(),
    ];
    let out = proxy.run(&["revoke", "--person", "ann"]);
    assert_eq!(out.lines().count(), 3, "{out}");
    for ws in &mut open {
        assert_eq!(ws.closed(), (4401, "what this person had was revoked".to_owned()));
    }
    assert_eq!(proxy.refusal(&format!("/vnc?token={token}"), &[]).status, 401);
    assert_eq!(proxy.refusal("/vnc", &headers(&ann)).status, 401);
    drop(open);
    until("nobody to be shown", || proxy.run(&["sessions"]).contains("nobody has a session"));
    let again = cookie(&proxy, "ann");
    let mut ws = proxy.try_open("/vnc", &headers(&again)).unwrap();
    ws.echoes("the right itself is the configuration's");
    // At three in the morning, with somebody halfway through an edit and another guest's route damaged.
    proxy.write("etc/console-proxy/console-proxy.toml", "[access\n");
    proxy.write("run/console-proxy/guests/c50bdc9f-490b-4b9b-8641-7573c0eba77c/route.toml", "nonsense");
    proxy.run(&["revoke", "--person", "ann"]);
    assert_eq!(ws.closed().0, 4401);
}

#[test]
fn a_cookie_of_another_guest_is_none_of_this_one() {
    let (one, users) = proxy_with(MINE);
    users.set("ann", &["libvirt"]);
    let (other, _) = proxy_with(MINE);
    let session = cookie(&one, "ann");
    let refused = other.ask("GET", "/api/guest", &headers(&session)[..2]);
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (401, "the session has ended: get another ticket, or log in again\n")
    );
}

fn jti(token: &str) -> String {
    let payload = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["jti"].as_str().unwrap().to_owned()
}
