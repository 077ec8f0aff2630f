//! The packages, as `make deb rpm` left them. Run by `make e2e`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

fn deb() -> PathBuf {
    package("debian", concat!("console-proxy_", env!("CARGO_PKG_VERSION"), "-1_"))
}

fn rpm() -> PathBuf {
    package("generate-rpm", concat!("console-proxy-", env!("CARGO_PKG_VERSION"), "-1."))
}

/// The package of this version; its name ends with the machine's architecture.
fn package(folder: &str, begins: &str) -> PathBuf {
    let files = std::fs::read_dir(target().join(folder)).expect("`make deb rpm` makes the packages");
    let mut paths = files.map(|file| file.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(begins);
    paths.find(named).expect("`make deb rpm` makes the packages")
}

/// Runs a program and returns what it printed; whether it may fail is the caller's to say.
fn run(program: &str, arguments: &[&str], may_fail: bool) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(repository())
        .output()
        .unwrap_or_else(|why| panic!("{program}: {why}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(may_fail || output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
    text
}

/// Files with their modes, `755 /usr/bin/console-proxy`, without folders.
type Files = BTreeSet<String>;

/// From lines that begin as those of `ls -l`, the name last.
fn listed(text: &str) -> Files {
    text.lines()
        .filter(|line| line.starts_with('-'))
        .map(|line| {
            let name = line.split_whitespace().last().unwrap();
            let bit = |i: usize| u32::from(line.as_bytes()[i] != b'-');
            let digit = |i: usize| bit(i) * 4 + bit(i + 1) * 2 + bit(i + 2);
            format!("{}{}{} {}", digit(1), digit(4), digit(7), name.trim_start_matches('.'))
        })
        .collect()
}

fn of_the_deb() -> Files {
    let mut files = listed(&run("dpkg-deb", &["-c", deb().to_str().unwrap()], false));
    // Debian's own: the RPM's tool has no place for it.
    assert!(files.remove("644 /usr/share/doc/console-proxy/changelog.Debian.gz"));
    files
}

fn of_make_install() -> Files {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_str().unwrap();
    run("make", &["install", &format!("DESTDIR={root}"), &format!("CARGO_TARGET_DIR={}", target().display())], false);
    run("find", &[root, "-type", "f", "-printf", "%m /%P\n"], false).lines().map(str::to_owned).collect()
}

#[test]
fn deb_rpm_and_make_install_bring_the_same_files() {
    // cargo-deb compresses man pages, as Debian wants it.
    let plain =
        |file: String| if file.contains("/usr/share/man/") { file.trim_end_matches(".gz").to_owned() } else { file };
    let deb: BTreeSet<String> = of_the_deb().into_iter().map(plain).collect();
    assert!(deb.contains("755 /etc/libvirt/hooks/qemu.d/console-proxy"), "{deb:#?}");
    for file in ["index.html", "licences.txt"] {
        assert!(deb.contains(&format!("644 /usr/share/console-proxy/web/{file}")), "{deb:#?}");
    }
    let packed = |file: &String| {
        file.starts_with("644 /usr/share/console-proxy/web/assets/")
            && Path::new(file).extension().is_some_and(|end| end == "br")
    };
    assert!(deb.iter().any(packed), "the page's files come packed, too: {deb:#?}");
    assert_eq!(deb, of_make_install(), "DEB and make install");
    // Until there is an SELinux policy the RPM keeps the hook out of libvirt's folder.
    let rpm = listed(&run("rpm", &["-qplv", rpm().to_str().unwrap()], false))
        .into_iter()
        .map(|file| file.replace("/usr/share/console-proxy/libvirt-hook", "/etc/libvirt/hooks/qemu.d/console-proxy"))
        .collect();
    assert_eq!(deb, rpm, "DEB and RPM");
}

#[test]
fn every_unit_and_template_is_packaged() {
    let list = run("packaging/files.sh", &["list"], false);
    for folder in ["units", "templates", "hooks"] {
        for file in std::fs::read_dir(repository().join(folder)).unwrap() {
            let name = format!("{folder}/{}", file.unwrap().file_name().to_str().unwrap());
            // Those are part of the programs.
            let compiled_in = name.starts_with("templates/50-listen");
            assert!(compiled_in || list.contains(&format!(" {name} ")), "{name} is in no package");
        }
    }
}

#[test]
fn what_an_administrator_edits_is_kept_at_an_upgrade() {
    let conffiles = run("dpkg-deb", &["-I", deb().to_str().unwrap(), "conffiles"], false);
    let configuration = run("rpm", &["-qp", "--configfiles", rpm().to_str().unwrap()], false);
    for file in [
        "/etc/console-proxy/console-proxy.toml",
        "/etc/ufw/applications.d/console-proxy",
        "/etc/pam.d/console-proxy",
        "/etc/pam.d/console-proxy-reach",
        "/etc/pam.d/console-proxy-still",
    ] {
        assert!(conffiles.lines().any(|line| line == file), "{conffiles}");
        assert!(configuration.lines().any(|line| line == file), "{configuration}");
    }
    assert!(conffiles.contains("/etc/libvirt/hooks/qemu.d/console-proxy"), "{conffiles}");
}

#[test]
fn no_package_carries_a_key() {
    for file in of_the_deb() {
        assert!(!file.contains("/tls/") && !file.contains("/signing/") && !file.contains(".pem"), "{file}");
    }
}

#[test]
fn the_packages_scripts_are_sound() {
    for script in ["packaging/deb/postinst", "packaging/deb/prerm", "packaging/deb/postrm", "hooks/console-proxy"] {
        run("dash", &["-n", script], false);
    }
    for script in ["packaging/rpm/post.sh", "packaging/rpm/preun.sh", "packaging/rpm/postun.sh"] {
        run("bash", &["-n", script], false);
    }
}

#[test]
fn libvirts_library_is_linked_by_the_administrators_program_alone() {
    for (program, links) in [
        ("console-proxy", true),
        ("console-proxyd", false),
        ("console-proxy-broker", false),
        ("console-proxy-auth", false),
        ("console-proxy-hook", false),
    ] {
        let path = target().join("release").join(program);
        let needed = run("readelf", &["-d", path.to_str().unwrap()], false);
        assert_eq!(needed.contains("libvirt.so"), links, "{program}: {needed}");
    }
}

#[test]
fn lintian_finds_no_error() {
    let found = run("lintian", &["--fail-on", "none", deb().to_str().unwrap()], true);
    let errors: Vec<_> = found.lines().filter(|line| line.starts_with("E:")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(
        found.contains("W:") || found.trim().is_empty() || !found.contains("error"),
        "lintian itself failed: {found}"
    );
}

#[test]
fn rpmlint_finds_no_error() {
    let found = run("rpmlint", &["-c", "packaging/rpm/rpmlint.toml", rpm().to_str().unwrap()], true);
    assert!(found.contains("1 packages"), "rpmlint itself failed: {found}");
    let errors: Vec<_> = found.lines().filter(|line| line.contains(": E: ")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}
