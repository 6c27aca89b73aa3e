//! What listeners speak TLS with: the same certificate for QUIC and for HTTP, and the same check of clients.
//!
//! It must not know files.

use std::sync::Arc;

use levada_protocol::version::ALPN;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

/// What listeners serve new connections with.
#[derive(Clone)]
pub(crate) struct Served {
    /// For QUIC: TLS 1.3, `levada/1`, no 0-RTT.
    pub(crate) quic: Arc<QuicServerConfig>,
    /// For HTTP over TCP: TLS 1.2 and 1.3, `http/1.1`, no 0-RTT.
    pub(crate) http: Arc<ServerConfig>,
}

/// What is needed to speak TLS.
pub(super) struct Credentials {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// Checks the certificates of clients; without it none is asked for one.
    pub(super) clients: Option<Arc<dyn ClientCertVerifier>>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Credentials {
    /// Both sides.
    ///
    /// # Errors
    /// If certificate and key do not go together.
    pub(super) fn serve(&self) -> Result<Served, rustls::Error> {
        let quic = QuicServerConfig::try_from(self.config(&[&TLS13], ALPN)?)
            .expect("the ring provider has the cipher suite of QUIC's initials");
        let http = self.config(&[&TLS13, &TLS12], b"http/1.1")?;
        Ok(Served { quic: Arc::new(quic), http: Arc::new(http) })
    }

    fn config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocol: &[u8],
    ) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)?;
        let builder = match &self.clients {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        // What arrives in 0-RTT can be replayed by anybody who saw it (decision 50).
        config.max_early_data_size = 0;
        if self.clients.is_some() {
            // A session that is resumed brings its certificate along unchecked, even if it has expired since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }
}
