//! The few settings of libvirt's qemu.conf that change how displays speak. Pure: text in.

/// Settings that matter here; absent ones have libvirt's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuConf {
    /// VNC speaks TLS, on its websocket too.
    pub vnc_tls: bool,
    /// VNC asks clients for a certificate.
    pub vnc_tls_verify: bool,
    /// Where VNC's certificates are.
    pub vnc_cert_folder: String,
    /// Where SPICE's certificates are: the first of these folders that there is.
    pub spice_cert_folders: Vec<String>,
    /// Where displays listen that name no address.
    pub vnc_listen: String,
    /// Which displays ask for something (a password, SASL, a certificate) where a guest's definition has no password.
    pub asks: Asks,
}

/// Which kinds of displays ask their clients for a password or a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// VNC.
    pub vnc: bool,
    /// SPICE.
    pub spice: bool,
}

impl QemuConf {
    /// Reads `key = value` lines; `#` begins a comment line. A later line wins, as in libvirt.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let lines = text.lines().rev().filter_map(|line| line.trim().split_once('='));
            let mut found = lines
                .filter(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().trim_matches('"').to_owned());
            found.next()
        };
        let on = |key: &str| value(key).is_some_and(|value| value == "1");
        let default_folder = value("default_tls_x509_cert_dir");
        let asks = |display: &str| value(&format!("{display}_password")).is_some() || on(&format!("{display}_sasl"));
        let vnc_tls_verify =
            value("vnc_tls_x509_verify").map_or_else(|| on("default_tls_x509_verify"), |value| value == "1");
        Self {
            asks: Asks { vnc: asks("vnc") || (on("vnc_tls") && vnc_tls_verify), spice: asks("spice") },
            vnc_tls_verify,
            vnc_listen: value("vnc_listen").unwrap_or_else(|| "127.0.0.1".to_owned()),
            vnc_tls: on("vnc_tls"),
            spice_cert_folders: value("spice_tls_x509_cert_dir").map_or_else(
                || {
                    let default = default_folder.clone().unwrap_or_else(|| "/etc/pki/qemu".to_owned());
                    vec!["/etc/pki/libvirt-spice".to_owned(), default]
                },
                |own| vec![own],
            ),
            vnc_cert_folder: value("vnc_tls_x509_cert_dir")
                .or(default_folder)
                .unwrap_or_else(|| "/etc/pki/libvirt-vnc".to_owned()),
        }
    }
}

/// The certificates of a PEM text and nothing else: others may read what they are copied to, and a file may have a key
/// beside them.
#[must_use]
pub fn certificates(pem: &str) -> String {
    const BEGINS: &str = "-----BEGIN CERTIFICATE-----";
    const ENDS: &str = "-----END CERTIFICATE-----";
    let blocks = pem.split(BEGINS).skip(1).filter_map(|block| Some(block.split_once(ENDS)?.0));
    blocks.map(|block| format!("{BEGINS}{block}{ENDS}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_pem_file_the_certificates_are_taken_and_no_key() {
        let block = |what: &str, text: &str| format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n");
        let (one, two) = (block("CERTIFICATE", "one"), block("CERTIFICATE", "two"));
        let file =
            ["words\n", &one, &block("PRIVATE KEY", "secret"), &two, "-----BEGIN CERTIFICATE-----\ncut"].concat();
        assert_eq!(certificates(&file), one + &two);
        assert_eq!(certificates("no PEM"), "");
    }

    #[test]
    fn comments_do_not_count_and_folders_follow_libvirts_order() {
        let conf = QemuConf::parse("#vnc_tls = 1\n");
        let defaults = QemuConf {
            vnc_tls: false,
            vnc_tls_verify: false,
            vnc_cert_folder: "/etc/pki/libvirt-vnc".into(),
            spice_cert_folders: vec!["/etc/pki/libvirt-spice".into(), "/etc/pki/qemu".into()],
            vnc_listen: "127.0.0.1".into(),
            asks: Asks::default(),
        };
        assert_eq!(conf, defaults);
        let conf = QemuConf::parse(
            " vnc_tls = 1\ndefault_tls_x509_cert_dir = \"/etc/pki/qemu\"\nvnc_tls_x509_verify=1\nvnc_listen = \"0.0.0.0\"\n",
        );
        let changed = QemuConf {
            vnc_tls: true,
            vnc_tls_verify: true,
            vnc_cert_folder: "/etc/pki/qemu".into(),
            spice_cert_folders: vec!["/etc/pki/libvirt-spice".into(), "/etc/pki/qemu".into()],
            vnc_listen: "0.0.0.0".into(),
            asks: Asks { vnc: true, spice: false },
        };
        assert_eq!(conf, changed);
        for (text, vnc, spice) in [
            ("vnc_password = \"XYZ12345\"", true, false),
            ("vnc_sasl = 1", true, false),
            ("vnc_tls = 1\nspice_password = \"\"", false, true),
            ("spice_sasl=1\nvnc_tls_x509_verify = 1", false, true),
        ] {
            assert_eq!(QemuConf::parse(text).asks, Asks { vnc, spice }, "{text}");
        }
        let folders = |text| QemuConf::parse(text).spice_cert_folders;
        assert_eq!(folders("default_tls_x509_cert_dir = \"/x\""), ["/etc/pki/libvirt-spice", "/x"]);
        assert_eq!(folders("default_tls_x509_cert_dir = \"/x\"\nspice_tls_x509_cert_dir = \"/s\""), ["/s"]);
    }
}
