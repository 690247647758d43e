//! Why a service could not be heard, in words that say which setting would change it.

use std::error::Error;

use super::BEGUN;

/// What the innermost cause says, and what to do about it.
pub(super) fn explain(fault: &(dyn Error + 'static), section: &str) -> String {
    let (mut innermost, mut connected) = (fault, true);
    loop {
        connected &= !innermost.is::<tonic::ConnectError>();
        match innermost.source() {
            Some(next) => innermost = next,
            None => break,
        }
    }
    let cause = innermost.to_string();
    match (advice(&cause, section), connected) {
        (Some(advice), _) => format!("{cause}; {advice}"),
        (None, true) => format!("{cause}; {BEGUN}"),
        (None, false) => cause,
    }
}

/// By what rustls says: on its way through HTTP/2 an alert of the peer keeps its text and nothing else.
fn advice(cause: &str, section: &str) -> Option<String> {
    let says = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    if says(&["UnknownIssuer", "BadSignature"]) {
        Some(format!("set {section}.tls.ca_file to the authority that issued the server's certificate"))
    } else if says(&["not valid for name", "NotValidForName"]) {
        Some(format!("set {section}.tls.domain to a name in the server's certificate"))
    } else if says(&["fatal alert"]) && says(&["Expired"]) {
        Some(format!("renew the certificate in {section}.tls.cert_file, and check both clocks"))
    } else if says(&["expired", "Expired", "not valid yet", "NotValidYet"]) {
        Some("renew the server's certificate, and check both clocks".to_owned())
    } else if says(&["fatal alert"]) {
        let names = format!("{section}.tls.cert_file and {section}.tls.key_file");
        Some(format!("set {names} to a certificate of an authority in the server's tls.client_ca_file"))
    } else if says(&["corrupt message"]) {
        Some(format!("{section}.url must begin with http:// where the server has no certificate"))
    } else {
        None
    }
}
