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

/// Who vouches for people. An issuer can make up any number of them, so shares are counted by this, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Voucher<'a> {
    /// This host, for its users.
    Host,
    /// An issuer of tickets.
    Issuer(&'a str),
    /// Nobody.
    Nobody,
}

impl Who {
    /// Who vouches for them.
    #[must_use]
    pub fn voucher(&self) -> Voucher<'_> {
        match self {
            Self::User(_) => Voucher::Host,
            Self::Bearer { iss, .. } => Voucher::Issuer(iss),
            Self::Anyone => Voucher::Nobody,
        }
    }

    /// Whom a ticket names.
    #[must_use]
    pub fn bearer(iss: &str, sub: &str) -> Self {
        Self::Bearer { iss: iss.to_owned(), sub: sub.to_owned() }
    }
}
