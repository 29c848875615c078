//! English.

use super::{Notice, Texts};
use crate::error::{Code, Reason};

pub(super) const TEXTS: Texts = Texts {
    log_in: "Log in",
    try_again: "Try again",
    go_to_app: "Go to the start page",
    go_on: "Continue",
    log_out: "Log out",
    stay_logged_in: "Stay logged in",
    reference: "Reference:",
    logged_in: "You are logged in",
    not_logged_in: "You are not logged in",
    being_logged_in: "You are being logged in",
    logged_out: "You are logged out",
    ask_logout: "Do you want to log out?",
    choose_issuer: "Where do you want to log in?",
    refusal,
};

fn refusal(reason: Reason) -> Notice {
    let (title, detail) = match reason.code() {
        Code::Unauthenticated => ("You are not logged in", "Log in to see this page."),
        Code::SessionEnded => ("Your session has ended", "For your security, please log in again."),
        Code::InsufficientUserAuthentication => {
            ("Please confirm who you are", "This page needs you to log in once more, perhaps in another way.")
        }
        Code::Csrf => (
            "This address cannot be opened directly",
            "It is meant for the app itself, or a link on another site led here. Go to the start page and find your way from there.",
        ),
        Code::Forbidden => (
            "You may not do this",
            "Your account lacks the permission. If you need it, ask those who run this app.",
        ),
        Code::BadRequest if reason == Reason::CookiesConflict => (
            "Your browser has sent two different logins",
            "Delete the cookies of this site in your browser, and log in again.",
        ),
        Code::BadRequest => (
            "This address is not right",
            "The link is damaged or out of date. Go to the start page and try from there.",
        ),
        Code::LoginFailed => ("The login did not succeed", login_failed(reason)),
        Code::NotFound => (
            "There is nothing here",
            "The page was moved or never was. Check the address, or go to the start page.",
        ),
        Code::MethodNotAllowed => (
            "This address cannot do that",
            "The page that led here made a mistake. Go to the start page and try from there.",
        ),
        Code::Misdirected => (
            "No app answers at this address",
            "Check the name in the address bar, or ask those who gave you the link.",
        ),
        Code::TooLarge => ("That was too large", "Send something smaller, or in several parts."),
        Code::RateLimited => ("Too many attempts in a short time", "Wait a moment, then try again."),
        Code::StoreUnavailable => (
            "We cannot tell at the moment who is logged in",
            "You were not logged out. Wait a moment, then try again.",
        ),
        Code::IssuerUnavailable => {
            ("The login service does not answer", "It is not your fault. Wait a moment, then try again.")
        }
        Code::UpstreamUnavailable => (
            "This service does not answer at the moment",
            "It is not your fault. Wait a moment, then try again.",
        ),
        Code::UpstreamTimeout => (
            "This service takes too long to answer",
            "It is not known whether it did what you asked for. Look before you try again.",
        ),
        Code::Overloaded => ("Too many people are here at the moment", "Wait a moment, then try again."),
        Code::Internal => {
            ("Something went wrong here", "It is not your fault. Wait a moment, then try again.")
        }
    };
    Notice { title, detail }
}

fn login_failed(reason: Reason) -> &'static str {
    if reason == Reason::LoginDenied {
        "It was cancelled or refused. You can log in again, or with another account."
    } else if reason == Reason::LoginStale {
        "It took too long, or was finished before, in another tab say. Please log in again."
    } else if reason == Reason::LoginNeedsUser {
        "The login service wants to ask you something. Please log in again."
    } else if reason == Reason::LoginIssuerTrouble {
        "The login service cannot log anybody in at the moment. Wait a moment, then log in again."
    } else {
        "The answer of the login service could not be accepted. Please log in again. If that does not help, ask those who run this \
         app, and tell them the reference below."
    }
}
