//! PAM. The one module that knows the crate that speaks with it, and PAM's codes.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;

use nonstick::conv::Exchange;
use nonstick::items::{Items, ItemsMut};
use nonstick::{AuthnFlags, Conversation, ErrorCode, LibPamTransaction, PamShared, Transaction, TransactionBuilder};

/// The service that says who may log in: `/etc/pam.d/console-proxy`.
pub const SERVICE: &str = "console-proxy";
/// The service that says, after a "no", whether a directory could be asked: `/etc/pam.d/console-proxy-reach`.
pub const REACH: &str = "console-proxy-reach";
/// The service that says whether somebody who logged in earlier may still be here: `/etc/pam.d/console-proxy-still`.
pub const STILL: &str = "console-proxy-still";

/// Whether this host has a service's file. Where it has none PAM takes `other`, which refuses everybody.
#[must_use]
pub fn has(service: &str) -> bool {
    // Linux-PAM's own folders; the second is the vendor's.
    ["/etc/pam.d", "/usr/lib/pam.d"].iter().any(|folder| Path::new(folder).join(service).exists())
}

/// Why PAM did not say yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// User or password is wrong.
    Wrong,
    /// The account is not to be used.
    Barred(&'static str),
    /// A module wants to know more than the password.
    Unanswerable,
    /// It could not be found out.
    Unknown(ErrorCode),
}

/// One check of one user.
pub struct Check {
    transaction: LibPamTransaction<Answers>,
    asked: Rc<Asked>,
}

/// What modules asked for.
#[derive(Debug, Default)]
struct Asked {
    password: Cell<bool>,
    more: Cell<bool>,
}

/// Gives the password to the first hidden question, and nothing to any other.
struct Answers {
    password: OsString,
    asked: Rc<Asked>,
}

impl Check {
    /// Begins one. `from` is the address that the user came from, empty where there is none.
    pub fn begin(service: &str, user: &str, password: &str, from: &str) -> Result<Self, No> {
        let asked = Rc::new(Asked::default());
        let answers = Answers { password: password.into(), asked: asked.clone() };
        let mut transaction =
            TransactionBuilder::new_with_service(service).username(user).build(answers).map_err(No::Unknown)?;
        {
            let mut items = transaction.items_mut();
            items.set_tty_name(Some("console-proxy".as_ref())).map_err(No::Unknown)?;
            if !from.is_empty() {
                items.set_remote_host(Some(from.as_ref())).map_err(No::Unknown)?;
            }
        }
        Ok(Self { transaction, asked })
    }

    /// Whether the password is this user's.
    pub fn authenticate(&mut self) -> Result<(), No> {
        let result = self.transaction.authenticate(AuthnFlags::SILENT | AuthnFlags::DISALLOW_NULL_AUTHTOK);
        result.map_err(|code| if self.asked.more.get() { No::Unanswerable } else { of_password(code) })
    }

    /// Whether the account may be used now.
    pub fn account(&mut self) -> Result<(), No> {
        let result = self.transaction.account_management(AuthnFlags::SILENT | AuthnFlags::DISALLOW_NULL_AUTHTOK);
        result.map_err(|code| if self.asked.more.get() { No::Unanswerable } else { of_account(code) })
    }

    /// The user by now: a module may have changed the name.
    pub fn user(&self) -> Result<String, No> {
        let user = self.transaction.items().user().map_err(No::Unknown)?;
        user.and_then(|user| user.into_string().ok()).ok_or(No::Unknown(ErrorCode::SystemError))
    }
}

impl Conversation for Answers {
    fn communicate(&self, messages: &[Exchange<'_>]) {
        for message in messages {
            match message {
                Exchange::MaskedPrompt(question) if !self.asked.password.replace(true) => {
                    question.set_answer(Ok(self.password.clone()));
                }
                // What modules tell is for nobody here, and may be anything.
                Exchange::Info(told) => told.set_answer(Ok(())),
                Exchange::Error(told) => told.set_answer(Ok(())),
                other => {
                    self.asked.more.set(true);
                    other.set_error(ErrorCode::ConversationError);
                }
            }
        }
    }
}

/// Before the password is known to be right nothing is told of the account.
fn of_password(code: ErrorCode) -> No {
    match code {
        ErrorCode::AuthenticationError
        | ErrorCode::UserUnknown
        | ErrorCode::MaxTries
        | ErrorCode::CredentialsInsufficient
        | ErrorCode::PermissionDenied
        | ErrorCode::AccountExpired
        | ErrorCode::CredentialsExpired
        | ErrorCode::NewAuthTokRequired
        | ErrorCode::AuthTokExpired => No::Wrong,
        other => No::Unknown(other),
    }
}

fn of_account(code: ErrorCode) -> No {
    match code {
        ErrorCode::AccountExpired => No::Barred("the account has expired"),
        ErrorCode::NewAuthTokRequired | ErrorCode::CredentialsExpired | ErrorCode::AuthTokExpired => {
            No::Barred("the password has expired, and cannot be changed here")
        }
        // As Debian's common-account ends, whatever was wrong with the account.
        ErrorCode::AuthenticationError
        | ErrorCode::PermissionDenied
        | ErrorCode::UserUnknown
        | ErrorCode::MaxTries
        | ErrorCode::CredentialsInsufficient => {
            No::Barred("the account may not be used: it has expired, or is locked or not let in now")
        }
        other => No::Unknown(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nonstick::conv::{ErrorMsg, InfoMsg, MaskedQAndA, QAndA};

    fn answers() -> Answers {
        Answers { password: "secret".into(), asked: Rc::default() }
    }

    #[test]
    fn the_first_hidden_question_gets_the_password_and_no_other_gets_anything() {
        let answers = answers();
        let (name, first, second) =
            (QAndA::new("login:".as_ref()), MaskedQAndA::new("?".as_ref()), MaskedQAndA::new("code?".as_ref()));
        let (info, error) = (InfoMsg::new("hello".as_ref()), ErrorMsg::new("oh".as_ref()));
        answers.communicate(&[info.exchange(), first.exchange(), error.exchange()]);
        assert!(!answers.asked.more.get(), "what is only told is no question");
        answers.communicate(&[second.exchange()]);
        assert!(answers.asked.more.get());
        answers.communicate(&[name.exchange()]);
        assert_eq!(first.answer(), Ok("secret".into()));
        assert_eq!((info.answer(), error.answer()), (Ok(()), Ok(())));
        assert_eq!(second.answer(), Err(ErrorCode::ConversationError));
        assert_eq!(name.answer(), Err(ErrorCode::ConversationError));
    }

    #[test]
    fn nothing_is_told_of_an_account_before_the_password_is_right() {
        for code in [ErrorCode::AccountExpired, ErrorCode::PermissionDenied, ErrorCode::UserUnknown] {
            assert_eq!(of_password(code), No::Wrong);
            assert!(matches!(of_account(code), No::Barred(_)));
        }
        for code in [ErrorCode::AuthInfoUnavailable, ErrorCode::SystemError, ErrorCode::Abort, ErrorCode::SymbolError] {
            assert_eq!((of_password(code), of_account(code)), (No::Unknown(code), No::Unknown(code)));
        }
    }

    #[test]
    fn a_service_that_this_host_does_not_have_lets_nobody_in() {
        let mut check = Check::begin("console-proxy-no-such-service", "no such user", "secret", "").unwrap();
        assert!(check.authenticate().is_err());
    }
}
