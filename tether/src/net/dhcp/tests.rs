//! The client against servers that do what servers do, on a clock of the test's own.

use super::packet::tests::answer;
use super::*;
use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;

const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// What came: kind of message (option 53), its station, `ciaddr`, and when.
type Heard = (u8, [u8; 6], Ipv4Addr, Duration);

/// A server, as a function from what it hears to the kinds of its answers.
struct Server<F> {
    begun: Instant,
    heard: RefCell<Vec<Heard>>,
    answers: RefCell<Vec<Vec<u8>>>,
    /// So many times the address that it gives is somebody else's.
    taken: Cell<usize>,
    /// So many times sending fails with this.
    fails: Cell<(usize, i32)>,
    act: F,
}

impl<F: Fn(u8, usize) -> Option<u8>> Server<F> {
    fn new(act: F) -> Rc<Self> {
        Rc::new(Server {
            begun: Instant::now(),
            heard: RefCell::default(),
            answers: RefCell::default(),
            taken: Cell::new(0),
            fails: Cell::new((0, 0)),
            act,
        })
    }

    fn kinds(&self) -> Vec<u8> {
        self.heard.borrow().iter().map(|h| h.0).collect()
    }
}

impl<F: Fn(u8, usize) -> Option<u8>> Wire for Rc<Server<F>> {
    fn send(&self, to: [u8; 6], packet: &[u8]) -> io::Result<()> {
        let (left, error) = self.fails.get();
        if left > 0 {
            self.fails.set((left - 1, error));
            return Err(io::Error::from_raw_os_error(error));
        }
        let xid = u32::from_be_bytes(packet[32..36].try_into().unwrap());
        let from: [u8; 4] = packet[40..44].try_into().unwrap();
        let kind = packet[270];
        let mut heard = self.heard.borrow_mut();
        heard.push((kind, to, from.into(), self.begun.elapsed()));
        if let Some(kind) = (self.act)(kind, heard.len()) {
            let options: &[(u8, &[u8])] =
                &[(53, &[kind]), (54, &[10, 1, 2, 1]), (51, &[0, 0, 0, 80])];
            self.answers
                .borrow_mut()
                .push(answer(xid, [10, 1, 2, 3], options));
        }
        Ok(())
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, [u8; 6])> {
        let next = self.answers.borrow_mut().pop();
        match next {
            Some(packet) => {
                buffer[..packet.len()].copy_from_slice(&packet);
                Ok((packet.len(), SERVER))
            }
            None => std::future::pending().await,
        }
    }

    async fn is_taken(&self, address: Ipv4Addr) -> io::Result<bool> {
        assert_eq!(address.octets(), [10, 1, 2, 3]);
        let left = self.taken.get();
        self.taken.set(left.saturating_sub(1));
        Ok(left > 0)
    }
}

fn client() -> Client {
    Client {
        mac: [0, 0x50, 0x56, 1, 2, 3],
        hostname: "web".into(),
    }
}

/// Offers and acknowledges.
fn good(kind: u8, _: usize) -> Option<u8> {
    Some(if kind == 1 { 2 } else { 5 })
}

