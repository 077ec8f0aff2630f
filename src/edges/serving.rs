//! Finds out, when a guest is published, who serves its backends: libvirt says which process, the kernel what that
//! process has open.

use std::io;
use std::net::SocketAddr;

use super::files;
use super::paths::Paths;
use super::processes::{OpenThings, Process};
use super::{sock_diag, terminal};
use crate::rules::route::{Backend, Route};
use crate::rules::serving::{Held, Owner, is_qemu_of};

/// Finds the guest's QEMU, with what it holds of the route's backends; returns what could not be found out, in words.
/// Without an answer the broker opens nothing of the guest that could be somebody else's. Displays stay in the route where
/// another program than QEMU is not seen to listen.
pub fn find(paths: &Paths, route: &mut Route) -> Vec<String> {
    let mut problems = Vec::new();
    let mut displays = route.displays.clone();
    let owner = qemu_of(paths, route).and_then(|process| {
        let started = process.started().map_err(|why| format!("its QEMU (pid {}): {why}", process.pid()))?;
        let mut owner = Owner { pid: process.pid(), started, holds: [].into() };
        let things = match process.open_things() {
            Ok(things) => {
                displays.retain(|place| !matches!(listener(&process, &things, *place), Ok(Err(_))));
                things
            }
            Err(why) => {
                problems.push(format!("what its QEMU (pid {}) has open: {why}", process.pid()));
                OpenThings::default()
            }
        };
        for backend in route.consoles.iter().flat_map(|way| way.raw.iter().chain(&way.websocket)) {
            match held(&process, &things, backend) {
                Ok(Some(held)) => drop(owner.holds.insert(backend.clone(), held)),
                Ok(None) => {}
                Err(why) => problems.push(format!("{backend}: {why}")),
            }
        }
        // While it lives all that was read above is about it.
        if process.is_alive() { Ok(owner) } else { Err(format!("its QEMU (pid {}) has ended", process.pid())) }
    });
    match owner {
        Ok(owner) => {
            (route.owner, route.displays) = (Some(owner), displays);
            problems
        }
        Err(why) => {
            route.owner = None;
            vec![why]
        }
    }
}

/// libvirt's pid file names it, and its command line the guest.
fn qemu_of(paths: &Paths, route: &Route) -> Result<Process, String> {
    let path = paths.qemu_pid(&route.name).ok_or("its name is no file's name, so libvirt has no pid file for it")?;
    let text = files::read_trusted(&path, 32).map_err(|why| format!("{}: {why}", path.display()))?;
    let text = text.ok_or_else(|| format!("{} does not exist", path.display()))?;
    let pid: u32 = text.trim().parse().map_err(|_| format!("{} holds no pid", path.display()))?;
    let process = Process::hold(pid).map_err(|why| format!("{} names pid {pid}: {why}", path.display()))?;
    let command = process.command().map_err(|why| format!("pid {pid}: {why}"))?;
    if !is_qemu_of(&command, route.uuid.as_str()) {
        return Err(format!("{} names pid {pid}, which is not this guest's QEMU", path.display()));
    }
    Ok(process)
}

/// What tells a backend of the guest's QEMU from others; `None` for those that need nothing.
fn held(process: &Process, things: &OpenThings, backend: &Backend) -> Result<Option<Held>, String> {
    let words = |why: io::Error| why.to_string();
    match backend {
        Backend::Pty(number) if !things.terminals.contains(number) => Err("its QEMU does not hold it".to_owned()),
        Backend::Pty(number) => {
            let terminal = terminal::identity(*number).map_err(words)?;
            let uid = process.effective_uid().map_err(words)?;
            if terminal.uid != uid {
                return Err(format!("it belongs to uid {}, and its QEMU runs as uid {uid}", terminal.uid));
            }
            Ok(Some(Held::Terminal(terminal)))
        }
        Backend::Tcp(ip, port) => {
            let socket = listener(process, things, SocketAddr::new(*ip, *port)).map_err(words)??;
            Ok(Some(Held::Listener { socket }))
        }
        // Who listens is seen when it is connected to; libvirt knows whose display it opens.
        Backend::Unix(_) | Backend::Display(_) => Ok(None),
    }
}

