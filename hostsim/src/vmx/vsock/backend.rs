//! The device as QEMU's vhost-user sees it: three virtqueues and what moves on them.

use super::packet::{HEADER_LEN, Header, PAYLOAD_MAX};
use super::sockets::{Change, Incoming, Sockets};
use super::state::{Key, Mux, Verdict};
use std::collections::{HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackendMut, VringMutex, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT, Reader, Writer};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

/// Queues of the device: to the guest, from the guest, events.
const QUEUES: usize = 3;
const RX: usize = 0;
const TX: usize = 1;
/// Descriptors of a queue.
const QUEUE_SIZE: usize = 256;
/// The number under which the sockets report; queues and the exit event come before it.
pub(super) const SOCKETS_EVENT: u16 = 4;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Vring = VringMutex<Memory>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// The device.
#[derive(Debug)]
pub(super) struct Backend {
    guest_cid: u32,
    event_idx: bool,
    memory: Option<Memory>,
    exit: (EventConsumer, EventNotifier),
    mux: Mux,
    sockets: Sockets,
    /// Connections with something for the guest, in the order of their turns.
    ready: VecDeque<Key>,
    is_ready: HashSet<Key>,
    /// The queues, once the guest uses them.
    vrings: Vec<SavedVring>,
    payload: Vec<u8>,
}

struct SavedVring(Vring);

impl std::fmt::Debug for SavedVring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vring")
    }
}

impl Backend {
    pub(super) fn new(guest_cid: u32, sockets: Sockets) -> io::Result<Backend> {
        Ok(Backend {
            guest_cid,
            event_idx: false,
            memory: None,
            exit: new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?,
            mux: Mux::new(u64::from(guest_cid)),
            sockets,
            ready: VecDeque::new(),
            is_ready: HashSet::new(),
            vrings: Vec::new(),
            payload: vec![0; PAYLOAD_MAX],
        })
    }

    /// QEMU has been here.
    pub(super) fn connected(&self) -> bool {
        self.memory.is_some()
    }

    /// The guest is gone: pass on what it sent.
    pub(super) fn flush(&mut self, deadline: Duration) -> io::Result<()> {
        self.sockets.finish(deadline)
    }

    fn mark_ready(&mut self, key: Key) {
        if self.is_ready.insert(key) {
            self.ready.push_back(key);
        }
    }

    /// Take packets of the guest's, as long as there is room for answers; at most a queue of them, as a guest can fill
    /// it again as quickly.
    fn process_tx(&mut self, vring: &Vring) -> io::Result<()> {
        let mut used = false;
        for _ in 0..QUEUE_SIZE {
            if self.mux.congested() {
                break;
            }
            let Some(chain) = self.next_chain(vring)? else {
                break;
            };
            let head = chain.head_index();
            // A malformed packet is dropped: there is nobody to tell.
            let _ = self.take_packet(chain);
            vring.add_used(head, 0).map_err(io::Error::other)?;
            used = true;
        }
        if used { signal(vring) } else { Ok(()) }
    }

    /// The next chain, if the guest has one for us.
    ///
    /// # Errors
    /// What the guest says of its queue cannot be. "None" would not do: the queue would seem to fill again and again.
    fn next_chain(&self, vring: &Vring) -> io::Result<Option<Chain>> {
        let Some(memory) = &self.memory else {
            return Ok(None);
        };
        let mut vring = vring.get_mut();
        let queue = vring.get_queue_mut();
        if !queue.ready() {
            return Ok(None);
        }
        let memory = memory.memory();
        let available = queue
            .avail_idx(&*memory, Ordering::Acquire)
            .map_err(io::Error::other)?;
        if available.0 == queue.next_avail() {
            return Ok(None);
        }
        let mut chains = queue.iter(memory).map_err(io::Error::other)?;
        let chain = chains.next();
        chain
            .map(Some)
            .ok_or_else(|| io::Error::other("the guest's queue cannot be read"))
    }

    fn take_packet(&mut self, chain: Chain) -> io::Result<()> {
        let memory = chain.memory().clone();
        let mut reader = Reader::new(&memory, chain).map_err(io::Error::other)?;
        let mut bytes = [0; HEADER_LEN];
        reader.read_exact(&mut bytes)?;
        let header = Header::decode(&bytes);
        match self.mux.receive(&header, reader.available_bytes()) {
            Verdict::Nothing => {}
            Verdict::Connect(key) => match self.sockets.connect(key) {
                Ok(()) => {
                    self.mux.accept(key);
                    self.mark_ready(key);
                }
                Err(_) => self.mux.refuse(key),
            },
            Verdict::Take(key) => {
                // The state has checked that this is at most PAYLOAD_MAX and available.
                let len = usize::try_from(header.len).unwrap_or(usize::MAX);
                let payload = self
                    .payload
                    .get_mut(..len)
                    .ok_or(io::ErrorKind::InvalidData)?;
                reader.read_exact(payload)?;
                match self.sockets.send(key, payload) {
                    Ok(sent) => self.mux.forwarded(key, sent),
                    Err(_) => {
                        self.sockets.discard(key);
                        self.mux.refuse(key);
                    }
                }
            }
            Verdict::Resume(key) => self.mark_ready(key),
            Verdict::EndOfInput(key) => self.sockets.end_input(key),
            Verdict::Close(key) => self.sockets.close(key),
        }
        Ok(())
    }