async fn leased() -> Lease {
    acquire(&Server::new(good), &client(), None).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_got_in_two_steps() {
    let server = Server::new(good);
    let lease = acquire(&server, &client(), Some(PATIENCE)).await.unwrap();
    assert_eq!(server.kinds(), [1, 3]);
    assert_eq!(lease.answer.address.to_string(), "10.1.2.3");
    let times = lease.times.map(|t| (t - server.begun).as_secs());
    assert_eq!(times, [40, 70, 80]);
}

#[tokio::test(start_paused = true)]
async fn without_a_server_it_is_given_up_in_time_and_asked_ever_more_rarely() {
    let server = Server::new(|_, _| None);
    let error = acquire(&server, &client(), Some(PATIENCE))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no server answered within 20 s");
    assert_eq!(server.begun.elapsed(), PATIENCE);
    let times: Vec<_> = server.heard.borrow().iter().map(|h| h.3).collect();
    assert!((4..=6).contains(&times.len()), "{times:?}");
    for pair in times.windows(3) {
        assert!(pair[2] - pair[1] > pair[1] - pair[0], "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_begins_anew() {
    // The first request is refused, the second not confirmed, the third is.
    let server = Server::new(|kind, nth| match (kind, nth) {
        (1, _) => Some(2),
        (_, 2) => Some(6),
        (_, 4) => None,
        _ => Some(5),
    });
    acquire(&server, &client(), Some(PATIENCE)).await.unwrap();
    assert_eq!(server.kinds(), [1, 3, 1, 3, 1, 3]);
    let refusing = Server::new(|kind, _| Some(if kind == 1 { 2 } else { 6 }));
    let error = acquire(&refusing, &client(), Some(PATIENCE))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("refused it then"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_another_station_has_is_declined_and_never_used() {
    let offers = |kind, _| match kind {
        1 => Some(2),
        3 => Some(5),
        _ => None,
    };
    let server = Server::new(offers);
    server.taken.set(1);
    acquire(&server, &client(), Some(PATIENCE)).await.unwrap();
    assert_eq!(server.kinds(), [1, 3, 4, 1, 3]);
    let (_, to, own, declined) = server.heard.borrow()[2];
    assert_eq!((to, own), (EVERYBODY, Ipv4Addr::UNSPECIFIED));
    // A server that gives nothing else is not asked without a pause.
    let again = server.heard.borrow()[3].3;
    assert!(again - declined >= FIRST / 2);
    server.taken.set(usize::MAX);
    let error = acquire(&server, &client(), Some(PATIENCE))
        .await
        .unwrap_err();
    let words = "the address that a server gave is another station's within 20 s";
    assert_eq!(error.to_string(), words);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_of_its_server_at_half_its_time() {
    let lease = leased().await;
    let server = Server::new(good);
    let news = keep(|| Ok(server.clone()), &client(), &lease)
        .await
        .unwrap();
    assert!(matches!(news, News::Kept(next) if next.times[2] > lease.times[2]));
    let heard = server.heard.borrow();
    let (kind, to, from, at) = heard[0];
    assert_eq!((heard.len(), kind, to, at.as_secs()), (1, 3, SERVER, 40));
    assert_eq!(from, lease.answer.address);
}

#[tokio::test(start_paused = true)]
async fn when_its_server_is_silent_any_other_may_renew_it() {
    let lease = leased().await;
    let server = Server::new(|_, _| None);
    let begun = server.begun;
    // Silent until the time of rebinding.
    let other = Server::new(move |_, _| (begun.elapsed().as_secs() >= 70).then_some(5));
    let news = keep(|| Ok(other.clone()), &client(), &lease).await.unwrap();
    assert!(matches!(news, News::Kept(_)));
    let heard = other.heard.borrow();
    let (_, to, _, at) = *heard.last().unwrap();
    assert_eq!((to, at.as_secs()), (EVERYBODY, 70));
    assert!(heard[..heard.len() - 1].iter().all(|h| h.1 == SERVER));
    assert!(heard.len() < 10, "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_renews_is_lost_when_it_ends() {
    let lease = leased().await;
    let server = Server::new(|_, _| None);
    let news = keep(|| Ok(server.clone()), &client(), &lease)
        .await
        .unwrap();
    assert!(matches!(news, News::Lost(why) if why.contains("ran out")));
    assert_eq!(server.begun.elapsed().as_secs(), 80);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_back_is_lost_at_once() {
    let lease = leased().await;
    let server = Server::new(|_, _| Some(6));
    let news = keep(|| Ok(server.clone()), &client(), &lease)
        .await
        .unwrap();
    assert!(matches!(news, News::Lost(why) if why.contains("took it back")));
    assert_eq!(server.begun.elapsed().as_secs(), 40);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_passes_ends_neither_a_lease_nor_the_search_for_one() {
    let lease = leased().await;
    for error in [libc::ENOBUFS, libc::ENOMEM, libc::EMFILE] {
        // Twice no socket, then twice no packet: there is time for more until the lease ends.
        let now = Instant::now();
        let lease = Lease {
            times: [40, 70, 80].map(|s| now + Duration::from_secs(s)),
            ..lease.clone()
        };
        let server = Server::new(good);
        server.fails.set((2, error));
        let unopened = Cell::new(2usize);
        let open = || match unopened.replace(unopened.get().saturating_sub(1)) {
            0 => Ok(server.clone()),
            _ => Err(io::Error::from_raw_os_error(error)),
        };
        let news = keep(open, &client(), &lease).await.unwrap();
        assert!(matches!(news, News::Kept(_)), "{news:?}");
        assert!(server.begun.elapsed().as_secs() < 80);

        server.fails.set((2, error));
        acquire(&server, &client(), None).await.unwrap();
        // Before the first lease it is what the start fails with.
        server.fails.set((1, error));
        let failed = acquire(&server, &client(), Some(PATIENCE)).await;
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(error));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_in_its_time_whatever_fails_until_then() {
    let lease = leased().await;
    let server = Server::new(good);
    server.fails.set((usize::MAX, libc::ENOBUFS));
    let news = keep(|| Ok(server.clone()), &client(), &lease)
        .await
        .unwrap();
    assert!(matches!(news, News::Lost(why) if why.contains("ran out")));
    assert_eq!(server.begun.elapsed().as_secs(), 80);
    // An interface that is gone ends it at once.
    let gone = || Err::<Rc<Server<fn(u8, usize) -> Option<u8>>>, _>(io::ErrorKind::NotFound.into());
    assert!(keep(gone, &client(), &lease).await.is_err());
}
