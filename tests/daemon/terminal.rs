//! A real terminal, with a program in it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, OutputModes, tcgetattr};

use crate::host::until;

/// A terminal with a program in it, as a terminal emulator has one.
pub struct Terminal {
    keyboard: File,
    far_end: OwnedFd,
    program: Child,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program in a session of its own, whose controlling terminal this is.
    pub fn of(program: &Command) -> Self {
        Self::with_input(program, None)
    }

    /// The same with an input that is no terminal.
    pub fn with_input(program: &Command, input: Option<Stdio>) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let far_end = ioctl_tiocgptpeer(&master, flags).unwrap();
        let mut command = Command::new("setsid");
        if input.is_none() {
            command.arg("--ctty");
        }
        command.arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let end = || Stdio::from(far_end.try_clone().unwrap());
        let program = command.stdin(input.unwrap_or_else(end)).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(master);
        let (mut reading, screen) = (keyboard.try_clone().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reading.read(&mut bytes) {
                shown.lock().unwrap().extend(&bytes[..n]);
            }
        });
        let terminal = Self { keyboard, far_end, program, screen };
        assert!(!terminal.is_raw());
        terminal
    }

    pub fn is_raw(&self) -> bool {
        let settings = tcgetattr(&self.far_end).unwrap();
        let cooked = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        let some = settings.local_modes.intersects(cooked) || settings.output_modes.contains(OutputModes::OPOST);
        let all = settings.local_modes.contains(cooked) && settings.output_modes.contains(OutputModes::OPOST);
        assert!(all || !some, "half raw: {settings:?}");
        !all
    }

    pub fn types(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.screen.lock().unwrap().clone()
    }

    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    #[track_caller]
    pub fn shows(&self, text: &str) {
        until(&format!("the screen shows {text:?}"), || self.screen().contains(text));
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.program)
    }

    /// Waits for its end; the terminal is then what it was before.
    #[track_caller]
    pub fn ends_with(&mut self, code: i32) {
        until("the program ends", || self.program.try_wait().unwrap().is_some());
        assert_eq!(self.program.wait().unwrap().code(), Some(code), "{}", self.screen());
        assert!(!self.is_raw(), "the terminal is still raw");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
