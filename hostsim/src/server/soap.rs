//! One SOAP call over HTTP.

use super::dispatch::{Call, dispatch};
use super::{Body, SESSION_COOKIE, cookie, full, text};
use crate::host::Host;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use std::sync::Arc;
use vim::soap::{self, SoapError};
use vim::xml::Limits;
use vim::{Fault, FaultKind};

pub(super) async fn answer(host: &Arc<Host>, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "SOAP calls are POSTed");
    }
    let secret = cookie(&request, SESSION_COOKIE);
    let body = match Limited::new(request.into_body(), Limits::REQUEST.bytes)
        .collect()
        .await
    {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let message = format!(
                "the call cannot be read (at most {} bytes): {error}",
                Limits::REQUEST.bytes
            );
            return text(StatusCode::PAYLOAD_TOO_LARGE, message);
        }
    };
    let call = match soap::decode_request(&body) {
        Ok(call) => call,
        Err(error) => return respond(Err(bad_request(&error)), None),
    };
    let session = secret.as_deref().and_then(|s| host.sessions.find(s));
    // Held until the answer is made: a call that is being answered keeps its session alive.
    let _active = session.as_ref().map(|s| s.enter());
    let mut context = Call {
        host: host.clone(),
        session: session.clone(),
        secret,
        new_secret: None,
    };
    let result = dispatch(&mut context, &call).await;
    let secret = match context.new_secret {
        None if session.is_none() => anonymous_secret(),
        began => began,
    };
    respond(result, secret.as_deref())
}

/// Cookie for a call without a valid session: vSphere gives each such call a session that nobody
/// is logged in to, fault or not, and a client must not take it for the one that it has. Here
/// nothing is kept of it, so that it is worth as little as no cookie.
fn anonymous_secret() -> Option<String> {
    crate::session::random_hex().ok()
}

fn bad_request(error: &SoapError) -> Fault {
    Fault::new(FaultKind::InvalidRequest {}, error.to_string())
}

fn respond(result: Result<String, Fault>, secret: Option<&str>) -> Response<Body> {
    let (status, message) = match result {
        Ok(message) => (StatusCode::OK, message),
        Err(fault) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            soap::encode_fault(&fault),
        ),
    };
    let mut response = Response::new(full(message));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(soap::CONTENT_TYPE),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(secret) = secret {
        let cookie = format!("{SESSION_COOKIE}=\"{secret}\"; Path=/; HttpOnly; Secure");
        if let Ok(value) = HeaderValue::from_str(&cookie) {
            headers.insert(header::SET_COOKIE, value);
        }
    }
    response
}
