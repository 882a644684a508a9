//! A scripted HTTP server on a loopback port: an authorization server that answers exactly what the test wrote down,
//! or fails exactly where the test said.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use url::Url;

/// The server. Every connection carries one request; an unscripted one is answered 404 in HTML.
pub(crate) struct TokenEndpoint {
    base: Url,
    script: Script,
    requests: mpsc::UnboundedReceiver<Received>,
    accepting: JoinHandle<()>,
}

type Script = Arc<Mutex<HashMap<String, VecDeque<Answer>>>>;

/// One request, as it came over the wire.
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: HashMap<String, String>,
    pub(crate) body: String,
}

/// What one request is answered with.
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    ending: Ending,
    gate: Option<Gate>,
}

/// How the connection ends.
enum Ending {
    Whole,
    /// The request is read, and the connection closed without a byte.
    Silent,
    /// The announced body breaks off after so many bytes.
    Truncated(usize),
}

/// Holds answers back until it is opened.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl TokenEndpoint {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let script = Script::default();
        let (reports, requests) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(accept(listener, script.clone(), reports));
        Self { base, script, requests, accepting }
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        self.base.join(path).unwrap()
    }

    /// The address without a trailing slash, as issuers are usually written.
    pub(crate) fn issuer(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Answers the next unanswered request to `path` so.
    pub(crate) fn answer(&self, path: &str, answer: Answer) {
        self.script.lock().unwrap().entry(path.to_owned()).or_default().push_back(answer);
    }

    /// The next request, once it has come.
    pub(crate) async fn received(&mut self) -> Received {
        self.requests.recv().await.unwrap()
    }

    /// Requests that have come and were not looked at yet.
    pub(crate) fn unread(&self) -> usize {
        self.requests.len()
    }
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The form's value under `name`; panics when the name is given twice.
    pub(crate) fn form(&self, name: &str) -> Option<String> {
        let pairs = url::form_urlencoded::parse(self.body.as_bytes());
        let mut values = pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let value = values.next();
        assert!(values.next().is_none(), "{name} is given twice");
        value
    }
}

impl Answer {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::new(status, "application/json", body)
    }

    pub(crate) fn html(status: u16) -> Self {
        Self::new(status, "text/html", "<html>invalid_grant</html>")
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn silent(mut self) -> Self {
        self.ending = Ending::Silent;
        self
    }

    pub(crate) fn truncated(mut self, bytes: usize) -> Self {
        self.ending = Ending::Truncated(bytes);
        self
    }

    pub(crate) fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    fn new(status: u16, content_type: &str, body: &str) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self { status, headers, body: body.as_bytes().to_vec(), ending: Ending::Whole, gate: None }
    }
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub(crate) fn open(&self) {
        self.0.close();
    }
}

async fn accept(listener: TcpListener, script: Script, reports: mpsc::UnboundedSender<Received>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, script.clone(), reports.clone()));
    }
}

async fn serve(mut stream: TcpStream, script: Script, reports: mpsc::UnboundedSender<Received>) {
    let Some(received) = read(&mut stream).await else { return };
    let answer = script.lock().unwrap().get_mut(&received.path).and_then(VecDeque::pop_front);
    let answer = answer.unwrap_or_else(|| Answer::html(404));
    // Nobody listens once the test is over.
    let _ = reports.send(received);
    if let Some(Gate(gate)) = &answer.gate {
        // Opening a gate closes the semaphore, so this always ends in an error.
        let _ = gate.acquire().await;
    }
    let mut head =
        format!("HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let body = match answer.ending {
        Ending::Silent => return,
        Ending::Truncated(bytes) => &answer.body[..bytes],
        Ending::Whole => &answer.body[..],
    };
    // A client that has given up closes first.
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.lines();
    let mut request_line = lines.next()?.split(' ');
    let (method, path) = (request_line.next()?.to_owned(), request_line.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: HashMap<_, _> = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let length: usize = headers.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received { method, path, headers, body: String::from_utf8(bytes[end..].to_vec()).ok()? })
}
