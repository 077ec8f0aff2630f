use super::*;

fn refused(text: &str) -> String {
    Config::parse([("console-proxy.toml", text)]).unwrap_err().to_string()
}

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(Config::parse([("a", "")]).unwrap(), Config::default());
    assert_eq!(Config::default().ports(7), Some((23007, 28007)));
    assert_eq!(Config::default().room(), 1000);
}

/// The file that is installed says every default, commented out; uncommented it must change nothing.
#[test]
fn the_shipped_file_states_every_default_and_no_other() {
    let shipped = include_str!("../../../templates/console-proxy.toml");
    assert_eq!(Config::parse([("shipped", shipped)]).unwrap(), Config::default());
    let uncommented: String = shipped
        .lines()
        .filter_map(|line| {
            if line.starts_with('[') {
                return Some(line.to_owned() + "\n");
            }
            line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#'])).map(|rest| rest.to_owned() + "\n")
        })
        .collect();
    assert_eq!(Config::parse([("shipped", uncommented.as_str())]).unwrap(), Config::default());
    let keys = |table: &toml::Table| {
        table.iter().map(|(k, v)| (k.clone(), v.as_table().map_or(0, toml::Table::len))).collect::<Vec<_>>()
    };
    let stated: toml::Table = toml::from_str(&uncommented).unwrap();
    let expected = [
        ("access", 8),
        ("guard", 1),
        ("guests", 1),
        ("listen", 5),
        ("proxy", 12),
        ("record", 6),
        ("serial", 7),
        ("spice", 2),
        ("tls", 2),
        ("vnc", 1),
        ("web", 2),
    ];
    assert_eq!(keys(&stated), expected.map(|(k, n)| (k.to_owned(), n)));
}

#[test]
fn an_unknown_key_is_refused_with_its_file_line_and_column() {
    let text = refused("[serial]\nadd = \"never\"\naad = 1\n");
    assert!(text.contains("console-proxy.toml") && text.contains("line 3, column 1") && text.contains("aad"), "{text}");
}

#[test]
fn values_of_the_wrong_form_are_refused_by_name() {
    for (text, word) in [
        ("[listen]\nports = \"23000-23999\"\n[serial]\nports = \"23500-24500\"", "overlap"),
        ("[listen]\nports = \"80-90\"", "1024"),
        ("[listen]\naddress = \"everywhere\"", "listen.address"),
        ("[listen]\nhost = \"a/b\"", "listen.host"),
        ("[listen]\nurl = \"http://h/{uuid}/\"", "https://"),
        ("[listen]\nurl = \"https://{uuid}/\"", "https://"),
        ("[listen]\nurl = \"https://h\"", "listen.url \"https://h\" has not {uuid} once"),
        ("[listen]\nurl = \"https://h/{uuid}/{uuid}/\"", "{uuid} once"),
        ("[listen]\nurl = \"https://h/{uuid}\"", "does not end in /"),
        ("[listen]\nurl = \"https://h/{uuid}/?a=/\"", "no name"),
        ("[listen]\nfront = \"yes\"", "front"),
        ("[proxy]\nidle-timeout = \"60\"", "span of time"),
        ("[proxy]\nidle-timeout = \"0s\"", "idle-timeout"),
        ("[proxy]\nmax-frame = 1", "max-frame"),
        ("[proxy]\nstatus = \"all\"", "numbers"),
        ("[guard]\ndisplays = \"yes\"", "displays"),
        ("[access]\nticket-life = \"10m\"", "ticket-life"),
        ("[record]\nkeep-days = 0", "record.keep-days is 0: from 1"),
        ("[record]\nkeep-bytes = 1000", "record.keep-bytes is 1000: from 67108864"),
        ("[record]\nfile-bytes = 99999999999", "record.file-bytes is 99999999999: from 65536 to 1073741824"),
        ("[access]\norigins = [\"null\"]", "null"),
        ("[access]\nembed-origins = [\"https://a; script-src *\"]", "access.embed-origins: \"https://a; script"),
        ("[web]\nfolder = \"web\"", "web.folder is \"web\": an absolute path"),
        ("[web.clients]\nnovnc = \"\"", "web.clients.novnc is \"\": an absolute path"),
        ("[web.clients]\n\"../x\" = \"/usr/share/novnc\"", "web.clients: \"../x\" can be no part"),
        ("[web.clients]\n\".x\" = \"/usr/share/novnc\"", "web.clients: \".x\" can be no part"),
        ("[serial]\nadd = \"sometimes\"", "sometimes"),
        ("[serial]\npause = \"1s\"", "serial.pause is 1000 ms: at most 100 ms"),
        ("[serial", "line 1"),
    ] {
        assert!(refused(text).contains(word), "{text}: {}", refused(text));
    }
}

#[test]
fn a_later_file_changes_its_own_keys_alone() {
    let config = Config::parse([
        ("a", "[serial]\nadd = \"always\"\nports = \"29000-29100\""),
        ("b", "[serial]\nadd = \"never\""),
    ])
    .unwrap();
    assert_eq!(config.serial.add, SerialAdd::Never);
    assert_eq!(config.serial.ports, PortRange::new(29000, 29100));
}

#[test]
fn a_program_of_this_host_finds_a_port_wherever_it_listens() {
    for (address, expected) in [
        ("", "127.0.0.1:23001"),
        ("0.0.0.0", "127.0.0.1:23001"),
        ("::", "[::1]:23001"),
        ("192.0.2.1", "192.0.2.1:23001"),
        ("fd00::1", "[fd00::1]:23001"),
    ] {
        let listen = Listen { address: address.into(), ..Listen::default() };
        assert_eq!(listen.from_here(23001).to_string(), expected);
    }
}

#[test]
fn a_guests_url_is_its_port_unless_a_reverse_proxy_has_another() {
    let uuid = "48e17e85-1ca1-4573-ba34-f18aba8934e6".parse().unwrap();
    assert_eq!(Listen::default().browser_url("h.example", 23007, &uuid), "https://h.example:23007/");
    let config = Config::parse([("a", "[listen]\nurl = \"https://c.example:8443/console/{uuid}/\"")]).unwrap();
    let expected = "https://c.example:8443/console/48e17e85-1ca1-4573-ba34-f18aba8934e6/";
    assert_eq!(config.listen.browser_url("h.example", 23007, &uuid), expected);
}

#[test]
fn what_is_recorded_is_said_by_patterns_of_guests_and_of_their_text_consoles() {
    assert!(!Record::default().wants("g1", Console::Serial(0)), "nothing unless it is asked for");
    let record = Record { guests: vec!["db-*".into(), "g1".into()], ..Record::default() };
    for (guest, console, wanted) in [
        ("db-7", Console::Serial(0), true),
        ("g1", Console::Console(3), true),
        ("g1", Console::Vnc, false),
        ("g12", Console::Serial(0), false),
    ] {
        assert_eq!(record.wants(guest, console), wanted, "{guest} {console}");
    }
    let record = Record { consoles: vec!["serial/*".into()], ..record };
    assert!(record.wants("g1", Console::Serial(7)) && !record.wants("g1", Console::Console(0)));
}

#[test]
fn patterns_match_whole_names() {
    let guests = Guests { skip: vec!["win-*".into(), "g?".into(), "a*b*c".into()] };
    for name in ["win-", "win-10", "g1", "abc", "aXbYbZc"] {
        assert!(guests.skips(name), "{name}");
    }
    for name in ["xwin-1", "g", "g12", "ab", "abcd", ""] {
        assert!(!guests.skips(name), "{name}");
    }
}
