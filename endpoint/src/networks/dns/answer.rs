//! From a question to its answer.

use super::{Context, forward};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::PTR},
};
use std::net::IpAddr;

/// Seconds that an answer about a container may be kept: it may be gone the next moment.
const TTL: u32 = 5;
/// Bytes that an answer over UDP may have where the asker says nothing else (RFC 1035, 4.2.1).
const UDP_DEFAULT: usize = 512;

/// The answer to a question; `None` where what came is no question.
pub(super) async fn answer(
    context: &Context,
    question: &[u8],
    asker: IpAddr,
    tcp: bool,
) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).ok()?;
    if asked.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(asked.queries.iter().cloned());
    let [query] = asked.queries.as_slice() else {
        return fail(reply, ResponseCode::FormErr);
    };
    if asked.metadata.op_code != OpCode::Query {
        return fail(reply, ResponseCode::NotImp);
    }
    match local(context, query, asker) {
        Some(records) => {
            reply.metadata.authoritative = true;
            reply.add_answers(records);
        }
        None => {
            let servers = context.directory.servers(&context.network, asker);
            if servers.is_empty() {
                return fail(reply, ResponseCode::NXDomain);
            }
            return match forward::ask(&servers, question, tcp).await {
                Some(answer) => Some(answer),
                None => fail(reply, ResponseCode::ServFail),
            };
        }
    }
    let bytes = reply.to_vec().ok()?;
    let limit = match tcp {
        true => usize::from(u16::MAX),
        false => asked
            .edns
            .as_ref()
            .map_or(UDP_DEFAULT, |edns| usize::from(edns.max_payload()))
            .max(UDP_DEFAULT),
    };
    if bytes.len() <= limit {
        return Some(bytes);
    }
    reply.truncate().to_vec().ok()
}

fn fail(mut reply: Message, code: ResponseCode) -> Option<Vec<u8>> {
    reply.metadata.response_code = code;
    reply.to_vec().ok()
}

/// The records of a container's name or address; `None`: not one of ours.
fn local(context: &Context, query: &Query, asker: IpAddr) -> Option<Vec<Record>> {
    if query.query_class() != DNSClass::IN {
        return None;
    }
    let record = |data| Record::from_rdata(query.name().clone(), TTL, data);
    if query.query_type() == RecordType::PTR {
        let net = query.name().parse_arpa_name().ok()?;
        let whole = net.prefix_len() == net.max_prefix_len();
        let name = context
            .directory
            .name(&context.network, asker, net.addr())
            .filter(|_| whole)?;
        let name = Name::from_ascii(format!("{name}.")).ok()?;
        return Some(vec![record(RData::PTR(PTR(name)))]);
    }
    let name = query.name().to_ascii().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let mut addresses = context.directory.addresses(&context.network, asker, name)?;
    shuffle(&mut addresses);
    // A name of ours without an address of that kind is an empty answer: nobody else may be asked.
    Some(
        addresses
            .into_iter()
            .filter(|address| match query.query_type() {
                RecordType::A => address.is_ipv4(),
                RecordType::AAAA => address.is_ipv6(),
                _ => false,
            })
            .map(|address| record(RData::from(address)))
            .collect(),
    )
}

/// Puts addresses in a random order, so that the askers are spread.
fn shuffle(addresses: &mut [IpAddr]) {
    let mut random = [0u8; 8];
    if addresses.len() < 2 || getrandom::fill(&mut random).is_err() {
        return;
    }
    let mut state = u64::from_le_bytes(random);
    for last in (1..addresses.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // The upper bits of a linear congruential generator are the good ones.
        let other = usize::try_from(state >> 33).unwrap_or(0) % (last + 1);
        addresses.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::dns::Directory;
    use std::sync::Arc;

    #[derive(Debug)]
    struct Fixed;

    impl Directory for Fixed {
        fn addresses(&self, network: &str, asker: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
            assert_eq!((network, asker.to_string().as_str()), ("net", "10.0.0.9"));
            (name == "web").then(|| {
                ["10.0.0.2", "10.0.0.3", "fd00::2"]
                    .iter()
                    .map(|a| a.parse().unwrap())
                    .collect()
            })
        }

        fn name(&self, _: &str, _: IpAddr, address: IpAddr) -> Option<String> {
            (address.to_string() == "10.0.0.2").then(|| "web.net".to_owned())
        }

        fn servers(&self, _: &str, _: IpAddr) -> Vec<IpAddr> {
            Vec::new()
        }
    }

    async fn ask(name: &str, kind: RecordType) -> Message {
        let context = Context {
            network: "net".into(),
            directory: Arc::new(Fixed),
        };
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let bytes = message.to_vec().unwrap();
        let asker = "10.0.0.9".parse().unwrap();
        let answer = answer(&context, &bytes, asker, false).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, message.metadata.id);
        answer
    }

    #[tokio::test]
    async fn names_have_the_addresses_of_the_family_that_was_asked_for() {
        assert_eq!(ask("WEB.", RecordType::A).await.answers.len(), 2);
        assert_eq!(ask("web.", RecordType::AAAA).await.answers.len(), 1);
        let other = ask("web.", RecordType::MX).await;
        assert!(other.answers.is_empty());
        assert_eq!(other.metadata.response_code, ResponseCode::NoError);
        let unknown = ask("else.", RecordType::A).await;
        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    }

    #[tokio::test]
    async fn an_address_has_its_name() {
        let answer = ask("2.0.0.10.in-addr.arpa.", RecordType::PTR).await;
        assert_eq!(
            answer.answers[0].data,
            RData::PTR(PTR(Name::from_ascii("web.net.").unwrap()))
        );
    }

    #[tokio::test]
    async fn what_is_no_question_is_not_answered() {
        let context = Context {
            network: "net".into(),
            directory: Arc::new(Fixed),
        };
        let asker = "10.0.0.9".parse().unwrap();
        for junk in [&b""[..], b"x", &[0xff; 64]] {
            assert!(answer(&context, junk, asker, false).await.is_none());
        }
        let reply = Message::response(7, OpCode::Query).to_vec().unwrap();
        assert!(answer(&context, &reply, asker, false).await.is_none());
        let none = Message::query().to_vec().unwrap();
        let answer = answer(&context, &none, asker, false).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    }
}
