//! A DHCP client (RFC 2131): gets an address, keeps it, and tells when it is lost.
//!
//! All packets go through a packet socket, which is open only while an answer is awaited: the container's own sockets
//! and the packet filter have no part in it. A renewal goes to the station that sent the last answer, server or relay.

mod packet;
#[cfg(test)]
mod tests;

#[cfg(fuzzing)]
pub use packet::read;
pub use packet::{Answer, Client, claims, probe};
use packet::{Ask, Kind};
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a start waits for a lease.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// First and longest wait for an answer; each is twice the one before, give or take a quarter.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(64);
/// A lease is not shorter: a server must not keep a guest busy.
const SHORTEST_LEASE: u32 = 8;
/// Between two requests of a renewal, at least (RFC 2131 has 60 s, with leases of hours in mind).
const RENEWAL_PAUSE: Duration = Duration::from_secs(2);
/// The most bytes of a packet that are looked at.
const PACKET: usize = 1500;
const EVERYBODY: [u8; 6] = [0xff; 6];

/// An address for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What the server said.
    pub answer: Answer,
    /// The station that said it.
    station: [u8; 6],
    /// When it is to be renewed, when to be asked of any server, when it ends.
    times: [Instant; 3],
}

/// What there is news of.
#[derive(Debug)]
pub enum News {
    /// The lease goes on; what it says may be new.
    Kept(Lease),
    /// The address must not be used any more: why.
    Lost(&'static str),
}

/// Where packets go and come from.
pub trait Wire {
    /// Sends a packet to a station.
    fn send(&self, to: [u8; 6], packet: &[u8]) -> io::Result<()>;
    /// The next packet, and the station that sent it. Cancel-safe.
    fn receive(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<(usize, [u8; 6])>>;
    /// Whether another station has an address.
    fn is_taken(&self, address: Ipv4Addr) -> impl Future<Output = io::Result<bool>>;
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    let read = || {
        use io::Read;
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)
    };
    // Without it exchanges are told apart by their clients alone.
    let _ = { read }();
    u32::from_ne_bytes(bytes)
}

/// Give or take a quarter, so that guests that start together do not ask together.
fn about(wait: Duration) -> Duration {
    let quarter = wait / 4;
    wait - quarter + quarter * 2 * (random() % 1024) / 1024
}

/// Asks, and waits for an answer of one of two kinds until then.
async fn exchange(
    wire: &impl Wire,
    client: &Client,
    (xid, ask): (u32, Ask),
    station: [u8; 6],
    kinds: [Kind; 2],
    until: Instant,
) -> io::Result<Option<(Answer, [u8; 6])>> {
    match wire.send(station, &packet::write(client, xid, ask)) {
        // The cable is out: it may be back in time.
        Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => {}
        other => other?,
    }
    let mut buffer = [0; PACKET];
    loop {
        let got = timeout_at(until, wire.receive(&mut buffer)).await;
        let Ok(got) = got else { return Ok(None) };
        let (len, from) = match got {
            // Told once of an interface that went down.
            Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => continue,
            other => other?,
        };
        let answer = packet::read(&buffer[..len], client, xid);
        if let Some(answer) = answer.filter(|answer| kinds.contains(&answer.kind)) {
            return Ok(Some((answer, from)));
        }
    }
}

/// Whether an error says that the interface is gone. Any other may pass.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

/// Takes an error that may pass for silence.
fn passing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if !is_gone(&error) => {
            crate::console(&format!("DHCP: {error}; to be tried again"));
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// An acknowledged lease, counted from when it was asked for.
fn lease((answer, station): (Answer, [u8; 6]), asked: Instant) -> Lease {
    let [whole, renew, rebind] = answer.times;
    let whole = whole.max(SHORTEST_LEASE);
    let rebind = Some(rebind).filter(|t| (1..whole).contains(t));
    let rebind = rebind.unwrap_or((u64::from(whole) * 7 / 8) as u32);
    let renew = Some(renew).filter(|t| (SHORTEST_LEASE / 2..=rebind).contains(t));
    let renew = renew.unwrap_or((whole / 2).min(rebind));
    Lease {
        times: [renew, rebind, whole].map(|s| asked + Duration::from_secs(s.into())),
        answer,
        station,
    }
}

/// Gets a lease of an address that nobody else has: asks again after ever longer waits.
///
/// # Errors
/// `TimedOut` after `patience` (`None`: never), which says whether anybody answered; those of the socket, where there is
/// no `patience` only that the interface is gone.
pub async fn acquire(
    wire: &impl Wire,
    client: &Client,
    patience: Option<Duration>,
) -> io::Result<Lease> {
    let begun = Instant::now();
    let mut wait = FIRST;
    let mut heard = "no server answered";
    loop {
        let until = Instant::now() + about(wait);
        wait = LONGEST.min(wait * 2);
        let until = patience.map_or(until, |patience| until.min(begun + patience));
        let xid = random();
        let offers = [Kind::Offer; 2];
        let ask = (xid, Ask::Discover);
        let borne = |result: io::Result<Option<(Answer, [u8; 6])>>| match patience {
            Some(_) => result,
            None => passing(result).map(Option::flatten),
        };
        let offer = exchange(wire, client, ask, EVERYBODY, offers, until).await;
        if let Some((offer, _)) = borne(offer)? {
            heard = "a server offered an address and did not confirm it";
            let asked = Instant::now();
            let ask = Ask::Request {
                server: offer.server,
                address: offer.address,
            };
            let answers = [Kind::Ack, Kind::Nak];
            let answer = exchange(wire, client, (xid, ask), EVERYBODY, answers, until).await;
            match borne(answer)? {
                Some(got) if got.0.kind == Kind::Ack => {
                    let address = got.0.address;
                    let taken = match wire.is_taken(address).await {
                        // Nobody can be asked without a cable.
                        Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => false,
                        // It is not to be used unasked: all again.
                        Err(e) if patience.is_none() && !is_gone(&e) => {
                            tokio::time::sleep_until(until).await;
                            continue;
                        }
                        other => other?,
                    };
                    if !taken {
                        return Ok(lease(got, asked));
                    }
                    heard = "the address that a server gave is another station's";
                    let ask = Ask::Decline {
                        server: got.0.server,
                        address,
                    };
                    // It is not answered: what does not arrive is as lost as it would be on the way.
                    let _ = wire.send(EVERYBODY, &packet::write(client, random(), ask));
                }
                Some(_) => heard = "a server offered an address and refused it then",
                None => {}
            }
        }
        if let Some(patience) = patience.filter(|patience| begun.elapsed() >= *patience) {
            let why = format!("{heard} within {} s", patience.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        tokio::time::sleep_until(until).await;
    }
}

/// Waits until it is time, and then renews a lease: of its server first, then of any.
///
/// # Errors
/// That the interface is gone. What else fails with the socket, which `open` makes when it is needed, is tried again.
pub async fn keep<W: Wire>(
    open: impl Fn() -> io::Result<W>,
    client: &Client,
    lease_now: &Lease,
) -> io::Result<News> {
    let [renew, rebind, end] = lease_now.times;
    let address = lease_now.answer.address;
    tokio::time::sleep_until(renew).await;
    let mut wire = None;
    loop {
        if wire.is_none() {
            wire = passing(open())?;
        }
        let now = Instant::now();
        if now >= end {
            return Ok(News::Lost("it ran out, and no server renewed it"));
        }
        // Half of the time that is left of this phase, as RFC 2131, 4.4.5 has it.
        let (phase, server, station) = match now < rebind {
            true => (rebind, Some(lease_now.answer.server), lease_now.station),
            false => (end, None, EVERYBODY),
        };
        let until = (now + (phase - now) / 2)
            .max(now + RENEWAL_PAUSE)
            .min(phase);
        let ask = (random(), Ask::Renew { address, server });
        let answers = [Kind::Ack, Kind::Nak];
        let answer = match &wire {
            Some(wire) => passing(exchange(wire, client, ask, station, answers, until).await)?,
            None => None,
        };
        match answer.flatten() {
            Some((answer, _)) if answer.kind == Kind::Nak || answer.address != address => {
                return Ok(News::Lost("a server took it back"));
            }
            Some(got) => return Ok(News::Kept(lease(got, now))),
            None => tokio::time::sleep_until(until).await,
        }
    }
}
