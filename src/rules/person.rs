//! Who somebody is, where shares are counted: a ticket's bearer is not the user of this host with that name.

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// A user of this host, by their password.
    User(String),
    /// Whom an issuer's ticket names.
    Bearer {
        /// The issuer.
        iss: String,
        /// The ticket's `sub`.
        sub: String,
    },
    /// Anybody: by hand, without rights.
    Anyone,
}

impl Who {
    /// Whom a ticket names.
    #[must_use]
    pub fn bearer(iss: &str, sub: &str) -> Self {
        Self::Bearer { iss: iss.to_owned(), sub: sub.to_owned() }
    }
}
