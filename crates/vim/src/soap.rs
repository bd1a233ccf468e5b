//! SOAP 1.1 envelopes, both ways.

use crate::fault::Fault;
use crate::method::Method;
use crate::value::{DecodeError, Field};
use crate::xml::{Element, Limits, XmlError};

/// Value of the SOAPAction header that the client sends.
pub const ACTION: &str = "urn:vim25/8.0.1.0";
/// Content type of every message.
pub const CONTENT_TYPE: &str = "text/xml; charset=utf-8";

const HEAD: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
    "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"",
    " xmlns:soapenc=\"http://schemas.xmlsoap.org/soap/encoding/\"",
    " xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\"",
    " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n<soapenv:Body>\n"
);
const TAIL: &str = "\n</soapenv:Body>\n</soapenv:Envelope>\n";

/// Why a message is no answer (or no call).
#[derive(Debug, thiserror::Error)]
pub enum SoapError {
    /// No acceptable XML.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// Not the values that the method has.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No SOAP envelope with one element in its body.
    #[error("no SOAP 1.1 message: {0}")]
    Envelope(String),
    /// The server answers with a fault.
    #[error("{0}")]
    Fault(Box<Fault>),
}

/// A call as text.
pub fn encode_request<M: Method>(method: &M) -> String {
    let mut out = String::from(HEAD);
    write_in_namespace(&method.to_element(M::NAME), &mut out);
    out.push_str(TAIL);
    out
}

/// The body of a call: an element named after the method, with `_this` and its arguments.
///
/// # Errors
/// [`SoapError`] where it is no call within [`Limits::REQUEST`].
pub fn decode_request(message: &[u8]) -> Result<Element, SoapError> {
    body_of(Element::parse(message, Limits::REQUEST)?)
}

/// The answer to a call of `name`, from [`Field`] outputs.
pub fn encode_response<O: Field>(name: &str, output: &O) -> String {
    let mut element = Element::new(format!("{name}Response"));
    output.write("returnval", &mut element.children);
    let mut out = String::from(HEAD);
    write_in_namespace(&element, &mut out);
    out.push_str(TAIL);
    out
}

/// A fault as the answer to a call.
pub fn encode_fault(fault: &Fault) -> String {
    let mut out = String::from(HEAD);
    out.push_str("<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>");
    crate::xml::escape(&fault.message, &mut out);
    out.push_str("</faultstring><detail>");
    let mut detail = fault.method_fault();
    detail.name = format!("{}Fault", fault.kind.name()).into();
    write_in_namespace(&detail, &mut out);
    out.push_str("</detail></soapenv:Fault>");
    out.push_str(TAIL);
    out
}

/// What a call returned.
///
/// # Errors
/// [`SoapError::Fault`] where the server says so, else what is wrong with the message.
pub fn decode_response<M: Method>(message: &[u8]) -> Result<M::Output, SoapError> {
    let body = body_of(Element::parse(message, Limits::RESPONSE)?)?;
    if body.name == "Fault" {
        return Err(SoapError::Fault(Box::new(Fault::from_soap(&body))));
    }
    if body.name.strip_suffix("Response") != Some(M::NAME) {
        return Err(SoapError::Envelope(format!(
            "<{}> is no answer to {}",
            body.name,
            M::NAME
        )));
    }
    Ok(M::Output::read(&body, "returnval")?)
}

fn body_of(mut root: Element) -> Result<Element, SoapError> {
    if root.name != "Envelope" {
        return Err(SoapError::Envelope(format!(
            "the root is <{}>, not <Envelope>",
            root.name
        )));
    }
    let body = root
        .children
        .iter_mut()
        .find(|c| c.name == "Body")
        .ok_or_else(|| SoapError::Envelope("the envelope has no <Body>".into()))?;
    match body.children.len() {
        1 => Ok(body.children.remove(0)),
        n => Err(SoapError::Envelope(format!(
            "the body has {n} elements where it must have one"
        ))),
    }
}

fn write_in_namespace(element: &Element, out: &mut String) {
    let mut text = String::new();
    element.write(&mut text);
    // Behind the name, before the other attributes: `<Login xmlns="urn:vim25" …`.
    let at = 1 + element.name.len();
    out.push_str(&text[..at]);
    out.push_str(" xmlns=\"urn:vim25\"");
    out.push_str(&text[at..]);
}
