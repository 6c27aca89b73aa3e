//! An engine for tests: real QUIC on loopback, the real protocol, a log in memory, and faults on demand.
//!
//! It knows just enough of the engine's rules to be a fair peer: sequences, duplicates, credit.

mod publish;
pub(crate) mod streams;

use std::{
    collections::{HashMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use levada_client::{
    Client, ClientConfig, Notice, Request,
    protocol::{
        batch::Batch,
        error::Refusal,
        request::{Open, Read, Subscribe, TransactionBatch},
        verbs::{Credit, RefusedVerb, Verb},
    },
};
use quinn::{Connection, Endpoint, VarInt, crypto::rustls::QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::{
    WantsVerifier,
    pki_types::CertificateDer,
    server::{WantsServerCert, WebPkiClientVerifier},
};
use tokio::sync::Notify;

/// The engine's clock when it answers a hello: far from any other.
pub(crate) const ENGINE_CLOCK_MS: u64 = 1_000_000_000;

/// What the engine does with one publish.
#[derive(Debug, Clone)]
pub(crate) enum Reaction {
    /// Stores and acknowledges.
    Append,
    /// Stores, and closes the connection instead of acknowledging.
    AppendAndCut,
    /// Stores, has another publisher take over the name, and closes the connection instead of acknowledging.
    AppendAndTakeOver,
    /// Closes the connection.
    Cut,
    /// Stores, and keeps the acknowledgement until [`Engine::release`].
    Hold,
    /// Refuses without storing.
    Refuse(Refusal),
    /// Forgets all producers, then goes by the rules.
    Forget,
}

/// A publish as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) producer: u128,
    pub(crate) epoch: u32,
    pub(crate) partition: u16,
    pub(crate) first_sequence: u64,
    pub(crate) count: u32,
    pub(crate) bytes: usize,
}

/// All that the engine knows and does; tests look at it and change it.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) partitions: u16,
    pub(crate) connections: usize,
    /// The tokens of the hellos, in the order of the connections.
    pub(crate) tokens: Vec<Option<String>>,
    /// The certificates that clients have shown, likewise.
    pub(crate) certificates: Vec<Option<Vec<u8>>>,
    /// What to do with the next publishes; then [`Reaction::Append`].
    pub(crate) reactions: VecDeque<Reaction>,
    pub(crate) seen: Vec<Seen>,
    /// Per partition: stored batches with their base offsets.
    pub(crate) log: HashMap<u16, Vec<(u64, Batch)>>,
    pub(crate) producers: HashMap<(u128, u16), publish::Producer>,
    pub(crate) held: usize,
    pub(crate) release: bool,
    /// Refuses the next streams that are opened.
    pub(crate) refuse_open: VecDeque<Refusal>,
    pub(crate) requests: Vec<Request>,
    /// How often a producer's name was opened: the newest epoch.
    pub(crate) openings: u32,
    /// Closes the connection instead of answering the next of these.
    pub(crate) cut_openings: usize,
    pub(crate) artefacts: Vec<Vec<Bytes>>,
    pub(crate) subscribes: Vec<Subscribe>,
    /// Delivery frames to be sent, with the events in each.
    pub(crate) deliveries: VecDeque<(u64, Bytes)>,
    pub(crate) credits: Vec<Credit>,
    pub(crate) verbs: Vec<Verb>,
    pub(crate) verb_frames: usize,
    pub(crate) refuse_verbs: Vec<RefusedVerb>,
    /// Verbs are taken and never confirmed.
    pub(crate) silent: bool,
    /// What a consumer is told.
    pub(crate) ack_timeout_ms: u32,
    pub(crate) detached: usize,
    pub(crate) reads: Vec<Read>,
    /// Cuts the connection after so many delivery frames of a reader.
    pub(crate) cut_read_after: Option<usize>,
    /// Ends consumers' streams, once all deliveries are sent.
    pub(crate) end_consumers: VecDeque<Refusal>,
    /// Consumers' streams are no longer read, as the engine does before it gives its reason.
    pub(crate) deaf: bool,
    /// Ends readers' streams with this instead of `End`.
    pub(crate) end_reader: Option<Refusal>,
    pub(crate) notices: VecDeque<Notice>,
    /// What to do with the next transactions; without any, they get no answer and the connection is closed.
    pub(crate) transacts: VecDeque<Transacted>,
    /// The frames of the batches of each.
    pub(crate) transacted: Vec<Vec<Bytes>>,
}

/// What the engine does with one transaction.
#[derive(Debug, Clone)]
pub(crate) enum Transacted {
    /// Closes the connection.
    Cut,
    Refuse(Refusal),
    /// Says so of its batches.
    Answer(Vec<TransactionBatch>),
}

pub(crate) struct Engine {
    pub(crate) addr: SocketAddr,
    pub(crate) ca_pem: String,
    pub(crate) inner: Arc<Inner>,
    endpoint: Endpoint,
}

pub(crate) struct Inner {
    world: Mutex<World>,
    changed: Notify,
}

impl Inner {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world());
        self.changed.notify_waiters();
        result
    }

    /// Waits until the world is as expected; a test that waits in vain fails after a minute.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut(&mut World) -> Option<T>) -> T {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = look(&mut self.world()) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the expected state never came")
    }
}