    /// Give the guest what there is for it, as long as it has room.
    fn process_rx(&mut self, vring: &Vring) -> io::Result<()> {
        let mut used = false;
        for _ in 0..QUEUE_SIZE {
            let Some(source) = self.next_source() else {
                break;
            };
            let Some(chain) = self.next_chain(vring)? else {
                if let Source::Connection(key, _) = source {
                    // Its turn comes when the guest has made room.
                    self.is_ready.insert(key);
                    self.ready.push_front(key);
                }
                break;
            };
            let head = chain.head_index();
            let written = self.give_packet(chain, source)?;
            vring.add_used(head, written).map_err(io::Error::other)?;
            used = true;
        }
        if used { signal(vring) } else { Ok(()) }
    }

    fn next_source(&mut self) -> Option<Source> {
        if self.mux.has_control() {
            return Some(Source::Control);
        }
        while let Some(key) = self.ready.pop_front() {
            self.is_ready.remove(&key);
            let credit = self.mux.credit(key);
            if credit == 0 {
                // The guest's next credit update makes it ready again.
                continue;
            }
            match self.sockets.incoming(key) {
                Incoming::Bytes(n) => return Some(Source::Connection(key, n.min(credit))),
                Incoming::Nothing => {}
                Incoming::End { both } => {
                    self.mux.host_ended(key, both);
                    if self.mux.has_control() {
                        return Some(Source::Control);
                    }
                }
            }
        }
        None
    }

    fn give_packet(&mut self, chain: Chain, source: Source) -> io::Result<u32> {
        let memory = chain.memory().clone();
        let mut writer = Writer::new(&memory, chain).map_err(io::Error::other)?;
        let room = writer.available_bytes();
        if room < HEADER_LEN {
            // Useless to everybody; the guest gets it back empty. A connection keeps its turn.
            if let Source::Connection(key, _) = source {
                self.mark_ready(key);
            }
            return Ok(0);
        }
        match source {
            Source::Control => {
                if let Some(header) = self.mux.next_control() {
                    writer.write_all(&header.encode())?;
                }
            }
            Source::Connection(key, most) => {
                let bytes = self
                    .sockets
                    .take(key, most.min(room - HEADER_LEN).min(PAYLOAD_MAX));
                let header = self.mux.data(key, bytes.len());
                writer.write_all(&header.encode())?;
                writer.write_all(bytes)?;
                self.mark_ready(key);
            }
        }
        u32::try_from(writer.bytes_written()).map_err(io::Error::other)
    }

    fn process_sockets(&mut self) -> io::Result<()> {
        for change in self.sockets.poll()? {
            match change {
                Change::Forwarded(key, bytes) => self.mux.forwarded(key, bytes),
                Change::Readable(key) => self.mark_ready(key),
                Change::Broken(key) => {
                    self.sockets.discard(key);
                    self.mux.refuse(key);
                }
            }
        }
        Ok(())
    }

    /// Move all that can be moved; what cannot will be told of by an event.
    fn process(&mut self, rx: &Vring, tx: &Vring) -> io::Result<()> {
        loop {
            for vring in [rx, tx] {
                quiet(vring)?;
            }
            self.process_rx(rx)?;
            let congested = self.mux.congested();
            self.process_tx(tx)?;
            self.process_rx(rx)?;
            // Packets of the guest's are left lying only while it takes none of ours.
            let more_tx = listen(tx)? && !self.mux.congested();
            let more_rx = listen(rx)? && (self.mux.has_control() || !self.ready.is_empty());
            let relieved = congested && !self.mux.congested();
            if !(more_tx || more_rx || relieved) {
                return Ok(());
            }
        }
    }
}

/// What the next packet to the guest is made of.
#[derive(Debug, Clone, Copy)]
enum Source {
    Control,
    Connection(Key, usize),
}

fn in_use(vring: &Vring) -> bool {
    vring.get_ref().get_queue().ready()
}

/// Ask the guest not to notify while its queue is worked on anyway.
fn quiet(vring: &Vring) -> io::Result<()> {
    if in_use(vring) {
        vring.disable_notification().map_err(io::Error::other)
    } else {
        Ok(())
    }
}

/// Ask the guest to notify again; whether something came in the meantime.
fn listen(vring: &Vring) -> io::Result<bool> {
    if in_use(vring) {
        vring.enable_notification().map_err(io::Error::other)
    } else {
        Ok(false)
    }
}

fn signal(vring: &Vring) -> io::Result<()> {
    if vring.needs_notification().map_err(io::Error::other)? {
        vring.signal_used_queue()?;
    }
    Ok(())
}

