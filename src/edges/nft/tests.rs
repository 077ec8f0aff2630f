use super::*;

/// What `nft -j -n list table inet console_proxy` prints of [`guard`].
const LISTED: &str = include_str!("../../../tests/nft/guard-nftables-1.0.6.json");

fn places(of: &[&str]) -> BTreeSet<SocketAddr> {
    of.iter().map(|place| place.parse().unwrap()).collect()
}

fn guard() -> Guard {
    Guard { serial: PortRange::new(28000, 28999), places: places(&["127.0.0.1:5700", "127.0.0.1:28003", "[::1]:5701"]) }
}

#[test]
fn the_ruleset_replaces_itself_lets_root_begin_connections_and_refuses_every_other_socket() {
    let expected = r#"table inet console_proxy
delete table inet console_proxy
table inet console_proxy {
	set ports4 {
		type ipv4_addr . inet_service
		elements = { 127.0.0.1 . 5700, 127.0.0.1 . 28003 }
	}
	set ports6 {
		type ipv6_addr . inet_service
		elements = { ::1 . 5701 }
	}
	chain refused {
		tcp flags & (syn | ack) == syn counter reject with tcp reset comment "tcp flags & (syn | ack) == syn"
		meta l4proto tcp meta skuid != 0 counter reject with tcp reset comment "meta l4proto tcp meta skuid != 0"
	}
	chain guarded {
		meta skuid 0 accept comment "meta skuid 0"
		oif lo goto refused comment "oif lo"
		ip daddr 127.0.0.0/8 goto refused comment "ip daddr 127.0.0.0/8"
		ip6 daddr ::1 goto refused comment "ip6 daddr ::1"
	}
	chain elsewhere {
		ip daddr . tcp dport @ports4 counter drop comment "ip daddr . tcp dport @ports4"
		tcp dport 28000-28999 counter drop comment "tcp dport 28000-28999"
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iif != lo ip daddr 127.0.0.0/8 goto elsewhere comment "iif != lo ip daddr 127.0.0.0/8"
	}
	chain output {
		type filter hook output priority filter; policy accept;
		ip daddr . tcp dport @ports4 goto guarded comment "ip daddr . tcp dport @ports4"
		ip6 daddr . tcp dport @ports6 goto guarded comment "ip6 daddr . tcp dport @ports6"
		tcp dport 28000-28999 tcp flags & (syn | ack) == syn goto guarded comment "tcp dport 28000-28999 tcp flags & (syn | ack) == syn"
	}
	chain handed_out {
		type filter hook output priority raw; policy accept;
		meta mark 0x1030 tcp flags & (syn | ack) == syn counter reject with tcp reset comment "meta mark 0x1030 tcp flags & (syn | ack) == syn"
	}
}
"#;
    assert_eq!(ruleset(&guard()), expected);
    assert!(!ruleset(&Guard { places: BTreeSet::new(), ..guard() }).contains("elements"));
}

#[test]
fn a_table_as_it_was_loaded_is_the_one_that_should_be_there() {
    assert_eq!(Outline::read(LISTED).unwrap(), Outline::of(&guard()));
    let another = Guard { serial: PortRange::new(28000, 28998), ..guard() };
    assert_ne!(Outline::read(LISTED).unwrap(), Outline::of(&another));
    for of in [
        &["127.0.0.1:5700", "[::1]:5701"][..],
        &["127.0.0.2:5700", "127.0.0.1:28003", "[::1]:5701"],
        &["127.0.0.1:5700", "127.0.0.1:28003", "127.0.0.1:5701"],
    ] {
        assert_ne!(Outline::read(LISTED).unwrap(), Outline::of(&Guard { places: places(of), ..guard() }), "{of:?}");
    }
    assert_eq!(Outline::read(LISTED).unwrap().guard(), Some(guard()));
    let foreign = LISTED.replace("tcp dport @ports4", "something else");
    assert_eq!(Outline::read(&foreign).unwrap().guard(), None);
}

#[test]
fn whatever_somebody_changes_in_the_table_is_seen() {
    let listed: Value = serde_json::from_str(LISTED).unwrap();
    let entries = listed["nftables"].as_array().unwrap();
    let differs = |entries: &[Value]| {
        let text = serde_json::json!({ "nftables": entries }).to_string();
        Outline::read(&text).unwrap() != Outline::of(&guard())
    };
    assert!(!differs(entries));
    // The first two say which version of nft this is, and that there is a table. A chain that others lead to cannot be
    // taken away alone.
    let matters = |entry: &Value| entry.get("chain").is_none_or(|chain| chain.get("hook").is_some());
    for gone in (2..entries.len()).filter(|at| matters(&entries[*at])) {
        let mut left = entries.clone();
        let what = left.remove(gone);
        assert!(differs(&left), "without {what}");
    }
    let rules: Vec<_> = (2..entries.len()).filter(|at| entries[*at].get("rule").is_some()).collect();
    let foreign = serde_json::json!({"rule": {"family": "inet", "table": "console_proxy", "chain": "guarded", "handle": 99, "expr": [{"accept": null}]}});
    for at in rules {
        let mut more = entries.clone();
        more.insert(at, foreign.clone());
        assert!(differs(&more), "a rule of somebody else's at {at}");
    }
    for element in [
        serde_json::json!(5700),
        serde_json::json!({"concat": ["127.0.0.1", 5700, 1]}),
        serde_json::json!({"concat": [{"prefix": {"addr": "127.0.0.0", "len": 8}}, 5700]}),
        serde_json::json!({"elem": {"val": {"concat": ["127.0.0.1", 5700]}, "timeout": 60}}),
        serde_json::json!({"concat": ["::1", 5700]}),
    ] {
        let mut changed = entries.clone();
        let set = changed.iter_mut().find_map(|entry| entry.get_mut("set")).unwrap();
        set["elem"][0] = element.clone();
        assert!(differs(&changed), "{element}");
    }
    for (what, key, value) in
        [("chain", "policy", "drop"), ("chain", "hook", "forward"), ("chain", "type", "nat"), ("set", "name", "others")]
    {
        let mut changed = entries.clone();
        let entry = changed.iter_mut().find_map(|entry| entry.get_mut(what).filter(|of| of.get(key).is_some()));
        entry.unwrap()[key] = value.into();
        assert!(differs(&changed), "{what} {key}");
    }
}

#[test]
fn what_is_no_listing_is_an_error() {
    for text in ["", "{}", "{\"nftables\": 1}"] {
        assert!(Outline::read(text).is_err(), "{text}");
    }
}