/// The cookie of the guest's socket that listens there; in the inner error why that is not the guest's.
fn listener(process: &Process, things: &OpenThings, place: SocketAddr) -> io::Result<Result<u64, &'static str>> {
    let Some(listener) = sock_diag::listener(place)? else { return Ok(Err("nothing listens there")) };
    let is_held = |things: &OpenThings| things.sockets.contains(&listener.inode);
    // A display may be served by a process beside QEMU (qemu-vnc).
    let by_companion =
        || process.companions().iter().any(|other| other.open_things().is_ok_and(|things| is_held(&things)));
    let is_its_own = is_held(things) || by_companion();
    Ok(if is_its_own { Ok(listener.cookie) } else { Err("another program than its QEMU listens there") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::{Child, Command, Stdio};

    const UUID: &str = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A process with a QEMU's command line.
    fn qemu(uuid: &str) -> Running {
        let child =
            Command::new("sh").args(["-c", "read x", "qemu", "-uuid", uuid]).stdin(Stdio::piped()).spawn().unwrap();
        let started = Running(child);
        // Until it is that program.
        for _ in 0..500 {
            let command = fs::read(format!("/proc/{}/cmdline", started.0.id())).unwrap_or_default();
            if command.starts_with(b"sh\0") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        started
    }

    fn host(pid_file: &str) -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let file = paths.qemu_pid("g").unwrap();
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, pid_file).unwrap();
        (root, paths)
    }

    fn route(name: &str, backend: &str) -> Route {
        let text = format!(
            "version=1\nuuid=\"{UUID}\"\nname=\"{name}\"\nport=1\n[[consoles]]\nconsole=\"serial/0\"\nraw=\"{backend}\"\n"
        );
        Route::parse(&text).unwrap()
    }

    fn found(paths: &Paths, mut route: Route) -> (Option<Owner>, Vec<String>) {
        let problems = find(paths, &mut route);
        (route.owner, problems)
    }

    /// A display at "localhost" may have one of its two addresses, and another program the other one.
    #[test]
    fn where_another_program_or_nobody_listens_no_display_of_the_guests_is_kept() {
        let running = qemu(UUID);
        let (_root, paths) = host(&running.0.id().to_string());
        let others = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let places = vec![others.local_addr().unwrap(), free];
        let mut known = Route { displays: places.clone(), ..route("g", "unix:/run/s") };
        assert!(find(&paths, &mut known).is_empty());
        assert_eq!(known.displays, []);
        // Where QEMU is not found nobody knows; what its definition says is kept.
        let mut unknown = Route { displays: places.clone(), ..route("h", "unix:/run/s") };
        assert_eq!(find(&paths, &mut unknown).len(), 1);
        assert_eq!(unknown.displays, places);
        // The test's own process in QEMU's place.
        let process = Process::hold(std::process::id()).unwrap();
        let things = process.open_things().unwrap();
        assert!(listener(&process, &things, places[0]).unwrap().is_ok());
    }

    #[test]
    fn the_process_that_libvirts_pid_file_names_is_the_owner_where_its_command_line_says_so() {
        let running = qemu(UUID);
        let (_root, paths) = host(&format!("{}\n", running.0.id()));
        let (owner, problems) = found(&paths, route("g", "unix:/run/s"));
        let owner = owner.unwrap();
        assert_eq!((owner.pid, owner.holds.len(), problems.len()), (running.0.id(), 0, 0));
        assert!(Process::hold_owner(&owner).is_ok());
    }

    #[test]
    fn a_pid_file_that_is_missing_odd_or_of_another_process_names_nobody_and_says_so() {
        let other = qemu("00000000-490b-4b9b-8641-7573c0eba77c");
        for (text, why) in [
            (format!("{}", other.0.id()), "which is not this guest's QEMU"),
            (String::new(), "holds no pid"),
            ("-1".to_owned(), "holds no pid"),
            ("nonsense".to_owned(), "holds no pid"),
            ("4000000".to_owned(), "names pid 4000000"),
            ("1".repeat(100), "more than 32 bytes"),
        ] {
            let (_root, paths) = host(&text);
            let (owner, problems) = found(&paths, route("g", "unix:/run/s"));
            assert!(owner.is_none() && problems.len() == 1 && problems[0].contains(why), "{text}: {problems:?}");
        }
        let (_root, paths) = host("1");
        for (name, why) in [("h", "h.pid does not exist"), ("../g", "no file's name"), ("a/b", "no file's name")] {
            let (owner, problems) = found(&paths, route(name, "unix:/run/s"));
            assert!(owner.is_none() && problems[0].contains(why), "{name}: {problems:?}");
        }
        let file = paths.qemu_pid("g").unwrap();
        fs::remove_file(&file).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RUSR).unwrap();
        assert!(found(&paths, route("g", "unix:/run/s")).1[0].contains("no regular file"));
    }

    #[test]
    fn a_port_and_a_terminal_of_another_process_are_not_its_own() {
        let running = qemu(UUID);
        let (_root, paths) = host(&running.0.id().to_string());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap();
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let terminal = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        for (backend, why) in [
            (format!("tcp:{port}"), "another program than its QEMU listens there"),
            (format!("pty:{terminal}"), "its QEMU does not hold it"),
        ] {
            let (owner, problems) = found(&paths, route("g", &backend));
            assert!(owner.unwrap().holds.is_empty());
            assert_eq!(problems, [format!("{backend}: {why}")]);
        }
    }
}
