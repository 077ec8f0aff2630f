//! Whose a backend is: a file per port, socket or pty that names the guest which has it now.
//!
//! A route can outlive its guest (`release` may never come, two guests may name one socket), and a
//! port is then somebody else's. The last guest that started with a place has it; who connects asks.

use std::io;

use anyhow::Result;

use super::files;
use super::paths::Paths;
use crate::rules::guest::Uuid;
use crate::rules::route::Route;

/// Whether a guest takes a place from another that still claims it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It has just started: what it listens on is its own.
    Take,
    /// It ran all along: another guest that claims the place started later.
    Keep,
}

/// Records that the route's backends are its guest's.
pub fn record(paths: &Paths, route: &Route, claim: Claim) -> Result<()> {
    let folder = paths.claims();
    files::make_folder_of(&folder, files::OPERATORS, paths)?;
    for place in route.places() {
        let other = owner(paths, &place).filter(|owner| *owner != route.uuid);
        let other_is_published = other.is_some_and(|other| paths.route(&other).exists());
        if claim == Claim::Take || !other_is_published {
            files::replace(&folder.join(place), route.uuid.as_str().as_bytes(), 0o644)?;
        }
    }
    Ok(())
}

/// Takes back what the guest still has.
pub fn withdraw(paths: &Paths, route: &Route) -> io::Result<()> {
    for place in route.places() {
        if owner(paths, &place).as_ref() == Some(&route.uuid) {
            files::remove(&paths.claims().join(place))?;
        }
    }
    Ok(())
}

/// Who has a place.
#[must_use]
pub fn owner(paths: &Paths, place: &str) -> Option<Uuid> {
    files::read(&paths.claims().join(place), 64).ok()??.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn route(n: u32) -> Route {
        let text = format!(
            "version=1\nuuid=\"{n:08x}-0000-4000-8000-000000000000\"\nname=\"g\"\nport=1\n[[consoles]]\nconsole=\"vnc\"\nraw=\"unix:/run/v\"\n"
        );
        Route::parse(&text).unwrap()
    }

    #[test]
    fn the_last_that_started_has_the_place_and_gives_back_only_its_own() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let (a, b) = (route(1), route(2));
        let place = a.places().next().unwrap();
        for guest in [&a, &b] {
            files::make_folder(&paths.guest(&guest.uuid), 0o755).unwrap();
            fs::write(paths.route(&guest.uuid), guest.to_text()).unwrap();
        }
        record(&paths, &a, Claim::Take).unwrap();
        record(&paths, &b, Claim::Take).unwrap();
        record(&paths, &a, Claim::Keep).unwrap();
        assert_eq!(owner(&paths, &place), Some(b.uuid.clone()));
        withdraw(&paths, &a).unwrap();
        assert_eq!(owner(&paths, &place), Some(b.uuid.clone()));
        fs::remove_file(paths.route(&b.uuid)).unwrap();
        record(&paths, &a, Claim::Keep).unwrap();
        assert_eq!(owner(&paths, &place), Some(a.uuid.clone()), "b is no longer published");
    }
}
