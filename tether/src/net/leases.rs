//! The VM's DHCP leases: got before the container starts, kept while it runs, told to the endpoint.

use super::dhcp::{self, Answer, Client, Lease, News, PATIENCE, Wire};
use super::interfaces;
use crate::boot::files::{self, Networks};
use crate::io::fd::AsyncFile;
use crate::sys::packet;
use crate::vm::Vm;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use wire::config::{GuestConfig, Interface};
use wire::message::ToHost;

/// The port of a DHCP client.
const PORT: u16 = 68;

/// So often it is asked whether anybody has an address, and so long an answer is awaited. RFC 5227 has seconds, for
/// networks whose ports wait for spanning trees; a start would wait for them, and a server has asked before.
const PROBES: usize = 3;
const PROBE_WAIT: Duration = Duration::from_millis(100);
/// After an error that may pass.
const PAUSE: Duration = Duration::from_secs(5);

/// A packet socket at an interface.
struct Socket {
    index: u32,
    mac: [u8; 6],
    file: AsyncFile,
}

impl Socket {
    fn open(index: u32, mac: [u8; 6]) -> io::Result<Socket> {
        let file = AsyncFile::new(packet::open(index, PORT)?)?;
        Ok(Socket { index, mac, file })
    }
}

impl Wire for Socket {
    fn send(&self, to: [u8; 6], bytes: &[u8]) -> io::Result<()> {
        packet::send(self.file.get(), self.index, to, bytes)
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, [u8; 6])> {
        self.file
            .when_readable(|fd| packet::receive(fd, buffer))
            .await
    }

    async fn is_taken(&self, address: Ipv4Addr) -> io::Result<bool> {
        let arp = AsyncFile::new(packet::open_arp(self.index)?)?;
        for _ in 0..PROBES {
            packet::send_arp(arp.get(), self.index, &dhcp::probe(self.mac, address))?;
            let heard = async {
                let mut buffer = [0; 64];
                loop {
                    let receive = |fd: &_| packet::receive(fd, &mut buffer);
                    let (len, _) = arp.when_readable(receive).await?;
                    if dhcp::claims(&buffer[..len], self.mac, address) {
                        return Ok(());
                    }
                }
            };
            if let Ok(heard) = timeout(PROBE_WAIT, heard).await {
                crate::console(&format!("{address} is another station's: declined"));
                return heard.map(|()| true);
            }
        }
        Ok(false)
    }
}

/// An interface that has its address by DHCP.
#[derive(Debug)]
struct Held {
    interface: Interface,
    lease: Option<Rc<Lease>>,
    task: AbortHandle,
}

/// The leases.
#[derive(Debug, Default)]
pub struct Leases(Vec<Held>);

impl Leases {
    fn of(&self, mac: &str) -> Option<&Held> {
        self.0.iter().find(|held| held.interface.mac == mac)
    }

    /// One message for each.
    pub fn messages(&self) -> Vec<ToHost> {
        self.0.iter().map(message).collect()
    }

    /// Ends the leases of interfaces that are to go, and notes what the others are to be.
    pub fn update(&mut self, interfaces: &[Interface]) {
        self.0.retain_mut(|held| {
            let new = interfaces.iter().find(|i| i.mac == held.interface.mac);
            match new {
                Some(new) => held.interface = new.clone(),
                None => held.task.abort(),
            }
            new.is_some()
        });
    }

    /// Sets the routes of the leases again, once all others are set.
    ///
    /// # Errors
    /// Text that names the interface.
    pub fn restore(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|held| match &held.lease {
            Some(lease) => take(&held.interface, lease)
                .map_err(|e| format!("{}: setting its routes: {e}", held.interface.name)),
            None => Ok(()),
        })
    }

    /// What the generated files say: the leases' addresses, too, and their name servers and domain where nobody gave
    /// others.
    fn told(&self, config: &GuestConfig, interfaces: &[Interface], dns: &[String]) -> Networks {
        let mut out = Networks {
            addresses: Vec::new(),
            dns: dns.to_vec(),
            search: config.dns_search.clone(),
        };
        for interface in interfaces {
            out.addresses.extend_from_slice(&interface.addresses);
            let held = self.of(&interface.mac).and_then(|h| h.lease.as_ref());
            let Some(answer) = held.map(|lease| &lease.answer) else {
                continue;
            };
            out.addresses.push(net(answer));
            if dns.is_empty() {
                out.dns.extend(answer.dns.iter().map(Ipv4Addr::to_string));
            }
            if config.dns_search.is_empty() && !answer.domain.is_empty() {
                out.search.push(answer.domain.clone());
            }
        }
        out
    }
}

fn net(answer: &Answer) -> String {
    format!("{}/{}", answer.address, answer.prefix)
}

fn message(held: &Held) -> ToHost {
    let answer = held.lease.as_ref().map(|lease| &lease.answer);
    ToHost::Lease {
        mac: held.interface.mac.clone(),
        address: answer.map(net),
        gateway: answer.and_then(|a| a.router).map(|r| r.to_string()),
    }
}

