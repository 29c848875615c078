//! German.

use super::{Notice, Texts};
use crate::error::{Code, Reason};

pub(super) const TEXTS: Texts = Texts {
    log_in: "Anmelden",
    try_again: "Noch einmal versuchen",
    go_to_app: "Zur Startseite",
    go_on: "Weiter",
    log_out: "Abmelden",
    stay_logged_in: "Angemeldet bleiben",
    reference: "Kennung:",
    logged_in: "Sie sind angemeldet",
    not_logged_in: "Sie sind nicht angemeldet",
    being_logged_in: "Sie werden angemeldet",
    logged_out: "Sie sind abgemeldet",
    ask_logout: "Möchten Sie sich abmelden?",
    choose_issuer: "Wo möchten Sie sich anmelden?",
    refusal,
};

fn refusal(reason: Reason) -> Notice {
    let (title, detail) = match reason.code() {
        Code::Unauthenticated => {
            ("Sie sind nicht angemeldet", "Melden Sie sich an, um diese Seite zu sehen.")
        }
        Code::SessionEnded => {
            ("Ihre Sitzung ist beendet", "Bitte melden Sie sich zu Ihrer Sicherheit erneut an.")
        }
        Code::InsufficientUserAuthentication => (
            "Bitte bestätigen Sie, wer Sie sind",
            "Für diese Seite müssen Sie sich noch einmal anmelden, vielleicht auf einem anderen Weg.",
        ),
        Code::Csrf => (
            "Diese Adresse lässt sich nicht direkt öffnen",
            "Sie ist für die Anwendung selbst gedacht, oder ein Verweis auf einer anderen Website hat hierher geführt. Gehen Sie von \
             der Startseite aus weiter.",
        ),
        Code::Forbidden => (
            "Das dürfen Sie nicht",
            "Ihrem Konto fehlt die Berechtigung. Wenn Sie sie brauchen, fragen Sie die Betreiber dieser Anwendung.",
        ),
        Code::BadRequest if reason == Reason::CookiesConflict => (
            "Ihr Browser hat zwei verschiedene Anmeldungen gesendet",
            "Löschen Sie in Ihrem Browser die Cookies dieser Website, und melden Sie sich erneut an.",
        ),
        Code::BadRequest => (
            "Diese Adresse stimmt nicht",
            "Der Verweis ist beschädigt oder veraltet. Versuchen Sie es von der Startseite aus.",
        ),
        Code::LoginFailed => ("Die Anmeldung ist nicht gelungen", login_failed(reason)),
        Code::NotFound => (
            "Hier ist nichts",
            "Die Seite wurde verschoben, oder es gab sie nie. Prüfen Sie die Adresse, oder gehen Sie zur Startseite.",
        ),
        Code::MethodNotAllowed => (
            "Das geht unter dieser Adresse nicht",
            "Die Seite, die hierher geführt hat, hat einen Fehler gemacht. Versuchen Sie es von der Startseite aus.",
        ),
        Code::Misdirected => (
            "Unter dieser Adresse antwortet keine Anwendung",
            "Prüfen Sie den Namen in der Adresszeile, oder fragen Sie, wer Ihnen den Verweis gegeben hat.",
        ),
        Code::TooLarge => ("Das war zu groß", "Senden Sie weniger, oder in mehreren Teilen."),
        Code::RateLimited => (
            "Zu viele Versuche in kurzer Zeit",
            "Warten Sie einen Augenblick, und versuchen Sie es dann noch einmal.",
        ),
        Code::StoreUnavailable => (
            "Wir können gerade nicht feststellen, wer angemeldet ist",
            "Sie wurden nicht abgemeldet. Warten Sie einen Augenblick, und versuchen Sie es dann noch einmal.",
        ),
        Code::IssuerUnavailable => ("Der Anmeldedienst antwortet nicht", WAIT),
        Code::UpstreamUnavailable => ("Dieser Dienst antwortet gerade nicht", WAIT),
        Code::UpstreamTimeout => (
            "Dieser Dienst braucht zu lange für eine Antwort",
            "Ob er getan hat, was Sie wollten, ist nicht bekannt. Sehen Sie nach, bevor Sie es noch einmal versuchen.",
        ),
        Code::Overloaded => (
            "Gerade sind zu viele Menschen hier",
            "Warten Sie einen Augenblick, und versuchen Sie es dann noch einmal.",
        ),
        Code::Internal => ("Hier ist etwas schiefgegangen", WAIT),
    };
    Notice { title, detail }
}

const WAIT: &str =
    "Es liegt nicht an Ihnen. Warten Sie einen Augenblick, und versuchen Sie es dann noch einmal.";

fn login_failed(reason: Reason) -> &'static str {
    if reason == Reason::LoginDenied {
        "Sie wurde abgebrochen oder abgelehnt. Sie können sich erneut anmelden, auch mit einem anderen Konto."
    } else if reason == Reason::LoginStale {
        "Sie hat zu lange gedauert oder war schon beendet, etwa in einem anderen Tab. Bitte melden Sie sich erneut an."
    } else if reason == Reason::LoginNeedsUser {
        "Der Anmeldedienst möchte Sie etwas fragen. Bitte melden Sie sich erneut an."
    } else if reason == Reason::LoginIssuerTrouble {
        "Der Anmeldedienst kann gerade niemanden anmelden. Warten Sie einen Augenblick, und melden Sie sich dann erneut an."
    } else {
        "Die Antwort des Anmeldedienstes konnte nicht angenommen werden. Bitte melden Sie sich erneut an. Wenn das nicht hilft, fragen \
         Sie die Betreiber dieser Anwendung, und nennen Sie ihnen die Kennung unten."
    }
}