impl VhostUserBackendMut for Backend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&mut self, enabled: bool) {
        self.event_idx = enabled;
    }

    fn update_memory(&mut self, memory: Memory) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // struct virtio_vsock_config: the guest's context ID.
        let config = u64::from(self.guest_cid).to_le_bytes();
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(config.len());
        let to = from
            .saturating_add(usize::try_from(size).unwrap_or(usize::MAX))
            .min(config.len());
        config.get(from..to).unwrap_or_default().to_vec()
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        Some((self.exit.0.try_clone().ok()?, self.exit.1.try_clone().ok()?))
    }

    fn stop_vring(&mut self, queue: u32) -> io::Result<()> {
        // The guest may have sent its last packets just before it ended.
        if usize::try_from(queue).is_ok_and(|queue| queue == TX)
            && let Some(SavedVring(tx)) = self.vrings.get(TX).map(|v| SavedVring(v.0.clone()))
        {
            tx.get_mut().get_queue_mut().set_ready(true);
            let result = self.process_tx(&tx);
            tx.get_mut().get_queue_mut().set_ready(false);
            result?;
        }
        Ok(())
    }

    fn handle_event(
        &mut self,
        event: u16,
        _events: EventSet,
        vrings: &[Vring],
        _thread: usize,
    ) -> io::Result<()> {
        let (Some(rx), Some(tx)) = (vrings.get(RX), vrings.get(TX)) else {
            return Ok(());
        };
        if self.vrings.is_empty() {
            self.vrings = vrings.iter().cloned().map(SavedVring).collect();
        }
        if event == SOCKETS_EVENT {
            self.process_sockets()?;
        }
        // The guest's doing, and the end of its device: the thread that called ends with it.
        self.process(rx, tx)
            .inspect_err(|e| eprintln!("vmx: vsock device: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use vm_memory::{Bytes, GuestAddress};

    const DESCRIPTORS: u64 = 0x1000;
    const AVAILABLE: u64 = 0x2000;
    const USED: u64 = 0x3000;

    /// A device of a guest with this many bytes of memory, whose TX queue is where the constants say.
    fn device(memory: usize) -> (Backend, GuestMemoryMmap, Vec<Vring>) {
        let folder = std::env::temp_dir();
        let mut backend = Backend::new(3, Sockets::new(folder).unwrap()).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), memory)]).unwrap();
        let shared = GuestMemoryAtomic::new(memory.clone());
        backend.update_memory(shared.clone()).unwrap();
        let size = u16::try_from(QUEUE_SIZE).unwrap();
        let vrings: Vec<Vring> = (0..QUEUES)
            .map(|_| Vring::new(shared.clone(), size).unwrap())
            .collect();
        (backend, memory, vrings)
    }

    /// What the device makes of the guest's kick, which has to come to an end.
    fn kicked(mut backend: Backend, vrings: Vec<Vring>) -> (Backend, io::Result<()>) {
        let (done, result) = mpsc::channel();
        std::thread::spawn(move || {
            let event = u16::try_from(TX).unwrap();
            let result = backend.handle_event(event, EventSet::IN, &vrings, 0);
            done.send((backend, result)).unwrap();
        });
        let limit = Duration::from_secs(60);
        result.recv_timeout(limit).expect("it goes on for ever")
    }

    #[test]
    fn a_guest_with_more_in_its_queue_than_fits_is_refused() {
        let (backend, memory, vrings) = device(0x1_0000);
        let tx = &vrings[TX];
        tx.set_queue_info(DESCRIPTORS, AVAILABLE, USED).unwrap();
        tx.set_queue_ready(true);
        memory
            .write_obj(300u16, GuestAddress(AVAILABLE + 2))
            .unwrap();
        let (mut backend, result) = kicked(backend, vrings);
        assert!(result.is_err());
        // Nor does its end wait for ever.
        assert!(backend.stop_vring(u32::try_from(TX).unwrap()).is_err());
    }

    #[test]
    fn a_queue_beyond_the_guest_s_memory_is_refused() {
        // Its index is the memory's last two bytes; what it counts would come behind.
        let (backend, memory, vrings) = device(0x4000);
        let available = 0x3ffc;
        let tx = &vrings[TX];
        tx.set_queue_info(DESCRIPTORS, available, USED).unwrap();
        tx.set_queue_ready(true);
        memory.write_obj(1u16, GuestAddress(available + 2)).unwrap();
        let (_, result) = kicked(backend, vrings);
        assert!(result.is_err());
    }

    #[test]
    fn a_full_queue_is_taken() {
        let (backend, memory, vrings) = device(0x1_0000);
        let tx = &vrings[TX];
        tx.set_queue_info(DESCRIPTORS, AVAILABLE, USED).unwrap();
        tx.set_queue_ready(true);
        let size = u16::try_from(QUEUE_SIZE).unwrap();
        memory.write_obj(size, GuestAddress(AVAILABLE + 2)).unwrap();
        let (_, result) = kicked(backend, vrings.clone());
        result.unwrap();
        let taken: u16 = memory.read_obj(GuestAddress(USED + 2)).unwrap();
        assert_eq!(taken, size);
    }
}
