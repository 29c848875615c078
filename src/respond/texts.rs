//! What our pages say, in each language: a file each, in which the compiler finds whatever is missing.

mod english;
mod german;

use crate::error::{Code, Reason};
use crate::pages::Language;

/// All that our pages say in one language.
pub(super) struct Texts {
    /// To log in.
    pub(super) log_in: &'static str,
    /// To ask for the same once more.
    pub(super) try_again: &'static str,
    /// To go where the app begins.
    pub(super) go_to_app: &'static str,
    /// To go on, where the browser does not by itself.
    pub(super) go_on: &'static str,
    /// To log out.
    pub(super) log_out: &'static str,
    /// Not to.
    pub(super) stay_logged_in: &'static str,
    /// What stands before the reason and the request's name.
    pub(super) reference: &'static str,
    pub(super) logged_in: &'static str,
    pub(super) not_logged_in: &'static str,
    pub(super) being_logged_in: &'static str,
    pub(super) logged_out: &'static str,
    pub(super) ask_logout: &'static str,
    pub(super) choose_issuer: &'static str,
    /// What somebody is told whose request is refused for this reason.
    pub(super) refusal: fn(Reason) -> Notice,
}

/// What happened, what that means, and what to do next.
pub(super) struct Notice {
    pub(super) title: &'static str,
    pub(super) detail: &'static str,
}

/// What is there to do about a refusal, where no login would help.
pub(super) enum Offer {
    TryAgain,
    GoToApp,
    /// No app is here.
    Nothing,
}

impl Texts {
    pub(super) const fn of(language: Language) -> &'static Self {
        match language {
            Language::English => &english::TEXTS,
            Language::German => &german::TEXTS,
        }
    }
}

impl Offer {
    pub(super) const fn of(code: Code) -> Self {
        match code {
            Code::RateLimited
            | Code::StoreUnavailable
            | Code::IssuerUnavailable
            | Code::UpstreamUnavailable
            | Code::UpstreamTimeout
            | Code::Overloaded
            | Code::Internal => Self::TryAgain,
            Code::Unauthenticated
            | Code::SessionEnded
            | Code::InsufficientUserAuthentication
            | Code::Csrf
            | Code::Forbidden
            | Code::BadRequest
            | Code::LoginFailed
            | Code::NotFound
            | Code::MethodNotAllowed
            | Code::TooLarge => Self::GoToApp,
            Code::Misdirected => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all_of(language: Language) -> Vec<&'static str> {
        let Texts {
            log_in,
            try_again,
            go_to_app,
            go_on,
            log_out,
            stay_logged_in,
            reference,
            logged_in,
            not_logged_in,
            being_logged_in,
            logged_out,
            ask_logout,
            choose_issuer,
            refusal,
        } = Texts::of(language);
        let notices = Reason::ALL.iter().map(|reason| refusal(*reason));
        let notices = notices.flat_map(|notice| [notice.title, notice.detail]);
        [log_in, try_again, go_to_app, go_on, log_out, stay_logged_in, reference]
            .into_iter()
            .chain([logged_in, not_logged_in, being_logged_in, logged_out, ask_logout, choose_issuer])
            .copied()
            .chain(notices)
            .collect()
    }

    #[test]
    fn every_text_is_there_in_every_language_and_in_no_other() {
        let mut seen: HashSet<&str> = HashSet::new();
        let count = all_of(Language::English).len();
        for language in Language::ALL {
            let texts = all_of(language);
            assert_eq!(texts.len(), count, "{language:?}");
            let texts: HashSet<_> = texts.into_iter().collect();
            assert!(texts.iter().all(|text| !text.trim().is_empty()), "{language:?}");
            assert!(seen.is_disjoint(&texts), "{language:?}: {:?}", seen.intersection(&texts).next());
            seen.extend(texts);
        }
    }

    #[test]
    fn people_are_told_nothing_that_only_developers_understand() {
        for text in Language::ALL.into_iter().flat_map(all_of) {
            for word in
                ["`", "X-CSRF", "Sec-Fetch", "acr_values", "return_to", "redirect_uri", "upstream", "token"]
            {
                assert!(!text.contains(word), "{word}: {text}");
            }
        }
    }
}