impl Engine {
    pub(crate) fn start(partitions: u16) -> Self {
        Self::start_at(partitions, &Authority::new(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    pub(crate) fn start_at(partitions: u16, authority: &Authority, addr: SocketAddr) -> Self {
        let tls = tls(|builder| builder.with_no_client_auth(), authority);
        Self::start_with(partitions, authority, addr, tls)
    }

    /// Talks to clients alone that show a certificate of this authority.
    pub(crate) fn start_for_certificates(clients: &Authority) -> Self {
        let authority = Authority::new();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(clients.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let tls = tls(|builder| builder.with_client_cert_verifier(verifier), &authority);
        Self::start_with(1, &authority, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), tls)
    }

    fn start_with(
        partitions: u16,
        authority: &Authority,
        addr: SocketAddr,
        mut tls: rustls::ServerConfig,
    ) -> Self {
        tls.alpn_protocols = vec![b"levada/1".to_vec()];
        let mut transport = quinn::TransportConfig::default();
        transport
            .initial_mtu(6_500)
            .stream_receive_window(VarInt::from_u32(16 << 20))
            .receive_window(VarInt::from_u32(64 << 20))
            .send_window(64 << 20);
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(transport));
        let mut endpoint_config = quinn::EndpointConfig::default();
        endpoint_config.max_udp_payload_size(6_500).unwrap();
        let socket = std::net::UdpSocket::bind(addr).unwrap();
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(endpoint_config, Some(config), socket, runtime).unwrap();
        let world = World { partitions, ..World::default() };
        let inner = Arc::new(Inner { world: Mutex::new(world), changed: Notify::new() });
        spawn(accept(endpoint.clone(), inner.clone()));
        Self { addr: endpoint.local_addr().unwrap(), ca_pem: authority.pem(), inner, endpoint }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig::new(self.addr.to_string()).ca_pem(self.ca_pem.as_str())
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.config()).await.unwrap()
    }

    /// Sends the acknowledgements that were held back, the newest first.
    pub(crate) fn release(&self) {
        self.inner.change(|world| world.release = true);
    }

    /// Ends all connections, as a crash does once the engine is back.
    pub(crate) fn stop(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"stopped");
    }

    /// Ends all connections and frees the port.
    pub(crate) async fn shut_down(self) {
        self.stop();
        self.endpoint.wait_idle().await;
        // The accepting task holds the other handle on the endpoint, and with it the socket.
        let addr = self.addr;
        drop(self);
        while std::net::UdpSocket::bind(addr).is_err() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

type Builder<State> = rustls::ConfigBuilder<rustls::ServerConfig, State>;

fn tls(
    verifying: impl FnOnce(Builder<WantsVerifier>) -> Builder<WantsServerCert>,
    authority: &Authority,
) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (certificate, key) = authority.server_certificate();
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    verifying(builder).with_single_cert(vec![certificate], key).unwrap()
}

/// A local CA.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self { issuer: CertifiedIssuer::self_signed(ca_params(), KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The same CA, name and key, in a certificate that is valid in other years.
    pub(crate) fn pem_valid(&self, from: i32, until: i32) -> String {
        let mut params = ca_params();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        params.self_signed(self.issuer.key()).unwrap().pem()
    }

    /// A certificate for a client with this name, and its key, as PEM.
    pub(crate) fn client_pem(&self, uri: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn server_certificate(&self) -> (CertificateDer<'static>, rustls::pki_types::PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        (certificate.der().clone(), key.into())
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "fake CA");
    params
}

#[expect(clippy::disallowed_methods, reason = "the fake engine's tasks end with the test's runtime")]
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

async fn accept(endpoint: Endpoint, inner: Arc<Inner>) {
    while let Some(incoming) = endpoint.accept().await {
        let inner = inner.clone();
        spawn(async move {
            if let Ok(connection) = incoming.await {
                let shown = connection.peer_identity();
                let shown = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'_>>>().ok());
                inner.change(|world| {
                    world.connections += 1;
                    world.certificates.push(shown.map(|chain| chain[0].to_vec()));
                });
                serve(connection, inner).await;
            }
        });
    }
}

async fn serve(connection: Connection, inner: Arc<Inner>) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let mut stream = streams::Stream::new(connection.clone(), inner.clone(), send, recv);
        spawn(async move {
            let Some(open) = stream.open().await else { return };
            let refusal = stream.inner.change(|world| match open {
                Open::Hello(_) => None,
                _ => world.refuse_open.pop_front(),
            });
            if let Some(refusal) = refusal {
                return stream.refuse(refusal).await;
            }
            match open {
                Open::Hello(hello) => stream.hello(hello).await,
                Open::Publish { .. } => publish::serve(stream).await,
                Open::Subscribe(subscribe) => stream.subscribe(subscribe).await,
                Open::Read(read) => stream.read(read).await,
                Open::Request(envelope) => stream.request(envelope).await,
                Open::CheckBacks { .. } | Open::Unknown => {}
            }
        });
    }
}
