//! Servers that speak HTTP/2: one made with the crate h2, which hyper uses, and one that sends given frames.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::KEY_A;

/// What a [`Server`] does.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) streams_max: u32,
    pub(crate) window: u32,
    /// Resets each stream with such a number.
    pub(crate) reset_every: usize,
    /// Sends GOAWAY after so many requests on a connection.
    pub(crate) leave_after: usize,
    /// How long a request takes.
    pub(crate) delay: Duration,
    /// The length of its answers.
    pub(crate) answer_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            tls: None,
            streams_max: 100,
            window: 65_535,
            reset_every: usize::MAX,
            leave_after: usize::MAX,
            delay: Duration::ZERO,
            answer_bytes: 2,
        }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) is_http2: bool,
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A server that accepts every request.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    requests: AtomicUsize,
    connections: AtomicUsize,
}

impl Server {
    pub(crate) fn start(options: Options) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            runtime.block_on(accept(listener, options, serving));
        });
        Server { address, state }
    }

    /// Its outbound DSN. TLS certificates are for `localhost`.
    pub(crate) fn dsn(&self, scheme: &str) -> String {
        format!("{scheme}://{KEY_A}@localhost:{}/11", self.address.port())
    }

    /// What has arrived and was answered.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("unpoisoned").clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.seen.lock().expect("unpoisoned").len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many requests have begun.
    pub(crate) fn begun(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, options: Options, state: Arc<State>) {
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        stream.set_nodelay(true).expect("a socket");
        let (options, state) = (options.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let Some(config) = options.tls.clone() else {
                let _ = serve(stream, options, state).await;
                return;
            };
            let Ok(tls) = TlsAcceptor::from(config).accept(stream).await else {
                return;
            };
            let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            let _ = match is_http2 {
                true => serve(tls, options, state).await.ok(),
                false => serve_http1(tls, &state).await,
            };
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    options: Options,
    state: Arc<State>,
) -> Result<(), h2::Error> {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(options.window)
        .initial_connection_window_size(options.window.max(65_535))
        .max_concurrent_streams(options.streams_max);
    let mut connection = builder.handshake::<_, bytes::Bytes>(stream).await?;
    let mut accepted = 0;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let (options, state) = (options.clone(), Arc::clone(&state));
        accepted += 1;
        if accepted == options.leave_after {
            connection.graceful_shutdown();
        }
        tokio::spawn(answer(request, respond, options, state));
    }
    Ok(())
}

async fn answer(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<bytes::Bytes>,
    options: Options,
    state: Arc<State>,
) -> Result<(), h2::Error> {
    let number = state.requests.fetch_add(1, Ordering::SeqCst) + 1;
    if number.is_multiple_of(options.reset_every) {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        incoming.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    tokio::time::sleep(options.delay).await;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = head.headers.iter();
    let seen = Seen {
        is_http2: true,
        line: format!("{} {}", head.method, head.uri),
        fields: fields
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body,
    };
    state.seen.lock().expect("unpoisoned").push(seen);
    let response = http::Response::builder()
        .header("content-type", "application/json")
        .header("content-length", options.answer_bytes)
        .body(())
        .expect("a response");
    let mut sending = respond.send_response(response, false)?;
    let mut answer = vec![b' '; options.answer_bytes];
    answer[..2].copy_from_slice(b"{}");
    sending.send_data(answer.into(), true)
}

/// Serves HTTP/1.1, as far as the mirror uses it.
async fn serve_http1(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &State) -> Option<()> {
    let mut got = Vec::new();
    loop {
        let head_bytes = loop {
            if let Some(end) = got.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut got).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&got[..head_bytes]).into_owned();
        let mut lines = head.lines();
        let line = lines.next()?.to_owned();
        let fields = lines.filter_map(|line| line.split_once(": "));
        let fields: Vec<(String, String)> = fields
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let length = fields.iter().find(|(name, _)| name == "Content-Length");
        let length = length.map_or(0, |(_, value)| value.parse().expect("a length"));
        while got.len() < head_bytes + length {
            if stream.read_buf(&mut got).await.ok()? == 0 {
                return None;
            }
        }
        let mut body = got.split_off(head_bytes);
        got = body.split_off(length);
        state.seen.lock().expect("unpoisoned").push(Seen {
            is_http2: false,
            line,
            fields,
            body,
        });
        stream.write_all(super::ledger::OK).await.ok()?;
    }
}

