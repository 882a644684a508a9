//! The product's logs in this process, and the panics of its tasks.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    panic,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use claviger::telemetry::{LogFormat, Telemetry, TelemetryGuard};

use super::kept;

static LOG: LazyLock<Mutex<Log>> = LazyLock::new(Mutex::default);

/// Captures from the first call on. It is as the product's own, so that what that leaves out is left out here.
static CAPTURING: LazyLock<TelemetryGuard> = LazyLock::new(|| {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        log().write(format!("{panicked}\n").as_bytes());
        before(panicked);
    }));
    let telemetry = Telemetry { format: LogFormat::Text, filter: "trace", otlp_endpoint: None };
    telemetry.start_on(|| Writer, false).unwrap()
});

#[derive(Default)]
struct Log {
    bytes: Vec<u8>,
    kept: Option<File>,
}

impl Log {
    fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.kept.is_none()
            && let Some(path) = kept::path("log")
        {
            self.kept = Some(OpenOptions::new().append(true).create(true).open(path).unwrap());
        }
        if let Some(kept) = &mut self.kept {
            kept.write_all(bytes).unwrap();
        }
    }
}

struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        log().write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the log stands.
pub(super) fn capture() -> usize {
    LazyLock::force(&CAPTURING);
    log().bytes.len()
}

/// What has been logged from there on, by whomever: tests run side by side.
pub(super) fn since(start: usize) -> Vec<u8> {
    log().bytes[start..].to_vec()
}

fn log() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}
