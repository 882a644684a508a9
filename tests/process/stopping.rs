//! How `dev` ends.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
};

use claviger::proto::v1::{self, DrainCause, watch_credential_status_response::Body};
use rustix::process::{Pid, Signal, kill_process};

use crate::dev::Place;

#[test]
fn either_signal_ends_it_well() {
    let place = Place::new();
    for signal in [Signal::TERM, Signal::INT] {
        let finished = place.start().process.stop(signal);
        finished.expect_code(0);
        assert!(finished.stderr.contains("stopped"), "{}", finished.stderr);
        assert!(!finished.stderr.contains("WARN") && !finished.stderr.contains("ERROR"), "{}", finished.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_told_before_it_ends() {
    let place = Place::new();
    let dev = place.start();
    let client = dev.client();
    let mut watch = client.watch_credential_status(v1::WatchCredentialStatusRequest::default()).await.unwrap();
    let first = watch.message().await.unwrap().unwrap();
    assert!(matches!(first.body, Some(Body::Opened(_))));

    dev.process.signal(Signal::TERM);
    let drain = loop {
        match watch.message().await.unwrap().unwrap().body {
            Some(Body::Drain(drain)) => break drain,
            _ => continue,
        }
    };
    assert_eq!(drain.cause(), DrainCause::Shutdown);
    watch.message().await.expect_err("the stream ends with SHUTTING_DOWN");
    dev.process.finish().expect_code(0);
}

#[test]
fn output_that_nobody_reads_does_not_end_it() {
    let place = Place::new();
    let mut child = place.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut logs = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(logs.any(|line| line.contains("serving")));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let rest: Vec<_> = logs.collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let place = Place::new();
    let mut dev = place.start();
    let mut hanging = TcpStream::connect(&dev.grpc).unwrap();
    // The preface, and no answer to anything that follows.
    hanging.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    assert_eq!(next_frame(&mut hanging), SETTINGS);
    dev.process.signal(Signal::TERM);
    while next_frame(&mut hanging) != GOAWAY {}
    assert!(dev.process.is_running(), "it waits for the connection");
    let finished = dev.process.stop(Signal::TERM);
    finished.expect_code(1);
    assert!(finished.stderr.contains("a signal ended it at once"), "{}", finished.stderr);
}

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// The type of the next HTTP/2 frame (RFC 9113 §4.1).
fn next_frame(connection: &mut TcpStream) -> u8 {
    let mut head = [0; 9];
    connection.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    io::copy(&mut connection.take(length.into()), &mut io::sink()).unwrap();
    head[3]
}
