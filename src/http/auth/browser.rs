//! What a browser says of the page that makes it ask.

use axum::http::{HeaderMap, header};

/// Whether a browser sends this for a page of somebody else. A page may make a browser ask any address of this machine, by its
/// own origin or by a name that resolves to 127.0.0.1; where nobody is known, both must be refused by what the browser says.
pub(super) fn is_of_another_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).is_some_and(|host| !is_loopback_name(host));
    let origin =
        text(header::ORIGIN).is_some_and(|origin| !is_loopback_name(origin.split_once("://").map_or(origin, |(_, host)| host)));
    host || origin
}

/// Whether an authority, with or without a port, names this machine to itself.
fn is_loopback_name(authority: &str) -> bool {
    let host = authority
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(authority, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