fn index(interface: &Interface) -> io::Result<u32> {
    interfaces::look(&interface.mac)?.ok_or(io::ErrorKind::NotFound.into())
}

fn take(interface: &Interface, lease: &Lease) -> io::Result<()> {
    interfaces::take_lease(index(interface)?, interface, &lease.answer)
}

/// Waits a while after an error, unless that says that the interface is gone.
async fn pause(mac: &str, error: io::Error) -> io::Result<()> {
    if dhcp::is_gone(&error) {
        return Err(error);
    }
    crate::console(&format!("{mac}: DHCP: {error}; to be tried again"));
    tokio::time::sleep(PAUSE).await;
    Ok(())
}

/// Gets a lease for an interface that is up and has no address, and keeps it from then on.
///
/// # Errors
/// Text that names the interface, and says that no server answered, or what failed.
pub async fn join(vm: &Rc<Vm>, interface: &Interface) -> Result<(), String> {
    let (first, told) = oneshot::channel();
    let keeper = Rc::clone(vm).keep_leased(interface.mac.clone(), first);
    let held = Held {
        interface: interface.clone(),
        lease: None,
        task: tokio::task::spawn_local(keeper).abort_handle(),
    };
    vm.leases.borrow_mut().0.push(held);
    // The task tells before it ends, unless the interface is taken away.
    let told = told.await.unwrap_or(Some("it was taken away".to_owned()));
    told.map_or(Ok(()), |error| {
        Err(format!(
            "{} ({}): no address by DHCP: {error}",
            interface.name, interface.mac
        ))
    })
}

impl Vm {
    async fn keep_leased(self: Rc<Vm>, mac: String, first: oneshot::Sender<Option<String>>) {
        let mut first = Some(first);
        // It only ends with an error.
        let error = match self.tend(&mac, &mut first).await {
            Ok(()) => return,
            Err(error) => error.to_string(),
        };
        match first {
            Some(first) => drop(first.send(Some(error))),
            None => crate::console(&format!("{mac}: no DHCP any more: {error}")),
        }
    }

    async fn tend(
        &self,
        mac: &str,
        first: &mut Option<oneshot::Sender<Option<String>>>,
    ) -> io::Result<()> {
        let mut client = Client {
            mac: [0; 6],
            hostname: self.config.hostname.clone(),
        };
        for (byte, text) in client.mac.iter_mut().zip(mac.split(':')) {
            *byte = u8::from_str_radix(text, 16).map_err(io::Error::other)?;
        }
        let index = interfaces::look(mac)?.ok_or(io::ErrorKind::NotFound)?;
        let mut lease: Option<Rc<Lease>> = None;
        loop {
            let news = match &lease {
                None => {
                    let patience = first.is_some().then_some(PATIENCE);
                    let socket = match Socket::open(index, client.mac) {
                        Err(error) if first.is_none() => {
                            pause(mac, error).await?;
                            continue;
                        }
                        other => other?,
                    };
                    News::Kept(dhcp::acquire(&socket, &client, patience).await?)
                }
                Some(lease) => {
                    dhcp::keep(|| Socket::open(index, client.mac), &client, lease).await?
                }
            };
            let before = lease.take();
            match news {
                News::Kept(next) => {
                    let next = Rc::new(next);
                    let same = before.is_some_and(|before| before.answer == next.answer);
                    lease = Some(next);
                    if same {
                        continue;
                    }
                }
                News::Lost(why) => {
                    crate::console(&format!("{mac}: the DHCP lease is lost: {why}"));
                    if let Some(before) = before {
                        // The interface may be gone with it.
                        let _ = interfaces::give_back(index, &before.answer);
                    }
                }
            }
            let told = loop {
                match self.note(mac, &lease) {
                    Err(error) if first.is_none() => pause(mac, error).await?,
                    other => break other?,
                }
            };
            match first.take() {
                Some(first) => drop(first.send(None)),
                None => self.write_files(),
            }
            if let Some(told) = told {
                self.tell(told).await;
            }
        }
    }

    /// Notes a lease, or its loss, and sets what it says; the message that tells it.
    fn note(&self, mac: &str, lease: &Option<Rc<Lease>>) -> io::Result<Option<ToHost>> {
        let mut leases = self.leases.borrow_mut();
        let Some(held) = leases.0.iter_mut().find(|held| held.interface.mac == mac) else {
            return Ok(None);
        };
        held.lease.clone_from(lease);
        if let Some(lease) = lease {
            take(&held.interface, lease)?;
        }
        Ok(Some(message(held)))
    }

    fn write_files(&self) {
        if let Err(fault) = files::write_network(&self.config, &self.as_told()) {
            crate::console(&fault.to_string());
        }
    }

    /// The networks as they are now.
    #[must_use]
    pub fn as_told(&self) -> Networks {
        let told = self.told.borrow();
        self.leases.borrow().told(&self.config, &told.0, &told.1)
    }
}
