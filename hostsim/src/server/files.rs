//! `/folder/<path>?dcPath=…&dsName=…`: who may, and which file.

use super::{Body, SESSION_COOKIE, cookie, text};
use crate::host::Host;
use base64::Engine as _;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::collections::HashMap;
use std::sync::Arc;
use vim::DatastorePath;

pub(super) async fn answer(host: &Arc<Host>, request: Request<Incoming>) -> Response<Body> {
    let session = cookie(&request, SESSION_COOKIE).and_then(|s| host.sessions.find(&s));
    let _active = session.as_ref().map(|s| s.enter());
    if session.is_none() && !ticket(host, &request) && !basic(host, &request) {
        let mut response = text(StatusCode::UNAUTHORIZED, "log in first, or send a ticket");
        let realm = http::HeaderValue::from_static("Basic realm=\"hostsim\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, realm);
        return response;
    }
    let parameters: HashMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(key, value)| Some((key.to_owned(), unescape(value)?)))
        .collect();
    let named = |key: &str, name: &str| {
        parameters
            .get(key)
            .is_none_or(|v| v == name || v.ends_with(&format!("/{name}")))
    };
    if !named("dcPath", crate::inventory::DATACENTER_NAME) {
        return text(
            StatusCode::NOT_FOUND,
            "the only datacenter is ha-datacenter",
        );
    }
    if parameters
        .get("dsName")
        .is_none_or(|v| v != host.store.name())
    {
        return text(
            StatusCode::NOT_FOUND,
            format!("the only datastore is {}", host.store.name()),
        );
    }
    let path = request
        .uri()
        .path()
        .strip_prefix("/folder")
        .unwrap_or_default();
    let Some(path) = unescape(path) else {
        return text(
            StatusCode::BAD_REQUEST,
            "the path is not percent-encoded UTF-8",
        );
    };
    let path = DatastorePath::new(host.store.name(), path);
    crate::datastore::serve(host, request, path).await
}

fn ticket(host: &Host, request: &Request<Incoming>) -> bool {
    let Some(ticket) = cookie(request, "vmware_cgi_ticket") else {
        return false;
    };
    let path = request
        .uri()
        .path_and_query()
        .map(|p| p.as_str())
        .unwrap_or_default();
    host.sessions
        .use_ticket(&ticket, request.method().as_str(), path)
}

fn basic(host: &Host, request: &Request<Incoming>) -> bool {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Basic "))
        .and_then(|v| {
            base64::engine::general_purpose::STANDARD
                .decode(v.trim())
                .ok()
        })
        .and_then(|v| String::from_utf8(v).ok());
    given
        .as_deref()
        .and_then(|v| v.split_once(':'))
        .is_some_and(|(user, pass)| host.sessions.basic(user, pass))
}

/// Percent-decoded text; a plus stays one, as ESXi has it in paths.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| (b? as char).to_digit(16);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}