/// A server that answers each request with bytes of the test.
pub(crate) struct Raw {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    go_aways: Arc<GoAways>,
}

/// The error codes of the GOAWAY frames that have arrived.
type GoAways = Mutex<Vec<u32>>;

impl Raw {
    /// Without TLS.
    pub(crate) fn start(answer: impl Fn(usize, u32) -> Vec<u8> + Send + Sync + 'static) -> Raw {
        Raw::serve(move |mut stream, number, go_aways| {
            serve_raw(&mut stream, false, go_aways, |stream, id| {
                stream.write_all(&answer(number, id)).ok()
            })
        })
    }

    /// With TLS. Each answer is in one write with the end of TLS that `end` adds.
    pub(crate) fn ending(
        config: Arc<ServerConfig>,
        end: impl Fn(&mut ServerConnection) -> Vec<u8> + Send + Sync + 'static,
        answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
    ) -> Raw {
        Raw::serve(move |tcp, _, go_aways| {
            let tls = ServerConnection::new(Arc::clone(&config)).ok()?;
            let mut tls = StreamOwned::new(tls, tcp);
            serve_raw(&mut tls, false, go_aways, |stream, id| {
                let mut bytes = Vec::new();
                stream.conn.writer().write_all(&answer(id)).ok()?;
                while stream.conn.wants_write() {
                    stream.conn.write_tls(&mut bytes).ok()?;
                }
                bytes.extend(end(&mut stream.conn));
                stream.sock.write_all(&bytes).ok()
            })
        })
    }

    /// Without TLS. Its windows are as large as can be, but it takes only so many bytes in a tenth of a second.
    pub(crate) fn slow(bytes: usize) -> Raw {
        Raw::serve(move |tcp, _, go_aways| {
            let mut slow = Slow { tcp, bytes };
            let windows = [
                frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]),
                frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes()),
            ];
            slow.tcp.write_all(&windows.concat()).ok()?;
            serve_raw(&mut slow, true, go_aways, |slow, id| {
                slow.tcp.write_all(&ok(id)).ok()
            })
        })
    }

    fn serve(
        serve: impl Fn(TcpStream, usize, &GoAways) -> Option<()> + Send + Sync + 'static,
    ) -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let go_aways = Arc::new(GoAways::default());
        let noted = Arc::clone(&go_aways);
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let (serve, noted) = (Arc::clone(&serve), Arc::clone(&noted));
                thread::spawn(move || serve(stream, number, &noted));
            }
        });
        Raw {
            address,
            connections,
            go_aways,
        }
    }

    pub(crate) fn dsn(&self) -> String {
        format!("http://{KEY_A}@{}/11", self.address)
    }

    /// The error codes of the GOAWAY frames that have arrived.
    pub(crate) fn go_aways(&self) -> Vec<u32> {
        self.go_aways.lock().expect("unpoisoned").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A connection that is read slowly.
struct Slow {
    tcp: TcpStream,
    bytes: usize,
}

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.bytes);
        let seconds = count as f64 / self.bytes as f64 / 10.0;
        thread::sleep(Duration::from_secs_f64(seconds));
        self.tcp.read(&mut buffer[..count])
    }
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.tcp.flush()
    }
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a short payload")
        .to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head[..], payload].concat()
}

/// A whole answer to the request on `stream`: `:status: 200`.
pub(crate) fn ok(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, b"\x88")
}

/// Answers each request: once it is whole, or as soon as its head has arrived.
fn serve_raw<S: Read + Write>(
    stream: &mut S,
    answers_whole: bool,
    go_aways: &GoAways,
    answer: impl Fn(&mut S, u32) -> Option<()>,
) -> Option<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).ok()?;
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    stream.write_all(&frame(4, 0, 0, b"")).ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        stream.read_exact(&mut payload).ok()?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], head[4] & 1) {
            (1, _) if !answers_whole => answer(stream, id)?,
            (0, 1) if answers_whole => answer(stream, id)?,
            // A server in good order acknowledges.
            (4, 0) => stream.write_all(&frame(4, 1, 0, b"")).ok()?,
            (7, _) => {
                let code = payload[4..8].try_into().expect("four bytes");
                let mut go_aways = go_aways.lock().expect("unpoisoned");
                go_aways.push(u32::from_be_bytes(code));
            }
            _ => {}
        }
    }
}
