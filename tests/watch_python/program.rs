//! The client as a process: what it prints, as it comes, and what it says that it received.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    thread,
};

use claviger::proto::v1::{
    WatchCredentialStatusRequest as Request, WatchCredentialStatusResponse as Message,
    watch_credential_status_response::Body,
};
use prost::Message as _;
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Signal, kill_process},
};
use tempfile::TempDir;
use tokio::{
    sync::{
        RwLock,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    time::timeout,
};

use crate::{
    place::{PATIENCE, bodies},
    tools::{search_path, there_is},
};

const PROTOC: &str = "python-grpc-tools-protoc";

/// Written to while a program is being started.
pub(crate) static STARTING: RwLock<()> = RwLock::const_new(());

/// What is known of each credential, as the client prints it.
pub(crate) type View = BTreeMap<String, String>;

/// A stream as the client opened it, and all that came.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) request: Request,
    pub(crate) messages: Vec<Message>,
}

pub(crate) struct Program {
    child: Child,
    /// With the platform token, and the pipe for the record.
    directory: TempDir,
    news: UnboundedReceiver<News>,
    pub(crate) shown: Vec<String>,
    said: Vec<String>,
    /// How many of them were waited for.
    passed: usize,
    pub(crate) streams: Vec<Opened>,
}

enum News {
    Shown(String),
    Said(String),
    Opened(Request),
    Received(Message),
}

/// Whether there is a Python that can run it.
pub(crate) fn there_is_python() -> bool {
    there_is(PROTOC)
}

impl Program {
    pub(crate) async fn start(broker: SocketAddr, token: &str, arguments: &[String]) -> Self {
        let directory = TempDir::with_prefix("claviger-watch-python-").unwrap();
        fs::write(directory.path().join("token"), token).unwrap();
        let record = directory.path().join("record");
        mknodat(CWD, &record, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let alone = STARTING.write().await;
        let mut child = Command::new(python())
            .env("PYTHONPATH", STUBS.as_path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(in_tree("examples/watch.py"))
            .args(arguments)
            .args([&format!("http://{broker}"), "token", "--record", "record"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(alone);
        let (sender, news) = unbounded_channel();
        read(child.stdout.take().unwrap(), News::Shown, sender.clone());
        read(child.stderr.take().unwrap(), News::Said, sender.clone());
        thread::spawn(move || read_record(File::open(record).unwrap(), &sender));
        Self { child, directory, news, shown: Vec::new(), said: Vec::new(), passed: 0, streams: Vec::new() }
    }

    /// As an operator renews it: whoever reads finds the old one or the new one.
    pub(crate) fn renew(&self, token: &str) {
        let fresh = self.directory.path().join("fresh");
        fs::write(&fresh, token).unwrap();
        fs::rename(fresh, self.directory.path().join("token")).unwrap();
    }

    /// Waits for a line on standard error, behind the last one that was waited for.
    pub(crate) async fn says(&mut self, what: &str) {
        loop {
            while let Some(line) = self.said.get(self.passed) {
                self.passed += 1;
                if line.contains(what) {
                    return;
                }
            }
            assert!(self.hear().await, "it ended and never said {what:?}: {:#?}", self.said);
        }
    }

    /// Waits for a message that it has not received yet.
    pub(crate) async fn receives(&mut self, wanted: impl Fn(&Body) -> bool) {
        let count = |streams: &[Opened]| bodies(streams).filter(|body| wanted(body)).count();
        let before = count(&self.streams);
        while count(&self.streams) == before {
            assert!(self.hear().await, "it ended and never received it: {:#?}", self.said);
        }
    }

    /// What the printed lines add up to.
    pub(crate) fn view(&self) -> View {
        let mut view = View::new();
        for line in &self.shown {
            let (credential, state) = line.split_once(' ').unwrap();
            match state {
                "gone" => drop(view.remove(credential)),
                _ => drop(view.insert(credential.to_owned(), state.to_owned())),
            }
        }
        view
    }

    /// Takes in the next of what it prints and records; false when it has ended.
    pub(crate) async fn hear(&mut self) -> bool {
        match timeout(PATIENCE, self.news.recv()).await {
            Ok(Some(News::Shown(line))) => self.shown.push(line),
            Ok(Some(News::Said(line))) => self.said.push(line),
            Ok(Some(News::Opened(request))) => self.streams.push(Opened { request, messages: Vec::new() }),
            Ok(Some(News::Received(message))) => self.streams.last_mut().unwrap().messages.push(message),
            Ok(None) => return false,
            Err(_) => panic!("nothing more comes: {:#?} {:#?}", self.shown, self.said),
        }
        true
    }

    /// Ends it as a terminal does, and returns every stream that it opened.
    pub(crate) async fn interrupt(&mut self) -> Vec<Opened> {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        assert_eq!(self.code().await, Some(130), "it ran until now: {:#?}", self.said);
        std::mem::take(&mut self.streams)
    }

    /// Waits for its end.
    pub(crate) async fn code(&mut self) -> Option<i32> {
        while self.hear().await {}
        self.child.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read(bytes: impl Read + Send + 'static, kind: fn(String) -> News, news: UnboundedSender<News>) {
    thread::spawn(move || {
        BufReader::new(bytes).lines().map_while(Result::ok).try_for_each(|line| news.send(kind(line)))
    });
}

/// O and the request of a stream, M and a message: each with its length before it.
fn read_record(record: File, news: &UnboundedSender<News>) {
    let mut bytes = BufReader::new(record).bytes().map(Result::unwrap);
    while let Some(mark) = bytes.next() {
        let (mut length, mut shift) = (0, 0);
        for byte in bytes.by_ref() {
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let body: Vec<u8> = bytes.by_ref().take(length).collect();
        let one = match mark {
            b'O' => News::Opened(Request::decode(&*body).unwrap()),
            b'M' => News::Received(Message::decode(&*body).unwrap()),
            other => panic!("{other} is no mark"),
        };
        // Whoever listened has seen enough.
        let Ok(()) = news.send(one) else { return };
    }
}

/// Generated once for all tests of this process.
static STUBS: LazyLock<PathBuf> = LazyLock::new(|| {
    let stubs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("watch_python");
    fs::create_dir_all(&stubs).unwrap();
    let contract = fs::read_dir(in_tree("proto/claviger/v1")).unwrap().map(|entry| entry.unwrap().path());
    let status = Command::new(python())
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(in_tree("proto"))
        .args(["--python_out", "--grpc_python_out"].map(|option| format!("{option}={}", stubs.display())))
        .args(contract)
        .status()
        .unwrap();
    assert!(status.success(), "the stubs could not be generated: {status}");
    stubs
});

/// The one that the packages were installed for.
fn python() -> PathBuf {
    let path = search_path();
    let directory = path.split(':').map(Path::new).find(|directory| directory.join(PROTOC).is_file());
    directory.expect("the test was not left out").join("python")
}

fn in_tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
